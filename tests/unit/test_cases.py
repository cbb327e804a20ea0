"""Cases: what leave-last-out promises, and files that come back as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import DatasetError
from llmrank.evaluation.cases import Case, Interaction, leave_last_out, popularity, read_cases, read_interactions, write_cases

ITEMS = [f"i{number}" for number in range(40)]
TEXTS = st.text(st.characters()) | st.just("half a pair \ud83d")


def log(user_id: str, *items: str) -> list[Interaction]:
    """One user's interactions, a second apart."""
    return [Interaction(user_id, item_id, float(second)) for second, item_id in enumerate(items)]


def test_the_last_item_is_the_target_and_the_rest_the_history() -> None:
    """Oldest first, whatever the order of the input."""
    (case,) = leave_last_out(list(reversed(log("u", "i3", "i1", "i2"))), n_candidates=5, item_ids=ITEMS)
    assert case.history == ("i3", "i1")
    assert case.relevant == ("i2",)


@given(chosen=st.lists(st.sampled_from(ITEMS), min_size=2, max_size=25, unique=True), seed=st.integers(0, 5))
def test_candidates_are_the_target_and_items_never_chosen(chosen: list[str], seed: int) -> None:
    """So many as asked for, none twice, none from the history."""
    (case,) = leave_last_out(log("u", *chosen), n_candidates=15, seed=seed, item_ids=ITEMS)
    assert len(set(case.candidates)) == len(case.candidates) == 15
    assert set(case.candidates) & set(chosen) == {chosen[-1]}
    assert set(case.candidates) <= set(ITEMS)


def test_other_users_change_nothing() -> None:
    """The generator is seeded per user."""
    alone = leave_last_out(log("u", "i1", "i2", "i3"), item_ids=ITEMS)
    among = leave_last_out([*log("a", "i5", "i6"), *log("u", "i1", "i2", "i3"), *log("z", "i9", "i2")], item_ids=ITEMS)
    assert among[1] == alone[0]
    assert [case.user_id for case in among] == ["a", "u", "z"]


def test_seeds_differ_and_repeat() -> None:
    """One seed, one draw; another seed keeps the target and draws other candidates."""
    log_u = log("u", "i1", "i2", "i3")
    first, again, other = (leave_last_out(log_u, seed=seed, item_ids=ITEMS)[0] for seed in (0, 0, 1))
    assert first == again
    assert first.relevant == other.relevant
    assert set(first.candidates) != set(other.candidates)


def test_the_target_stands_at_any_place() -> None:
    """Shuffled: over many users the target is not always first, so its place tells nothing."""
    cases = leave_last_out([each for user in range(60) for each in log(str(user), "i1", "i2")], n_candidates=4, item_ids=ITEMS)
    assert {case.candidates.index("i2") for case in cases} == {0, 1, 2, 3}


def test_ties_in_time_do_not_depend_on_the_order_of_the_file() -> None:
    """Interactions of one second are ordered by a hash of user and item."""
    tied = [Interaction("u", item_id, 7.0) for item_id in ("i1", "i2", "i3", "i4")]
    assert leave_last_out(tied, item_ids=ITEMS) == leave_last_out(list(reversed(tied)), item_ids=ITEMS)
    targets = {
        leave_last_out([Interaction(str(user), item_id, 7.0) for item_id in ("i1", "i2", "i3")], item_ids=ITEMS)[0].relevant
        for user in range(40)
    }
    assert targets == {("i1",), ("i2",), ("i3",)}


def test_an_item_chosen_twice_counts_the_first_time() -> None:
    """So the target is never in the history."""
    (case,) = leave_last_out(log("u", "i1", "i2", "i1"), item_ids=ITEMS)
    assert (case.history, case.relevant) == (("i1",), ("i2",))


def test_users_without_a_history_are_left_out() -> None:
    """One interaction is a target without a history."""
    interactions = [*log("one", "i1"), *log("two", "i1", "i2"), *log("three", "i1", "i2", "i3")]
    assert [case.user_id for case in leave_last_out(interactions, item_ids=ITEMS)] == ["two", "three"]
    assert [case.user_id for case in leave_last_out(interactions, item_ids=ITEMS, min_history=2)] == ["three"]


def test_too_few_items_are_refused() -> None:
    """The message names the user and the remedy, instead of drawing for ever."""
    with pytest.raises(DatasetError, match=r"n_candidates: user 'u'.*fewer candidates"):
        leave_last_out(log("u", *ITEMS[:30]), n_candidates=20, item_ids=ITEMS)
    (case,) = leave_last_out(log("u", *ITEMS[:30]), n_candidates=11, item_ids=ITEMS)
    assert set(case.candidates) == {*ITEMS[30:], ITEMS[29]}


def test_popularity_leaves_the_targets_out() -> None:
    """What has to be found must not be counted; a second choice of the same user counts once."""
    interactions = [*log("a", "i1", "i2"), *log("b", "i1", "i1", "i3")]
    cases = leave_last_out(interactions, item_ids=ITEMS)
    assert popularity(interactions) == {"i1": 2, "i2": 1, "i3": 1}
    assert popularity(interactions, cases) == {"i1": 2}


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
            candidates=st.lists(TEXTS).map(tuple),
            relevant=st.lists(TEXTS).map(tuple),
            query=st.none() | TEXTS,
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


def test_interactions_are_read_from_csv(tmp_path: Path) -> None:
    """With or without ratings."""
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp,rating\nu,i1,5,4\nu,i2,6,\n", encoding="utf-8")
    assert read_interactions(path) == [Interaction("u", "i1", 5.0, 4.0), Interaction("u", "i2", 6.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id\nu,i1\n", "a column is missing"),
        ("user_id,item_id,timestamp\nu,i1,yesterday\n", r", line 2: not a number"),
        ("user_id,item_id,timestamp\nu,i1,5\n,i1,5\n", r", line 3: an id is empty"),
        ("user_id,item_id,timestamp\nu,i1\n", r", line 2: not a number"),
        ("user_id,item_id,timestamp\nu,i1,5\nu,i1,nan\n", r", line 3: not a number \('nan' is not finite\)"),
        ("user_id,item_id,timestamp\nu,i1,1e999\n", r", line 2: not a number"),
        ("user_id,item_id,timestamp,rating\nu,i1,5,-inf\n", r", line 2: not a number"),
        (f"user_id,item_id,timestamp\nu,{'x' * 200_000},5\n", r", line 2: not CSV"),
        (f"user_id,{'x' * 200_000}\n", r", line 1: not CSV"),
    ],
    ids=lambda text: text[:40],
)
def test_a_malformed_interaction_is_named_by_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    """One error with the line number."""
    path = tmp_path / "log.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_interactions(path)


def test_missing_files_are_input_errors(tmp_path: Path) -> None:
    """Not an OSError."""
    with pytest.raises(DatasetError, match="cannot be read"):
        list(read_cases(tmp_path / "none.jsonl"))
    with pytest.raises(DatasetError, match="cannot be read"):
        read_interactions(tmp_path / "none.csv")
