"""The parts of a report: visible text, numbers, TREC ids, worst and best cases, places of labels."""

from __future__ import annotations

import csv
import io
import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.outcomes import Outcome
from llmrank.evaluation.report.csv_files import cases_header, cases_line
from llmrank.evaluation.report.extremes import KEPT, Extremes
from llmrank.evaluation.report.numbers import bin_label, dollars, fixed, joined, ordinal, percent, share, significant
from llmrank.evaluation.report.plots.cost_axis import CostAxis
from llmrank.evaluation.report.plots.labels import Point, place_labels
from llmrank.evaluation.report.plots.style import altair, decades, short_names, svg
from llmrank.evaluation.report.trec import safe_id
from llmrank.evaluation.report.visible import shortened, visible

anything = st.text(st.characters())


@given(anything)
def test_visible_text_hides_nothing(text: str) -> None:
    """No control, bidirectional or half character is left, the text can be written, and doing it twice changes nothing."""
    shown = visible(text)
    shown.encode("utf-8")
    left = {char for char in shown if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}}
    assert left <= set("\u200c\u200d")
    assert visible(shown) == shown


def test_visible_text_keeps_what_is_honest() -> None:
    """Letters of all scripts, joined emoji and accents stay as they are; between ASCII letters a joiner is shown."""
    for text in ("Amélie", "千と千尋", "مرحبا", "👩\u200d👧", "می\u200cخواهم", "tab less"):
        assert visible(text) == text
    assert visible("ad\u200dmin") == "ad⟨U+200D⟩min"
    assert visible("a\nb\tc\x00", lines=True) == "a\nb\tc⟨U+0000⟩"


@given(anything, st.integers(2, 60))
def test_a_shortened_text_keeps_both_ends_and_says_how_much_is_gone(text: str, limit: int) -> None:
    """What fits stays; of what does not, `limit` characters are kept."""
    short = shortened(text, limit)
    if len(text) <= limit:
        assert short == text
    else:
        head, _, tail = short.partition(f" … {len(text) - limit:,} characters left out … ")
        assert len(head) + len(tail) == limit
        assert text.startswith(head)
        assert text.endswith(tail)


@given(anything)
def test_a_trec_id_has_no_white_space_and_can_be_undone(text: str) -> None:
    """One column stays one column, and unquoting gives the id back."""
    safe = safe_id(text)
    assert len(safe.split()) == (1 if text else 0)
    safe.encode("utf-8")
    assert unquote(safe, errors="surrogatepass") == text


@given(st.lists(anything | st.sampled_from(["=1+1", "-2", "@x", "a\rb", '"', ",", "\n"]), min_size=1, max_size=3))
def test_ids_come_out_of_the_csv_file_as_they_went_in(user_ids: list[str]) -> None:
    """Whatever is in them, and not made safe for spreadsheets: who joins the file with other data finds them all."""
    usage = dict.fromkeys(("prompt_tokens", "cached_tokens", "completion_tokens", "calls", "retries"), 0)
    record = {"status": "ok", "latency": None, "usage": usage, "error": None}
    outcomes = [Outcome(0, Case(user_id, (), None, ()), record, (), {}) for user_id in user_ids]
    text = cases_header([]) + "".join(cases_line("r", outcome, []) for outcome in outcomes)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["user_id"] for row in rows] == [each.encode("utf-8", "backslashreplace").decode() for each in user_ids]


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (percent(0.34229), "34.2"),
        (percent(None), "–"),
        (fixed(-0.001), "0.00"),
        (significant(0.0041321), "0.00413"),
        (significant(1234.5), "1,234"),
        (significant(0), "0"),
        (significant(float("nan")), "–"),
        (dollars(None), "unknown"),
        (dollars(12.345), "12.35"),
        (dollars(0.00012345), "0.00012"),
        (share(1, 100_000), "< 0.1 %"),
        (share(0, 0), "–"),
        (ordinal(1), "1st"),
        (ordinal(12), "12th"),
        (ordinal(23), "23rd"),
        (bin_label(51, None), "51+"),
        (bin_label(0, 0), "0"),
        (joined(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_are_written_for_people(got: str, wanted: str) -> None:
    """What is not known is a dash, what is small is not rounded to nothing."""
    assert got == wanted


def outcome(number: int, value: float, place: int | None, *, failed: bool) -> Outcome:
    """A case whose relevant item stands at a place of ten, or nowhere."""
    order = [f"o{n}" for n in range(10)]
    if place is not None:
        order[place - 1] = "wanted"
    case = Case(str(number), (), tuple(order), ("wanted",))
    return Outcome(number, case, {"status": "error" if failed else "ok"}, order, {"ndcg@10": value})


drawn = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 0.5, 1.0, float("nan")]), st.none() | st.integers(1, 10), st.booleans()), max_size=60
)


