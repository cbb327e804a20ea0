"""An Outcome and the catalogue go in, all that the page shows of the case comes out as visible, shortened texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import escape

from llmrank.catalog import Catalog
from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.outcomes import Outcome
from llmrank.evaluation.report.numbers import count, joined, ordinal, significant
from llmrank.evaluation.report.values import label, unit, value_text
from llmrank.evaluation.report.visible import shortened, visible

_HISTORY, _PLACES, _EXCHANGES = 20, 30, 6
"""The most items of a history, places of an order, and prompts of a case that are shown."""
_TITLE_CHARS, _NOTE_CHARS, _LISTED = 200, 400, 20
_LEAST_CHARS = 80


@dataclass(frozen=True, slots=True)
class Place:
    """One place of an order: what stands there, and a few words on it."""

    rank: int
    title: str
    relevant: bool
    words: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt with its answer: texts with a heading each, and the answer or the error."""

    prompt: tuple[tuple[str, str], ...]
    answer: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CaseView:
    """A case as the page shows it; `earlier`, `places_left_out` and `prompts_left_out` count what is not shown."""

    number: int
    user: str
    status: str
    failed: bool
    value: str
    found_at: str
    query: str | None
    history: tuple[str, ...]
    earlier: int
    relevant: tuple[str, ...]
    places: tuple[Place, ...]
    places_left_out: int
    facts: tuple[tuple[str, str], ...]
    prompts: tuple[Asked, ...]
    prompts_left_out: int


def case_view(outcome: Outcome, measure: Measure, catalog: Catalog, *, room: int) -> CaseView:
    """What the page shows.

    Args:
        outcome: The case and what a ranker made of it.
        measure: The measure by which it was chosen.
        catalog: Has the titles; an id that it lacks stands for itself.
        room: The most bytes of HTML for prompts and answers together, about.
    """
    record, case = outcome.record, outcome.question

    def title(item_id: str) -> str:
        text = catalog[item_id].title if item_id in catalog else item_id
        return shortened(visible(text), _TITLE_CHARS)

    places = _places(outcome, title)
    at = [place.rank for place in places if place.relevant]
    shown = [place for place in places if place.rank <= _PLACES or place.relevant]
    trace = record.get("trace") or ()
    part = room // max(1, min(len(trace), _EXCHANGES))
    value = value_text(measure, outcome.values[measure.name])
    return CaseView(
        number=outcome.case,
        user=shortened(visible(outcome.user_id), _TITLE_CHARS),
        status=outcome.status,
        failed=outcome.failed,
        value=f"{label(measure)} {value} {unit(measure)}".strip(),
        found_at=f"{joined([ordinal(rank) for rank in at])} of {len(places)}" if at else "not in the order",
        query=None if case.query is None else shortened(visible(case.query), _NOTE_CHARS),
        history=tuple(map(title, case.history[-_HISTORY:])),
        earlier=max(0, len(case.history) - _HISTORY),
        relevant=tuple(map(title, case.relevant[:_LISTED])),
        places=tuple(shown),
        places_left_out=len(places) - len(shown),
        facts=tuple(_facts(record, title)),
        prompts=tuple(_asked(exchange, part) for exchange in trace[:_EXCHANGES]),
        prompts_left_out=max(0, len(trace) - _EXCHANGES),
    )


def _places(outcome: Outcome, title: Any) -> list[Place]:
    shown_at = {item_id: place for place, item_id in enumerate(outcome.record.get("shown") or (), start=1)}
    by_id = {item["id"]: item for item in outcome.record["items"]}
    relevant = set(outcome.question.relevant)
    places = []
    for rank, item_id in enumerate(outcome.order, start=1):
        words = [f"shown {ordinal(shown_at[item_id])}"] if item_id in shown_at else []
        item = by_id.get(item_id, {})
        if item.get("score") is not None:
            words.append(f"score {significant(item['score'], 4)}")
        if item.get("ranked_by") == "fallback" and not outcome.failed:
            words.append("not ranked by the model")
        places.append(Place(rank, title(item_id), item_id in relevant, ", ".join(words)))
    return places


