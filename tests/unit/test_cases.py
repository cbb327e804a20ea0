"""Case files: what comes back as it was written, what stands for the candidates, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import jsonl
from llmrank.errors import DatasetError
from llmrank.evaluation.cases import Case, read_cases, read_requests, write_cases
from llmrank.wish import Constraint

CONSTRAINED = '{"user_id": "u", "history": [], "candidates": [], "relevant": [], "constraints": %s}'
TEXTS = st.text(st.characters()) | st.just("half a pair \ud83d")


CONSTRAINTS = st.builds(
    Constraint, TEXTS.filter(bool), st.sampled_from(["=", "!="]), TEXTS | st.integers(-(2**60), 2**60)
) | st.builds(
    Constraint, TEXTS.filter(bool), st.sampled_from(["in", "not in"]), st.lists(TEXTS | st.floats(-9, 9), min_size=1).map(tuple)
)


def test_a_request_does_not_hold_the_answer() -> None:
    """The label stays in the case."""
    case = Case("u", ("i1",), ("i2", "i3"), ("i3",), query="something funny")
    request = case.request
    assert (request.user_id, request.history, request.candidates, request.query) == (
        "u",
        ("i1",),
        ("i2", "i3"),
        "something funny",
    )
    assert not hasattr(request, "relevant")


@given(
    cases=st.lists(
        st.builds(
            Case,
            user_id=TEXTS.filter(bool),
            history=st.lists(TEXTS).map(tuple),
            candidates=st.none() | st.lists(TEXTS).map(tuple),
            relevant=st.lists(TEXTS).map(tuple),
            query=st.none() | TEXTS,
            constraints=st.lists(CONSTRAINTS, max_size=3).map(tuple),
        ),
        max_size=5,
    )
)
def test_cases_come_back_as_written(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any ids and queries, also with line breaks in them, and with what UTF-8 cannot hold."""
    path = tmp_path_factory.mktemp("cases") / "cases.jsonl"
    write_cases(path, cases)
    assert list(read_cases(path)) == cases


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r", line 2: not JSON"),
        ("[" * 100_000, r", line 2: not JSON"),
        ("[1]", r", line 2: not a JSON object"),
        ('{"user_id": "u", "history": "i1", "candidates": [], "relevant": []}', r"history: .*, line 2: must be a list of ids"),
        (
            '{"user_id": "u", "history": [], "candidates": [null], "relevant": []}',
            r"candidates: .*, line 2: must be a list",
        ),
        ('{"history": [], "candidates": [], "relevant": []}', r"user_id: .*, line 2"),
        ('{"user_id": "u", "history": [], "candidates": [], "relevant": [], "query": 1}', r"query: .*, line 2"),
        (CONSTRAINED % '{"attribute": "year"}', r"constraints: .*, line 2: must be a list"),
        (
            CONSTRAINED % '[{"attribute": "year", "op": ">="}]',
            r"constraints: .*, line 2: is no object of attribute, op and value",
        ),
        (CONSTRAINED % '[["year", ">=", 3]]', r"constraints: .*, line 2: is no object"),
        (CONSTRAINED % '[{"attribute": "year", "op": [], "value": 3}]', r"constraints: .*, line 2: is no object"),
        (CONSTRAINED % '[{"attribute": "year", "op": "=>", "value": 3}]', r"constraints: .*, line 2: unknown operator"),
        (CONSTRAINED % '[{"attribute": "year", "op": ">=", "value": "new"}]', r"constraints: .*, line 2: .* finite number"),
        (CONSTRAINED % '[{"attribute": 3, "op": "=", "value": [1]}]', r"constraints: .*, line 2: needs the name"),
    ],
    ids=lambda text: text[:40],
)
def test_a_malformed_case_is_named_by_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    """One error with the line number."""
    path = tmp_path / "cases.jsonl"
    path.write_text('{"user_id": 1, "history": [603], "candidates": ["a"], "relevant": []}\n' + line + "\n", encoding="utf-8")
    reader = read_cases(path)
    assert next(reader) == Case("1", ("603",), ("a",), ())
    with pytest.raises(DatasetError, match=message):
        next(reader)


def test_a_case_without_candidates_stands_for_the_whole_catalogue(tmp_path: Path) -> None:
    """Null, or no such key: in cases as in requests."""
    path = tmp_path / "cases.jsonl"
    path.write_text(
        '{"user_id": "u", "history": ["a"], "candidates": null, "relevant": ["b"]}\n'
        '{"user_id": "v", "history": ["a"], "relevant": ["b"]}\n',
        encoding="utf-8",
    )
    assert [case.candidates for case in read_cases(path)] == [None, None]
    assert [request.candidates for request in read_requests(path)] == [None, None]


def test_a_retrievers_list_can_stand_for_the_candidates(tmp_path: Path) -> None:
    """By its name; a mistyped name, and a case without lists, are errors that name the line."""
    path = tmp_path / "cases.jsonl"
    case = '{"user_id": "u", "history": ["a"], "candidates": ["b"], "relevant": ["b"]'
    path.write_text(f'{case}, "retrieved": {{"bm25": ["c", "d"]}}}}\n{case}}}\n', encoding="utf-8")
    reader = read_cases(path, retrieved="bm25")
    assert next(reader).candidates == ("c", "d")
    with pytest.raises(DatasetError, match=r"retrieved: .*, line 2: must be an object of lists"):
        next(reader)
    with pytest.raises(DatasetError, match=r"retrieved: .*, line 1: no such list .*did you mean 'bm25'"):
        next(read_cases(path, retrieved="bm26"))


def test_lines_can_be_read_again_by_their_place(tmp_path: Path) -> None:
    """From plain and packed files, with a byte order mark, blank lines and letters of several bytes before them."""
    text = '\ufeff{"user_id": "ü"}\n\n{"user_id": "日本"}\r\n{"user_id": "c"}'
    plain, packed = tmp_path / "cases.jsonl", tmp_path / "cases.jsonl.gz"
    plain.write_bytes(text.encode())
    packed.write_bytes(gzip.compress(text.encode()))
    for path in (plain, packed):
        found = list(jsonl.lines(path, "cases"))
        assert [line.record["user_id"] for line in found] == ["ü", "日本", "c"]
        assert [line.where for line in found] == [f"{path}, line {number}" for number in (1, 3, 4)]
        again = jsonl.lines_at(path, [line.offset for line in reversed(found)], "cases")
        assert [line.record["user_id"] for line in again] == ["c", "日本", "ü"]


def test_missing_files_are_input_errors(tmp_path: Path) -> None:
    """Not an OSError."""
    with pytest.raises(DatasetError, match="cannot be read"):
        list(read_cases(tmp_path / "none.jsonl"))
    packed = tmp_path / "cases.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"user_id": "u"}\n' * 100)[:-9])
    with pytest.raises(DatasetError, match="the compressed file is damaged"):
        list(jsonl.lines(packed, "cases"))


def test_a_case_and_a_request_carry_the_same_constraints(tmp_path: Path) -> None:
    """Those of the line, to the ranker."""
    path = tmp_path / "cases.jsonl"
    path.write_text(CONSTRAINED % '[{"attribute": "year", "op": "in", "value": [1990, 1991]}]' + "\n", encoding="utf-8")
    expected = (Constraint("year", "in", (1990, 1991)),)
    assert next(read_cases(path)).request.constraints == expected
    assert next(read_requests(path)).constraints == expected
