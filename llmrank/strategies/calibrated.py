"""Calibration: a strategy ranks, and what the model would prefer whatever the items are is taken off.

A model leans to some labels and places ("A", the first, "Yes") before it has read a single item. Contextual calibration
measures that with content-free items, such as "N/A", and divides it out (Zhao et al., "Calibrate Before Use", ICML 2021,
arXiv:2102.09690; for the letters of a list, Zheng et al., ICLR 2024, arXiv:2309.03882, whose PriDe estimates the prior from
permutations of real items instead).

The prior is measured for each form of question that the inner strategy asks. A form is the labels: twenty letters, two letters,
"Yes" and "No". The question that measures it is the first one that the inner strategy itself asks about as many content-free
items, with a history of as many content-free events, without ratings, and a content-free wish if there is one; where that was
read, with as many content-free phrases of what is wanted and what is not. So it has the same words around the same labels at
the same places, and nothing else. Each content-free text gives one such question. The labels' probabilities are brought to a
sum of 1 in each answer and averaged over the answers. From then on, each answer of that form that the inner strategy gets has
this prior divided out.

A list of "N/A" twenty times is no list that a model was made for, and what it prefers there is not all that it prefers among
titles. So the texts can be titles of the domain, and be mixed: each question shows other ones in another order (Fei et al.,
"Mitigating Label Biases for In-context Learning", ACL 2023, arXiv:2305.19148, take random words of the domain; Zhou et al.,
"Batch Calibration", ICLR 2024, arXiv:2309.17249, the questions of a batch themselves). What one title would change is then
averaged out over the questions, and what the place changes stays.

This needs the probabilities of labels. An order that a model writes for content-free items is mostly the order shown, and does
not tell how little it takes to change that: with rank scores less such ranks, a model that never errs fell from NDCG 1 to 0.6
(20 candidates, one of them relevant). So strategies that read texts are refused.

No question of a calibration knows the user or the items, so they are the same for all requests with as many events and
candidates, and are kept (`Prompt.shared`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, TypeAlias

from llmrank.budget import Budget
from llmrank.errors import BackendError, ConfigError
from llmrank.protocols import Flow
from llmrank.strategies.built import BuiltStrategy
from llmrank.strategies.calls import Calls
from llmrank.strategies.choice import known_logprobs
from llmrank.strategies.content_free import STAND_IN, ContentFree, has_wish, phrases_shown
from llmrank.strategies.self_consistency import SelfConsistency
from llmrank.template import Template
from llmrank.types import Capability, Completion, Prompt, Ranking, ResolvedRequest

Form: TypeAlias = tuple[tuple[str, ...], int, str]
"""What prompts of one prior have in common: labels, number of candidates, fingerprint of the template."""


MOST_SHAPES = 256
"""For how many forms and lengths of history the content-free questions are kept, some 10 kB each."""

MOST_MIXED = 256
"""The most mixed questions a form: beyond, chance has long been averaged out."""


@dataclass(frozen=True, slots=True)
class CalibratedOptions:
    """What is taken off, and how it is measured.

    Attributes:
        weight: How much of the prior is taken off: 0 nothing, 1 all of it.
        content_free: A template of the kind ``text``: one content-free text a line; with `mix` also titles
            of the domain, such as ``calibration/movies``.
        mix: In how many questions the texts are shown, many of them in each, shuffled; 0 for one question a text, which shows
            that text alone.
        history: What stands before the content-free items: a ``content-free`` history, the same for every user, or that of the
            ``user``, which has to be asked anew for each.
    """

    weight: float = 1.0
    content_free: str = "calibration/content-free"
    mix: int = 0
    history: Literal["content-free", "user"] = "content-free"

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= MOST_MIXED:
            raise ConfigError(
                f"must be from 0 to {MOST_MIXED}",
                field="strategy.mix",
                value=self.mix,
                fix="16 tell a prior well; 0 mixes nothing",
            )
        if not 0.0 <= self.weight <= 1.0:
            raise ConfigError("must be from 0 to 1", field="strategy.weight", value=self.weight, fix="1 takes all of it off")
        if self.history not in ("content-free", "user"):
            raise ConfigError("unknown", field="strategy.history", value=self.history, fix="use content-free or user")


class Calibrated:
    """Ranks with `inner`, without what it would prefer whatever the items are.

    If a prior cannot be measured, nothing is taken off from there on, and a repair says so. `RankedItem.score` is the inner
    strategy's, of calibrated probabilities.

    Args:
        inner: What ranks.
        template: Renders the content-free texts, one a line.
        options: What is taken off.

    Raises:
        ConfigError: the inner strategy reads no label's probability, or is calibrated already; the template is a chat, or has
            no line.
        TemplateError: the template does not render.
    """

    name = "calibrated"

    def __init__(self, inner: BuiltStrategy, template: Template, options: CalibratedOptions | None = None) -> None:
        self.inner = inner
        self._options = options or CalibratedOptions()
        if "score" in inner.needs:
            raise ConfigError(
                "scores the items' own texts, so there is no label that a model could prefer",
                field="strategy.of",
                value=inner.name,
                fix="take off what is likely anyway with its own option pmi_weight",
            )
        if "label_logprobs" not in inner.needs:
            raise ConfigError(
                "reads texts, and a prior is measured by the probabilities of labels",
                field="strategy.of",
                value=inner.name,
                fix="use read: logprobs, single-token, or self-consistency, which works for texts",
            )
        if _is_calibrated(inner):
            raise ConfigError("is calibrated already", field="strategy.of", value=inner.name, fix="wrap it once")
        self._template = template
        self._content_free = ContentFree(template, self._options.mix)
        # They are the same for all requests of one shape, and to write them takes three times as long as to write the question.
        self._kept = lru_cache(maxsize=MOST_SHAPES)(self._measuring)

    @property
    def needs(self) -> frozenset[Capability]:
        """What the inner strategy needs."""
        return self.inner.needs

    @property
    def templates(self) -> Mapping[str, str]:
        """The inner strategy's, and the content-free texts'."""
        return {**self.inner.templates, self._template.name: self._template.fingerprint}

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """The inner strategy's prompts, and those that measure priors, which are the same for all requests of one form.

        There are at most as many forms as prompts, and as numbers of candidates that a prompt can show.

        Raises:
            RequestError: the inner strategy refuses so many candidates.
        """
        inner = self.inner.calls(count, top_k)
        return inner + Calls(min(1, inner.least), min(inner.most, count)) * len(self._content_free)

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """The inner flow; the questions that measure a prior go out with the first prompt that it is for.

        Raises:
            LLMRankError: as the flow runs, what the inner flow raises.
        """
        flow = self.inner.flow(request, budget)
        priors = _Priors(self._options.weight)
        try:
            step = next(flow)
            while True:
                asked = self._questions(step, priors, request, budget)
                answers = yield [*step, *(prompt for questions in asked.values() for prompt in questions)]
                start = len(step)
                for form, questions in asked.items():
                    priors.learn(form, answers[start : start + len(questions)])
                    start += len(questions)
                step = flow.send([priors.taken_off(*each) for each in zip(step, answers[: len(step)], strict=True)])
        except StopIteration as stop:
            ranking: Ranking = stop.value
            return self._named(ranking, priors.repairs, priors.notes)
        finally:
            flow.close()

    def _questions(
        self, step: Sequence[Prompt], priors: _Priors, request: ResolvedRequest, budget: Budget
    ) -> dict[Form, tuple[Prompt, ...]]:
        """What has to be asked to know the priors of the forms in a step that are not known yet."""
        found: dict[Form, tuple[Prompt, ...]] = {}
        for prompt in step:
            form = _form(prompt)
            if prompt.label_logprobs and form not in found and priors.wants(form):
                shape = _Shape.of(form, request, budget)
                found[form] = self._kept(shape) if self._options.history == "content-free" else self._measuring(shape)
        return found

    def _measuring(self, shape: _Shape) -> tuple[Prompt, ...]:
        """The questions about content-free items that measure the prior of a form; none if there is no such."""
        questions = (self._question(shape, number) for number in range(len(self._content_free)))
        return tuple(question for question in questions if question is not None)

    def _question(self, shape: _Shape, number: int) -> Prompt | None:
        """The first question of this form that the inner strategy asks about content-free items, if there is one."""
        # About a list of so many alone it may ask another question than about so many of a longer list: then the whole list.
        for count in (shape.form[1], shape.candidates):
            alone = self._options.history == "content-free"
            request = self._content_free.request(number, shape.request, count, history=alone)
            flow = self.inner.flow(request, shape.budget)
            try:
                step: Sequence[Prompt] = next(flow, ())
            finally:
                flow.close()
            for question in step:
                if question.label_logprobs and _form(question) == shape.form:
                    return self._marked(question)
        return None

    def _marked(self, prompt: Prompt) -> Prompt:
        """A question about content-free items: it holds no item's id, and is the same for every request."""
        ids = tuple(f"{STAND_IN}-{number}" for number, _ in enumerate(prompt.item_ids, start=1))
        return replace(prompt, item_ids=ids, shared=self._options.history == "content-free")

    def _named(self, ranking: Ranking, repairs: Iterable[str], notes: Iterable[str]) -> Ranking:
        repairs = tuple(dict.fromkeys((*ranking.repairs, *repairs)))
        return replace(
            ranking,
            strategy=f"{self.name}({ranking.strategy or self.inner.name})",
            status="repaired" if ranking.status == "ok" and repairs else ranking.status,
            repairs=repairs,
            notes=tuple(dict.fromkeys((*ranking.notes, *notes))),
        )


