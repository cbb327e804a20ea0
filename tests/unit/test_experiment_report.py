"""An experiment's reports say all that was found, show foreign text as text, and say outright what is not known."""

from __future__ import annotations

import dataclasses
import html
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.report.numbers import p_text
from llmrank.evaluation.report.scale import axis_over
from llmrank.evaluation.report.values import signed, value_text
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.findings import Decision, Effect, Findings, Outcome
from llmrank.experiment.record import record_of
from llmrank.experiment.report import tables, variance
from llmrank.experiment.report.cases import case_views
from llmrank.experiment.report.drawing import axis, gauge, mark
from llmrank.experiment.report.markdown import markdown
from llmrank.experiment.report.page import page
from llmrank.experiment.report.terminal import summary
from llmrank.experiment.report.words import OUTCOMES, READINGS, change
from tests.unit.sample_findings import (
    ALL,
    HOSTILE,
    NDCG,
    NOVELTY,
    broken,
    cost,
    difference,
    effect,
    eight,
    hostile,
    rail,
    ship,
    unclear,
)

PAGES = {name: page(make()) for name, make in ALL.items()}


def shown(source: str) -> str:
    """The text of a page, unescaped and on one line, without its style sheet."""
    body = source.split("</style>")[1]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def printed(findings: Findings, width: int = 200) -> str:
    """The summary in a terminal without colours."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False).print(summary(findings))
    return out.getvalue()


def texts(value: Any) -> Iterator[str]:
    """Every text in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from texts(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from texts(each)
    elif dataclasses.is_dataclass(value) and not isinstance(value, Measure):
        for field in dataclasses.fields(value):
            if field.name != "item_id":  # it only tells items apart
                yield from texts(getattr(value, field.name))


WORDS = {
    *get_args(Outcome),
    "fixed sample",
    "always valid",
    "share",
    "usd",
    "seconds",
    "value",
    "higher",
    "lower",
    "holm",
    "bh",
} | {
    "none",
    "kept",
    "bootstrap",
    "score",
    "2026-11-28T09:30:00+00:00",
}
"""Texts that stand for words of the report's own."""


@pytest.mark.parametrize("name", ["ship", "unclear", "broken", "eight"])
def test_every_text_of_the_findings_is_on_the_page(name: str) -> None:
    """Names, sentences, titles, ids, fingerprints, and each line of each prompt."""
    text = shown(PAGES[name])
    for each in texts(ALL[name]()):
        if each not in WORDS:
            for line in each.split("\n"):
                assert " ".join(line.split()) in text, line


@pytest.mark.parametrize("name", ["ship", "unclear", "broken", "eight"])
@pytest.mark.parametrize("form", ["page", "markdown"])
def test_every_number_of_the_findings_is_shown(name: str, form: str) -> None:
    """Of each effect the means, difference, interval, p values and counts; of guardrails, segments, costs and users all."""
    findings = ALL[name]()
    text = shown(PAGES[name]) if form == "page" else markdown(findings).replace("\\", "")
    for each in (*findings.effects, *(each for segment in findings.segments for each in segment.effects)):
        measure, gap = each.measure, each.difference
        wanted = [value_text(measure, each.control_mean), value_text(measure, each.variant_mean)]
        wanted += [f"{signed(measure, gap.mean)} [{signed(measure, gap.low)}, {signed(measure, gap.high)}]", p_text(gap.p)]
        if each.correction != "none":
            wanted += [p_text(each.adjusted), f"{gap.wins} / {gap.ties} / {gap.losses}"]
        if each.correction == "holm":
            wanted.append(value_text(measure, each.detectable))
        for number in wanted:
            assert number in text
    for guardrail in findings.guardrails:
        result = guardrail.result
        for told in (result.difference, result.bound, math.copysign(result.margin, 1 if guardrail.worse == "higher" else -1)):
            assert " ".join(change(guardrail, told).split()) in " ".join(text.split())
    for segment in findings.segments:
        assert f"{segment.users:,}" in text
    for part in variance.parts(findings):
        assert " ".join(part.figure.split()) in " ".join(text.split())
    assert f"{findings.users:,} of {findings.planned:,} users" in text


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_an_outcome_is_said_in_words(outcome: Outcome) -> None:
    """Whoever sees no colours reads what it is: on the page with a sign of its own, in Markdown, in the terminal."""
    findings = replace(ship(), decision=Decision(outcome, None, "The sentence.", "The reason."))
    source = page(findings)
    assert f'<section class="decision {outcome}"' in source
    assert f'<use href="#{outcome}"/>' in source
    assert f'<symbol id="{outcome}"' in source
    assert OUTCOMES[outcome] in shown(source)
    assert f"**{OUTCOMES[outcome]}.** The sentence." in markdown(findings)
    assert OUTCOMES[outcome].upper() in printed(findings)
    for text in (shown(source), markdown(findings), printed(findings)):
        assert text.index("The sentence.") < text.index("The reason.")


@pytest.mark.parametrize("make", [ship, unclear])
def test_every_report_says_how_it_may_be_read(make: Any) -> None:
    """Fixed sample or always valid."""
    findings = make()
    for text in (shown(page(findings)), markdown(findings), printed(findings)):
        assert READINGS[findings.reading] in text
    named = "confidence sequence" if findings.reading == "always valid" else "interval"
    assert f"Difference [95\N{NO-BREAK SPACE}% {named}]" in tables.primary(findings).columns


class Tags(HTMLParser):
    """The tags of a page, and every attribute."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes one."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def test_foreign_text_is_never_markup() -> None:
    """A page of hostile names, titles, queries and prompts has the tags of an honest page, no more, and no address."""
    found = Tags(PAGES["hostile"])
    assert set(found.tags) <= {tag for name in ("ship", "eight") for tag in Tags(PAGES[name]).tags} | {"rect", "line", "text"}
    assert not {"script", "img", "link", "iframe"} & set(found.tags)
    for _, name, value in found.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "style")
        assert name != "href" or value.startswith("#")
    assert shown(PAGES["hostile"]).count(visible(HOSTILE)) >= 30
    assert "\u202e" not in PAGES["hostile"]
    assert "\x07" not in PAGES["hostile"]


def test_foreign_text_is_never_markdown() -> None:
    """No tag of it stands outside of code; a fence is longer than any row of backticks in a prompt."""
    text = markdown(hostile())
    outside = re.sub(r"(?ms)^(`{3,})diff\n.*?^\1$", "", text)
    assert "\u202e" not in text
    assert re.search(r"(?<!\\)<script", re.sub(r"`[^`]*`", "", outside)) is None
    base = ship()
    sneaky = replace(base.prompts[1], text=base.prompts[1].text + "\n````\n# Out of it")
    fenced = markdown(replace(base, prompts=(base.prompts[0], sneaky)))
    assert "`````diff\n" in fenced
    assert "+````\n+# Out of it" in fenced


def test_foreign_text_is_never_terminal_markup() -> None:
    """Brackets in a name are brackets, and nothing that moves the cursor reaches the terminal."""
    text = printed(replace(hostile(), name="[red]x[/red]\x1b[2J"))
    assert "Experiment: [red]x[/red]⟨U+001B⟩[2J" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_what_is_not_known_is_a_dash() -> None:
    """No NaN, None or infinity is shown anywhere."""
    for text in (shown(PAGES["hostile"]), markdown(hostile()), printed(hostile())):
        assert not re.search(r"\b(nan|inf|None)\b", text, re.IGNORECASE)


def test_a_page_with_nothing_but_a_decision() -> None:
    """Without effects, guardrails, prompts and the rest there is a page nonetheless, with none of their headings."""
    bare = replace(
        ship(), effects=(), guardrails=(), segments=(), disagreements=(), prompts=(), costs=(), forecast=(), method=(), notes=()
    )
    text = shown(page(bare))
    assert bare.decision.sentence in text
    for heading in ("Guardrails", "Segments", "The prompts", "disagree", "variance"):
        assert heading not in text
    assert "Guardrails" not in markdown(bare)
    assert bare.decision.sentence in printed(bare)


def test_the_page_forbids_itself_to_load_and_run_anything() -> None:
    """Its policy allows its own style sheet, by its digest, and nothing else."""
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', PAGES["ship"])
    assert policy is not None
    assert html.unescape(policy[1]).startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src" not in policy[1]


def test_every_drawing_has_a_text() -> None:
    """A drawing is hidden from who only hears the page, or says what it shows; all tables name their columns and rows."""
    for source in PAGES.values():
        for svg in re.findall(r"<svg [^>]*>", source):
            assert 'aria-hidden="true"' in svg or re.search(r'role="img" aria-label="[^"]+"', svg)
        for table in re.findall(r"(?s)<table.*?</table>", source):
            assert 'scope="col"' in table
    assert "recency, NDCG@10: +3.6 points [+1.2, +6.0], better than the control" in html.unescape(PAGES["ship"]).replace(
        "\xa0", " "
    )
    assert "cost of recency: +30.7 %, at worst +32.7 %; broken" in html.unescape(PAGES["broken"]).replace("\xa0", " ")


def test_no_development_figure_is_shown() -> None:
    """The rounds of a choice name who went on and on how many users, and no measure."""
    for line in tables.selection(eight()):
        assert re.fullmatch(r"Round \d: \d+ variants, \d+ development users each\. Went on: [^.%]*\.( Out: [^.%]*\.)?", line)


def test_equal_prompts_are_said_to_be_equal() -> None:
    """Where the model alone differs there is no diff but a sentence, and the prompt once."""
    assert "The prompt of 1.5b is that of plain, letter for letter: only the model differs." in shown(PAGES["unclear"])
    assert '<table class="diff">' not in PAGES["unclear"]
    assert "only the model differs." in markdown(unclear())
    base = ship()
    unkept = replace(base, prompts=(base.prompts[0], replace(base.prompts[1], text="")))
    assert "There is no prompt of recency to show: its prompts were not kept." in shown(page(unkept))
    baseline = replace(base, prompts=(base.prompts[0], replace(base.prompts[1], text="", model="")))
    assert "There is no prompt of recency to show: it asks no model." in markdown(baseline)


def test_changed_words_are_marked_on_the_page() -> None:
    """In a line that both have, the words that differ; and a line of one side alone has a sign."""
    base = ship()
    pair = tuple(
        replace(prompt, text=f"[user]\nRank the {word} by taste.{more}")
        for prompt, word, more in zip(base.prompts, ("movies", "films"), ("", "\nAlso say why."), strict=True)
    )
    source = page(replace(base, prompts=pair))
    assert '<span class="sign">−</span>Rank the <mark>movies</mark> by taste.' in source
    assert '<span class="sign">+</span>Rank the <mark>films</mark> by taste.' in source
    assert '<span class="sign">+</span>Also say why.' in source


def test_a_page_stays_small_with_many_long_prompts() -> None:
    """Eight variants whose prompts have a million characters make a page below 6 MB, which says what it leaves out."""
    base = eight()
    long = tuple(
        replace(prompt, text="\n".join(f"{number} {word if number % 8 == 0 else ''} line of it" for number in range(60_000)))
        for prompt, word in zip(base.prompts, ("a", *"bcdefghi"), strict=True)
    )
    source = page(replace(base, prompts=long))
    assert len(source.encode()) < 6_000_000
    assert "characters left out" in source


def test_an_item_is_followed_by_its_id() -> None:
    """Two items with one title keep their own way; what was not among the control's first places comes from beyond them."""
    base = ship()
    case = base.disagreements[0]
    first, second, third = case.control_order[:3]
    twin = replace(second, title=first.title)
    orders = (first, twin), (twin, first, third)
    (view,) = case_views(replace(base, disagreements=(replace(case, control_order=orders[0], variant_order=orders[1]),)))
    assert [entry.shift for entry in view.orders[0][2]] == ["", ""]
    assert [entry.shift for entry in view.orders[1][2]] == ["up 1", "down 1", "from beyond 2"]


@pytest.mark.parametrize(
    ("measure", "mean", "side"),
    [
        (NDCG, 0.05, "better"),
        (NDCG, -0.05, "worse"),
        (NDCG, 0.01, "unclear"),
        (Measure("gini", 10), 0.05, "worse"),
        (Measure("popularity", 10), 0.05, "higher"),
        (Measure("popularity", 10), -0.05, "lower"),
    ],
)
def test_a_difference_is_coloured_by_what_is_better(measure: Measure, mean: float, side: str) -> None:
    """Which direction is better depends on the measure; of some neither is."""
    each = effect(measure, "v", mean, 0.02)
    assert mark(each, axis([each])).side == side


def test_an_axis_holds_what_is_drawn() -> None:
    """0, the ends of all intervals and the smallest effect that matters lie between the outer ticks; there are 3 to 8 ticks."""
    for reach in (1e-4, 0.003, 0.02, 0.5, 3.0):
        effects = [effect(NDCG, "v", mean * reach, reach) for mean in (-0.3, 0.8, 2.0)]
        on = axis(effects, (7 * reach, -7 * reach))
        places = [place for place, _ in on.ticks]
        assert 3 <= len(places) <= 8
        assert places == sorted(places)
        for each in effects:
            drawn = mark(each, on)
            assert drawn.low is not None
            assert drawn.high is not None
            assert places[0] <= drawn.low <= drawn.high <= places[-1]
        assert places[0] <= on.at(0) <= places[-1]


def test_an_axis_of_nothing() -> None:
    """Where nothing is known, or all is 0, there is an axis with 0 on it."""
    for effects in (
        [],
        [effect(NDCG, "v", 0.0, 0.0)],
        [Effect(NDCG, "v", 0.0, 0.0, difference(math.nan, 1.0, p=1.0), 1.0, "holm")],
    ):
        assert 0 <= axis(effects).at(0) <= 100


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.booleans())
def test_an_axis_holds_all_values(values: list[float], differences: bool) -> None:
    """They lie between the outer ticks; 0 is on the scale of differences, and on that of values only if it must be."""
    on = axis_over(values, length=100, margin=8, differences=differences)
    assert all(8 - 1e-2 <= on.at(value) <= 92 + 1e-2 for value in values)
    assert all(0 < place < 100 for place, _ in on.ticks)
    if differences:
        assert on.zero is not None
        assert [text for place, text in on.ticks if place == on.zero and not text.strip("0.,")]
    else:
        assert not any(text.startswith("+") for _, text in on.ticks)


