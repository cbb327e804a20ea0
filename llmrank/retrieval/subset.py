"""A catalogue's items and places in it go in, a list of the items at these places comes out, without a copy of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from llmrank.types import Item


class Subset(Sequence[Item]):
    """Some of a catalogue's items, in its order. What keeps vectors or scores of the whole can look them up by `places`.

    Args:
        whole: The catalogue's items (`Catalog.items`).
        places: Where the items stand in it, rising, int64 of shape (n,).
    """

    def __init__(self, whole: Sequence[Item], places: NDArray[np.int64]) -> None:
        self.whole = whole
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Item]:
        whole = self.whole
        return (whole[place] for place in self.places.tolist())

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Subset: ...
    def __getitem__(self, at: int | slice) -> Item | Subset:
        return Subset(self.whole, self.places[at]) if isinstance(at, slice) else self.whole[int(self.places[at])]

    def __repr__(self) -> str:
        return f"Subset({len(self):,} of {len(self.whole):,} items)"
