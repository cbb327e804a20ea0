"""The answer cache: what is kept and what is not, who shares it, and what happens when the file is bad."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import AsyncMock

import pytest

from llmrank import cache as cache_module
from llmrank import codec
from llmrank.backends.cache import HIT, CachedBackend
from llmrank.backends.guard import guard
from llmrank.cache import AnswerCache, CacheStats
from llmrank.codec import cache_key
from llmrank.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    ConfigError,
    DeadlineError,
    ServerError,
    UnreachableError,
)
from llmrank.protocols import ModelInfo
from llmrank.types import Completion, ContinuationScore, Message, Prompt, Usage
from tests.unit.scripted import ScriptedBackend

ANSWER = Completion(
    "[B] > [A]",
    "stop",
    Usage(prompt_tokens=100, completion_tokens=9, calls=1),
    label_logprobs={"A": -0.1},
    model="m",
    notes=("x",),
)


def prompt(text: str = "hello", **others: Any) -> Prompt:
    """A chat of one message."""
    return Prompt(messages=(Message("user", text),), **others)


def scoring(*continuations: str, prefix: str = "Films:\n") -> Prompt:
    """Continuations to score, with labels and ids as a strategy gives them."""
    labels = tuple(str(number) for number, _ in enumerate(continuations))
    return Prompt(prefix=prefix, continuations=continuations, labels=labels, item_ids=labels)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the cache is; the folder does not exist yet."""
    return tmp_path / "new" / "answers.sqlite"


@pytest.fixture
def cache(path: Path) -> Iterator[AnswerCache]:
    """An open cache."""
    with closing(AnswerCache(path)) as cache:
        yield cache


async def test_the_second_time_nobody_is_asked(cache: AnswerCache) -> None:
    """A kept answer is the first one in all but its cost: one hit, no tokens, no calls, no seconds; its first cost is told."""
    server = ScriptedBackend(lambda prompt: ANSWER)
    backend = CachedBackend(server, cache)
    first = await backend.generate(prompt())
    second = await backend.generate(prompt())
    assert first == ANSWER
    assert second == replace(ANSWER, usage=Usage(cache_hits=1), spared=ANSWER.usage)
    assert len(server.prompts) == 1
    assert cache.stats == CacheStats(hits=1, misses=1)


async def test_ids_and_fingerprint_do_not_matter(cache: AnswerCache) -> None:
    """Another user's item ids, or a template whose words came out the same, find the same answer; another seed does not."""
    server = ScriptedBackend(lambda prompt: ANSWER)
    backend = CachedBackend(server, cache)
    await backend.generate(prompt(labels=("A",), item_ids=("603",)))
    assert (await backend.generate(prompt(labels=("A",), item_ids=("604",), fingerprint="f"))).usage == HIT
    assert (await backend.generate(prompt(labels=("A",), item_ids=("603",), seed=1))).usage != HIT


async def test_another_model_has_its_own_answers(cache: AnswerCache) -> None:
    """Backends with different identities share a file, not answers."""

    class Other(ScriptedBackend):
        @property
        def identity(self) -> Mapping[str, Any]:
            return {"kind": "scripted", "model": "other"}

    await CachedBackend(ScriptedBackend(lambda prompt: "[A]"), cache).generate(prompt())
    assert (await CachedBackend(Other(lambda prompt: "[B]"), cache).generate(prompt())).text == "[B]"


async def test_answers_outlive_the_process(path: Path) -> None:
    """A closed file is opened again with all its answers."""
    with closing(AnswerCache(path)) as cache:
        await CachedBackend(ScriptedBackend(lambda prompt: ANSWER), cache).generate(prompt())
    with closing(AnswerCache(path)) as cache:
        assert (await CachedBackend(ScriptedBackend(), cache).generate(prompt())).usage == HIT


async def test_errors_are_not_kept(cache: AnswerCache) -> None:
    """After an error the backend is asked again."""
    script: Iterator[Any] = iter([ServerError("500"), ANSWER])
    backend = CachedBackend(ScriptedBackend(lambda prompt: next(script)), cache)
    with pytest.raises(ServerError):
        await backend.generate(prompt())
    assert await backend.generate(prompt()) == ANSWER


