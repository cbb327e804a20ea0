"""The short labels that stand for candidates in a prompt: how many candidates in, as many labels out."""

from __future__ import annotations

from typing import Literal, TypeAlias

LabelStyle: TypeAlias = Literal["auto", "letters", "numbers"]

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def make_labels(count: int, style: LabelStyle = "auto") -> tuple[str, ...]:
    """`count` different labels, each one token for the usual tokenizers.

    ``letters`` gives A to Z and so at most 26; ``numbers`` gives 1, 2, 3 ...; ``auto`` takes letters while they last.

    Raises:
        ValueError: more than 26 letters are wanted.
    """
    if style == "letters" and count > len(LETTERS):
        raise ValueError(f"letters label at most {len(LETTERS)} candidates, not {count}")
    if style == "numbers" or count > len(LETTERS):
        return tuple(str(number) for number in range(1, count + 1))
    return LETTERS[:count]
