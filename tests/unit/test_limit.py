"""The gate: how many come through at once, in what order, and what cancellation and several event loops do to that."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llmrank.backends.guard import guard
from llmrank.backends.limit import Gate
from llmrank.errors import ConfigError
from llmrank.types import Message, Prompt
from tests.unit.scripted import ScriptedBackend
from tests.unit.virtual_time import now, run


class Visitors:
    """Goes through a gate and notes who is in, and who came in when."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside = 0
        self.most = 0
        self.order: list[str] = []

    async def visit(self, name: str, seconds: float = 1.0, *, first: bool = False) -> None:
        """Stays inside for some seconds."""
        async with self.gate.slot(first=first):
            self.order.append(name)
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(seconds)
            self.inside -= 1


async def tick() -> None:
    """Lets everything run that can run now."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("most", [1, 3, 64])
def test_no_more_than_the_limit(most: int) -> None:
    """Of 200 prompts exactly `max_concurrency` are at the backend at once, and all of them are answered."""

    async def main() -> int:
        server = ScriptedBackend(lambda prompt: "[A]", delay=1.0)
        backend = guard(server, max_concurrency=most)
        prompts = [Prompt(messages=(Message("user", str(number)),)) for number in range(200)]
        answers = await asyncio.gather(*[backend.generate(prompt) for prompt in prompts])
        assert len(answers) == 200
        return server.most_in_flight

    assert run(main()) == most


def test_no_limit() -> None:
    """With None all go at once."""

    async def main() -> None:
        visitors = Visitors(Gate())
        await asyncio.gather(*[visitors.visit(str(number)) for number in range(500)])
        assert visitors.most == 500

    run(main())


def test_first_come_first_served_but_for_those_in_front() -> None:
    """The queue keeps its order; a prompt that is asked again goes to its head."""

    async def main() -> list[str]:
        visitors = Visitors(Gate(1))
        tasks = [asyncio.create_task(visitors.visit(name)) for name in "abc"]
        await tick()
        tasks.append(asyncio.create_task(visitors.visit("again", first=True)))
        await asyncio.gather(*tasks)
        return visitors.order

    assert run(main()) == ["a", "again", "b", "c"]


def test_cancelled_waiters_take_no_slot() -> None:
    """Whoever is cancelled in the queue, even in the moment of being let in, leaves the slot to the next."""

    async def main() -> list[str]:
        visitors = Visitors(Gate(1))
        tasks = {name: asyncio.create_task(visitors.visit(name)) for name in ("in", "queued", "admitted", "last")}
        await tick()
        tasks["queued"].cancel()
        await asyncio.sleep(1.0)  # "in" leaves in this very moment and lets "admitted" in, whose task has not run yet
        tasks["admitted"].cancel()
        await asyncio.wait(tasks.values())
        assert visitors.gate._slots.get().in_use == 0
        return visitors.order

    order = run(main())
    assert "queued" not in order
    assert order[-1] == "last"


def test_a_slot_given_to_a_cancelled_waiter_is_given_on() -> None:
    """The slot is handed to a waiter that is cancelled before it wakes: the next one gets it."""

    async def main() -> None:
        gate = Gate(1)
        visitors = Visitors(gate)
        async with gate.slot():
            cancelled, other = (asyncio.create_task(visitors.visit(name)) for name in ("cancelled", "other"))
            await tick()
        cancelled.cancel()  # no await since the slot was given up
        await asyncio.wait([cancelled, other])
        assert visitors.order == ["other"]

    run(main())


def test_a_refusal_halves_and_answers_widen() -> None:
    """A refusal halves the slots once for all that were in flight with it; as many answers as slots add one; never below 1."""

    async def main() -> None:
        gate = Gate(16)
        slots = gate._slots.get()
        slots.in_use = 16
        asked_at = now()
        await asyncio.sleep(1)
        gate.narrow(asked_at)
        gate.narrow(asked_at)
        assert slots.limit == 8
        for _ in range(9):
            gate.widen()
        assert 9 <= slots.limit < 10
        for _ in range(10):
            gate.narrow(now())
            await asyncio.sleep(1)
        assert slots.limit == 1
        for _ in range(1000):
            gate.widen()
        assert slots.limit == 16

    run(main())


def test_a_pause_is_never_shortened() -> None:
    """The longest pause that was asked for counts."""

    async def main() -> None:
        gate = Gate()
        assert gate.cooldown == 0
        gate.pause(10)
        gate.pause(2)
        await asyncio.sleep(4)
        assert gate.cooldown == pytest.approx(6, abs=1e-3)
        await asyncio.sleep(7)
        assert gate.cooldown == 0

    run(main())


def test_each_event_loop_has_its_own_slots() -> None:
    """Two threads with a loop each use one gate at the same time, and neither waits for the other's slots."""
    gate = Gate(1)
    meet = threading.Barrier(2, timeout=10)

    async def hold() -> None:
        async with gate.slot():
            meet.wait()  # passes only if both loops are inside at once

    threads = [threading.Thread(target=asyncio.run, args=(hold(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not meet.broken


@pytest.mark.parametrize("number", [0, -1])
def test_the_limit_is_checked(number: int) -> None:
    """A limit below 1 is a ConfigError that names the key."""
    with pytest.raises(ConfigError, match=r"backend\.max_concurrency"):
        Gate(number)


async def test_the_guard_passes_everything_on() -> None:
    """What stands around a backend shows its kind, model, capabilities, identity and window, and closes it."""
    server = ScriptedBackend(lambda prompt: "[A]", loglik=lambda prefix, text: -1.0, window=4096)
    backend = guard(server)
    for name in ("kind", "model", "capabilities", "identity", "concurrency", "remote"):
        assert getattr(backend, name) == getattr(server, name)
    assert (await backend.info()).context_window == 4096
    assert (await backend.score(Prompt(prefix="x", continuations=("a", "b")))).scores[1].logprob == -1.0
    await backend.aclose()
    await backend.aclose()
    assert server.closed == 2
