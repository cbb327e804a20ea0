"""`eval/bench_collaborative.py` on small data: what it hides, what it counts, what it prints."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrank.catalog import Catalog
from llmrank.types import Item
from tests.unit.collaborative_data import random_interactions

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "eval" / "bench_collaborative.py"))


def test_equal_scores_count_by_the_mean_of_their_places() -> None:
    """Alone at place 2: 1 / log2(3); tied at places 1 and 2: the mean of both; beyond a cutoff nothing."""
    second = 1 / math.log2(3)
    assert BENCH["gains"](np.array([0.5, 0.9, 0.1]), 0) == pytest.approx([0, second, second])
    assert BENCH["gains"](np.array([0.5, 0.5, 0.1]), 0) == pytest.approx([0.5, (1 + second) / 2, (1 + second) / 2])


def test_what_is_asked_is_not_learned() -> None:
    """The last item of each user asked about is gone from what is learned, stands first of 20, and not in the history."""
    table = random_interactions(60, 24)
    catalog = Catalog([Item(f"i{number}", "") for number in range(200)])
    rest, questions = BENCH["held_out"](table, catalog, 20, 0, {"u1", "u3"})
    assert len(rest) == len(table) - len(questions)
    for question in questions:
        request = question.request
        left = [row.item_id for row in rest.rows() if row.user_id == request.user_id]
        assert [item.id for item in request.history_items] == left
        assert question.relevant == 0
        assert len({item.id for item in request.candidates} - set(left)) == 20
        assert request.user_id not in {"u1", "u3"}


def test_a_row_is_printed_for_each_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From files, for cases as given."""
    histories = {"1": ["a", "b"], "2": ["a", "b", "c"]}
    lines: dict[str, list[Any]] = {
        "items.jsonl": [{"id": each, "title": each} for each in "abcd"],
        "log.jsonl": [{"user_id": user, "history": items} for user, items in histories.items()],
        "cases.jsonl": [{"user_id": "3", "history": ["a"], "candidates": ["d", "b"], "relevant": ["b"]}],
    }
    for name, records in lines.items():
        (tmp_path / name).write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    files = [f"--{option}={tmp_path / name}" for option, name in zip(("items", "interactions", "cases"), lines, strict=True)]
    BENCH["main"]([*files, "--only=item-knn,transitions", "--grid", "neighbours=1,5", "last=null"])
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "1 users; trained on 5 interactions of 2 users"
    assert [row.split(" | ")[:3] for row in rows[3:]] == [
        [f"| {kind}", f"neighbours {count}, last None", "100.00"] for kind in ("item-knn", "transitions") for count in (1, 5)
    ]