@pytest.mark.parametrize("text", [None, "", " \n"])
async def test_an_answer_that_says_nothing_is_not_kept(cache: AnswerCache, text: str | None) -> None:
    """A server in trouble may answer without text; once it has recovered it is asked again."""
    script: Iterator[Any] = iter([Completion(text, "length"), ANSWER])
    backend = CachedBackend(ScriptedBackend(lambda prompt: next(script)), cache)
    assert (await backend.generate(prompt())).text == text
    assert await backend.generate(prompt()) == ANSWER
    assert (await backend.generate(prompt())).usage == HIT


async def test_probabilities_without_text_are_kept(cache: AnswerCache) -> None:
    """The labels' log-probabilities are an answer, even where the token sampled was a space."""
    backend = CachedBackend(ScriptedBackend(lambda prompt: replace(ANSWER, text=" ")), cache)
    await backend.generate(prompt())
    assert (await backend.generate(prompt())).usage == HIT


@pytest.mark.parametrize("row", ["{", '{"text": 5}', '{"who": "a later version"}', b"\xff", 5, "[" * 100_000])
async def test_a_corrupt_row_is_a_miss(cache: AnswerCache, path: Path, row: object) -> None:
    """A row that is no answer is asked for again, counted and overwritten."""
    server = ScriptedBackend(lambda prompt: ANSWER)
    backend = CachedBackend(server, cache)
    await backend.generate(prompt())
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE answers SET answer = ?", (row,))
        other.commit()
    assert await backend.generate(prompt()) == ANSWER
    assert cache.stats == CacheStats(hits=0, misses=2, corrupt=1)
    assert (await backend.generate(prompt())).usage == HIT


async def test_equal_prompts_under_way_are_asked_once(cache: AnswerCache) -> None:
    """Of 50 equal prompts at once one asks and pays, and 49 are hits."""
    server = ScriptedBackend(lambda prompt: ANSWER, delay=0.01)
    backend = CachedBackend(server, cache)
    answers = await asyncio.gather(*[backend.generate(prompt()) for _ in range(50)])
    assert len(server.prompts) == 1
    total = sum((answer.usage for answer in answers), Usage())
    assert total == ANSWER.usage + Usage(cache_hits=49)
    assert all(answer.usage + answer.spared in (ANSWER.usage, ANSWER.usage + HIT) for answer in answers)


