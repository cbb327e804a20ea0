"""The text of a LightGBM model goes in; the same comes out, checked to the last number, or an error that says what is wrong.

LightGBM itself ends the process on a text that was cut short or edited. So nothing is given to it that was not read here first:
a few lines that say what the model is, and trees whose numbers are as many as they should be, whose nodes are each reached
once, and whose columns are there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

MOST_LEAVES = 1024
"""Of one tree: what LightGBM says of a candidate it says by recursion."""

_EXPECTED: Mapping[str, str] = {
    "num_class": "1",
    "num_tree_per_iteration": "1",
    "label_index": "0",
    "objective": "lambdarank",
}
"""What a ranker has; other objectives would read more of the text."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_WHOLE = re.compile(r"-?\d{1,9}")
_NODES = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child")
_INNER = ("internal_value", "internal_weight", "internal_count")
_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
_WHOLES = frozenset({"split_feature", "decision_type", "left_child", "right_child", "internal_count", "leaf_count"})
_ORDER = ("num_leaves", "num_cat", *_NODES, *_LEAVES, *_INNER, "is_linear", "shrinkage")


def checked_text(text: str, columns: int) -> str:
    """The text of a ranker by boosted trees without what is not needed to score with it.

    Args:
        text: What LightGBM's `model_to_string` gave.
        columns: How many columns the model must have.

    Raises:
        ValueError: the text is not that of such a model; what is wrong with it is named.
    """
    head, blank, rest = text.partition("\n\n")
    if not blank:
        raise ValueError("it ends before its first tree")
    lines = head.split("\n")
    if lines[0] != "tree":
        raise ValueError("it does not begin like a model")
    said = _pairs(lines[1:])
    for key, value in _EXPECTED.items():
        if said.get(key) != value:
            raise ValueError(f"{key} is {said.get(key)!r} and not {value!r}")
    if said.get("max_feature_idx") != str(columns - 1):
        raise ValueError(f"its last column is {said.get('max_feature_idx')!r} and not {columns - 1}")
    trees, end, _ = rest.partition("end of trees\n")
    if not end:
        raise ValueError("its trees have no end")
    blocks = list(_blocks(trees, said.get("tree_sizes", "")))
    for number, block in enumerate(blocks):
        try:
            _check_tree(block, number, columns)
        except ValueError as error:
            raise ValueError(f"tree {number}: {error}") from error
    names = " ".join(f"Column_{column}" for column in range(columns))
    kept = [
        "tree",
        "version=v4",
        *(f"{key}={value}" for key, value in _EXPECTED.items()),
        f"max_feature_idx={columns - 1}",
        f"feature_names={names}",
        f"feature_infos={' '.join(['none'] * columns)}",
        f"tree_sizes={' '.join(str(len(block)) for block in blocks)}",
    ]
    return "\n".join(kept) + "\n\n" + "".join(blocks) + "end of trees\n"


def _pairs(lines: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for line in lines:
        key, sign, value = line.partition("=")
        if key in pairs:
            raise ValueError(f"{key[:40]!r} stands twice")
        pairs[key] = value if sign else ""
    return pairs


def _blocks(trees: str, sizes: str) -> Iterator[str]:
    """The text of each tree."""
    if not trees.isascii():
        raise ValueError("its trees are not numbers alone")
    lengths = [_whole(size) for size in sizes.split(" ")] if sizes else []
    if any(length < 1 for length in lengths) or sum(lengths) != len(trees):
        raise ValueError(f"its trees have {len(trees):,} characters, and should have {sum(lengths):,}")
    start = 0
    for length in lengths:
        yield trees[start : start + length]
        start += length


def _check_tree(block: str, number: int, columns: int) -> None:
    lines = block.rstrip("\n").split("\n")
    if lines[0] != f"Tree={number}":
        raise ValueError("it does not begin where it should")
    said = _pairs(lines[1:])
    if tuple(said) != _ORDER:
        raise ValueError("its lines are not those of a tree")
    leaves = _whole(said["num_leaves"])
    if not 1 <= leaves <= MOST_LEAVES or said["num_cat"] != "0" or said["is_linear"] != "0":
        raise ValueError(f"it must have from 1 to {MOST_LEAVES} leaves, and compare numbers alone")
    if not math.isfinite(_number(said["shrinkage"])):
        raise ValueError("shrinkage is no number")
    values: dict[str, list[float]] = {}
    for key in (*_NODES, *_LEAVES, *_INNER):
        values[key] = [(_whole if key in _WHOLES else _number)(each) for each in said[key].split(" ")] if said[key] else []
        expected = leaves if key in _LEAVES else leaves - 1
        # What a tree of one leaf says besides its value differs between LightGBM's versions, and is not used.
        if len(values[key]) != expected and (leaves > 1 or key == "leaf_value" or len(values[key]) > 1):
            raise ValueError(f"{key} has {len(values[key])} values and not {expected}")
    if leaves == 1:
        return
    if not all(0 <= column < columns for column in values["split_feature"]):
        raise ValueError("it looks at a column that is not there")
    if not all(kind in (0, 2, 4, 6, 8, 10) for kind in values["decision_type"]):  # odd ones are of categories
        raise ValueError("it compares in a way that is not known")
    if min(*values["leaf_count"], *values["internal_count"]) < 1:
        raise ValueError("nothing is in one of its nodes")
    _check_shape([int(each) for each in (*values["left_child"], *values["right_child"])], leaves)


def _check_shape(children: Sequence[int], leaves: int) -> None:
    """Every node but the first stands behind its only parent, every leaf has one: then it is a tree, and ends."""
    for place, child in enumerate(children):
        parent = place % (leaves - 1)
        if not (parent < child < leaves - 1 or -leaves <= child < 0):
            raise ValueError("a node leads to what cannot follow it")
    if len(set(children)) < len(children):
        raise ValueError("two nodes lead to the same one")


def _whole(text: str) -> int:
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text)


def _number(text: str) -> float:
    if _NUMBER.fullmatch(text) is None or not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:40]!r} is no number")
    return number
