"""What every strategy ends with: the order of the candidates and how it came about go in, a Ranking comes out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from llmrank.errors import BackendError
from llmrank.types import Cut, Item, RankedItem, Ranking


def ranked(
    items: Iterable[Item], *, unranked: Collection[str] = (), scores: Mapping[str, float] | None = None
) -> tuple[RankedItem, ...]:
    """Numbers items from 1 in the order given.

    Args:
        items: Best first.
        unranked: Ids that the model did not rank.
        scores: The strategy's score by id, higher is better; None where it knows only an order.
    """
    return tuple(
        RankedItem(
            item,
            rank,
            None if scores is None else scores.get(item.id),
            "fallback" if item.id in unranked else "model",
        )
        for rank, item in enumerate(items, start=1)
    )


def failed(
    candidates: Sequence[Item],
    error: BackendError,
    *,
    strategy: str,
    fingerprint: str,
    cut: Cut | None = None,
    notes: tuple[str, ...] = (),
) -> Ranking:
    """The Ranking for a backend that did not answer: the order given, and why."""
    ids = tuple(item.id for item in candidates)
    return Ranking(
        ranked(candidates, unranked=frozenset(ids)),
        status="error",
        filled=ids,
        cut=cut or Cut(),
        error=error,
        strategy=strategy,
        fingerprint=fingerprint,
        notes=notes,
    )


def join_cuts(cuts: Iterable[Cut]) -> Cut:
    """What several prompts of one ranking did not show, together."""
    cuts = list(cuts)
    texts = dict.fromkeys(item_id for cut in cuts for item_id in cut.item_texts)
    assumed = [cut.assumed_window for cut in cuts if cut.assumed_window is not None]
    return Cut(
        history=max((cut.history for cut in cuts), default=0),
        item_texts=tuple(texts),
        assumed_window=assumed[0] if assumed else None,
    )