@given(drawn)
def test_extremes_are_what_sorting_all_cases_would_give(cases: list[tuple[float, int | None, bool]]) -> None:
    """Failures stand first among the worst, then low values; the best are no failures; no case is both, of few half are."""
    extremes = Extremes("ndcg@10")
    outcomes = [outcome(number, value, place, failed=failed) for number, (value, place, failed) in enumerate(cases)]
    for each in outcomes:
        extremes.add(each)
    defined = [each for each in outcomes if each.values["ndcg@10"] == each.values["ndcg@10"]]

    def reachable(each: Outcome) -> bool:
        return "wanted" in each.order

    def depth(each: Outcome) -> int:
        return each.order.index("wanted") + 1 if reachable(each) else 0

    worst_first = sorted(defined, key=lambda each: (not reachable(each), each.values["ndcg@10"], -depth(each), each.case))
    failed = [each for each in worst_first if each.failed]
    answered = [each for each in worst_first if not each.failed]
    room = min(KEPT, max(1, len(defined) // 2))
    kept = failed[: max((room + 1) // 2, room - len(answered))][:room]
    assert extremes.worst == [*kept, *answered[: room - len(kept)]]
    best = extremes.best
    assert len(best) <= len(defined) // 2
    if not failed:
        assert len(best) == min(KEPT, len(defined) // 2)
    assert not any(each.failed for each in best)
    assert not {each.case for each in best} & {each.case for each in extremes.worst}
    values = [(reachable(each), each.values["ndcg@10"]) for each in best]
    assert values == sorted(values, reverse=True)
    if len(answered) >= 2 * KEPT:
        assert len(best) == KEPT


points = st.lists(
    st.builds(Point, st.floats(40, 480), st.floats(20, 300), st.text("abcdefgh-", min_size=1, max_size=22)), max_size=12
)


@given(points)
def test_labels_do_not_cover_each_other(places: list[Point]) -> None:
    """Up to twelve names of full length find places of their own, wherever the points stand."""
    placed = place_labels(places, 520, 320)
    assert [each.text for each in placed] == [point.text for point in places]
    boxes = [(each.x, each.y - 6.5, each.x + 6.1 * len(each.text), each.y + 6.5) for each in placed]
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert right <= 520
        for other in boxes[:number]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


@given(st.lists(st.just(0.0) | st.floats(1e-6, 1e4), min_size=1, max_size=12).filter(any))
def test_a_cost_axis_keeps_the_order_and_names_its_ticks(costs: list[float]) -> None:
    """Dearer is further right; every cost lies on the axis; at least one tick does; where it is logarithmic, 0 has a place."""
    axis = CostAxis(costs, 520)
    ordered = [axis.pixel(cost) for cost in sorted(costs)]
    assert ordered == sorted(ordered)
    assert ordered[0] >= 0
    assert ordered[-1] <= 520
    assert axis.ticks
    if axis.logarithmic and 0.0 in costs:
        assert axis.ticks[0] == (axis.pixel(0.0), "0")


@given(st.floats(1e-6, 1e6), st.floats(1.5, 1e6))
def test_ticks_of_a_logarithmic_axis_lie_on_it(low: float, factor: float) -> None:
    """All are inside, in order, and few enough to read."""
    ticks = decades(low, low * factor)
    assert ticks == sorted(ticks)
    assert all(low <= tick <= low * factor for tick in ticks)
    assert len(ticks) <= 14


def test_ids_in_plots_are_made_different_and_names_are_not() -> None:
    """What a plot refers to inside itself gets the plot's key; a ranker that is called like such an id keeps its name."""
    alt = altair()
    points = alt.Chart(alt.Data(values=[{"ranker": "clip0", "x": 1}, {"ranker": "b", "x": 2}]))
    drawn = svg(points.mark_point(clip=True).encode(x="x:Q", y="ranker:N"), key="here")
    assert 'id="here-clip' in drawn
    assert "url(#here-clip" in drawn
    assert ">clip0</text>" in drawn


@given(st.lists(st.text("ab", min_size=1, max_size=60), max_size=12, unique=True))
def test_short_names_are_told_apart(names: list[str]) -> None:
    """However alike long names are, no two become one."""
    short = short_names(names)
    assert list(short) == names
    assert len(set(short.values())) == len(names)
