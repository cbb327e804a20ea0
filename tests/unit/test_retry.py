"""Retries: which errors, how often, how long, and what everybody does when the server asks for a pause. In virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from llmrank import errors
from llmrank.backends.base import BackendBase
from llmrank.backends.guard import guard
from llmrank.backends.limit import Gate
from llmrank.backends.retry import Limits, RetryBackend
from llmrank.errors import (
    AuthenticationError,
    BackendError,
    ConfigError,
    DeadlineError,
    RateLimitError,
    ServerError,
    UnreachableError,
)
from llmrank.protocols import ModelInfo
from llmrank.types import Completion, Message, Prompt, Usage
from tests.unit.virtual_time import now, run

PLAIN = Limits(jitter=False)


def prompt(text: str = "hello") -> Prompt:
    """A chat of one message."""
    return Prompt(messages=(Message("user", text),))


class Server(BackendBase):
    """Does what its script says, attempt by attempt, and notes when it was asked. A number stands for that many seconds."""

    def __init__(self, *script: BaseException | float | None) -> None:
        super().__init__("scripted", "by-hand")
        self._script: Iterator[BaseException | float | None] = itertools.chain(script, itertools.repeat(None))
        self.asked: list[float] = []
        self.cancelled = 0

    async def generate(self, prompt: Prompt) -> Completion:
        """Does the next step."""
        self.asked.append(now())
        step = next(self._script)
        if isinstance(step, BaseException):
            raise step
        try:
            await asyncio.sleep(step or 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Completion("[A]", "stop", Usage(prompt_tokens=7, calls=1))


def subclasses(cls: type[BackendError]) -> list[type[BackendError]]:
    """A class and all below it that llmrank defines."""
    return [
        cls,
        *(found for below in cls.__subclasses__() if below.__module__ == errors.__name__ for found in subclasses(below)),
    ]


@pytest.mark.parametrize("cls", subclasses(BackendError), ids=lambda cls: cls.__name__)
def test_the_class_of_an_error_decides(cls: type[BackendError]) -> None:
    """Exactly the errors whose class is retryable are asked again; any other comes out at once, as it is."""
    server = Server(cls("no"))
    backend = RetryBackend(server, PLAIN)
    if cls.retryable:
        usage = run(backend.generate(prompt())).usage
        assert usage.seconds == pytest.approx(0.5)
        assert replace(usage, seconds=0.0) == Usage(prompt_tokens=7, calls=1, retries=1)
        assert len(server.asked) == 2
    else:
        with pytest.raises(cls, match=r"^no$"):
            run(backend.generate(prompt()))
        assert len(server.asked) == 1


def test_bugs_are_not_retried() -> None:
    """An exception that is no BackendError, a bare TimeoutError included, passes through unchanged and at once."""
    for bug in (KeyError("x"), TimeoutError("from inside")):
        server = Server(bug)
        with pytest.raises(type(bug)) as caught:
            run(RetryBackend(server, PLAIN).generate(prompt()))
        assert caught.value is bug
        assert len(server.asked) == 1


def test_waits_double_up_to_a_limit() -> None:
    """Without jitter the waits are 0.5, 1, 2 ... seconds, at most max_wait_s."""
    server = Server(*[UnreachableError("down") for _ in range(5)])
    run(RetryBackend(server, Limits(max_wait_s=3, jitter=False)).generate(prompt()))
    assert server.asked == pytest.approx([0, 0.5, 1.5, 3.5, 6.5, 9.5], abs=1e-6)


def test_jitter_spreads_the_waits() -> None:
    """With jitter a wait is anything from 0 to the full one, and a seeded program draws the same numbers as without retries."""
    random.seed(5)
    expected = random.random()  # noqa: S311 - a test of the generator
    random.seed(5)
    waits = []
    for _ in range(200):
        server = Server(UnreachableError("down"))
        run(RetryBackend(server, Limits(initial_wait_s=4)).generate(prompt()))
        waits.append(server.asked[1])
    assert min(waits) < 0.5
    assert max(waits) > 3.5
    assert max(waits) <= 4.001
    assert random.random() == expected  # noqa: S311 - as above


@pytest.mark.parametrize("cls", [RateLimitError, ServerError])
def test_the_server_names_the_wait(cls: type[RateLimitError] | type[ServerError]) -> None:
    """Retry-After is waited for in full, even beyond max_wait_s."""
    server = Server(cls("slow down", retry_after=30))
    run(RetryBackend(server, Limits(max_wait_s=1)).generate(prompt()))
    assert 30 <= server.asked[1] <= 31.1


def test_a_wait_that_does_not_fit_is_not_begun() -> None:
    """Retry-After beyond the deadline gives up at once and says so; the cause is the server's error."""

    async def main() -> float:
        error = RateLimitError("429: slow down", retry_after=90)
        with pytest.raises(DeadlineError, match=r"asked to wait 90.0 s.*deadline_s = 60.*429: slow down") as caught:
            await RetryBackend(Server(error), PLAIN).generate(prompt())
        assert caught.value.__cause__ is error
        return now()

    assert run(main()) == pytest.approx(0, abs=1e-6)


