"""A sentence and a model's object about it go in; a Wish comes out in which nothing stands that the sentence does not bear out.

Wishes only order what there is, so they are taken as they come, unless the sentence says the contrary. Constraints leave
candidates out, so each must be said outright (`evidence`): a category that is not becomes a wish or a dislike, a number nothing
but a note. Whatever is left out or changed is told in `Wish.notes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rapidfuzz import fuzz, process

from llmrank.answer.json_reader import Scalar, documents
from llmrank.answer.json_reader import Value as Parsed
from llmrank.answer.titles import LIKENESS
from llmrank.errors import nearest
from llmrank.retrieval.constraints import Attribute, Constraint, Value, fold, number_of
from llmrank.sanitize import EMPTY, clean_text
from llmrank.understanding.evidence import Evidence, decade_of
from llmrank.understanding.schema import MOST_PHRASES, MOST_VALUES, PHRASE_CHARS
from llmrank.wish import OPERATORS, WISH_MEMBERS, Operator, Wish

UNREADABLE: Final = "nothing could be read from the answer about the sentence: it is taken as it stands, without constraints"

# How models write the operators besides the words of the prompt.
_WAYS: Final[Mapping[str, Operator]] = {
    "==": "=",
    "is": "=",
    "<>": "!=",
    "is not": "!=",
    "≤": "<=",
    "≥": ">=",
    "not_in": "not in",
}
_SHORTEST: Final = 5
"""Letters below which values are not compared by likeness."""


@dataclass(frozen=True, slots=True)
class _Condition:
    """What the model gives as a constraint, in the catalogue's own names and kinds."""

    attribute: Attribute
    op: Operator
    values: tuple[Value, ...]

    def constraint(self, values: Sequence[Value] | None = None) -> Constraint:
        kept = self.values if values is None else tuple(values)
        several = self.op in ("in", "not in")
        return Constraint(self.attribute.name, self.op, kept if several else kept[0])


@dataclass(slots=True)
class _Draft:
    """The Wish that is being put together."""

    wishes: dict[str, str] = field(default_factory=dict)
    dislikes: dict[str, str] = field(default_factory=dict)
    constraints: list[Constraint] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)

    def note(self, text: str) -> None:
        self.notes[text] = None

    def prefer(self, value: str, *, wanted: bool) -> None:
        """Adds a wish or a dislike that is not there yet."""
        (self.wishes if wanted else self.dislikes).setdefault(fold(value), value)


def read_wish(
    sentence: str, text: str | None, attributes: Sequence[Attribute], spellings: Callable[[str], Mapping[str, str]]
) -> Wish:
    """Reads a model's answer about a sentence.

    Args:
        sentence: What the user says.
        text: The model's answer; reasoning before it and words around it are passed over.
        attributes: What constraints may use.
        spellings: By name of a category attribute, how the catalogue writes each category, by its folded text.

    Returns:
        The wish; if nothing can be read, one of the sentence alone with a note.
    """
    answer = object_in(text or "")
    if answer is None:
        return Wish(sentence, notes=(UNREADABLE,))
    plain = Evidence(sentence)
    like, draft = [], _Draft()
    for title in _phrases(answer.get("like")):
        if plain.names(title):
            like.append(title)
        else:
            draft.note(f"the sentence does not name {title!r}: it was left out")
    evidence = Evidence(sentence, like)
    for phrase in _phrases(answer.get("wishes")):
        if evidence.signs_of(phrase) == {"unwanted"}:
            draft.note(f"the sentence does not want {phrase!r}: it is no wish")
        else:
            draft.prefer(phrase, wanted=True)
    for phrase in _phrases(answer.get("dislikes")):
        if not evidence.negates or evidence.signs_of(phrase) == {"wanted"}:
            draft.note(f"the sentence does not say that {phrase!r} is unwanted: it is no dislike")
        else:
            draft.prefer(phrase, wanted=False)
    conditions = list(_conditions(answer.get("constraints"), attributes, spellings, draft))
    _judge(conditions, evidence, draft)
    like = list(dict.fromkeys(like))
    return Wish(
        sentence,
        tuple(draft.wishes.values()),
        tuple(like),
        tuple(text for key, text in draft.dislikes.items() if key not in draft.wishes),
        tuple(dict.fromkeys(draft.constraints)),
        tuple(draft.notes),
    )


