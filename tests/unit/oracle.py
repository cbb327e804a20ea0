"""A model that knows the true order, for tests of strategies: prompts go in, right answers come out, or wrong ones on demand.

An `Oracle` is the answer function that `llmrank.driver.advance` takes, the fast way to run a strategy:

    ranking = advance(strategy.flow(request, WIDE), Oracle(["c2", "c0", "c1"]))

`Oracle.backend()` is the same as a Backend that can do everything, for whatever runs through a Ranker. It knows candidates by
`Prompt.item_ids`, never by what a prompt says, so it also answers prompts that show no titles at all.
"""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from llmrank.budget import Budget, EstimateCounter
from llmrank.errors import AuthenticationError, BackendError, BadRequestError, ServerError
from llmrank.labels import make_labels
from llmrank.protocols import ModelInfo
from llmrank.types import Capability, Completion, ContinuationScore, Cut, Item, Message, Prompt, ResolvedRequest, Usage
from llmrank.writer import PromptWriter, Written
from tests.unit.scripted import ScriptedBackend

WINDOW = 1_000_000
WIDE = Budget(WINDOW, EstimateCounter())
"""A window that nothing has to be cut for."""

Fault: TypeAlias = Literal["server", "auth", "refused", "unreadable", "partial", "no-logprobs"]
"""What can go wrong with an answer.

server, auth  an error that every further question would meet, too
refused       an error of this question alone
unreadable    words that name no candidate, and no log-probabilities or scores
partial       half of the labels, log-probabilities or scores
no-logprobs   the right text without log-probabilities; nothing is wrong then if a prompt asks for none
"""

STOPPING: tuple[Fault, ...] = ("server", "auth")
MILD: tuple[Fault, ...] = ("refused", "unreadable", "partial", "no-logprobs")


