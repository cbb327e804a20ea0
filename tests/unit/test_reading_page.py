"""The page of an online reading says all that its JSON says, shows foreign text as text, and loads nothing."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmrank.evaluation.report.numbers import p_text
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.online.drawing import differences, preferences, split, values
from llmrank.experiment.online.effects import AnyTime
from llmrank.experiment.online.findings import OnlineReading
from llmrank.experiment.online.left_out import LeftOut
from llmrank.experiment.online.numbers import (
    delta_interval,
    delta_text,
    interval,
    level,
    moment,
    p_equation,
    signed,
    value_interval,
    value_text,
)
from llmrank.experiment.online.page import page
from tests.unit.sample_findings import HOSTILE
from tests.unit.sample_readings import ALL, both, broken, few, four, hostile, interleaved, two, waiting
from tests.unit.test_experiment_report import Tags, shown

NAMES = list(ALL)


@lru_cache
def text_of(name: str) -> str:
    """What the page of a sample says."""
    return shown(page(ALL[name]()))


def number(value: float | None) -> float:
    """A value of the JSON as code has it."""
    return math.nan if value is None else value


def ends(found: list[float | None]) -> tuple[float, float]:
    """The ends of an interval of the JSON; where there is none, those that no form shows."""
    low, high = found
    return (-math.inf if low is None else low), (math.inf if high is None else high)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_the_json_is_on_the_page(name: str) -> None:
    """Users, shares, levels, values, differences, intervals, p values, lists, what is left out: each as people write it."""
    found = ALL[name]()
    record, text = found.as_dict(), text_of(name)
    assert all(part in text for part in numbers_of(found, record)), [
        part for part in numbers_of(found, record) if part not in text
    ]


def numbers_of(found: OnlineReading, record: dict[str, Any]) -> Iterator[str]:
    """Every number of the JSON, as a report shows it."""
    metrics = {metric.name: metric for metric in found.options.metrics}
    yield from (f"{users:,}" for users in record["users"].values())
    if record["users"]:
        yield f"{sum(record['users'].values()):,}"
        yield from (f"{100 * share:.1f}" for share in record["shares"].values())
        yield p_equation(number(record["sample_ratio_p"]))
    yield from (moment(record["begin"]), moment(record["end"]), f"{record['events']:,} events")
    yield from (f"{each['count']:,} {each['what'].split(' (')[0]}" for each in map(shown_left_out, record["left_out"]))
    for key, planned, levels in (
        ("metrics", record["planned"], record["levels"]),
        ("interleaving", record["interleaved_planned"], record["interleaved_levels"]),
    ):
        if record[key]:
            if planned is not None:
                yield from (f"{planned:,}", f"{record['alpha']:g}", *(f"{each:g}" for each in levels.values()))
            if levels["any_time"]:
                yield " ".join(level(levels["any_time"]).split())
    if record["metrics"] and record["planned"] is not None:
        yield f"{record['planned_reached']:,} of {record['planned']:,} planned users"
    for name, told in record["metrics"].items():
        metric = metrics[name]
        if told["window_days"] is not None:
            yield f"Of each user {told['window_days']:g} days"
        for each in told["values"].values():
            value = f"{each['users']:,} {each['events']:,} {value_text(metric, number(each['value']))}"
            yield f"{value} {value_interval(metric, *each['any_time']['ci'])}" if each["any_time"] else value
            if each["planned"] is not None:
                plan = each["planned"]
                shown_ends = value_interval(metric, *ends(plan["ci"]))
                yield f"{plan['users']:,} {value_text(metric, number(plan['value']))} {shown_ends}".strip()
        for each in told["variants"].values():
            yield from (f"{each['users']:,}", f"{each['control_users']:,}")
            yield from (value_text(metric, number(each[which])) for which in ("value", "control"))
            if each["variance_reduction"] is not None:
                yield f"{100 * max(0.0, each['variance_reduction']):.0f} % for"
            for read in filter(None, (each["any_time"], each["planned"])):
                cells = [signed(metric, number(read["difference"])), interval(metric, *ends(read["ci"]))]
                if cells[1]:
                    cells += [p_text(number(read[p])) for p in ("p", "p_adjusted")]
                yield " ".join(filter(None, cells))
            if each["planned"] is not None:
                yield from (f"{each['planned'][key]:,}" for key in ("users", "control_users"))
                yield from (value_text(metric, number(each["planned"][key])) for key in ("value", "control"))
    for pair in record["interleaving"]:
        yield f"{pair['lists']:,} {pair['users']:,} {pair['wins']:,} / {pair['ties']:,} / {pair['losses']:,}"
        yield delta_text(number(pair["delta"]))
        if pair["any_time"]:
            now = pair["any_time"]
            yield f"{delta_interval(*now['ci'])} {p_text(now['p'])} {p_text(now['p_adjusted'])}"
        if pair["planned"]:
            plan = pair["planned"]
            yield (
                f"{plan['users']:,} {delta_text(plan['delta'])} {delta_interval(*map(number, plan['ci']))} "
                f"{p_text(number(plan['p']))} {p_text(number(plan['p_adjusted']))}"
            )


def shown_left_out(each: dict[str, Any]) -> dict[str, Any]:
    """It with its names made visible."""
    return {**each, "what": visible(each["what"])}


@pytest.mark.parametrize("name", NAMES)
def test_every_sentence_of_the_json_is_on_the_page(name: str) -> None:
    """The decision, its reason, the notes, what does not count and why; and in this order, the decision first."""
    record, text = ALL[name]().as_dict(), text_of(name)
    said = [record["decision"], record["reason"], *record["notes"]]
    said += [word for each in record["left_out"] for word in (each["what"], each["why"])]
    for sentence in said:
        assert " ".join(visible(sentence).split()) in text
    assert text.index(visible(record["decision"])) == min(
        text.index(visible(record["decision"])), *(text.index(word) for word in ("Users", "What does not count"))
    )


@pytest.mark.parametrize(("name", "sign", "words"), [("two", "ship", "Ship it"), ("four", "unclear", "Go on")])
def test_a_verdict_has_a_sign_and_words(name: str, sign: str, words: str) -> None:
    """Whoever sees no colours reads what it is."""
    source = page(ALL[name]())
    assert f'<section class="decision {sign}"' in source
    assert f'<use href="#{sign}"/>' in source
    assert f'<symbol id="{sign}"' in source
    assert words in shown(source)


def test_a_broken_split_shows_no_difference() -> None:
    """The page says so, draws the shares outside of what chance gives, and nothing of any metric."""
    text = shown(page(broken()))
    assert "The experiment is not valid" in text
    assert "The split is broken" in text
    for word in ("purchase", "Difference", "revenue"):
        assert word not in text
    assert [lane.mark.side for lane in split(broken()).lanes] == ["worse", "worse"]
    assert [lane.mark.side for lane in split(two()).lanes] == ["unclear", "unclear"]


def test_what_must_not_be_read_yet_is_not_drawn() -> None:
    """Without a part of the level for looks there is no difference and no interval before the planned users are there."""
    text = shown(page(waiting()))
    assert "Difference" not in text
    assert "interval" not in text.split("How it was read")[0]
    assert "not shown before 20,000 users count" in text
    metric = waiting().options.ordered[0]
    assert differences(waiting(), metric) is None
    assert all(lane.mark.low is None and lane.mark.mean is not None for lane in values(waiting(), metric).lanes)


def test_a_drawing_says_which_way_it_was_read() -> None:
    """Where both ways are there each has a lane; a caption names the only one."""
    metric = two().options.ordered[0]
    drawn = differences(two(), metric)
    assert drawn is not None
    assert [lane.how.partition(",")[0] for lane in drawn.lanes] == ["planned sample", "always valid"]
    assert [lane.more for lane in drawn.lanes] == [False, True]
    assert "Difference from plain , with its always-valid 99 % interval" in shown(page(four()))
    assert [lane.how.partition(",")[0] for lane in preferences(interleaved()).lanes] == [
        "planned sample",
        "always valid",
        "always valid",
    ]


def test_what_is_not_there_is_not_promised() -> None:
    """No caption speaks of an interval while none is known; of pairs, how many have their planned users is said."""
    text = shown(page(few()))
    assert "Difference from plain , with" not in text
    assert "Value of each variant , with" not in text
    assert "no interval yet" in text
    assert "of 1 of 2 pairs; the others have not got their users." in shown(page(interleaved()))


def test_a_difference_is_coloured_by_what_is_better() -> None:
    """Fewer complaints are better: an interval above 0 is worse."""
    complaints = two().options.metrics[3]
    (effect,) = two().of(complaints)
    for low, high, side in ((0.1, 0.2, "worse"), (-0.2, -0.1, "better"), (-0.1, 0.1, "unclear")):
        seen = replace(effect, fixed=None, any_time=AnyTime((low + high) / 2, low, high, 0.01, 0.01))
        drawn = differences(replace(two(), effects=(seen,)), complaints)
        assert drawn is not None
        assert [lane.mark.side for lane in drawn.lanes] == [side]
        assert drawn.ends == ("better", "worse")
        (lane,) = drawn.lanes
        assert (lane.mark.low, lane.mark.high) == (drawn.axis.at(low), drawn.axis.at(high))


def test_values_are_drawn_where_they_are() -> None:
    """A conversion on a scale in percent, whose line is the control's value; preferences in points."""
    metric = two().options.ordered[0]
    drawn = values(two(), metric)
    for lane, each in zip(drawn.lanes, two().values_of(metric), strict=True):
        plan = each.fixed
        assert plan is not None
        assert (lane.mark.low, lane.mark.mean, lane.mark.high) == tuple(
            drawn.axis.at(100 * value) for value in (plan.low, plan.value, plan.high)
        )
    assert drawn.line == drawn.lanes[0].mark.mean
    lists = preferences(both())
    (pair,) = both().interleavings
    assert pair.fixed is not None
    assert [(lane.mark.low, lane.mark.high) for lane in lists.lanes] == [
        (lists.axis.at(100 * read.low), lists.axis.at(100 * read.high)) for read in (pair.fixed, pair)
    ]