def claimed(
    text: str | None, attributes: Sequence[Attribute], spellings: Callable[[str], Mapping[str, str]]
) -> tuple[Constraint, ...]:
    """The constraints of a model's answer that the catalogue knows, whatever the sentence says; for measuring what is lost."""
    answer = object_in(text or "") or {}
    return tuple(each.constraint() for each in _conditions(answer.get("constraints"), attributes, spellings, _Draft()))


def object_in(text: str) -> dict[str, Any] | None:
    """The first object in a text that has one of the members asked for, as Python values; None if there is none."""
    for document in documents(text.rpartition("</think>")[2]):
        value = _python(document.value)
        if isinstance(value, dict) and value.keys() & set(WISH_MEMBERS):
            return value
    return None


def _python(value: Parsed, depth: int = 0) -> Any:
    if isinstance(value, Scalar):
        if value.cut:
            return None  # a text that the end of the answer broke off
        return value.text if value.number is None else value.number
    if depth > 4:  # nothing that is asked for lies so deep, and a hostile answer may
        return None
    members = [_python(each, depth + 1) for each in value.values]
    return members if value.keys is None else dict(zip(value.keys, members, strict=True))


def _phrases(value: object) -> list[str]:
    """The clean texts of a list, or of one text, each once."""
    texts = value if isinstance(value, list) else [value]
    clean = (clean_text(text, PHRASE_CHARS) for text in texts if isinstance(text, str) and text.strip())
    return list(dict.fromkeys(text for text in clean if text != EMPTY))[:MOST_PHRASES]


def _conditions(
    value: object,
    attributes: Sequence[Attribute],
    spellings: Callable[[str], Mapping[str, str]],
    draft: _Draft,
) -> Iterable[_Condition]:
    """The constraints of an answer whose attribute, operator and values the catalogue knows; a note on each other one."""
    known = {fold(clean_text(attribute.name)): attribute for attribute in attributes}
    for entry in value if isinstance(value, list) else [value] if isinstance(value, dict) else []:
        if not isinstance(entry, dict):
            continue
        name = str(entry.get("attribute", ""))
        attribute = known.get(fold(name))
        if attribute is None:
            draft.note(f"no constraint can be on {name!r} ({nearest(name, known)}): it was left out")
            continue
        given = entry.get("op", "")
        op = _WAYS.get(fold(str(given)), fold(str(given)))
        values = entry.get("value")
        values = [each for each in (values if isinstance(values, list) else [values]) if isinstance(each, str | float | int)]
        if op not in OPERATORS or not values:
            draft.note(f"the constraint on {name!r} has no operator or value that is known: it was left out")
            continue
        if attribute.kind == "number":
            yield from _numeric(attribute, op, values, draft)
        else:
            yield from _categorical(attribute, op, values[:MOST_VALUES], spellings(attribute.name), draft)


def _numeric(attribute: Attribute, op: Operator, values: Sequence[Value], draft: _Draft) -> Iterable[_Condition]:
    span = decade_of(values[0]) if len(values) == 1 and isinstance(values[0], str) else None
    if span is not None and op in ("=", "in"):
        yield _Condition(attribute, ">=", (span[0],))
        yield _Condition(attribute, "<=", (span[1],))
        return
    numbers = [number for value in values if (number := number_of(value)) is not None]
    if len(numbers) < len(values) or (len(numbers) > 1 and op not in ("in", "not in")):
        draft.note(f"{attribute.name} {op} {', '.join(map(str, values))} is no comparison with a number: it was left out")
        return
    yield _Condition(attribute, op, tuple(int(each) if each.is_integer() else each for each in numbers))