def test_an_axis_of_values_need_not_begin_at_zero() -> None:
    """Rates of 20 and 21 % are told apart; their ticks have no sign."""
    on = axis_over([20.0, 21.0], length=100, margin=8, differences=False)
    assert (on.first, on.last, on.zero) == (20.0, 21.0, None)
    assert [text for _, text in on.ticks] == ["20.0", "20.5", "21.0"]
    assert axis_over([20.0, 21.0], length=100, margin=8).zero == 8.0


def test_a_guardrail_is_drawn_in_units_of_its_margin() -> None:
    """What is worse lies to the right, whether more or less is worse; a bound far out is drawn at the end, and said to be."""
    near = gauge(rail("failures", "v", "share", 0.02, 0.01, 0.004, 0.02))
    assert near.bound is not None
    assert near.mean is not None
    assert near.zero < near.mean < near.bound < near.margin
    less = gauge(rail("Coverage@10", "v", "share", 0.40, 0.42, 0.01, 0.04))
    assert less.mean is not None
    assert less.bound is not None
    assert less.zero < less.mean < less.bound < less.margin
    assert not near.beyond
    far = gauge(rail("cost", "v", "usd", 3.0, 1.0, 0.1, 0.1, relative=True))
    assert far.beyond
    assert far.bound is not None
    assert far.bound <= 100
    none = gauge(rail("failures", "v", "share", 0.0, 0.0, 0.0, 0.0))
    assert none.margin == none.zero


