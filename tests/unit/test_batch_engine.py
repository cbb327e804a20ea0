"""Ranking by a batch API, against a real HTTP server with troubles of every kind."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmrank import Ranker, Ranking, RankRequest
from llmrank.backends.openai import OpenAIBackend, OpenAIOptions
from llmrank.errors import (
    AnswersPendingError,
    AuthenticationError,
    BadRequestError,
    CapabilityError,
    ConfigError,
    DatasetError,
    DeadlineError,
    QuotaError,
    RequestError,
    UnreachableError,
)
from llmrank.scale.batch.engine import batch_rank
from llmrank.scale.batch.options import BatchOptions, BatchProgress
from llmrank.strategies.likelihood import Likelihood
from llmrank.strategies.listwise import Listwise, ListwiseOptions
from llmrank.types import Prompt, Usage
from llmrank.writer import PromptOptions, PromptWriter
from tests.servers.batch import Answer, BatchServer, Fate, echo, serving
from tests.servers.picky import Request, completion, free_port, o_series
from tests.unit.batch_rankers import CATALOG, QUICK, essence, make, requests, run
from tests.unit.scripted import ScriptedBackend

TOKEN_LIMIT = ("token_limit_exceeded", "Enqueued token limit reached for m in organization o. Limit: 90,000 enqueued tokens.")


def keys(server: BatchServer) -> Counter[str]:
    """How often each custom_id was put into a batch that did not fail."""
    return Counter(
        line["custom_id"]
        for lines, made in zip(server.asked, server.batches.values(), strict=True)
        if made.document["status"] != "failed"
        for line in lines
    )


def forgetful(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """`echo` that leaves a label out of about half of the orders, so that those are asked again."""
    status, answer = echo(body)
    message = answer["choices"][0]["message"]
    labels = message["content"].split(" > ")
    if len(message["content"] + str(len(body["messages"]))) % 2 and labels[0] > labels[-1]:
        message["content"] = " > ".join(labels[1:])
    return status, answer


def refusing(*users: int, status: int = 400) -> Answer:
    """`echo` that refuses these users."""

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text = str(body["messages"])
        if any(f"Film {30 + user}" in text for user in users):
            return status, {"error": {"message": "not this one", "type": "odd", "code": None, "param": None}}
        return echo(body)

    return answer


@given(
    n=st.integers(2, 7),
    window=st.integers(2, 5),
    step=st.integers(1, 5),
    repair=st.booleans(),
    answer=st.sampled_from(["order", "json"]),
    most=st.integers(1, 5),
)
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
def test_a_batch_ranks_as_a_live_run_does(
    tmp_path_factory: pytest.TempPathFactory, n: int, window: int, step: int, repair: bool, answer: str, most: int
) -> None:
    """Windows and repairs, which take several waves, give the Rankings of the same Ranker asking the same model live."""
    listwise = ListwiseOptions(window=window, step=min(step, window), repair=repair)
    asked = requests(3, n)
    with serving(forgetful) as server, make(server.url, listwise, answer=answer) as ranker:
        batch = run(ranker, asked, tmp_path_factory.mktemp("batch"), requests_per_file=most)
        assert not server.live
        live = list(ranker.rank_many(asked))
        assert list(map(essence, batch)) == list(map(essence, live))
        assert all(len(lines) <= most for lines in server.asked)
        assert all(times == 1 for times in keys(server).values())
    assert all(ranking.usage.seconds == ranking.latency == 0 for ranking in batch)


def test_prompts_of_a_step_share_a_wave(tmp_path: Path) -> None:
    """One wave a step of the flows, whatever their number; equal prompts are asked once."""
    seen: list[BatchProgress] = []
    with serving() as server, make(server.url, ListwiseOptions(window=2, step=1)) as ranker:
        rankings = run(ranker, requests(3, 4) * 2, tmp_path, on_progress=seen.append)
        assert [len(lines) for lines in server.asked] == [3, 3, 3]
    assert [ranking.user_id for ranking in rankings] == ["u0", "u1", "u2"] * 2
    assert essence(rankings[0]) == essence(rankings[3])
    assert max(each.wave for each in seen) == 3
    assert seen[-1].ranked == 6
    assert {state for each in seen for state in each.states} >= {"new", "uploaded", "submitting", "validating", "taken"}


def test_what_expired_is_asked_again_and_what_was_answered_is_not(tmp_path: Path) -> None:
    """Half the answers of an expired batch are used; the rest, listed as expired or lost, is asked in a further batch."""
    fates = [Fate(ends="expired", answered=0.5), Fate(ends="expired", answered=0.5, lost=True)]
    with serving(echo, *fates) as server, make(server.url) as ranker:
        rankings = run(ranker, requests(8), tmp_path)
        assert [len(lines) for lines in server.asked] == [8, 4, 2]
        assert {ranking.status for ranking in rankings} == {"ok"}
        assert list(map(essence, rankings)) == list(map(essence, ranker.rank_many(requests(8))))


def test_what_expires_every_time_becomes_an_error(tmp_path: Path) -> None:
    """After `max_rounds` the requests without an answer are errors of their own Rankings, and are not paid for again."""
    fates = [Fate(ends="expired", answered=0.5), Fate(ends="expired", answered=0)]
    with serving(echo, *fates) as server, make(server.url) as ranker:
        rankings = run(ranker, requests(4), tmp_path, max_rounds=2)
        assert [ranking.status for ranking in rankings] == ["ok", "ok", "error", "error"]
        assert isinstance(rankings[3].error, DeadlineError)
        assert list(map(essence, run(ranker, requests(4), tmp_path))) == list(map(essence, rankings))
        assert len(server.batches) == 2


@pytest.mark.parametrize(("status", "batches"), [(400, 1), (500, 3)])
def test_an_error_of_one_request_is_its_own(tmp_path: Path, status: int, batches: int) -> None:
    """A refused request is an error of its Ranking, as live; one that may pass is tried so often as rounds are allowed.

    The folder remembers it; `retry_errors` asks again.
    """
    with serving(refusing(1, status=status)) as server, make(server.url) as ranker:
        rankings = run(ranker, requests(4), tmp_path)
        assert [ranking.status for ranking in rankings] == ["ok", "error", "ok", "ok"]
        assert len(server.batches) == batches
        again = run(ranker, requests(4), tmp_path)
        assert list(map(essence, again)) == list(map(essence, rankings))
        assert len(server.batches) == batches
        live = list(ranker.rank_many(requests(4)))
        if status == 400:  # live, what may pass is tried until a deadline
            assert list(map(essence, rankings)) == list(map(essence, live))
        server.answer = echo
        assert [ranking.status for ranking in run(ranker, requests(4), tmp_path, retry_errors=True)] == ["ok"] * 4
        assert len(server.asked[-1]) == 1


def test_settings_that_are_refused_are_put_otherwise(tmp_path: Path) -> None:
    """What a live run negotiates, a batch finds out in a further wave, once for all prompts, and a resumed one remembers."""

    def picky(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        reply = o_series(Request("POST", "/v1/chat/completions", {}, body))
        return echo(body) if reply is None else (reply.status, dict(reply.body))  # type: ignore[call-overload]  # it is a mapping

    listwise = ListwiseOptions(window=2, step=1)
    with serving(picky) as server, make(server.url, listwise) as ranker:
        rankings = run(ranker, requests(3, 3), tmp_path)
        assert [len(lines) for lines in server.asked] == [3, 3, 3, 3]  # two refusals, then a window each
        assert "max_completion_tokens" in server.asked[-1][0]["body"]
        with make(server.url, listwise) as other:
            assert list(map(essence, run(other, requests(3, 3), tmp_path))) == list(map(essence, rankings))
        live = list(ranker.rank_many(requests(3, 3)))
        assert len(server.batches) == 4
    assert [ranking.item_ids for ranking in live] == [ranking.item_ids for ranking in rankings]
    assert [ranking.notes for ranking in live] == [ranking.notes for ranking in rankings]


def test_what_a_live_call_has_learned_is_known_to_the_batch(tmp_path: Path) -> None:
    """Who ranks one request live first, with the same Ranker, spends no wave on refusals."""

    def picky(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "temperature" in body:
            message = "Unsupported value: 'temperature' does not support 0.0 with this model."
            return 400, {"error": {"message": message, "param": "temperature", "code": "unsupported_value"}}
        return echo(body)

    with serving(picky) as server, make(server.url) as ranker:
        ranker.rank(history=["1"], candidates=["2", "3"])
        assert [ranking.status for ranking in run(ranker, requests(3), tmp_path)] == ["ok"] * 3
        assert len(server.batches) == 1


def test_a_late_lesson_makes_no_answer_paid_for_again(tmp_path: Path) -> None:
    """If only some prompts are refused a setting, the answers that others got with it stay theirs."""

    def picky(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "Film 31" in str(body["messages"]) and "temperature" in body:
            message = "Unsupported value: 'temperature' does not support 0.0 with this model."
            return 400, {"error": {"message": message, "param": "temperature", "code": "unsupported_value"}}
        return echo(body)

    with serving(picky) as server, make(server.url, ListwiseOptions(window=2, step=1)) as ranker:
        rankings = run(ranker, requests(4, 3), tmp_path)
        assert [len(lines) for lines in server.asked] == [4, 4, 1]
        assert all(times == 1 for times in keys(server).values())
        with make(server.url, ListwiseOptions(window=2, step=1)) as other:
            assert list(map(essence, run(other, requests(4, 3), tmp_path))) == list(map(essence, rankings))
        assert len(server.batches) == 3


def test_a_batch_that_fails_stops_the_run_and_is_made_anew_by_the_next(tmp_path: Path) -> None:
    """Failed validation is told in the server's words; what other batches brought is kept, the rest asked by the next run."""
    fates = [Fate(), Fate(ends="failed", error=("invalid_json_line", "This line is not parseable"))]
    with serving(echo, *fates) as server, make(server.url) as ranker:
        with pytest.raises(BadRequestError, match=r"batch_2 .*in-0002\.jsonl\) failed: This line is not pars"):
            run(ranker, requests(4), tmp_path, requests_per_file=2)
        assert [ranking.status for ranking in run(ranker, requests(4), tmp_path)] == ["ok"] * 4
        assert all(times == 1 for times in keys(server).values())