def test_attempts_are_used_up() -> None:
    """The last attempt's own error comes out, with its attributes, and says how many attempts there were."""
    server = Server(ServerError("500"), RateLimitError("429", retry_after=2), RateLimitError("429", retry_after=3))
    with pytest.raises(RateLimitError, match=r"^429 \(gave up after 3 attempts\)$") as caught:
        run(RetryBackend(server, Limits(max_attempts=3, jitter=False)).generate(prompt()))
    assert caught.value.retry_after == 3
    assert len(server.asked) == 3


def test_one_attempt_is_no_retrying() -> None:
    """With max_attempts 1 the error comes out as it is."""
    with pytest.raises(UnreachableError, match=r"^down$"):
        run(RetryBackend(Server(UnreachableError("down")), Limits(max_attempts=1)).generate(prompt()))


def test_the_deadline_cuts_off_an_attempt() -> None:
    """An attempt in flight is cancelled when the time for all attempts is used up; the cause is the error before it."""

    async def main(server: Server) -> DeadlineError:
        with pytest.raises(DeadlineError) as caught:
            await RetryBackend(server, Limits(deadline_s=10, jitter=False)).generate(prompt())
        assert now() == pytest.approx(10, abs=1e-3)
        assert server.cancelled == 1
        return caught.value

    assert run(main(Server(1000.0))).__cause__ is None
    first = UnreachableError("connection reset")
    late = run(main(Server(first, 1000.0)))
    assert late.__cause__ is first
    assert "no answer in time" in str(late)
    assert "after 2 attempts in 10.0 s" in str(late)
    assert "connection reset" in str(late)


def test_no_deadline() -> None:
    """With deadline_s None an attempt may take as long as it likes."""
    answer = run(RetryBackend(Server(1e6), Limits(deadline_s=None)).generate(prompt()))
    assert answer.usage.seconds == pytest.approx(1e6)


def test_waiting_for_a_slot_is_not_the_servers_time() -> None:
    """Ten prompts of 5 s through one slot all meet a deadline of 8 s, and each counts its own 5 s."""

    async def main() -> list[Completion]:
        backend = RetryBackend(Server(*[5.0] * 10), Limits(deadline_s=8), Gate(1))
        return await asyncio.gather(*[backend.generate(prompt(str(number))) for number in range(10)])

    assert [answer.usage.seconds for answer in run(main())] == pytest.approx([5.0] * 10, abs=1e-3)


def test_no_slot_is_held_while_waiting_to_retry() -> None:
    """With one slot, a second prompt is answered while the first waits for its second attempt."""

    async def main() -> None:
        server = Server(ServerError("500"), 1.0)
        backend = RetryBackend(server, Limits(initial_wait_s=10, jitter=False), Gate(1))
        first = asyncio.create_task(backend.generate(prompt("first")))
        await asyncio.sleep(0)
        await backend.generate(prompt("second"))
        assert now() == pytest.approx(1, abs=1e-3)
        await first
        assert now() == pytest.approx(10, abs=1e-3)

    run(main())


@pytest.mark.parametrize("after", [0.5, 5.0], ids=["in an attempt", "in a wait"])
def test_cancellation_passes(after: float) -> None:
    """A cancelled prompt ends there and then, and is not asked again."""

    async def main() -> None:
        server = Server(1.0 if after < 1 else ServerError("500", retry_after=20))
        task = asyncio.create_task(RetryBackend(server, Limits(initial_wait_s=20, jitter=False)).generate(prompt()))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == pytest.approx(after, abs=1e-3)
        assert len(server.asked) == 1

    run(main())


