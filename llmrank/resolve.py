"""A RankRequest and a catalogue go in; a ResolvedRequest, in which every id is an Item, comes out, or one clear error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from llmrank.catalog import Catalog
from llmrank.errors import RequestError, nearest
from llmrank.types import Constraint, Event, Item, RankRequest, ResolvedRequest


def resolve(request: RankRequest, catalog: Catalog | None) -> ResolvedRequest:
    """Looks up every id and checks the request.

    Args:
        request: What the caller asked.
        catalog: Where ids are looked up; None if every entry is an Item.

    Raises:
        RequestError: no candidates, a candidate twice, an entry of the wrong type, a `top_k` below 1; a constraint on an
            attribute that no item has.
        UnknownItemError: an id that the catalogue does not have.
    """
    if not isinstance(request, RankRequest):
        raise RequestError(
            "not a RankRequest", field="request", value=request, fix="make one: RankRequest(history, candidates)"
        )
    if request.top_k is not None and (
        isinstance(request.top_k, bool) or not isinstance(request.top_k, int) or request.top_k < 1
    ):
        raise RequestError(
            "must be a whole number of at least 1", field="top_k", value=request.top_k, fix="or leave it out for all"
        )
    if request.query is not None and not isinstance(request.query, str):
        raise RequestError("must be a text", field="query", value=request.query, fix="write a sentence, or leave it out")
    candidates = _candidates(request.candidates, catalog)
    return ResolvedRequest(
        history=tuple(_events(request.history, catalog)),
        candidates=candidates,
        query=request.query.strip() or None if request.query else None,
        user_id=request.user_id,
        top_k=request.top_k,
        constraints=tuple(_constraints(request.constraints, candidates, catalog)),
    )


def _constraints(given: Sequence[Constraint], candidates: Sequence[Item], catalog: Catalog | None) -> Iterator[Constraint]:
    _refuse_no_list(given, "constraints", "give a list of Constraints")
    for place, constraint in enumerate(given):
        field = f"constraints[{place}]"
        if not isinstance(constraint, Constraint):
            raise RequestError("not a Constraint", field=field, value=constraint, fix="write Constraint('year', '>=', 1990)")
        name = constraint.attribute
        known: frozenset[str] = frozenset() if catalog is None else catalog.attribute_names
        if name not in known and not any(name in item.attributes for item in candidates):
            known |= {each for item in candidates for each in item.attributes}
            raise RequestError("no item has this attribute", field=field, value=name, fix=nearest(name, known))
        yield constraint


def _events(history: Sequence[str | Item | Event], catalog: Catalog | None) -> Iterator[Event]:
    _refuse_no_list(history, "history")
    for place, entry in enumerate(history):
        field = f"history[{place}]"
        if isinstance(entry, Event):
            _finite(entry.timestamp, f"{field}.timestamp")
            _finite(entry.rating, f"{field}.rating")
            yield replace(entry, item=_item(entry.item, catalog, field))
        else:
            yield Event(_item(entry, catalog, field))


def _candidates(candidates: Sequence[str | Item] | None, catalog: Catalog | None) -> Sequence[Item]:
    if candidates is None:
        if catalog is None or not len(catalog):
            raise RequestError("none were given and there is no catalogue", field="candidates", fix="give ids or Items to rank")
        return catalog.items
    if catalog is not None and candidates is catalog.items:
        return catalog.items  # already checked, and perhaps a million
    _refuse_no_list(candidates, "candidates")
    found: dict[str, Item] = {}
    for place, entry in enumerate(candidates):
        item = _item(entry, catalog, f"candidates[{place}]")
        if item.id in found:
            raise RequestError(
                "the same id stands twice", field=f"candidates[{place}]", value=item.id, fix="give each candidate once"
            )
        found[item.id] = item
    if not found:
        raise RequestError("there is nothing to rank", field="candidates", value=[], fix="give at least one id or Item")
    return tuple(found.values())


def _item(entry: object, catalog: Catalog | None, field: str) -> Item:
    if isinstance(entry, Item):
        if not isinstance(entry.id, str) or not entry.id or not isinstance(entry.title, str):
            raise RequestError("an Item needs an id and a title, both texts", field=field, value=entry, fix="mend the Item")
        return entry
    if isinstance(entry, str):
        if catalog is None:
            raise RequestError(
                "an id needs a catalogue to be looked up in",
                field=field,
                value=entry,
                fix="give a catalogue, or an Item(id, title)",
            )
        return catalog.get(entry, field)
    raise RequestError("not an id (a text) or an Item", field=field, value=entry, fix="ids are texts: write '603', not 603")


def _refuse_no_list(value: object, field: str, fix: str = "give a list of ids or Items") -> None:
    # A text is a sequence of texts: "603" would silently be read as the ids 6, 0 and 3.
    if isinstance(value, str | bytes):
        raise RequestError("a single text instead of a list", field=field, value=value, fix=fix)
    if not isinstance(value, Iterable):
        raise RequestError("not a list", field=field, value=value, fix=fix)


def _finite(value: float | None, field: str) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
        raise RequestError("must be a finite number", field=field, value=value, fix="give a number, or leave it out")