class Oracle:
    """Answers every kind of prompt by a true order.

    Args:
        truth: The ids, best first; or a worth for each id, higher is better, the same for ties.
        errs: The probability that an answer is wrong. Equal prompts get equal answers, whatever the order they are asked in.
        faults: What goes wrong then.
        seed: Of the faults.

    Attributes:
        prompts: All that were asked.
        erred: How many of the answers were wrong.
    """

    def __init__(
        self,
        truth: Sequence[str] | Mapping[str, float],
        errs: float = 0.0,
        *,
        faults: Sequence[Fault] = (*STOPPING, *MILD),
        seed: int = 0,
    ) -> None:
        worth = truth if isinstance(truth, Mapping) else {item_id: -place for place, item_id in enumerate(truth)}
        lowest, highest = min(worth.values(), default=0.0), max(worth.values(), default=0.0)
        # From 0.01 to 0.99, so that each is a probability. What is not known (items without content) is worth the middle.
        self._worth = {
            item_id: 0.01 + 0.98 * (value - lowest) / ((highest - lowest) or 1.0) for item_id, value in worth.items()
        }
        self._errs, self._faults, self._seed = errs, tuple(faults), seed
        self.prompts: list[Prompt] = []
        self.erred = 0

    def __call__(self, prompt: Prompt) -> Completion | BackendError:
        self.prompts.append(prompt)
        fault, dice = self._fault(prompt)
        if fault == "server":
            return ServerError("500: the oracle is out")
        if fault == "auth":
            return AuthenticationError("401: the oracle does not know you")
        if fault == "refused":
            return BadRequestError("400: the oracle does not like this one")
        if prompt.continuations:
            return self._scores(prompt, fault, dice)
        if prompt.answer == "free":
            return _said("" if fault else "This person likes what they like.")
        values = self._values(prompt)
        order = sorted(range(len(prompt.labels)), key=lambda place: -values[place])  # stable: ties as shown
        if fault == "unreadable":
            return _said("Well, it depends.")
        if fault == "partial":
            order = order[: len(order) // 2]
        text = _text(prompt, order)
        if not prompt.label_logprobs or fault == "no-logprobs":
            return _said(text)
        total = math.log(sum(values))
        return _said(text, {prompt.labels[place]: math.log(values[place]) - total for place in order})

    def backend(self) -> OracleBackend:
        """The oracle as a Backend."""
        return OracleBackend(self)

    def _fault(self, prompt: Prompt) -> tuple[Fault | None, random.Random]:
        """What goes wrong with this prompt: always the same, so that it does not matter who is asked first."""
        words = "".join(message.content for message in prompt.messages) + prompt.prefix + "".join(prompt.continuations)
        dice = random.Random(f"{self._seed}:{zlib.crc32(words.encode())}:{prompt.item_ids}")  # noqa: S311 - faults, no secrets
        if dice.random() >= self._errs:
            return None, dice
        fault = dice.choice(self._faults)
        if fault == "no-logprobs" and not (prompt.label_logprobs or prompt.continuations):
            return None, dice
        if fault == "partial" and prompt.answer == "label" and not prompt.label_logprobs:
            fault = "unreadable"  # half of one label
        self.erred += 1
        return fault, dice

    def _values(self, prompt: Prompt) -> list[float]:
        """A probability for each label (they need not add up to 1): of the candidates, or of the words of a verdict on one."""
        worths = [self._worth.get(item_id, 0.5) for item_id in prompt.item_ids]
        if len(worths) == len(prompt.labels):
            return worths
        (worth,) = worths
        verdict = [1e-6] * len(prompt.labels)
        # Yes stands before no, grades from the lowest on. The mean of the grades is finer than any one of them.
        best, worst = (-1, 0) if prompt.labels[0].isdigit() else (0, -1)
        verdict[best], verdict[worst] = worth, 1.0 - worth
        return verdict

    def _scores(self, prompt: Prompt, fault: Fault | None, dice: random.Random) -> Completion:
        """The log-likelihood of each continuation; without a prefix's help it says nothing of an item (see `Likelihood`)."""
        known = [math.log(self._worth.get(item_id, 0.5)) for item_id in prompt.item_ids]
        if prompt.shared:
            known = [0.0 for _ in known]  # the unconditional likelihood: all items are alike
        if fault == "partial":
            known = [value if dice.random() < 0.5 else math.nan for value in known[:-1]] + [math.nan]
        elif fault:
            known = [math.nan for _ in known]
        return Completion(
            scores=tuple(ContinuationScore(value * 4, 4) for value in known), usage=Usage(calls=1), model="oracle"
        )


class OracleBackend(ScriptedBackend):
    """An Oracle that can do all that a backend can do."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(oracle, loglik=lambda prefix, text: 0.0, window=WINDOW)
        self._oracle = oracle

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({"generate", "score", "label_logprobs"})

    async def info(self) -> ModelInfo:
        return ModelInfo(context_window=WIDE.window, counter=WIDE.counter)

    async def score(self, prompt: Prompt) -> Completion:
        answer = self._oracle(prompt)
        if isinstance(answer, BackendError):
            raise answer
        return answer


class PlainWriter(PromptWriter):
    """Writes what an Oracle needs and renders no template, which is most of the time that a test of many prompts takes."""

    def write(self, request: ResolvedRequest, candidates: Sequence[Item], budget: Budget, **how: Any) -> Written:
        ids = tuple(item.id for item in candidates)
        chat = self.template.kind == "chat"
        words = f"{how.get('step')} {how.get('answers')} {' '.join(item.title for item in candidates)}"
        return Written(
            messages=(*how.get("before", ()), Message("user", words)) if chat else (),
            prefix="" if chat else f"{len(request.history)} events",
            labels=make_labels(len(ids), self.options.labels),
            item_ids=ids,
            texts=tuple(item.title for item in candidates),
            history_texts=(),
            cut=Cut(),
            fingerprint=self.fingerprint,
        )


def _text(prompt: Prompt, order: Sequence[int]) -> str:
    labels = [prompt.labels[place] for place in order]
    if prompt.answer == "json":
        return json.dumps({"ranking": labels})
    if prompt.answer == "label":
        return labels[0] if labels else "Hm."
    return " > ".join(f"[{label}]" for label in labels)


def _said(text: str, logprobs: Mapping[str, float] | None = None) -> Completion:
    return Completion(text, "stop", Usage(prompt_tokens=100, completion_tokens=1, calls=1), (), logprobs, model="oracle")