def test_amounts_are_told_in_their_units() -> None:
    """Parts of the control's value in percent, other shares in points, money with its sign, time in seconds."""
    assert change(rail("cost", "v", "usd", 1.1, 1.0, 0.1, 0.1, relative=True), 0.1) == "+10.0\N{NO-BREAK SPACE}%"
    assert change(rail("cost", "v", "usd", 1.1, 1.0, 0.1, 0.1), -0.1) == "\N{MINUS SIGN}$0.10"
    assert change(rail("failures", "v", "share", 0.1, 0.1, 0.1, 0.1), 0.012) == "+1.2\N{NO-BREAK SPACE}points"
    assert change(rail("latency", "v", "seconds", 1.0, 1.0, 0.1, 0.1), 0.25) == "+0.25\N{NO-BREAK SPACE}s"
    assert change(rail("x", "v", "value", 0.1, 0.1, 0.1, 0.1), math.nan) == "–"


def test_a_part_of_the_variance_that_is_more_than_all_of_it_is_drawn_within_the_page() -> None:
    """Estimates may sum to more than the whole: the largest bar is as wide as the drawing, the others in proportion."""
    base = eight()
    assert base.variation is not None
    source = page(replace(base, variation=replace(base.variation, user=0.2, rest=0.1, total=0.1)))
    widths = [float(each) for each in re.findall(r'<rect class="filled" [^>]*width="([0-9.]+)%"', source)]
    assert max(widths) == widths[0] == 100
    assert widths[-1] == 50
    assert "200.0\N{NO-BREAK SPACE}%" in source