@pytest.mark.parametrize("slots", [1, 2])
async def test_no_slot_is_taken_before_the_answer_in_it_is_kept(
    path: Path, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow disk too, a prompt is asked only when all answers but those that are being asked for are kept."""
    encode = codec.canonical

    def slowly(value: object) -> str:
        time.sleep(0.002)
        return encode(value)

    monkeypatch.setattr(cache_module, "canonical", slowly)

    class Watching(ScriptedBackend):
        unkept: ClassVar[list[int]] = []

        async def generate(self, prompt: Prompt) -> Completion:
            with closing(sqlite3.connect(path)) as other:
                ((kept,),) = other.execute("SELECT COUNT(*) FROM answers").fetchall()
            self.unkept.append(len(self.prompts) + 1 - kept)
            return await super().generate(prompt)

    backend = Watching(lambda prompt: ANSWER, delay=0.001)
    guarded = guard(backend, max_concurrency=slots, cache=AnswerCache(path))
    await asyncio.gather(*[guarded.generate(prompt(str(number))) for number in range(30)])
    await guarded.aclose()
    assert len(backend.unkept) == 30
    assert max(backend.unkept) == slots


async def test_a_cache_that_another_process_writes_to_does_not_stop_the_loop(path: Path) -> None:
    """While somebody else holds the file, the answer waits for it in another thread, and is kept in the end."""
    cache = AnswerCache(path)
    backend = CachedBackend(ScriptedBackend(lambda prompt: ANSWER), cache)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asking = asyncio.create_task(backend.generate(prompt()))
        done, _ = await asyncio.wait([asking], timeout=0.2)  # a loop that stood still would not come back from here
        assert not done
        assert not cache.put_at_once({b"key": ANSWER})
        other.execute("ROLLBACK")
    assert (await asking).notes == ANSWER.notes
    assert (await backend.generate(prompt())).usage == HIT
    assert cache.put_at_once({b"key": ANSWER})
    assert cache.get([b"key"]) == {b"key": ANSWER}
    await backend.aclose()


async def test_a_cancelled_asker_does_not_take_the_others_along(cache: AnswerCache) -> None:
    """When the prompt that asks is cancelled, an equal one that waits for it asks itself."""
    server = ScriptedBackend(lambda prompt: ANSWER, delay=0.01)
    backend = CachedBackend(server, cache)
    first, second, third = (asyncio.create_task(backend.generate(prompt())) for _ in range(3))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).usage == ANSWER.usage
    assert (await third).usage == HIT
    assert first.cancelled()
    assert len(server.prompts) == 2


async def test_a_cancelled_waiter_does_not_disturb_the_asker(cache: AnswerCache) -> None:
    """When a prompt that waits for an equal one is cancelled, that one goes on."""
    server = ScriptedBackend(lambda prompt: ANSWER, delay=0.01)
    backend = CachedBackend(server, cache)
    first, second = (asyncio.create_task(backend.generate(prompt())) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second.cancel()
    assert await first == ANSWER
    assert len(server.prompts) == 1


async def test_an_error_goes_to_all_who_wait(cache: AnswerCache) -> None:
    """Equal prompts fail together instead of each trying its own luck in turn; the next one asks anew."""
    script: Iterator[Any] = iter([ServerError("500"), ANSWER])
    server = ScriptedBackend(lambda prompt: next(script), delay=0.01)
    backend = CachedBackend(server, cache)
    results = await asyncio.gather(*[backend.generate(prompt()) for _ in range(3)], return_exceptions=True)
    assert [type(result) for result in results] == [ServerError] * 3
    assert await backend.generate(prompt()) == ANSWER


async def test_an_error_that_is_shared_costs_the_one_who_asked(cache: AnswerCache) -> None:
    """The others are told what it had taken, as with an answer that they share: the sum of `usage` is what was spent."""

    def fail(prompt: Prompt) -> ServerError:
        return ServerError("500").retold(usage=Usage(retries=1, seconds=2.0))

    backend = CachedBackend(ScriptedBackend(fail, delay=0.01), cache)
    results = await asyncio.gather(*[backend.generate(prompt()) for _ in range(3)], return_exceptions=True)
    costs = sorted((each.usage.retries, each.spared.retries) for each in results if isinstance(each, ServerError))
    assert costs == [(0, 1), (0, 1), (1, 0)]


def loglik(prefix: str, text: str) -> float:
    """A log-likelihood that tells texts and prefixes apart."""
    return -float(len(prefix) * 100 + sum(map(ord, text)))


async def test_scores_are_kept_one_by_one(cache: AnswerCache) -> None:
    """Only continuations without a kept score are asked for; the scores come in the order asked, two equal titles included."""
    server = ScriptedBackend(loglik=loglik)
    backend = CachedBackend(server, cache)
    await backend.score(scoring("Alien", "Heat"))
    mixed = await backend.score(scoring("Ran", "Heat", "Ran", "Alien"))
    assert server.prompts[1].continuations == ("Ran",)
    assert [score.logprob for score in mixed.scores] == [loglik("Films:\n", text) for text in ("Ran", "Heat", "Ran", "Alien")]
    assert mixed.usage == Usage(prompt_tokens=50, calls=1, cache_hits=2)
    assert mixed.spared == Usage(prompt_tokens=50, calls=1)
    known = await backend.score(scoring("Ran", "Alien"))
    assert known.usage == HIT
    assert len(server.prompts) == 2
    assert (await backend.score(scoring("Ran", prefix="Games:\n"))).usage != HIT


async def test_the_shares_of_scores_add_up_to_what_was_spent(cache: AnswerCache) -> None:
    """What continuations scored at once had cost is shared among them without loss, so a full hit tells the whole cost."""
    usage = Usage(prompt_tokens=101, completion_tokens=7, cached_tokens=2, calls=1, retries=1, seconds=0.75)
    scores = tuple(ContinuationScore(-1.0, 1) for _ in range(3))
    server = ScriptedBackend(loglik=loglik)
    server.score = AsyncMock(return_value=Completion(scores=scores, usage=usage))  # type: ignore[method-assign]  # a test's own
    backend = CachedBackend(server, cache)
    await backend.score(scoring("Alien", "Heat", "Ran"))
    again = await backend.score(scoring("Ran", "Alien", "Heat"))
    assert again.usage == HIT
    assert again.spared == usage


async def test_a_first_score_prompt_is_passed_on_as_it_is(cache: AnswerCache) -> None:
    """Nothing kept, nothing twice: the backend is asked the very prompt."""
    server = ScriptedBackend(loglik=loglik)
    asked = scoring("Alien", "Heat")
    await CachedBackend(server, cache).score(asked)
    assert server.prompts == [asked]


class Away(ScriptedBackend):
    """A server that tells its window, or is away while `problem` is set."""

    def __init__(self, window: int | None, problem: BackendError | None = None) -> None:
        super().__init__(lambda prompt: ANSWER, window=window)
        self.problem = problem

    async def info(self) -> ModelInfo:
        if self.problem is not None:
            raise self.problem
        return await super().info()


@pytest.mark.parametrize("window", [4096, None])
@pytest.mark.parametrize("problem", [UnreachableError("down"), BackendTimeoutError("slow"), DeadlineError("late")])
async def test_kept_answers_need_no_server(path: Path, window: int | None, problem: BackendError) -> None:
    """The window last told is given while the server is away, also by another process; then its answers are found."""
    for told in (1024, window):
        with closing(AnswerCache(path)) as cache:
            backend = CachedBackend(Away(told), cache)
            assert (await backend.info()).context_window == told
            await backend.generate(prompt())
    with closing(AnswerCache(path)) as cache:
        backend = CachedBackend(Away(None, problem), cache)
        assert await backend.info() == ModelInfo(window)
        assert (await backend.generate(prompt())).usage == HIT


async def test_the_windows_of_models_are_kept_apart(cache: AnswerCache) -> None:
    """Another model's window is no substitute, and an error that does not mean "away" is no reason for one."""

    class Other(Away):
        @property
        def identity(self) -> Mapping[str, Any]:
            return {"kind": "other"}

    server = Away(4096)
    await CachedBackend(server, cache).info()
    with pytest.raises(UnreachableError):
        await CachedBackend(Other(None, UnreachableError("down")), cache).info()
    server.problem = AuthenticationError("wrong key")
    with pytest.raises(AuthenticationError):
        await CachedBackend(server, cache).info()


async def test_a_window_that_cannot_be_kept_is_told_all_the_same(cache: AnswerCache) -> None:
    """A cache that fails does not keep a model from being asked; without it, a server's absence is what it is."""
    server = Away(4096)
    backend = CachedBackend(server, cache)
    cache.close()
    assert (await backend.info()).context_window == 4096
    server.problem = UnreachableError("down")
    with pytest.raises(UnreachableError):
        await backend.info()


async def test_a_full_disk_loses_no_answer(cache: AnswerCache, path: Path) -> None:
    """An answer that cannot be kept is returned and says so, once for each answer."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    backend = CachedBackend(ScriptedBackend(lambda prompt: ANSWER), cache)
    answer = await backend.generate(prompt())
    assert answer.text == ANSWER.text
    assert answer.notes == ("x", "The answer could not be kept in the answer cache: disk full.")


async def test_a_damaged_file_loses_no_answer(cache: AnswerCache, path: Path) -> None:
    """A cache that cannot be read any more is noted, and the backend asked."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE answers")
    answer = await CachedBackend(ScriptedBackend(lambda prompt: ANSWER), cache).generate(prompt())
    assert answer.text == ANSWER.text
    assert "could not be read: no such table" in answer.notes[1]