def test_a_line_is_spoken_of_where_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control without a value has no line, and no sentence about one."""
    assert "The dashed line is the control" in page(two())
    monkeypatch.setattr("llmrank.experiment.online.page.values", lambda *given: replace(values(*given), line=None))
    assert "The dashed line" not in page(two())


def test_places_are_in_the_order_of_the_values() -> None:
    """In every drawing of every sample: within the drawing, the interval's ends in order, equal scales for all lanes."""
    for make in ALL.values():
        found = make()
        drawings = [split(found)] if found.traffic else []
        for metric in found.options.ordered:
            if found.of(metric):
                drawings += [values(found, metric), *filter(None, [differences(found, metric)])]
        drawings += [preferences(found)] if found.interleavings else []
        for drawing in drawings:
            for lane in drawing.lanes:
                places = [place for place in (lane.mark.low, lane.mark.high) if place is not None]
                assert places == sorted(places)
                assert all(0 <= place <= 100 for place in (*places, lane.mark.mean or 0))


class Nesting(HTMLParser):
    """Notes elements that are closed out of order or never, and ids that stand twice."""

    VOID = frozenset({"meta", "col", "br"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens one."""
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if len({name for name, _ in attrs}) < len(attrs):
            self.wrong.append(f"<{tag}> with an attribute twice")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One of SVG that has nothing in it."""
        if not {"svg", "symbol"} & set(self.open):
            self.wrong.append(f"<{tag}/>")

    def handle_endtag(self, tag: str) -> None:
        """Closes the one that was opened last."""
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_well_formed_and_loads_nothing(name: str) -> None:
    """Elements are closed in order, ids are unique, nothing names an address, and the policy forbids all but the style."""
    source = page(ALL[name]())
    found = Nesting(source)
    assert (found.wrong, found.open) == ([], [])
    assert len(set(found.ids)) == len(found.ids)
    assert source.startswith("<!DOCTYPE html>")
    tags = Tags(source)
    assert not {"script", "img", "link", "iframe", "a", "form", "object"} & set(tags.tags)
    for _, attribute, value in tags.attributes:
        assert not attribute.startswith("on")
        assert attribute not in ("src", "style")
        assert attribute != "href" or value.startswith("#")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', source)
    assert policy is not None
    assert html.unescape(policy[1]).startswith("default-src 'none'; style-src 'sha256-")
    for svg in re.findall(r"<svg [^>]*>", source):
        assert 'aria-hidden="true"' in svg or re.search(r'role="img" aria-label="[^"]+"', svg)
    assert not re.search(r"\b(nan|inf|None)\b", shown(source))


def test_a_wrong_page_would_have_been_seen() -> None:
    """What the test above looks for, it finds."""
    source = page(two())
    assert Nesting(source.replace("</main>", "", 1)).wrong
    assert Nesting(source.replace("<main>", "<main><p/>", 1)).wrong == ["<p/>"]
    assert Nesting(source.replace("<main>", '<main><p class="a" class="b"></p>')).wrong


def renamed(found: OnlineReading, variant: str, metric: str, other: str) -> OnlineReading:
    """A reading in which a variant, a metric and all sentences have other names."""
    was = found.traffic[1].variant
    metrics = tuple(
        replace(each, name=metric if not place else f"{metric}{place}") for place, each in enumerate(found.options.metrics)
    )
    of = dict(zip(found.options.metrics, metrics, strict=True))
    options = replace(found.options, metrics=metrics, primary=metrics[0].name)
    return replace(
        found,
        name=other,
        options=options,
        traffic=tuple(replace(each, variant=variant if each.variant == was else each.variant) for each in found.traffic),
        effects=tuple(replace(each, variant=variant, metric=of[each.metric]) for each in found.effects),
        values=tuple(
            replace(each, variant=variant if each.variant == was else each.variant, metric=of[each.metric])
            for each in found.values
        ),
        interleavings=tuple(replace(each, variant=variant) for each in found.interleavings),
        decision=f"Ship {visible(variant)}.",
        reason=visible(metric),
        notes=(f"About {other}",),
        left_out=(LeftOut(f"Outcomes {other}", 3, "No."),),
    )


NAME = st.one_of(
    st.text(min_size=1, max_size=30),
    st.sampled_from(["</style>", "{{ 7 * 7 }}", "&lt;b&gt;", "'\"><svg/onload=x>", "</main>", "<!--", "]]>"]),
).filter(lambda name: name != "plain")


@settings(max_examples=50, deadline=None)
@given(variant=NAME, metric=NAME, other=NAME)
@example(variant=HOSTILE, metric=HOSTILE, other=HOSTILE)
def test_names_are_text_and_never_markup(variant: str, metric: str, other: str) -> None:
    """Whatever variants, metrics, experiments and outcomes are called, the page has the same elements, and shows the names."""
    source = page(renamed(both(), variant, metric, other))
    tags = Tags(source)
    assert tags.tags == HONEST.tags
    assert [name for _, name, _ in tags.attributes] == [name for _, name, _ in HONEST.attributes]
    found = Nesting(source)
    assert (found.wrong, found.open) == ([], [])
    text = shown(source)
    for name in (variant, metric, other):
        assert " ".join(visible(name).split()) in text
    assert all(visible(char) == char or char in "\n\t" for char in set(source))


HONEST = Tags(page(renamed(both(), "a", "b", "c")))


def test_a_hostile_log_makes_an_honest_page() -> None:
    """From the log to the page: no element that an honest page has not."""
    honest = {tag for name in ("both", "two") for tag in Tags(page(ALL[name]())).tags}
    assert set(Tags(page(hostile())).tags) <= honest
    assert shown(page(hostile())).count(visible(HOSTILE)) >= 20


def test_every_form_can_be_written(tmp_path: Path) -> None:
    """The ending says which; the page is the same each time."""
    two().write(tmp_path / "new" / "reading.html")
    written = (tmp_path / "new" / "reading.html").read_text(encoding="utf-8")
    assert written == page(two()) == two().html()
    assert not list((tmp_path / "new").glob("*.part"))