def test_a_batch_that_was_cancelled_stops_the_run(tmp_path: Path) -> None:
    """Who cancels a batch does not find it made anew at once: the run stops, and its answers so far are kept."""
    with serving(echo, Fate(ends="cancelled", answered=0.5)) as server, make(server.url) as ranker:
        with pytest.raises(BadRequestError, match="was cancelled; run again"):
            run(ranker, requests(4), tmp_path)
        assert [ranking.status for ranking in run(ranker, requests(4), tmp_path)] == ["ok"] * 4
        assert [len(lines) for lines in server.asked] == [4, 2]


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """A batch that fails for the tokens queued, or is refused for them, is submitted again later, from the same file."""
    full = Fate(ends="failed", error=TOKEN_LIMIT)
    refused = Fate(refused=(429, {}, {"error": {"message": TOKEN_LIMIT[1], "code": "rate_limit_exceeded"}}))
    with serving(echo, full, refused, full) as server, make(server.url) as ranker:
        assert [ranking.status for ranking in run(ranker, requests(4), tmp_path, requests_per_file=2)] == ["ok"] * 4
        assert len(server.files) == 4  # two of requests, two of answers
        assert all(times == 1 for times in keys(server).values())


def test_a_queue_that_stays_full_is_given_up(tmp_path: Path) -> None:
    """After `queue_s` seconds a full queue is an error that says what to do."""
    with serving(echo, *[Fate(ends="failed", error=TOKEN_LIMIT)] * 50) as server, make(server.url) as ranker:
        with pytest.raises(QuotaError, match=r"full for 0\.05 s: Enqueued token limit .*requests_per_file"):
            run(ranker, requests(2), tmp_path, queue_s=0.05)
        server.fates.clear()
        assert [ranking.status for ranking in run(ranker, requests(2), tmp_path)] == ["ok"] * 2