def test_all_prompts_pause_together() -> None:
    """After one prompt was told to wait 5 s, the others do not ask before that time either."""

    async def main() -> None:
        server = Server(RateLimitError("429", retry_after=5))
        backend = RetryBackend(server)
        first = asyncio.create_task(backend.generate(prompt("first")))
        await asyncio.sleep(1)
        await asyncio.gather(first, *[backend.generate(prompt(str(number))) for number in range(63)])
        assert len(server.asked) == 65
        assert sorted(server.asked)[1] >= 5

    run(main())


def test_a_pause_longer_than_the_deadline_costs_one_prompt() -> None:
    """The prompt that is told to wait too long gives up at once; those not yet asked, or in flight, lose nothing by it."""

    async def main() -> None:
        server = Server(1.0, 1.0, RateLimitError("429", retry_after=90), *[1.0] * 1000)
        backend = RetryBackend(server, Limits(deadline_s=60), Gate(4))
        answers = await asyncio.gather(*[backend.generate(prompt(str(n))) for n in range(300)], return_exceptions=True)
        lost = [answer for answer in answers if not isinstance(answer, Completion)]
        assert len(lost) == 1
        assert isinstance(lost[0], DeadlineError)
        assert "90.0 s" in str(lost[0])
        asked = sorted(server.asked)
        assert asked[2] == pytest.approx(0)
        assert asked[3] >= 90
        assert max(answer.usage.seconds for answer in answers if isinstance(answer, Completion)) < 1.1

    run(main())


def test_a_prompt_that_failed_otherwise_is_not_charged_the_pause_of_another() -> None:
    """An attempt that broke off comes again after a pause that another prompt was told, however short its own time."""

    async def main() -> None:
        server = Server(UnreachableError("reset"), RateLimitError("429", retry_after=90))
        backend = RetryBackend(server, Limits(deadline_s=60, jitter=False))
        broken = asyncio.create_task(backend.generate(prompt("broken")))
        await asyncio.sleep(0.1)
        with pytest.raises(DeadlineError):
            await backend.generate(prompt("refused"))
        assert (await broken).usage.seconds == pytest.approx(0.5)
        assert now() == pytest.approx(90.1)

    run(main())


def test_the_window_is_asked_for_again() -> None:
    """A server that is away for a moment when it is asked for its window is asked again, past the queue for slots."""

    class Away(Server):
        async def info(self) -> ModelInfo:
            """Fails once."""
            await self.generate(prompt())
            return ModelInfo(context_window=4096)

    async def main() -> None:
        server = Away(100.0, UnreachableError("down"))
        backend = guard(server, max_concurrency=1, limits=Limits(deadline_s=None, jitter=False))
        busy = asyncio.create_task(backend.generate(prompt()))
        await asyncio.sleep(1)
        assert (await backend.info()).context_window == 4096
        assert now() == pytest.approx(1.5, abs=1e-3)
        await busy

    run(main())


def test_a_prompt_that_was_refused_goes_before_new_ones() -> None:
    """A second attempt does not queue behind prompts that were never asked: it would lose its place in a long batch."""

    async def main() -> list[str]:
        order: list[str] = []

        class Noting(Server):
            async def generate(self, prompt: Prompt) -> Completion:
                """Notes who asks."""
                order.append(prompt.messages[0].content)
                return await super().generate(prompt)

        backend = RetryBackend(Noting(ServerError("500"), 1.0, 1.0), PLAIN, Gate(1))
        await asyncio.gather(*[backend.generate(prompt(text)) for text in "abc"])
        return order

    assert run(main()) == ["a", "b", "a", "c"]


def test_a_wait_of_its_own_does_not_outlast_the_deadline() -> None:
    """A prompt whose own pause and backoff use up all of its time gives up before the wait, not after it."""

    async def main() -> None:
        server = Server(RateLimitError("429", retry_after=9))
        backend = RetryBackend(server, Limits(deadline_s=10, initial_wait_s=5, jitter=False))
        with pytest.raises(DeadlineError, match=r"asked to wait 9\.0 s"):
            await backend.generate(prompt("first"))
        assert now() < 0.1
        assert len(server.asked) == 1

    run(main())