def a_folder(path: Path) -> Path:
    """A folder where the file should be."""
    path.mkdir()
    return path


def a_text(path: Path) -> Path:
    """A file of text."""
    path.write_text("not a database, but long enough to have a header" * 20)
    return path


def below_a_file(path: Path) -> Path:
    """A path that leads through a file."""
    path.write_text("x")
    return path / "answers.sqlite"


def anothers(path: Path) -> Path:
    """Somebody else's database with a table of the same name."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE answers (question TEXT)")
    return path


@pytest.mark.parametrize("make", [a_folder, a_text, below_a_file, anothers])
def test_a_path_that_is_no_cache(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """What cannot be opened as a cache is a ConfigError that names the key and the path."""
    path = make(tmp_path / "thing")
    with pytest.raises(ConfigError, match=r"^cache\.path: .*thing"):
        AnswerCache(path)


async def test_closing_twice(path: Path) -> None:
    """`aclose` closes backend and cache, may be called again, and leaves one file."""
    server = ScriptedBackend(lambda prompt: ANSWER)
    backend = CachedBackend(server, AnswerCache(path))
    await backend.generate(prompt())
    await backend.aclose()
    await backend.aclose()
    assert server.closed == 2
    assert [file.name for file in path.parent.iterdir()] == ["answers.sqlite"]


def test_threads_share_a_cache(cache: AnswerCache) -> None:
    """Eight threads write and read 400 answers; each finds what it wrote."""

    def work(thread: int) -> None:
        for number in range(50):
            key = cache_key(prompt(f"{thread} {number}"), {})
            answer = Completion(f"{thread} {number}")
            cache.put({key: answer})
            assert cache.get([key]) == {key: answer}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert cache.stats.hits == 400


WORKER = """
import sys
from llmrank.cache import AnswerCache
from llmrank.types import Completion

