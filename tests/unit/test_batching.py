"""Questions asked one by one are answered in batches, and one bad question fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from llmrank.backends._batching import Batcher
from llmrank.errors import BackendError, BadRequestError

WAIT_S = 20


class Engine:
    """Doubles numbers; remembers its batches and its threads; waits for `gate` in each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.opened = 0
        self.closed = 0
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()

    def open(self) -> Engine:
        """Opens."""
        self.opened += 1
        self.threads.add(threading.get_ident())
        return self

    def work(self, batch: Sequence[int]) -> list[int | Exception]:
        """Answers a batch; refuses negative numbers, fails on 0."""
        self.threads.add(threading.get_ident())
        self.batches.append(list(batch))
        self.started.set()
        assert self.gate.wait(WAIT_S)
        if 0 in batch:
            raise ZeroDivisionError("zero")
        return [2 * number if number > 0 else BadRequestError(f"{number} is negative") for number in batch]

    def close(self) -> None:
        """Closes."""
        self.closed += 1


@pytest.fixture
def engine() -> Engine:
    """An engine."""
    return Engine()


@pytest.fixture
def batcher(engine: Engine) -> Iterator[Batcher[Engine, int, int]]:
    """Batches of at most four."""
    made: Batcher[Engine, int, int] = Batcher(engine.open, Engine.work, Engine.close, max_batch=4)
    yield made
    engine.gate.set()
    made.close().result(WAIT_S)


def test_what_waits_together_is_answered_together(batcher: Batcher[Engine, int, int], engine: Engine) -> None:
    """Ten questions at once make batches of at most four, in order, all in one thread."""
    futures = [batcher.submit(number) for number in range(1, 11)]
    assert [future.result(WAIT_S) for future in futures] == [2 * number for number in range(1, 11)]
    assert [number for batch in engine.batches for number in batch] == list(range(1, 11))
    assert max(map(len, engine.batches)) == 4
    assert len(engine.batches) <= 4
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


def test_what_arrives_during_a_batch_is_the_next_one(batcher: Batcher[Engine, int, int], engine: Engine) -> None:
    """While a batch runs, questions gather."""
    engine.gate.clear()
    first = batcher.submit(1)
    assert engine.started.wait(WAIT_S)
    later = [batcher.submit(number) for number in (2, 3, 4)]
    engine.gate.set()
    assert first.result(WAIT_S) == 2
    assert [future.result(WAIT_S) for future in later] == [4, 6, 8]
    assert engine.batches == [[1], [2, 3, 4]]


def test_a_bad_question_fails_alone(batcher: Batcher[Engine, int, int]) -> None:
    """An error among the answers goes to its asker only."""
    good, bad, other = (batcher.submit(number) for number in (1, -2, 3))
    assert (good.result(WAIT_S), other.result(WAIT_S)) == (2, 6)
    with pytest.raises(BadRequestError, match="-2"):
        bad.result(WAIT_S)


def test_an_engine_that_fails_serves_the_next_batch(batcher: Batcher[Engine, int, int]) -> None:
    """What `work` raises goes to all of the batch; the thread lives on."""
    with pytest.raises(ZeroDivisionError):
        batcher.submit(0).result(WAIT_S)
    assert batcher.submit(5).result(WAIT_S) == 10


def test_a_question_taken_back_is_not_asked(batcher: Batcher[Engine, int, int], engine: Engine) -> None:
    """Cancelling a future whose batch has not started spares the engine the work."""
    engine.gate.clear()
    first = batcher.submit(1)
    assert engine.started.wait(WAIT_S)
    gone, kept = batcher.submit(2), batcher.submit(3)
    assert gone.cancel()
    engine.gate.set()
    assert (first.result(WAIT_S), kept.result(WAIT_S)) == (2, 6)
    assert engine.batches == [[1], [3]]


def test_closing_frees_the_engine_once_and_a_question_opens_it_again(
    batcher: Batcher[Engine, int, int], engine: Engine
) -> None:
    """`close` is idempotent, and not the end."""
    assert batcher.submit(1).result(WAIT_S) == 2
    closing = batcher.close()
    closing.result(WAIT_S)
    batcher.close().result(WAIT_S)
    assert (engine.opened, engine.closed) == (1, 1)
    assert batcher.submit(2).result(WAIT_S) == 4
    assert (engine.opened, engine.closed) == (2, 1)


def test_closing_leaves_nobody_waiting(batcher: Batcher[Engine, int, int], engine: Engine) -> None:
    """The batch that runs is answered; what waits behind it is refused."""
    engine.gate.clear()
    running = batcher.submit(1)
    assert engine.started.wait(WAIT_S)
    waiting = batcher.submit(2)
    closing = batcher.close()
    assert not closing.cancel()  # one of those who wait for the end cannot take it from the others
    assert not closing.done()
    engine.gate.set()
    closing.result(WAIT_S)
    assert running.result(WAIT_S) == 2
    with pytest.raises(BackendError, match="closed"):
        waiting.result(WAIT_S)


def test_an_engine_that_does_not_open_tells_everybody_and_is_tried_again() -> None:
    """The error of opening goes to who asked for the engine or a question; the next question tries anew."""
    tries = []

    def open_engine() -> None:
        tries.append(1)
        raise OSError("no such model")

    batcher: Batcher[None, int, int] = Batcher(open_engine, lambda _, batch: list(batch), lambda _: None, max_batch=4)
    with pytest.raises(OSError, match="no such model"):
        batcher.engine().result(WAIT_S)
    with pytest.raises(OSError, match="no such model"):
        batcher.submit(1).result(WAIT_S)
    assert len(tries) >= 1
    batcher.close().result(WAIT_S)


def test_several_event_loops_share_the_engine(batcher: Batcher[Engine, int, int], engine: Engine) -> None:
    """Tasks of different loops, in different threads, wait for the same batches."""

    async def ask(numbers: Sequence[int]) -> list[int]:
        return list(await asyncio.gather(*(asyncio.wrap_future(batcher.submit(number)) for number in numbers)))

    found: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda start=start: found.update({start: asyncio.run(ask([start, start + 1]))}))
        for start in (1, 11, 21)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert found == {start: [2 * start, 2 * start + 2] for start in (1, 11, 21)}
    assert engine.opened == 1