class Limited(BackendBase):
    """A server that answers `rate` prompts in each second and tells the others to wait for the next one."""

    def __init__(self, rate: int) -> None:
        super().__init__("scripted", "by-hand")
        self._rate = rate
        self.answered = 0
        self.refused = 0
        self._windows: dict[int, int] = {}

    async def generate(self, prompt: Prompt) -> Completion:
        """Answers while this second's share lasts."""
        await asyncio.sleep(0.05)
        window = int(now())
        self._windows[window] = self._windows.get(window, 0) + 1
        if self._windows[window] > self._rate:
            self.refused += 1
            raise RateLimitError("429", retry_after=window + 1 - now())
        self.answered += 1
        return Completion("[A]")


def test_many_prompts_share_a_rate_limit() -> None:
    """256 prompts, 64 at a time, through 8 answers a second: every one is answered, with few refusals for each answer."""

    async def main() -> Limited:
        server = Limited(rate=8)
        backend = guard(server, max_concurrency=64)
        await asyncio.gather(*[backend.generate(prompt(str(number))) for number in range(256)])
        return server

    server = run(main())
    assert server.answered == 256
    assert server.refused < server.answered


@pytest.mark.parametrize(
    ("script", "limits", "took"),
    [
        ([RateLimitError("429")] * 3, Limits(max_attempts=3, jitter=False), Usage(retries=2, seconds=1.5)),
        ([UnreachableError("down"), AuthenticationError("401")], PLAIN, Usage(retries=1, seconds=0.5)),
        ([ServerError("500"), 1000.0], Limits(deadline_s=10, jitter=False), Usage(retries=1, seconds=10)),
        ([ServerError("500"), ServerError("503", retry_after=90)], PLAIN, Usage(retries=1, seconds=0.5)),
        ([ServerError("500")], Limits(max_attempts=1), Usage()),
        ([AuthenticationError("401")], PLAIN, Usage()),
    ],
    ids=["attempts used up", "hopeless", "cut off", "wait too long", "one attempt", "hopeless at once"],
)
def test_an_error_says_what_it_took(script: list[BackendError | float], limits: Limits, took: Usage) -> None:
    """However it ends, an error counts the attempts beyond the first and the seconds, as an answer would."""
    with pytest.raises(BackendError) as caught:
        run(RetryBackend(Server(*script), limits).generate(prompt()))
    assert caught.value.usage.seconds == pytest.approx(took.seconds, abs=1e-3)
    assert replace(caught.value.usage, seconds=took.seconds) == took
    assert all(step.usage == Usage() for step in script if isinstance(step, BackendError))


def test_an_error_does_not_count_the_queue() -> None:
    """Prompts that fail after a second each, one after another through one slot, took a second each."""

    class Slow(Server):
        async def generate(self, prompt: Prompt) -> Completion:
            """Fails after a second."""
            await asyncio.sleep(1)
            raise AuthenticationError("401")

    async def main() -> list[Completion | BaseException]:
        backend = RetryBackend(Slow(), PLAIN, Gate(1))
        return await asyncio.gather(*[backend.generate(prompt(text)) for text in "abc"], return_exceptions=True)

    took = [error.usage.seconds for error in run(main()) if isinstance(error, BackendError)]
    assert took == pytest.approx([1.0] * 3, abs=1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("deadline_s", 0),
        ("deadline_s", float("nan")),
        ("initial_wait_s", -1),
        ("max_wait_s", float("inf")),
    ],
)
def test_limits_are_checked(field: str, value: float) -> None:
    """A limit out of range is a ConfigError that names its key."""
    with pytest.raises(ConfigError, match=f"limits.{field}"):
        Limits(**{field: value})  # type: ignore[arg-type]  # the wrong value is the point


def test_an_error_that_many_prompts_share_is_left_as_it_is() -> None:
    """A backend may raise one error object for several prompts: the count of attempts does not pile up in its message."""
    shared = UnreachableError("down")
    backend = RetryBackend(Server(*[shared] * 4), Limits(max_attempts=2))
    for _ in range(2):
        with pytest.raises(UnreachableError, match=r"^down \(gave up after 2 attempts\)$") as caught:
            run(backend.generate(prompt()))
        assert caught.value.__cause__ is shared
        assert caught.value.usage.retries == 1
    assert str(shared) == "down"
    assert shared.usage == Usage()
