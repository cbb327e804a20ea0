"""A prompt goes in; if it is the same for every request, its answer is kept in memory, and the next one who asks gets it."""

from __future__ import annotations

import threading
from collections import OrderedDict

from llmrank.backends._flight import SingleFlight
from llmrank.backends.cache import hit, says_something
from llmrank.backends.wrapper import Ask, BackendWrapper
from llmrank.codec import cache_key
from llmrank.protocols import Backend
from llmrank.types import Completion, Prompt

MOST_SHARED = 65_536
"""The most answers that are kept: 0.5 kB for a title's likelihood, 1.4 kB for 20 log-probabilities, so 30 to 90 MB."""


class SharedBackend(BackendWrapper):
    """Asks what is the same for every request (`Prompt.shared`) once, and passes all other prompts on.

    Such are the priors of calibration and the likelihoods of titles without a history. Their answers are kept as long as this
    wrapper lives; those not asked for longest go first. An answer that was kept, or that somebody else is just waiting for,
    costs what one from the answer cache costs. Errors and answers that say nothing are not kept.

    Args:
        inner: The backend to ask.
        most: The most answers that are kept.
    """

    def __init__(self, inner: Backend, most: int = MOST_SHARED) -> None:
        super().__init__(inner)
        self._most = most
        self._kept: OrderedDict[bytes, Completion] = OrderedDict()
        self._lock = threading.Lock()  # a Ranker may be used from several event loops at once
        self._flights: SingleFlight[Completion] = SingleFlight()

    async def around(self, prompt: Prompt, ask: Ask) -> Completion:
        """The kept answer of a shared prompt, or a new one. Raises BackendError."""
        if not prompt.shared:
            return await ask(prompt)
        key = cache_key(prompt, {})  # there is only one backend here
        if (kept := self._get(key)) is not None:
            return hit(kept)
        answer, anothers = await self._flights.run(key, lambda: ask(prompt))
        if anothers:
            return hit(answer)
        if says_something(answer):
            self._keep(key, answer)
        return answer

    def _get(self, key: bytes) -> Completion | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: bytes, answer: Completion) -> None:
        with self._lock:
            self._kept[key] = answer
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