def test_the_server_is_waited_for_as_it_asks(tmp_path: Path) -> None:
    """429 with Retry-After, and failures of the server, are waited out; a refused key is not."""
    busy = Fate(refused=(429, {"retry-after": "0.4"}, {"error": {"message": "slow down"}}))
    broken = Fate(refused=(503, {}, {"error": {"message": "down"}}))
    with serving(echo, busy, broken) as server, make(server.url) as ranker:
        started = time.monotonic()
        assert [ranking.status for ranking in run(ranker, requests(2), tmp_path)] == ["ok"] * 2
        assert time.monotonic() - started > 0.4
        assert len(server.batches) == 1
    denied = Fate(refused=(401, {}, {"error": {"message": "who are you"}}))
    with serving(echo, denied) as server, make(server.url) as ranker, pytest.raises(AuthenticationError):
        run(ranker, requests(2), tmp_path / "other")


def test_a_server_that_stays_away_is_given_up_and_found_again(tmp_path: Path) -> None:
    """Out of reach for `trouble_s` seconds ends the run; it goes on when the server is back."""
    port = free_port()
    with make(f"http://127.0.0.1:{port}/v1") as ranker, pytest.raises(UnreachableError):
        run(ranker, requests(2), tmp_path, trouble_s=0.05)


def test_a_server_without_a_batch_api_is_named(tmp_path: Path) -> None:
    """404 for files says that there is no Batch API, and what to do instead."""
    with serving() as server, make(server.url + "/nowhere") as ranker, pytest.raises(CapabilityError, match="via: files"):
        run(ranker, requests(2), tmp_path)