def _categorical(
    attribute: Attribute, op: str, values: Sequence[Value], known: Mapping[str, str], draft: _Draft
) -> Iterable[_Condition]:
    found: list[Value] = []
    for value in values:
        spelt = _spelt(str(value), known)
        if spelt is None:
            draft.note(f"no item has {str(value)!r} among its {attribute.name}: it was left out")
        elif spelt not in found:
            found.append(spelt)
    if not found:
        return
    if op in ("<", "<=", ">", ">="):
        draft.note(f"{attribute.name} cannot be compared by {op}: it was left out")
    elif len(found) > 1 and op in ("=", "!="):  # a list where one value belongs: each of them
        yield from (_Condition(attribute, op, (each,)) for each in found)  # type: ignore[arg-type]  # one of these two
    else:
        yield _Condition(attribute, op, tuple(found))  # type: ignore[arg-type]  # the comparisons are gone


def _spelt(value: str, known: Mapping[str, str]) -> str | None:
    """The catalogue's own spelling of a category; of a misspelt one if only one is like it."""
    key = fold(value)
    if key in known:
        return known[key]
    bare = {fold("".join(filter(str.isalnum, each))): each for each in known}
    squeezed = "".join(filter(str.isalnum, key))
    if squeezed in bare:
        return known[bare[squeezed]]
    if len(key) < _SHORTEST:
        return None
    near = process.extract(key, known.keys(), scorer=fuzz.ratio, score_cutoff=LIKENESS, limit=2)
    return known[near[0][0]] if len(near) == 1 else None


def _judge(conditions: Sequence[_Condition], evidence: Evidence, draft: _Draft) -> None:
    """Keeps the constraints that the sentence states outright."""
    for condition in conditions:
        if condition.attribute.kind == "number":
            constraint = condition.constraint()
            if evidence.supports(constraint, condition.attribute):
                draft.constraints.append(constraint)
            else:
                draft.note(f"the sentence does not say outright that {constraint}: it is no constraint")
    by_attribute: dict[str, list[_Condition]] = {}
    for condition in conditions:
        if condition.attribute.kind == "category":
            by_attribute.setdefault(condition.attribute.name, []).append(condition)
    for group in by_attribute.values():
        _judge_categories(group, evidence, draft)


def _judge_categories(group: Sequence[_Condition], evidence: Evidence, draft: _Draft) -> None:
    """The same for the conditions on one category attribute: alternatives ("comedy or drama") belong together."""
    name = group[0].attribute.name
    wanted: list[str] = []
    either: dict[str, None] = {}
    values = list(dict.fromkeys(str(value) for condition in group for value in condition.values))
    linked, open_ended = evidence.alternatives(values)
    for condition in group:
        positive = condition.op in ("=", "in")
        sign = "wanted" if positive else "unwanted"
        said = [str(value) for value in condition.values if evidence.says(str(value)) == sign]
        for value in map(str, condition.values):
            if value not in said or (positive and _open(value, linked, open_ended)):
                what = "wanted" if positive else "unwanted"
                draft.note(f"the sentence does not say outright that {value} is {what}: it is no constraint on {name}")
                doubtful = evidence.says(value)
                # A paraphrase ("something funny": Comedy) is a wish; what is unwanted is so only where something is negated.
                if (doubtful not in ("wanted", "unwanted") or doubtful == sign) and (positive or evidence.negates):
                    draft.prefer(value, wanted=positive)
        said = [value for value in said if not (positive and _open(value, linked, open_ended))]
        if not said:
            continue
        if not positive:
            draft.constraints.append(condition.constraint(said))
        elif condition.op == "in" and len(said) > 1:
            either |= dict.fromkeys(said)
        else:
            for value in said:
                if linked[value]:
                    either[value] = None
                else:
                    wanted.append(value)
    draft.constraints.extend(Constraint(name, "=", value) for value in wanted)
    complete = [value for value in either if linked[value] <= either.keys()]
    if len(complete) > 1:
        draft.constraints.append(Constraint(name, "in", tuple(complete)))
    for value in either:
        if len(complete) < 2 or value not in complete:
            draft.prefer(value, wanted=True)
            draft.note(f"{value} is one of several that the sentence leaves open: it is no constraint on {name}")


def _open(value: str, linked: Mapping[str, set[str]], open_ended: set[str]) -> bool:
    """True if a category is an alternative to something that is no category of ours ("a comedy or something light")."""
    reached, waiting = set[str](), [value]
    while waiting:
        here = waiting.pop()
        if here not in reached:
            reached.add(here)
            waiting.extend(linked.get(here, ()))
    return bool(reached & open_ended)