def test_costs_without_a_price() -> None:
    """What is not known is called unknown, and a sum says of how many variants it is."""
    findings = replace(ship(), costs=(cost("plain", usd=None), cost("recency", usd=0.5)))
    assert "$0.50 for 1 of 2 variants; the others' price is not known" in shown(page(findings))
    assert "unknown" in shown(page(findings))


@pytest.mark.parametrize("name", list(ALL))
def test_the_record_is_json_and_whole(name: str) -> None:
    """A key for each field at each depth, measures by name, and null for what is not known."""
    findings = ALL[name]()
    record = json.loads(json.dumps(record_of(findings), allow_nan=False))
    assert record == findings.as_dict()
    assert set(record) == {"form", *(field.name for field in dataclasses.fields(Findings))}
    assert record["primary"] == "ndcg@10"
    first = record["effects"][0]
    assert set(first) == {field.name for field in dataclasses.fields(Effect)}
    if name == "hostile":
        assert first["difference"]["mean"] is None
        assert record["name"] == HOSTILE
    else:
        assert first["difference"]["mean"] == findings.effects[0].difference.mean


def test_the_record_refuses_what_json_lacks() -> None:
    """An object of another kind is an error, never its repr."""
    with pytest.raises(TypeError, match="set has no form"):
        record_of(replace(ship(), notes={"a"}))  # type: ignore[arg-type]  # that is the test


def test_measures_of_other_units_have_tables_of_their_own() -> None:
    """Only what shares a unit shares a scale."""
    assert [table.key for table in tables.others(ship())] == ["other-share", "other-bits"]
    assert NOVELTY.unit == "bits"
    assert "broken" in shown(page(broken()))