@dataclass(frozen=True, slots=True)
class _Shape:
    """All that shapes a content-free question, and a request and a budget of that shape."""

    form: Form
    candidates: int
    events: int
    wish: bool
    phrases: tuple[int, int]
    top_k: int | None
    window: int
    counter: str
    request: ResolvedRequest = field(compare=False)
    budget: Budget = field(compare=False)

    @classmethod
    def of(cls, form: Form, request: ResolvedRequest, budget: Budget) -> _Shape:
        """The shape of the questions that a request has asked for a form."""
        sizes = len(request.candidates), len(request.history), has_wish(request)
        phrases = phrases_shown(request)
        return cls(form, *sizes, phrases, request.top_k, budget.window, budget.counter.name, request, budget)


@dataclass(slots=True)
class _Priors:
    """The priors of one ranking: answers to content-free questions go in, calibrated answers come out.

    Attributes:
        weight: How much of a prior is taken off.
        known: The natural logarithm of each label's prior, by form.
        missing: True once a prior could not be measured; then nothing is measured or taken off any more.
    """

    weight: float
    known: dict[Form, Mapping[str, float]] = field(default_factory=dict)
    missing: bool = False
    repairs: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def wants(self, form: Form) -> bool:
        """Whether the prior of this form has to be measured."""
        return not self.missing and form not in self.known

    def learn(self, form: Form, answers: Sequence[Completion | BackendError]) -> None:
        """Takes the answers to the content-free questions of a form."""
        labels = form[0]
        read: list[list[float]] = []
        why = "no log-probabilities came" if answers else "the strategy asks no such question of content-free items"
        for answer in answers:
            if isinstance(answer, BackendError):
                why = str(answer)
                continue
            self.notes |= dict.fromkeys(answer.notes)
            logprobs = known_logprobs(answer, labels)
            if not logprobs:
                continue
            if len(logprobs) < len(labels):
                self.repairs["a content-free answer lacks labels; they count as the least likely one in it"] = None
            floor = min(logprobs.values())  # the server left it out for being less likely than those
            read.append(_probabilities([logprobs.get(place, floor) for place in range(len(labels))]))
        if len(read) < max(1, len(answers)):
            self.repairs[self._lacking(len(read), len(answers), why)] = None
        if not read:
            self.missing = True
            return
        means = [math.fsum(each) / len(read) for each in zip(*read, strict=True)]
        if faint := [label for label, mean in zip(labels, means, strict=True) if mean < _FAINT]:
            note = f"the prior of {', '.join(faint)} is below {_FAINT:g}; to take it off may decide the order alone"
            self.notes[note] = None
        self.known[form] = {label: math.log(max(mean, _LEAST)) for label, mean in zip(labels, means, strict=True)}

    def taken_off(self, prompt: Prompt, answer: Completion | BackendError) -> Completion | BackendError:
        """The answer as the inner strategy gets it: without the prior, its probabilities brought to a sum of 1."""
        if self.missing or not prompt.label_logprobs or isinstance(answer, BackendError):
            return answer
        prior = self.known[_form(prompt)]
        logprobs = known_logprobs(answer, prompt.labels)
        if not logprobs:
            return answer
        labels = [prompt.labels[place] for place in logprobs]
        values = [logprob - self.weight * prior[label] for label, logprob in zip(labels, logprobs.values(), strict=True)]
        total = _log_sum(values)
        return replace(
            answer, label_logprobs={label: min(0.0, value - total) for label, value in zip(labels, values, strict=True)}
        )

    def _lacking(self, came: int, asked: int, why: str) -> str:
        """What is said where content-free questions have no answer."""
        if came:
            return f"the prior is measured by {came} of {asked} content-free questions: {why}"
        since = " from here on" if self.known else ""
        return f"the prior is not taken off{since}: {why}"


_LEAST = 1e-300
"""In place of a probability that is too small for a float."""

_FAINT = 1e-6
"""A prior below this is told: what is divided by it may win whatever the answer was."""


def _is_calibrated(strategy: BuiltStrategy) -> bool:
    while isinstance(strategy, SelfConsistency):
        strategy = strategy.inner
    return isinstance(strategy, Calibrated)


def _form(prompt: Prompt) -> Form:
    return prompt.labels, len(prompt.item_ids), prompt.fingerprint


def _log_sum(values: Sequence[float]) -> float:
    """The logarithm of the sum of the values' exponentials."""
    most = max(values)
    return most + math.log(math.fsum(math.exp(value - most) for value in values))


def _probabilities(logprobs: Sequence[float]) -> list[float]:
    total = _log_sum(logprobs)
    return [math.exp(logprob - total) for logprob in logprobs]