def test_a_batch_that_was_made_in_silence_is_found(tmp_path: Path) -> None:
    """If the connection breaks as a batch is made, it is looked for, on all pages of the list, and not made again."""
    with serving(echo, Fate(silent=True), Fate(), Fate(silent=True), Fate(), Fate()) as server, make(server.url) as ranker:
        assert [ranking.status for ranking in run(ranker, requests(5), tmp_path, requests_per_file=1)] == ["ok"] * 5
        assert len(server.batches) == 5
        assert ("GET", "/batches") in server.calls


class _StopError(Exception):
    """Ends a run where a kill might."""


@pytest.mark.parametrize("steps", range(1, 24, 5))
def test_stopped_at_any_step_a_run_goes_on(tmp_path: Path, steps: int) -> None:
    """Ended after any number of noted steps, and run again, it makes no batch twice and ranks the same."""
    listwise = ListwiseOptions(window=2, step=1)
    left = steps

    def stop(_: BatchProgress) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise _StopError

    with serving() as server, make(server.url, listwise) as ranker:
        with pytest.raises(_StopError):
            run(ranker, requests(3, 3), tmp_path, requests_per_file=2, on_progress=stop)
        rankings = run(ranker, requests(3, 3), tmp_path, requests_per_file=2)
        assert len(server.batches) == 4
        assert list(map(essence, rankings)) == list(map(essence, ranker.rank_many(requests(3, 3))))


def test_foreign_lines_are_counted_and_passed_over(tmp_path: Path) -> None:
    """Answers to requests that are not ours change nothing, and are said in the progress."""
    foreign = json.dumps({"custom_id": "ab" * 32, "response": {"status_code": 200, "body": completion()}, "error": None})
    odd = json.dumps({"custom_id": "request-7", "response": {"status_code": 200, "body": completion()}, "error": None})
    seen: list[BatchProgress] = []
    with serving(echo, Fate(extra=(foreign, odd))) as server, make(server.url) as ranker:
        assert [ranking.status for ranking in run(ranker, requests(2), tmp_path, on_progress=seen.append)] == ["ok"] * 2
    assert seen[-1].unknown == 2