path, who = sys.argv[1], sys.argv[2]
sys.stdin.readline()  # both open the new file at the same moment
cache = AnswerCache(path)
for number in range(200):
    cache.put({f"{who} {number}".encode(): Completion(f"{who} {number}")})
cache.close()
"""


def test_processes_share_a_file(path: Path) -> None:
    """Two processes that make the file at once and write 200 answers each lose none of them."""
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(path), who], stdin=subprocess.PIPE, text=True)
        for who in ("one", "two")
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.close()
    assert [worker.wait(60) for worker in workers] == [0, 0]
    with closing(AnswerCache(path)) as cache:
        keys = [f"{who} {number}".encode() for who in ("one", "two") for number in range(200)]
        assert {key: answer.text for key, answer in cache.get(keys).items()} == {key: key.decode() for key in keys}


def test_a_file_that_somebody_writes_to_is_waited_for(path: Path) -> None:
    """Opening a file in the very moment when another program writes to it takes a little longer, no more."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE another (x)")
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO another VALUES (1)")
        commit = threading.Timer(0.2, other.execute, ("COMMIT",))
        commit.start()
        AnswerCache(path).close()
        commit.join()


async def test_a_kept_answer_without_its_score_is_a_miss(cache: AnswerCache) -> None:
    """A row for a continuation that holds no score, or two, is asked for again."""
    server = ScriptedBackend(loglik=loglik)
    alone = Prompt(prefix="Films:\n", continuations=("Alien",))
    cache.put({cache_key(alone, server.identity): Completion("no score")})
    assert (await CachedBackend(server, cache).score(alone)).scores[0].logprob == loglik("Films:\n", "Alien")


def test_many_answers_are_kept_together_or_not_at_all(cache: AnswerCache, path: Path) -> None:
    """A write that fails half way leaves nothing behind, and the cache usable."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TRIGGER no BEFORE INSERT ON answers WHEN NEW.key = x'02' BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.Error):
        cache.put({b"\x01": ANSWER, b"\x02": ANSWER})
    assert cache.get([b"\x01"]) == {}
    cache.put({b"\x03": ANSWER})
    assert cache.get([b"\x03"]) == {b"\x03": ANSWER}