def _facts(record: Mapping[str, Any], title: Any) -> Iterator[tuple[str, str]]:
    """What else is known of the ranking, a heading and a text each; what is empty is left out."""
    if record.get("error"):
        yield "Error", shortened(visible(record["error"]), _NOTE_CHARS)
    yield from (("Repair", shortened(visible(each), _NOTE_CHARS)) for each in record.get("repairs") or ())
    if record.get("invented"):
        yield "Invented", _list([shortened(visible(each), _TITLE_CHARS) for each in record["invented"]])
    if record.get("filled") and record["status"] == "partial":
        yield "Not ranked by the model", _list([title(each) for each in record["filled"]])
    cut = record.get("cut") or {}
    words = [
        text
        for key, text in (
            ("history", f"{cut.get('history')} of the oldest items of the history"),
            ("constrained", f"{cut.get('constrained')} candidates that do not meet the constraints"),
            ("prefiltered", f"{cut.get('prefiltered')} candidates that the prefilter left out"),
            ("seen", f"{len(cut.get('seen') or ())} candidates that the user has already"),
            ("item_texts", f"the ends of {len(cut.get('item_texts') or ())} item texts"),
        )
        if cut.get(key)
    ]
    if words:
        yield "Not shown to the model", joined(words)
    yield from (("Note", shortened(visible(each), _NOTE_CHARS)) for each in record.get("notes") or ())
    usage = record["usage"]
    if usage["calls"] or usage["retries"]:
        spent = f"{count(usage['prompt_tokens'])} prompt and {count(usage['completion_tokens'])} answer tokens"
        spent += f", calls: {usage['calls']}" + (f", retries: {usage['retries']}" if usage["retries"] else "")
        yield "Cost", spent + (f", {significant(record['latency'])} s" if record.get("latency") is not None else "")


def _list(texts: Sequence[str]) -> str:
    more = len(texts) - _LISTED
    return "; ".join([*texts[:_LISTED], *([f"and {more} more"] if more > 0 else [])])


def _asked(exchange: Mapping[str, Any], room: int) -> Asked:
    messages = exchange.get("messages") or ()
    if messages:
        part = room * 3 // 4 // len(messages)
        prompt = tuple((visible(each["role"]), _text(each["content"], part)) for each in messages)
    else:
        prompt = (("prefix", _text(exchange.get("prefix", ""), room // 2)),)
    return Asked(prompt, tuple(_answer(exchange, room // 4)))


def _answer(exchange: Mapping[str, Any], room: int) -> Iterator[tuple[str, str]]:
    if "error" in exchange:
        yield "error", _text(exchange["error"], room)
        return
    if "scores" in exchange:
        yield "log-likelihood of each continuation", _text(_scores(exchange), 2 * room)
        return
    if exchange.get("reasoning"):
        yield "reasoning", _text(exchange["reasoning"], room // 3)
    reason = exchange.get("finish_reason")
    ended = f", ended by {visible(reason)}" if reason not in (None, "stop") else ""
    yield f"raw answer{ended}", "(no text)" if exchange.get("text") is None else _text(exchange["text"], room // 3)
    if exchange.get("label_logprobs"):
        lines = (f"{label}  {significant(logprob, 4)}" for label, logprob in exchange["label_logprobs"].items())
        yield "log-probability of each label", _text("\n".join(lines), room // 3)


def _scores(exchange: Mapping[str, Any]) -> str:
    """A line each: nats a token, tokens, text."""
    lines = []
    for (logprob, tokens), text in zip(exchange["scores"], exchange["continuations"], strict=False):
        mean = significant(logprob / tokens, 4) if logprob is not None and tokens else "–"
        lines.append(f"{mean} nats a token, {tokens} tokens: {' '.join(str(text).split())}")
    return "\n".join(lines)


def _text(text: object, room: int) -> str:
    shown = visible(text, lines=True)
    size = len(escape(shown).encode())  # an angle bracket takes four bytes of HTML, a Chinese character three
    return shown if size <= room else shortened(shown, max(len(shown) * room // size, _LEAST_CHARS))