def test_nobody_needs_to_wait(tmp_path: Path) -> None:
    """Without waiting, a run submits, says what it waits for, and a later one goes on."""
    with serving(echo, Fate(looks=3)) as server, make(server.url) as ranker:
        for _ in range(3):
            with pytest.raises(AnswersPendingError, match=r"wave-0001: 2 requests in 1 batches .* run again") as caught:
                run(ranker, requests(2), tmp_path, wait=False)
            assert caught.value.exit_status == 1
        assert [ranking.status for ranking in run(ranker, requests(2), tmp_path, wait=False)] == ["ok"] * 2
        assert len(server.batches) == 1


def test_the_answer_cache_is_shared_with_live_runs(tmp_path: Path) -> None:
    """A batch asks nothing that a live run has paid for, and a live run nothing that a batch has brought."""
    with serving() as server, make(server.url, cache=tmp_path / "cache.sqlite") as ranker:
        live = list(ranker.rank_many(requests(2)))
        brought: list[Prompt] = []
        for _ in range(2):
            stream = batch_rank(
                ranker,
                lambda: requests(4),
                tmp_path / "batch",
                BatchOptions(**QUICK),
                on_answer=lambda prompt, answer: brought.append(prompt),
            )
            rankings = list(stream)
        assert brought == [exchange.prompt for ranking in rankings[2:] for exchange in ranking.trace]
        assert [len(lines) for lines in server.asked] == [2]
        assert rankings[0].usage == Usage(cache_hits=1)
        assert rankings[0].spared.calls == rankings[3].usage.calls == 1
        assert [ranking.item_ids for ranking in rankings[:2]] == [ranking.item_ids for ranking in live]
        again = list(ranker.rank_many(requests(4)))
        assert len(server.live) == 2
        assert [ranking.item_ids for ranking in again] == [ranking.item_ids for ranking in rankings]
        assert again[3].spared.prompt_tokens == rankings[3].usage.prompt_tokens


def test_bad_requests_are_rankings_of_their_own(tmp_path: Path) -> None:
    """What cannot be ranked as it stands is an error in its place, as in `rank_many`; the others go on."""
    asked = [*requests(1), RankRequest(candidates=[]), *requests(1)]
    with serving() as server, make(server.url) as ranker:
        rankings = run(ranker, asked, tmp_path)
    assert [ranking.status for ranking in rankings] == ["ok", "error", "ok"]
    assert isinstance(rankings[1].error, RequestError)


def test_rankings_come_as_soon_as_they_are_in_order(tmp_path: Path) -> None:
    """What is done is given out before later waves are waited for, and is not ranked again."""
    asked = [*requests(1, 2), *requests(2, 5)]
    with serving() as server, make(server.url, ListwiseOptions(window=2, step=1)) as ranker:
        stream = batch_rank(ranker, lambda: asked, tmp_path, BatchOptions(**QUICK))
        assert next(stream).user_id == "u0"
        assert len(server.batches) == 1
        assert len(list(stream)) == 2
        assert len(server.batches) == 4


def test_what_cannot_be_put_into_files_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Backends that are no server, and strategies that score, are refused by name, and no folder is made."""
    folder = tmp_path / "batch"
    listwise = Listwise(PromptWriter(PromptOptions()))
    with Ranker(ScriptedBackend(), listwise) as ranker, pytest.raises(CapabilityError, match=r"'scripted' .* openai, vllm"):
        batch_rank(ranker, lambda: [], folder)
    from llmrank.backends.vllm import VLLMBackend, VLLMOptions

    likelihood = Likelihood(PromptWriter(PromptOptions(template="likelihood/next-line")))
    with (
        Ranker(VLLMBackend(VLLMOptions(model="m")), likelihood) as ranker,
        pytest.raises(CapabilityError, match="'likelihood' scores continuations"),
    ):
        batch_rank(ranker, lambda: [], folder)
    with Ranker(VLLMBackend(), listwise) as ranker, pytest.raises(ConfigError, match=r"backend\.model: is missing"):
        batch_rank(ranker, lambda: [], folder)
    assert not folder.exists()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    """Another model's folder is refused, and so is one in which another process is at work."""
    with serving() as server, make(server.url) as ranker:
        run(ranker, requests(1), tmp_path)
        other = OpenAIBackend(OpenAIOptions(model="other", base_url=server.url))
        with Ranker(other, Listwise(PromptWriter(PromptOptions()))) as stranger, pytest.raises(ConfigError, match="identity"):
            run(stranger, requests(1), tmp_path)
        with FileLock(tmp_path / ".lock"), pytest.raises(ConfigError, match="another process"):
            run(ranker, requests(1), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"via": "mail"},
        {"max_rounds": 0},
        {"requests_per_file": 0},
        {"bytes_per_file": 0},
        {"poll_s": math.nan},
        {"queue_s": -1},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    """A wrong value is refused by its name."""
    with pytest.raises(ConfigError, match=f"batch.{next(iter(wrong))}"):
        BatchOptions(**wrong)


