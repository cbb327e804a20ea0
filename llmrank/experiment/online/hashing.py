"""Texts go in, a place in [0, 1) or a stream of coins comes out: the same on every machine, in every version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Final

_UNIT: Final = 2.0**-53
"""A float has 53 bits: with more of them, the largest hashes would round to 1."""


def joined(*parts: str) -> bytes:
    """The parts as bytes that no other parts have: each goes with its length, so ("ab", "c") is not ("a", "bc")."""
    # surrogatepass: an id may hold half a surrogate pair, as JSON may, and is an id all the same.
    return "".join(f"{len(part)}:{part}," for part in parts).encode("utf-8", "surrogatepass")


def digest(*parts: str) -> str:
    """128 bits of them as 32 hexadecimal digits."""
    return blake2b(joined(*parts), digest_size=16).hexdigest()


def places(*parts: str) -> Callable[[str], float]:
    """A function from a last part to a place in [0, 1): uniform, and independent of the one that other parts give.

    Args:
        parts: What the place is for, such as ``("variant", "recency")``; that is hashed once, here.
    """
    begun = blake2b(joined(*parts), digest_size=8)

    def place(last: str) -> float:
        hashed = begun.copy()
        # The last part needs no length: nothing follows it, and those before it end where their lengths say.
        hashed.update(last.encode("utf-8", "surrogatepass"))
        return (int.from_bytes(hashed.digest(), "big") >> 11) * _UNIT

    return place


def coins(*parts: str) -> Iterator[bool]:
    """Fair coins without end."""
    block = 0
    while True:
        bits = int.from_bytes(blake2b(joined(*parts, str(block))).digest(), "big")
        for _ in range(512):
            yield bool(bits & 1)
            bits >>= 1
        block += 1
