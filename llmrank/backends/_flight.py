"""Equal questions that are asked at the same time go in; one of them is answered, and all get that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from llmrank.backends._per_loop import PerLoop
from llmrank.errors import BackendError
from llmrank.types import Usage

T = TypeVar("T")


class _Flight(Generic[T]):
    """Work in progress: `landed` is set when `result` or `error` is known, or when neither will be."""

    def __init__(self) -> None:
        self.landed = asyncio.Event()
        self.result: T | None = None
        self.error: BackendError | None = None


class SingleFlight(Generic[T]):
    """Does equal work once. The first caller does it in its own task, so that its cancellation needs no special care."""

    def __init__(self) -> None:
        self._flights: PerLoop[dict[Hashable, _Flight[T]]] = PerLoop(dict)

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The result of `work`, and whether it is another caller's.

        A BackendError goes to all who wait, to whom what it took is `spared`. When the caller at work is cancelled, or fails
        with a bug, the next one sets to work itself.
        """
        flights = self._flights.get()
        while (flight := flights.get(key)) is not None:
            await flight.landed.wait()
            if (error := flight.error) is not None:
                raise error.retold(usage=Usage(), spared=error.usage + error.spared) from error
            if flight.result is not None:
                return flight.result, True
        flight = flights[key] = _Flight()
        try:
            flight.result = await work()
        except BackendError as error:
            flight.error = error
            raise
        finally:
            del flights[key]
            flight.landed.set()
        return flight.result, False