def by_hand(folder: Path, answer: Answer = echo, share: float = 1.0) -> int:
    """Answers the input files that have no output yet, as `vllm run-batch` does; how many requests that were."""
    count = 0
    for asked in sorted(folder.glob("wave-*/in-*.jsonl")):
        answered = asked.with_name(asked.name.replace("in-", "out-"))
        if answered.exists():
            continue
        lines = asked.read_text(encoding="utf-8").splitlines()
        with answered.open("w", encoding="utf-8") as file:
            for line in lines[: round(share * len(lines))]:
                request = json.loads(line)
                status, body = answer(request["body"])
                response = {"status_code": status, "request_id": "r", "body": body if status == 200 else None}
                error = None if status == 200 else body
                print(
                    json.dumps({"id": "v", "custom_id": request["custom_id"], "response": response, "error": error}), file=file
                )
                count += 1
    return count


def vllm_ranker(listwise: ListwiseOptions | None = None, **options: Any) -> Ranker:
    from llmrank.backends.vllm import VLLMBackend, VLLMOptions

    backend = VLLMBackend(VLLMOptions(base_url=f"http://127.0.0.1:{free_port()}", model="smol", **options))
    return Ranker(backend, Listwise(PromptWriter(PromptOptions()), listwise), catalog=CATALOG)


def test_files_are_answered_by_hand_without_any_server(tmp_path: Path) -> None:
    """`via: files` writes, names the files to answer and the command, and goes on from their answers, lost ones too."""
    rankings: list[Ranking] = []
    with vllm_ranker(ListwiseOptions(window=2, step=1), context_window=4096) as ranker:
        for expected in (3, 3, 1):
            with pytest.raises(
                AnswersPendingError, match=r"have .*/in-0001\.jsonl answered into .*/out-0001\.jsonl.*run-batch"
            ):
                run(ranker, requests(3, 3), tmp_path, via="files")
            assert by_hand(tmp_path, share=0.67 if expected == 3 and (tmp_path / "wave-0002").exists() else 1.0) in {3, 2, 1}
        rankings = run(ranker, requests(3, 3), tmp_path, via="files")
    assert [len(ranking.item_ids) for ranking in rankings] == [3, 3, 3]
    assert not any(ranking.error for ranking in rankings)
    assert rankings[0].cut.assumed_window is None


def test_a_broken_answer_file_is_named_and_may_be_put_right(tmp_path: Path) -> None:
    """A file that is still being written is refused by name; whole, it is read."""
    with vllm_ranker() as ranker:
        with pytest.raises(AnswersPendingError):
            run(ranker, requests(2), tmp_path, via="files")
        answered = tmp_path / "wave-0001" / "out-0001.jsonl"
        answered.write_text('{"custom_id": "ab')
        with pytest.raises(DatasetError, match=r"out-0001\.jsonl, line 1"):
            run(ranker, requests(2), tmp_path, via="files")
        answered.unlink()
        by_hand(tmp_path)
        assert len(run(ranker, requests(2), tmp_path, via="files")) == 2


