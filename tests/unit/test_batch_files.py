"""A batch's files, their limits and what is kept of their answers, without any server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.backends._negotiation import Dialect
from llmrank.errors import BadRequestError, ConfigError, DatasetError
from llmrank.scale.batch.files import NOT_PROCESSED, BatchAnswer, BatchRequest, read_answers, read_keys
from llmrank.scale.batch.journal import Journal
from llmrank.scale.batch.store import OWN_ERROR, AnswerStore
from llmrank.scale.batch.wave import Wave, WaveWriter, load_wave
from tests.servers.picky import completion

URL = "/v1/chat/completions"
KEY = bytes(range(32))
OTHER = bytes(range(1, 33))


def request(text: object, **options: Any) -> BatchRequest:
    return BatchRequest.of({"model": "m", "messages": [{"role": "user", "content": text}]}, url=URL, **options)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnswerStore]:
    opened = AnswerStore(tmp_path / "answers.sqlite")
    yield opened
    opened.close()


def take(store: AnswerStore, part: str, asked: list[bytes], *answers: BatchAnswer, most_rounds: int | None = 2) -> int:
    return store.take(part, asked, answers, transient=lambda answer: answer.status in {0, 500}, most_rounds=most_rounds)


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def test_a_line_is_what_the_batch_api_reads() -> None:
    """A line has the four fields of OpenAI's form, and its custom_id is the key in 64 hexadecimal digits."""
    asked = request("Ärger 🎬")
    document = json.loads(asked.line)
    assert set(document) == {"custom_id", "method", "url", "body"}
    assert (document["method"], document["url"]) == ("POST", URL)
    assert bytes.fromhex(document["custom_id"]) == asked.key
    assert len(document["custom_id"]) == 64
    assert document["body"]["messages"][0]["content"] == "Ärger 🎬"
    assert asked.line.count(b"\n") == 1


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4), st.integers(0, 3))
def test_equal_questions_have_equal_keys(body: dict[str, Any], sample: int) -> None:
    """The key does not hang on the order of fields; another sample or body has another one."""
    asked = BatchRequest.of(body, url=URL, sample=sample)
    assert BatchRequest.of(dict(reversed(body.items())), url=URL, sample=sample).key == asked.key
    assert BatchRequest.of(body, url=URL, sample=sample + 1).key != asked.key
    assert BatchRequest.of({**body, "a longer name": 1}, url=URL, sample=sample).key != asked.key


def test_half_a_surrogate_is_refused_for_its_prompt_alone() -> None:
    """A text that is no valid Unicode is an error of its own prompt: it would make the whole file invalid."""
    with pytest.raises(BadRequestError, match="cannot be sent"):
        request("\ud800")


@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    most_requests=st.integers(1, 7),
    most_bytes=st.integers(150, 600),
)
def test_files_keep_both_limits(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], most_requests: int, most_bytes: int
) -> None:
    """All requests are in the files, in order; no file is beyond a limit, but for a single request that is itself."""
    folder = tmp_path_factory.mktemp("wave")
    asked = [request(f"{place}" + "x" * size) for place, size in enumerate(sizes)]
    with WaveWriter(folder, 1, most_requests=most_requests, most_bytes=most_bytes) as writer:
        for each in asked:
            writer.add(each)
        wave = writer.finish()
    assert wave is not None
    files = [wave.input_path(part).read_bytes() for part in wave.parts]
    assert b"".join(files) == b"".join(each.line for each in asked)
    for part, content in zip(wave.parts, files, strict=True):
        assert part.requests == content.count(b"\n") <= most_requests
        assert len(content) <= most_bytes or part.requests == 1
        assert list(read_keys(wave.input_path(part))) == [
            bytes.fromhex(json.loads(x)["custom_id"]) for x in content.splitlines()
        ]
    assert load_wave(wave.folder) == wave


