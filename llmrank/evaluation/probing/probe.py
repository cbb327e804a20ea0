"""A model, a catalogue and cases go in; what the model knows of them by heart comes out, beside a control that it cannot know.

A model that was trained on a data set may recall instead of recommend, and no metric shows the difference (Di Palma et al.
2025, "Do LLMs Memorize Recommendation Datasets?", arXiv:2505.10212). Text counts as memorised if its first part makes a model
write the second (Carlini et al. 2021, arXiv:2012.07805; 2023, arXiv:2202.07646), asked in the name of the data set if the
variable `dataset` gives it (Golchin and Surdeanu 2024, arXiv:2308.08493). Two things are asked:

titles     The first half of a title's words is shown. Control: a synthetic catalogue, in which each first half is joined to the
           second half of another title: the same words, but no title.
histories  A user's history is shown in order, without candidates; what the case asks for comes next. Control: the same
           history shuffled but for its last item, which stays: who knows only the user's taste, or goes only by what was
           chosen last, does as well without the order.

Method ``complete``, for models that generate: the model writes what comes next. Method ``score``, for models that tell
likelihoods (and may be too small to follow an instruction): the true end has to be likelier than 9 others; chance is 10 %.

What it does not show: a true second half is also better language than one from another title, and the order of a history
also tells where a user's taste went. So a difference is a reason to doubt and no proof that the model has seen the data set;
nor is none, in a small sample, a proof that it has not: mind the intervals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmrank.budget import Budget
from llmrank.catalog import Catalog
from llmrank.errors import BackendError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.probing.judge import Method, judge_history, judge_title, summarize
from llmrank.evaluation.probing.material import (
    SHOWN_HISTORY,
    AskedHistory,
    HalvedTitle,
    draw_histories,
    draw_titles,
)
from llmrank.evaluation.records import usage_record
from llmrank.protocols import Backend
from llmrank.template import Templates
from llmrank.types import Completion, Event, Item, Prompt, ResolvedRequest, Usage
from llmrank.writer import PromptOptions, PromptWriter, Written

MAX_TOKENS = 64
"""The longest answer: a title is shorter."""


async def probe(
    backend: Backend,
    catalog: Catalog,
    cases: Iterable[Case],
    *,
    titles: int = 100,
    histories: int = 100,
    seed: int = 0,
    fields: Sequence[str] = ("title",),
    templates: Templates | None = None,
    variables: Mapping[str, object] | None = None,
    method: Method | None = None,
) -> dict[str, Any]:
    """Asks a model what it knows by heart.

    Args:
        backend: The model, with retries and answer cache around it (`guard`): then a probe that was interrupted goes on.
        catalog: Whose titles are asked for.
        cases: Whose histories are asked for; read once, to the end.
        titles: How many titles, at most; 0 for none.
        histories: How many histories, at most; 0 for none.
        seed: Of the draws.
        fields: What is shown of the items of a history.
        templates: Where templates come from; by default the packaged ones.
        variables: For the templates: `domain`, and `dataset`, the data set's name.
        method: How it is asked; by default ``score`` if the backend can.

    Returns:
        JSON values; `titles` and `histories` are None if none could be asked for (or were wanted). `ci` is the 95 % interval of
        the difference (Newcombe), `real_ci` and `control_ci` those of the rates (Wilson). `near` (exact or nearly so) is None
        for ``score``, `chance` for ``complete``. Questions without an answer are not in `n`. ::

            {"method": "complete" | "score",
             "titles": {"n": 100, "unanswered": 0, "real": 0.31, "real_ci": [0.23, 0.41], "control": 0.0, "control_ci": [...],
                        "difference": 0.31, "ci": [0.21, 0.41], "near": {"real": 0.35, "control": 0.0}, "chance": None,
                        "examples": [{"shown": ..., "true": ..., "said": ..., "match": "exact" | "near" | None}]},
             "histories": {...}, "templates": {name: fingerprint}, "usage": {...}}

    Raises:
        BackendError: not one prompt was answered.
        TemplateError: a template does not render.
        ConfigError: a field or variable is wrong.
    """
    chosen: Method = method or ("score" if "score" in backend.capabilities else "complete")
    writers = _Writers.of(chosen, tuple(fields), variables or {}, templates)
    budget = Budget.of(await backend.info(), backend.model)
    asked_titles = draw_titles(catalog, titles, seed)
    asked_histories = draw_histories(catalog, cases, histories, seed)

    def write() -> list[Prompt]:
        of_histories = (
            writers.history(each, shown, budget) for each in asked_histories for shown in (each.shown, each.shuffled)
        )
        return [*(writers.title(each, budget) for each in asked_titles), *of_histories]

    prompts = await asyncio.to_thread(write)  # it counts tokens, for which some backends ask their server
    answers = await _ask_all(backend, prompts)
    usage = sum((answer.usage + answer.spared for answer in answers), Usage())
    of_titles, of_histories = answers[: len(asked_titles)], answers[len(asked_titles) :]
    pairs = zip(of_histories[::2], of_histories[1::2], strict=True)
    return {
        "method": chosen,
        "titles": summarize(chosen, [judge_title(chosen, *each) for each in zip(asked_titles, of_titles, strict=True)]),
        "histories": summarize(chosen, [judge_history(chosen, *each) for each in zip(asked_histories, pairs, strict=True)]),
        "templates": writers.fingerprints,
        "usage": usage_record(replace(usage, cache_hits=0)),
    }


@dataclass(frozen=True, slots=True)
class _Writers:
    """Write the prompts of one method."""

    method: Method
    titles: PromptWriter
    histories: PromptWriter

    @classmethod
    def of(
        cls, method: Method, fields: tuple[str, ...], variables: Mapping[str, object], templates: Templates | None
    ) -> _Writers:
        names = ("probe/title", "probe/history") if method == "complete" else ("likelihood/next-line", "likelihood/next-line")

        def writer(name: str, fields: tuple[str, ...]) -> PromptWriter:
            return PromptWriter(PromptOptions(name, history=SHOWN_HISTORY, fields=fields, variables=variables), templates)

        return cls(method, writer(names[0], ("title",)), writer(names[1], fields))

    @property
    def fingerprints(self) -> dict[str, str]:
        return {writer.template.name: writer.fingerprint for writer in (self.titles, self.histories)}

    def title(self, title: HalvedTitle, budget: Budget) -> Prompt:
        if self.method == "complete":
            return _chat(self._write(self.titles, (Item("", title.beginning),), budget))
        # All texts begin alike, so that whole lines are in the order of their ends' likelihoods after that beginning.
        lines = [f"{title.beginning} {end}" for end in (title.rest, title.other, *title.decoys)]
        return _scored(self._write(self.titles, (), budget), lines)

    def history(self, history: AskedHistory, shown: tuple[Item, ...], budget: Budget) -> Prompt:
        written = self._write(self.histories, shown, budget)
        if self.method == "complete":
            return _chat(written)
        return _scored(written, [self.histories.item_text(item) for item in (history.next, *history.decoys)])

    def _write(self, writer: PromptWriter, shown: tuple[Item, ...], budget: Budget) -> Written:
        # Room for the longest line that is scored: PromptOptions.max_item_chars in tokens, or for the answer.
        reserve = MAX_TOKENS if self.method == "complete" else 4 * MAX_TOKENS
        return writer.write(ResolvedRequest(tuple(map(Event, shown)), ()), (), budget, reserve=reserve)


def _chat(written: Written) -> Prompt:
    return Prompt(messages=written.messages, max_tokens=MAX_TOKENS, fingerprint=written.fingerprint)


def _scored(written: Written, lines: Sequence[str]) -> Prompt:
    return Prompt(prefix=written.prefix, continuations=tuple(f"{line}\n" for line in lines), fingerprint=written.fingerprint)


async def _ask_all(backend: Backend, prompts: Sequence[Prompt]) -> list[Completion | BackendError]:
    """All answers, in order; the backend's own limit says how many prompts are under way.

    Raises:
        BackendError: there is no answer at all.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_ask(backend, prompt)) for prompt in prompts]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors  # a missing package, a bug: all of them meet the same
    answers = [task.result() for task in tasks]
    errors_only = [answer for answer in answers if isinstance(answer, BackendError)]
    if answers and len(errors_only) == len(answers):
        raise errors_only[0]
    return answers


async def _ask(backend: Backend, prompt: Prompt) -> Completion | BackendError:
    try:
        return await (backend.score(prompt) if prompt.kind == "score" else backend.generate(prompt))
    except BackendError as error:
        return error