def repetitive(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A model that obeys its grammar, and repeats itself wherever the grammar lets it."""
    grammar = body["structured_outputs"]["grammar"]
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())
    *opening, rule = re.findall(r'"(?:[^"\\]|\\.)*"|s0', rules["root"])
    written = "".join(map(json.loads, opening))
    while rule in rules and rule != "rest":
        first = rules[rule].split(" | ")[0]
        literal, _, rule = first.rpartition(" ")
        if not literal or not rule.startswith(("s", "rest")):
            literal, rule = first, ""
        written += json.loads(literal)
    if rule == "rest":
        times = int(rules["rest"].partition("{")[2].rstrip("}"))
        written += json.loads(rules["again"].split(" | ")[0]) * times
    return 200, completion(written)


def test_a_long_list_is_decoded_in_several_calls(tmp_path: Path) -> None:
    """vLLM's constrained decoding of a long list, which goes on where labels repeat, takes a wave a call."""
    waves = 0
    with vllm_ranker(context_window=8192) as ranker:
        while True:
            try:
                (ranking,) = run(ranker, requests(1, 12), tmp_path, via="files")
            except AnswersPendingError:
                assert by_hand(tmp_path, repetitive) == 1
                waves += 1
            else:
                break
    assert waves > 1
    assert ranking.status == "ok"
    assert sorted(map(int, ranking.item_ids)) == list(range(12))
    assert ranking.usage.calls == waves


def test_a_model_that_does_not_obey_is_said_to(tmp_path: Path) -> None:
    """An answer that is not of the grammar is read as it is, with a note, and is asked no further."""
    with vllm_ranker() as ranker:
        with pytest.raises(AnswersPendingError):
            run(ranker, requests(2), tmp_path, via="files")
        assert by_hand(tmp_path, lambda body: (200, completion("Best are: [A], [C], [B]"))) == 2
        rankings = run(ranker, requests(2), tmp_path, via="files")
    assert [ranking.item_ids for ranking in rankings] == [["0", "2", "1"]] * 2
    assert all("did not enforce" in " ".join(ranking.notes) for ranking in rankings)


def test_many_users_take_little_memory(tmp_path: Path) -> None:
    """Requests are streamed: what more users take on disk, they do not take in memory."""
    import tracemalloc

    def peak(users: int, folder: Path) -> int:
        def stream() -> Iterator[RankRequest]:
            for user in range(users):
                yield RankRequest(history=[str(user % 40)], query=f"user {user}", candidates=["1", "2", "3"])

        tracemalloc.reset_peak()
        with pytest.raises(AnswersPendingError, match=f"{users} requests"):
            next(batch_rank(ranker, stream, folder, BatchOptions(via="files")))
        return tracemalloc.get_traced_memory()[1]

    def written(folder: Path) -> int:
        return (folder / "wave-0001" / "in-0001.jsonl").stat().st_size

    with vllm_ranker(context_window=4096) as ranker:
        tracemalloc.start()
        try:
            peak(10, tmp_path / "warm")
            few, many = peak(100, tmp_path / "few"), peak(600, tmp_path / "many")
        finally:
            tracemalloc.stop()
    # Some is garbage that waits for its collector.
    assert many - few < (written(tmp_path / "many") - written(tmp_path / "few")) / 2


def test_samples_of_one_prompt_are_asked_apart(tmp_path: Path) -> None:
    """Repeated samples of one prompt have lines of their own."""
    from llmrank.types import Completion, ResolvedRequest

    class Twice:
        name = "twice"
        needs = frozenset({"generate"})

        def flow(self, request: ResolvedRequest, budget: object) -> Any:
            from llmrank.strategies.outcome import ranked
            from llmrank.types import Message

            prompts = [Prompt((Message("user", "Say a number."),), sample=sample) for sample in range(2)]
            answers = yield prompts
            said = tuple(str(answer.text) for answer in answers if isinstance(answer, Completion))
            return Ranking(ranked(request.candidates, unranked=frozenset()), notes=said)

    numbers = iter(range(9))
    with serving(lambda body: (200, completion(str(next(numbers))))) as server:
        backend = OpenAIBackend(OpenAIOptions(model="m", base_url=server.url))
        with Ranker(backend, Twice(), catalog=CATALOG) as ranker:  # type: ignore[arg-type]  # needs is inferred as set of str
            (ranking,) = run(ranker, requests(1), tmp_path)
    assert sorted(ranking.notes) == ["0", "1"]