def test_a_wave_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    """A wave that an error breaks off, or in which nothing is asked, has no folder."""
    with WaveWriter(tmp_path, 1, most_requests=9, most_bytes=999) as writer:
        assert writer.finish() is None

    def write_half() -> None:
        with WaveWriter(tmp_path, 1, most_requests=9, most_bytes=999) as writer:
            writer.add(request("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_wave_is_named(tmp_path: Path) -> None:
    """A wave.json that cannot be read is an error that names the folder."""
    (tmp_path / "wave.json").write_text('{"number": 1}')
    with pytest.raises(ConfigError, match=r"wave\.json cannot be read"):
        load_wave(tmp_path)
    assert Wave(tmp_path, 1, 0.0).requests == 0


def test_a_part_s_number_leads_out_of_no_folder(tmp_path: Path) -> None:
    """A wave may be a stranger's: a text in place of the number would be a path to any file that is sent or written."""
    part = {"number": "../../../secret", "requests": 1, "sha256": ""}
    (tmp_path / "wave.json").write_text(json.dumps({"number": 1, "created": 0.0, "parts": [part]}))
    with pytest.raises(ConfigError, match=r"wave\.json cannot be read \(a part without a number\)"):
        load_wave(tmp_path)


def test_answers_are_read_in_every_form(tmp_path: Path) -> None:
    """OpenAI's and vLLM's answers and errors, requests that were not processed, and ids that are none of ours."""
    refusal = {"error": {"message": "no", "code": 400}}
    ok = {"status_code": 200, "request_id": "r", "body": completion("[A]")}
    lines = [
        {"id": "1", "custom_id": KEY.hex(), "response": ok, "error": None},
        {"id": "2", "custom_id": KEY.hex(), "response": {"status_code": 400, "body": refusal}, "error": None},
        {"id": "3", "custom_id": KEY.hex(), "response": {"status_code": 400, "body": None}, "error": refusal},
        {"id": "4", "custom_id": KEY.hex(), "response": {"status_code": 400, "body": None}, "error": "text"},
        {"id": "5", "custom_id": KEY.hex(), "response": None, "error": {"code": "batch_expired", "message": "late"}},
        {"id": "6", "custom_id": KEY.hex(), "response": None, "error": {"code": "odd", "message": "hm"}},
        {"id": "7", "custom_id": KEY.hex(), "response": {"status_code": 200, "body": {"no": "choices"}}, "error": None},
        {"id": "8", "custom_id": "request-1", "response": ok, "error": None},
    ]
    assert list(read_answers(write(tmp_path / "out.jsonl", *lines, ""))) == [
        BatchAnswer(KEY, 200, ok["body"]),
        BatchAnswer(KEY, 400, refusal),
        BatchAnswer(KEY, 400, refusal),
        BatchAnswer(KEY, 400, "text"),
        BatchAnswer(KEY, NOT_PROCESSED, None),
        BatchAnswer(KEY, 500, {"error": {"code": "odd", "message": "hm"}}),
        BatchAnswer(KEY, 502, {"no": "choices"}),
        BatchAnswer(None, 200, ok["body"]),
    ]


@pytest.mark.parametrize(
    "line",
    [
        '{"custom_id": "ab", "resp',
        "[]",
        "{}",
        '{"custom_id": "ab", "response": null}',
        '{"custom_id": "a", "response": {"status_code": "x"}}',
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, line: str) -> None:
    """A file that is cut off, or another file altogether, is refused with its line's number."""
    good = {"custom_id": KEY.hex(), "response": {"status_code": 200, "body": completion()}}
    with pytest.raises(DatasetError, match=r"out.jsonl, line 2: not an answer of a batch .* is the file whole"):
        list(read_answers(write(tmp_path / "out.jsonl", good, line)))


def test_a_part_is_taken_once(store: AnswerStore) -> None:
    """Taking a part again, after a kill before it was noted, changes nothing; answers to others' requests are counted."""
    good = BatchAnswer(KEY, 200, completion("[A]"))
    assert take(store, "1/1", [KEY], good, BatchAnswer(OTHER, 200, completion()), BatchAnswer(None, 200, completion())) == 2
    assert take(store, "1/1", [KEY], BatchAnswer(KEY, 400, {})) == 2
    kept = store.get(KEY)
    assert kept is not None
    assert (kept.status, kept.body) == (200, completion("[A]"))
    assert store.get(OTHER) is None


def test_what_is_missing_is_given_up_after_so_many_rounds(store: AnswerStore) -> None:
    """A request without an answer is asked again until its rounds are used up; rounds that were stopped do not count."""
    take(store, "1/1", [KEY])
    take(store, "2/1", [KEY], most_rounds=None)
    assert store.get(KEY) is None
    take(store, "3/1", [KEY])
    kept = store.get(KEY)
    assert kept is not None
    assert kept.status == OWN_ERROR
    assert kept.body["kinds"][0] == "DeadlineError"


def test_the_last_passing_error_is_kept_in_the_end(store: AnswerStore) -> None:
    """Errors that may pass are asked again; when rounds are used up, the server's own last words are the answer."""
    take(store, "1/1", [KEY], BatchAnswer(KEY, 500, {"error": "first"}))
    assert store.get(KEY) is None
    take(store, "2/1", [KEY], BatchAnswer(KEY, 500, {"error": "last"}))
    kept = store.get(KEY)
    assert kept is not None
    assert (kept.status, kept.body) == (500, {"error": "last"})
    store.forget_errors()
    assert store.get(KEY) is None
    take(store, "3/1", [KEY], BatchAnswer(KEY, 200, completion()))
    store.forget_errors()
    assert store.get(KEY) is not None


@given(st.permutations([(400, "no"), (200, "yes"), (500, "odd")]))
def test_an_answer_wins_over_errors(tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, str]]) -> None:
    """A request that is in the error file and in the output file is answered, in whichever order they are read."""
    store = AnswerStore(tmp_path_factory.mktemp("store") / "answers.sqlite")
    try:
        take(store, "1/1", [KEY], *(BatchAnswer(KEY, status, said) for status, said in order))
        kept = store.get(KEY)
    finally:
        store.close()
    assert kept is not None
    assert kept.status == 200


def test_a_part_is_taken_whole_or_not_at_all(store: AnswerStore) -> None:
    """If a file turns out to be broken in its middle, none of its answers is kept, and it may be taken again."""

    def broken() -> Iterator[BatchAnswer]:
        yield BatchAnswer(KEY, 200, completion())
        raise DatasetError("broken")

    with pytest.raises(DatasetError):
        store.take("1/1", [KEY], broken(), transient=lambda answer: False, most_rounds=2)
    assert store.get(KEY) is None
    take(store, "1/1", [KEY], BatchAnswer(KEY, 200, completion()))
    assert store.get(KEY) is not None


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    """A folder or a foreign file in its place gives one clear error."""
    (tmp_path / "answers.sqlite").write_bytes(b"something else, of some length" * 100)
    with pytest.raises(ConfigError, match="cannot be opened"):
        AnswerStore(tmp_path / "answers.sqlite")


def test_the_journal_keeps_dialects_and_refuses_another_model(tmp_path: Path) -> None:
    """What was learned is read back as it was; another model, setting or counter is refused and named."""
    first = Dialect()
    learned = Dialect(temperature=("default",), top_logprobs=5)
    journal = Journal(tmp_path)
    assert not journal.begun
    journal.begin({"model": "m", "extra_body": {"a": (1, 2)}}, "by hand", 4096, [first])
    journal.learn([first, learned])
    again = Journal(tmp_path)
    assert again.begun
    assert (again.window, again.id, again.dialects) == (4096, journal.id, [first, learned])
    again.begin({"model": "m", "extra_body": {"a": (1, 2)}}, "by hand", 1, [])
    with pytest.raises(ConfigError, match=r'another identity: .*"m".* now .*"n"'):
        Journal(tmp_path).begin({"model": "n"}, "by hand", None, [])
    with pytest.raises(ConfigError, match="another counter"):
        Journal(tmp_path).begin({"model": "m", "extra_body": {"a": [1, 2]}}, "estimate", None, [])
    (tmp_path / "batch.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"cannot be read \(.* missing\)"):
        Journal(tmp_path)
