"""Comparing rankers of one run and of several: which cases count, what is said of them, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.cases import Case, write_cases
from llmrank.evaluation.comparing.compare import compare
from llmrank.evaluation.comparing.comparison import Comparison
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.metrics import ndcg_at
from llmrank.evaluation.measures.statistics import paired_differences

Orders = Callable[[int, Case], Sequence[str] | None]
"""Gives a ranker's order of a case; None where it has no result."""

PROTOCOL = {"split": "leave-last-out", "users": 40, "candidates": {"source": "sampled", "n": 5, "by": "uniform"}}


def cases(count: int = 40, seed: int = 0) -> list[Case]:
    """Five candidates a case; the relevant one stands anywhere."""
    return [Case(f"u{place}", (f"h{place}",), tuple("abcde"), ("abcde"[(place * 7 + seed) % 5],)) for place in range(count)]


def target_at(place: Callable[[int], int]) -> Orders:
    """A ranker that puts the relevant item at the place (from 0) that a function of the case's number gives."""

    def order(number: int, case: Case) -> list[str]:
        others = [each for each in "abcde" if each not in case.relevant]
        others.insert(place(number), case.relevant[0])
        return others

    return order


FIRST, LAST = target_at(lambda number: 0), target_at(lambda number: 4)
MIXED = target_at(lambda number: number % 5)


def write_run(
    path: Path,
    rankers: Mapping[str, Orders],
    /,
    of: Sequence[Case] | None = None,
    *,
    status: str = "ok",
    **manifest: Any,
) -> RunFolder:
    """A run as `llmrank eval run` leaves it, as far as `compare` reads it."""
    of = cases() if of is None else of
    for name in ("data", "results"):
        (path / name).mkdir(parents=True)
    write_cases(path / "data" / "cases.jsonl", of)
    (path / "data" / "popularity.json").write_text(json.dumps({"users": 9, "counts": {"a": 5, "b": 2}}))
    whole = {
        "format": 1,
        "protocol": "Leave-last-out, 5 sampled candidates.",
        "suite": {"protocol": PROTOCOL},
        "cases": len(of),
        "items": 5,
        "seed": 0,
        "metrics": ["ndcg@5", "hit@1", "novelty@1", "coverage@5"],
        "primary": "ndcg@5",
        "failures": "fallback",
        "rankers": {name: {} for name in rankers},
    }
    (path / "manifest.json").write_text(json.dumps(whole | manifest))
    for name, ranks in rankers.items():
        lines = []
        for number, case in enumerate(of):
            order = ranks(number, case)
            if order is not None:
                items = [{"rank": rank, "id": item, "score": None, "ranked_by": "model"} for rank, item in enumerate(order, 1)]
                lines.append(json.dumps({"case": number, "user_id": case.user_id, "status": status, "items": items}) + "\n")
        (path / "results" / f"{name}.jsonl").write_text("".join(lines))
    return RunFolder(path)


def means(comparison: Comparison, measure: str = "ndcg@5") -> dict[str, float]:
    return {row.contender: row.mean for row in comparison.of(measure)}


def test_rankers_of_one_run(tmp_path: Path) -> None:
    """The first is the baseline; each other one has its mean, its difference, and how many cases it wins."""
    found = compare([write_run(tmp_path / "run", {"mixed": MIXED, "first": FIRST, "last": LAST})])
    assert found.baseline == "mixed"
    assert means(found) == pytest.approx(
        {"mixed": np.mean([1 / math.log2(place + 2) for place in range(5)]), "first": 1.0, "last": 1 / math.log2(6)}
    )
    rows = {row.contender: row for row in found.of("ndcg@5")}
    assert list(rows) == ["mixed", "first", "last"]
    assert rows["mixed"].difference is None
    first, last = rows["first"].difference, rows["last"].difference
    assert first is not None
    assert last is not None
    assert (first.wins, first.ties, first.losses) == (32, 8, 0)
    assert (last.wins, last.ties, last.losses) == (0, 8, 32)
    assert first.mean == pytest.approx(rows["first"].mean - rows["mixed"].mean)
    assert 0 < first.low < first.mean < first.high
    assert first.p == 0.0001
    assert rows["first"].adjusted == 0.0002  # Holm: the smallest of two counts twice
    assert rows["first"].detectable == pytest.approx(2.8016 * first.error, rel=1e-4)
    assert found.finding == "first has a higher NDCG@5 than mixed. last has a lower NDCG@5 than mixed."


def test_numbers_are_those_of_the_statistics(tmp_path: Path) -> None:
    """What is reported is `paired_differences` of the values of each case, users with two cases drawn as one."""
    of = [Case(f"u{place % 25}", (f"h{place}",), tuple("abcde"), ("abcde"[place % 5],)) for place in range(40)]
    found = compare([write_run(tmp_path / "run", {"a": MIXED, "b": target_at(lambda number: number % 3)}, of)])
    assert (found.cases, found.users) == (40, 25)
    a, b = (
        np.array([ndcg_at(ranks(number, case) or (), case.relevant, 5) for number, case in enumerate(of)])
        for ranks in (MIXED, target_at(lambda number: number % 3))
    )
    expected = paired_differences(b[:, None], a[:, None], [case.user_id for case in of])[0]
    got = found.of("ndcg@5")[1].difference
    assert got is not None
    assert (got.n, got.clusters, got.wins, got.losses) == (40, 25, expected.wins, expected.losses)
    assert got.error == pytest.approx(expected.error)
    # The same up to the order in which users are drawn.
    assert got.low == pytest.approx(expected.low, abs=expected.error / 5)
    assert got.p == pytest.approx(expected.p, abs=0.02)


def test_several_runs_are_named_and_matched_by_case(tmp_path: Path) -> None:
    """Two runs over the same cases in another order: contenders are run/ranker, and pairs are pairs of the same case."""
    of = cases()
    by_user = {case.user_id: number for number, case in enumerate(of)}
    one = write_run(tmp_path / "one", {"mixed": MIXED}, of)
    two = write_run(tmp_path / "two", {"mixed": lambda number, case: MIXED(by_user[case.user_id], case)}, of[::-1])
    found = compare([one, two])
    row = found.of("ndcg@5")[1]
    assert (found.baseline, row.contender) == ("one/mixed", "two/mixed")
    assert row.difference is not None
    assert row.difference.ties == 40
    assert row.difference.p == 1
    assert found.finding == "No difference in NDCG@5 from one/mixed is shown for two/mixed."


def test_runs_called_alike_are_told_apart(tmp_path: Path) -> None:
    """Two folders of one name are called by their paths; the same folder twice is refused."""
    one = write_run(tmp_path / "a" / "run", {"mixed": MIXED})
    two = write_run(tmp_path / "b" / "run", {"mixed": MIXED})
    assert [row.contender for row in compare([one, two]).of("ndcg@5")] == [
        f"{tmp_path / 'a' / 'run'}/mixed",
        f"{tmp_path / 'b' / 'run'}/mixed",
    ]
    with pytest.raises(ConfigError, match="the same run stands twice"):
        compare([one, RunFolder(tmp_path / "b" / ".." / "a" / "run")])


def test_only_common_cases_count(tmp_path: Path) -> None:
    """Where one ranker has results for ten cases only, the others' means are over those ten, too; a note says so."""
    run = write_run(
        tmp_path / "run",
        {
            "late": target_at(lambda number: 0 if number < 10 else 4),
            "short": lambda n, case: FIRST(n, case) if n < 10 else None,
        },
    )
    found = compare([run])
    assert found.cases == 10
    assert means(found) == {"late": 1.0, "short": 1.0}
    assert found.notes[0] == (
        "Only the 10 cases that all have ranked are compared: late has ranked 40 of 40, short has ranked 10 of 40."
    )


def test_runs_with_some_cases_in_common(tmp_path: Path) -> None:
    """Another number of users is no other protocol: what both have is compared."""
    one = write_run(tmp_path / "one", {"x": MIXED})
    two = write_run(tmp_path / "two", {"x": FIRST}, cases(25), suite={"protocol": PROTOCOL | {"users": 25}})
    found = compare([one, two])
    assert found.cases == 25
    assert "Only the 25 cases" in found.notes[0]


def test_cases_that_stand_twice_are_paired_in_turn(tmp_path: Path) -> None:
    """A user may have the very same case twice: the first is the first of the other run, the second its second."""
    case = cases(1)[0]
    run = [case, case, case]
    one = write_run(tmp_path / "one", {"x": target_at(lambda number: number)}, run)
    two = write_run(tmp_path / "two", {"x": target_at(lambda number: number)}, run)
    difference = compare([one, two]).of("ndcg@5")[1].difference
    assert difference is not None
    assert (difference.ties, difference.n, difference.clusters) == (3, 3, 1)


def test_a_ranker_without_results_is_left_out(tmp_path: Path) -> None:
    """It would leave no common case; a note names it. As the baseline it is refused."""
    run = write_run(tmp_path / "run", {"mixed": MIXED, "none": lambda number, case: None, "first": FIRST})
    found = compare([run])
    assert list(means(found)) == ["mixed", "first"]
    assert "none has no results yet and is left out." in found.notes
    with pytest.raises(DatasetError, match="baseline: has no results yet"):
        compare([run], baseline="none")


def test_failures_count_as_the_suite_says(tmp_path: Path) -> None:
    """`worst` makes a failed ranking 0 in measures of relevance, whatever order it fell back to."""
    one = write_run(tmp_path / "one", {"x": MIXED}, failures="worst")
    two = write_run(tmp_path / "two", {"x": FIRST}, failures="worst", status="fallback")
    assert means(compare([one, two]))["two/x"] == 0
    other = write_run(tmp_path / "other", {"x": FIRST})
    with pytest.raises(DatasetError, match=r"failures: one counts them as 'worst', other as 'fallback'; set `failures` alike"):
        compare([one, other])


def test_another_protocol_is_refused_by_what_differs(tmp_path: Path) -> None:
    """The message names the option and both values."""
    other = PROTOCOL | {"candidates": {"source": "sampled", "n": 100, "by": "uniform"}}
    one = write_run(tmp_path / "one", {"x": MIXED})
    two = write_run(tmp_path / "two", {"x": MIXED}, suite={"protocol": other})
    with pytest.raises(DatasetError, match=r"^protocol: the runs differ: protocol.candidates.n is 5 in one and 100 in two;"):
        compare([one, two])


def test_runs_without_a_common_case_are_refused_by_what_differs(tmp_path: Path) -> None:
    """Other candidates, other users, or rankers that stopped at different cases: each is said."""
    one = write_run(tmp_path / "one", {"x": lambda n, case: FIRST(n, case) if n < 5 else None})
    two = write_run(tmp_path / "two", {"x": MIXED}, cases(seed=1), seed=1)
    with pytest.raises(DatasetError, match=r"have 40 users in common, but no case: .* \(one has seed 0, two has seed 1\)"):
        compare([one, two])
    three = write_run(tmp_path / "three", {"x": MIXED}, [Case("v", ("h",), ("a", "b"), ("a",))])
    with pytest.raises(DatasetError, match="no user in common"):
        compare([one, three])
    four = write_run(tmp_path / "four", {"x": lambda n, case: FIRST(n, case) if n > 5 else None})
    with pytest.raises(DatasetError, match=r"share 40 cases, but .*\(one/x has ranked 5, four/x has ranked 34\)"):
        compare([one, four])


def test_a_baseline_is_found_by_either_name(tmp_path: Path) -> None:
    """The ranker's own name will do while it is the only one; a wrong one is answered with the nearest."""
    runs = [write_run(tmp_path / "one", {"x": MIXED, "y": FIRST}), write_run(tmp_path / "two", {"x": LAST})]
    assert compare(runs, baseline="y").baseline == "one/y"
    assert compare(runs, baseline="two/x").baseline == "two/x"
    with pytest.raises(ConfigError, match=r"baseline: several rankers are called so .* one/x, two/x"):
        compare(runs, baseline="x")
    with pytest.raises(ConfigError, match="did you mean 'two/x'"):
        compare(runs, baseline="two/z")


def test_which_rankers_are_compared(tmp_path: Path) -> None:
    """Those named, and the baseline, which is the first of them if none is named; a bare name is a ranker of every run."""
    runs = [
        write_run(tmp_path / "one", {"x": MIXED, "y": FIRST, "z": LAST}),
        write_run(tmp_path / "two", {"x": LAST, "y": MIXED}),
    ]
    assert list(means(compare(runs, rankers=["y", "two/x"]))) == ["one/y", "two/y", "two/x"]
    only = compare(runs, rankers=["z"], baseline="two/x")
    assert list(means(only)) == ["two/x", "one/z"]
    holm = only.of("ndcg@5")[1]
    assert holm.difference is not None
    assert holm.adjusted == holm.difference.p  # one hypothesis needs no correction
    with pytest.raises(ConfigError, match=r"rankers: no such ranker \(got 'one/zz'\); did you mean 'one/z'"):
        compare(runs, rankers=["x", "one/zz"])
    with pytest.raises(ConfigError, match="takes two rankers at least"):
        compare(runs, rankers=["z"])
    with pytest.raises(ConfigError, match="names no ranker"):
        compare(runs, rankers=[])


def made(**models: str) -> dict[str, Any]:
    """The manifest's `rankers`, each made with the model of this name."""
    return {name: {"config": {"backend": {"model": model}}, "templates": {"t": "1"}} for name, model in models.items()}


def test_a_ranker_that_two_runs_share_counts_once(tmp_path: Path) -> None:
    """The same configuration, templates and values are one hypothesis, named in a note; anything that differs makes two."""
    one = write_run(tmp_path / "one", {"x": MIXED, "y": FIRST}, rankers=made(x="a", y="b"))
    two = write_run(tmp_path / "two", {"x": MIXED, "y": FIRST, "z": FIRST}, rankers=made(x="a", y="b", z="c"))
    found = compare([one, two])
    assert list(means(found)) == ["one/x", "one/y", "two/z"]
    assert "one/y and two/y are the same ranker with the same values: they count once, as one/y." in found.notes
    assert found.of("ndcg@5")[1].adjusted == 0.0002  # two hypotheses, not four
    assert list(means(compare([one, two], baseline="two/x"))) == ["two/x", "one/y", "two/z"]
    other = write_run(tmp_path / "other", {"x": LAST, "y": FIRST}, rankers=made(x="a", y="B"))
    assert len(means(compare([one, other]))) == 4


def test_a_ranker_is_compared_with_itself_if_asked(tmp_path: Path) -> None:
    """Two runs of one and the same ranker are told that there is no difference."""
    runs = [write_run(tmp_path / name, {"x": MIXED}, rankers=made(x="a")) for name in ("one", "two")]
    assert compare(runs).finding == "No difference in NDCG@5 from one/x is shown for two/x."


def test_runs_are_named_with_their_time(tmp_path: Path) -> None:
    """The page's head says which runs it is about and when they were begun; one without a time has its name alone."""
    one = write_run(tmp_path / "one<b>", {"x": MIXED}, created="2026-11-22T02:00:00+00:00")
    found = compare([one, write_run(tmp_path / "two", {"x": FIRST})])
    assert found.runs == (("one<b>", "2026-11-22T02:00:00+00:00"), ("two", ""))
    page = found.html()
    assert '<bdi class="name">one&lt;b&gt;</bdi> (2026-11-22 02:00 UTC), <bdi class="name">two</bdi></p>' in page
    assert found.as_dict()["runs"] == {"one<b>": "2026-11-22T02:00:00+00:00", "two": ""}


def test_which_measures_are_compared(tmp_path: Path) -> None:
    """All that every run has and that have a value for a case; others are named in a note. Those asked for must be such."""
    one = write_run(tmp_path / "one", {"x": MIXED})
    two = write_run(tmp_path / "two", {"x": FIRST}, metrics=["hit@1", "ndcg@5", "mrr"])
    found = compare([one, two])
    assert [each.name for each in found.measures] == ["ndcg@5", "hit@1"]
    assert (
        "Not compared (of the whole run, in need of an embedder, or not in every run): novelty@1, coverage@5, mrr."
        in found.notes
    )
    asked = compare([one, two], metrics=["HR@1"])
    assert [each.name for each in asked.measures] == ["hit@1"]
    assert asked.primary == "hit@1"
    assert "ndcg@5, the primary measure of the run, is not compared; hit@1 takes its place." in asked.notes
    with pytest.raises(ConfigError, match=r"metrics: has no value for each case in every run \(got 'mrr'\); every run has"):
        compare([one, two], metrics=["mrr"])


def test_other_items_or_interactions_are_said(tmp_path: Path) -> None:
    """Novelty over other training data is another measure; relevance is the same."""
    one = write_run(tmp_path / "one", {"x": MIXED}, frozen={"items.jsonl": "1", "popularity.json": "2"})
    two = write_run(tmp_path / "two", {"x": MIXED}, frozen={"items.jsonl": "1", "popularity.json": "3"})
    assert compare([one, two]).notes[0] == (
        "one and two have different interactions to learn from: only measures of relevance mean the same in both."
    )


def test_one_ranker_is_not_enough(tmp_path: Path) -> None:
    """Nothing can be said of one ranker alone, or of none."""
    with pytest.raises(ConfigError, match="takes two rankers at least"):
        compare([write_run(tmp_path / "run", {"x": MIXED})])
    with pytest.raises(ConfigError, match="names no run"):
        compare([])


def test_undefined_values_are_left_out_of_their_measure(tmp_path: Path) -> None:
    """An empty list has no novelty: the pair is missing there, and nowhere else."""
    run = write_run(tmp_path / "run", {"x": MIXED, "y": lambda number, case: [] if number == 3 else FIRST(number, case)})
    found = compare([run])
    novelty, ndcg = found.of("novelty@1")[1], found.of("ndcg@5")[1]
    assert novelty.difference is not None
    assert ndcg.difference is not None
    assert (novelty.n, novelty.difference.n) == (39, 39)
    assert (ndcg.n, ndcg.difference.n) == (40, 40)


def test_the_dictionary_is_json(tmp_path: Path) -> None:
    """Everything is there under plain names, what is unknown is null, and the same runs give the same bytes."""
    run = write_run(tmp_path / "run", {"mixed": MIXED, "first": FIRST})
    text = json.dumps(compare([run]).as_dict(), allow_nan=False)
    assert text == json.dumps(compare([RunFolder(tmp_path / "run")]).as_dict())
    found = json.loads(text)
    assert found["protocol"] == "Leave-last-out, 5 sampled candidates."
    assert "difference" not in found["rankers"]["mixed"]["ndcg@5"]
    difference = found["rankers"]["first"]["hit@1"]["difference"]
    assert (difference["wins"], difference["ties"], difference["losses"]) == (32, 8, 0)
    assert difference["p_holm"] is None
    assert found["rankers"]["first"]["ndcg@5"]["difference"]["p_holm"] == 0.0001


def test_the_protocol_stands_on_every_table(tmp_path: Path) -> None:
    """In Markdown, in text and on the page there are as many protocols as tables."""
    found = compare([write_run(tmp_path / "run", {"mixed": MIXED, "first": FIRST})])
    markdown, text, page = found.table_markdown(), found.table_text(), found.html()
    assert markdown.count("Protocol: Leave-last-out, 5 sampled candidates.") == 3 == markdown.count("| --- |")
    assert text.count("Leave-last-out, 5 sampled candidates.") == 3
    assert (
        page.count('<caption role="caption"><span>Protocol: Leave-last-out, 5 sampled candidates.</span></caption>')
        == 3
        == page.count("<table ")
    )


def test_a_line_of_the_table(tmp_path: Path) -> None:
    """Shares in percent, a sign on every difference, cases won, tied and lost."""
    found = compare([write_run(tmp_path / "run", {"mixed": MIXED, "first": FIRST})])
    line = next(line for line in found.table_markdown().splitlines() if line.startswith("| first"))
    assert re.fullmatch(
        r"\| first \| 100\.0 \| \+41\.0 \\\[\+3\d\.\d, \+4\d\.\d\\\] \| \\< 0\.001 \| \\< 0\.001 \| 32 / 8 / 0 \| 9\.9 \|",
        line,
    )
    assert re.search(r"first +100\.0 +\+41\.0", found.table_text())


def test_files_are_written_by_their_ending(tmp_path: Path) -> None:
    """A page, Markdown or JSON; a half surrogate in a folder's name breaks none of them. Other endings are refused."""
    found = compare([write_run(tmp_path / "run", {"mixed": MIXED, "first": FIRST})])
    found = dataclasses.replace(found, notes=("\ud800",))
    for name in ("out/c.html", "c.md", "c.JSON"):
        found.write(tmp_path / name)
    assert (tmp_path / "out" / "c.html").read_text() == found.html()
    assert (tmp_path / "c.md").read_text() == found.table_markdown()
    assert json.loads((tmp_path / "c.JSON").read_text())["notes"] == ["\ud800"]
    with pytest.raises(ConfigError, match=r"out: unknown ending \(got '.*c.txt'\); use one of: .html, .md, .json"):
        found.write(tmp_path / "c.txt")
    with pytest.raises(ConfigError, match="out: cannot be written"):
        found.write(tmp_path / "c.md" / "c.md")


def test_a_terminal_of_any_width(tmp_path: Path) -> None:
    """Names are folded, never cut, where columns get narrow; foreign text is no markup of rich's."""
    run = write_run(tmp_path / "run", {"a-ranker-with-a-long-name": MIXED, "first": FIRST}, notes=["[bold]x[/bold] :smile:"])
    text = compare([run]).table_text(60)
    assert max(map(len, text.splitlines())) <= 60
    assert "[bold]x[/bold] :smile:" in text


class _Texts(HTMLParser):
    """All text of a page, and the names of its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.elements = "", set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_foreign_text_stays_text(tmp_path: Path) -> None:
    """A folder or a note full of markup is shown as it is, on the page and in Markdown; the page holds no script."""
    nasty = "<img onerror=alert(1)> | [x](y)\u202e"
    one = write_run(tmp_path / nasty.replace("/", ""), {"x": MIXED}, notes=["</style><script>1</script>"])
    found = compare([one, write_run(tmp_path / "two", {"x": FIRST})])
    page, parser = found.html(), _Texts()
    parser.feed(page)
    assert {"script", "img", "a", "link"}.isdisjoint(parser.elements)
    assert "<img onerror=alert(1)> | [x](y)⟨U+202E⟩/x" in parser.text
    assert "</style><script>1</script>" in parser.text
    markdown = found.table_markdown()
    assert "\\<img onerror=alert(1)\\> \\| \\[x\\](y)⟨U+202E⟩/x" in markdown
    assert "<script>" not in markdown.replace("\\<", "")


def test_the_page_allows_its_own_style_only(tmp_path: Path) -> None:
    """The policy names the hash of the one style sheet; no attribute needs more, and nothing is loaded."""
    page = compare([write_run(tmp_path / "run", {"mixed": MIXED, "first": FIRST})]).html()
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in html.unescape(page)
    assert not re.search(r'style="|src=|href=|url\(|@import', page)


def test_bars_are_drawn_to_scale(tmp_path: Path) -> None:
    """A better ranker's bar lies right of 0, a worse one's left, and that of an equal one on it."""
    rankers = {"mixed": MIXED, "first": FIRST, "last": LAST, "same": MIXED}
    page = compare([write_run(tmp_path / "run", rankers)], metrics=["ndcg@5"]).html()
    zeros = [float(each) for each in re.findall(r'class="zero" x1="([\d.]+)"', page)]
    points = re.findall(r'class="point (\w+)" cx="([\d.]+)"', page)
    assert len(set(zeros)) == 1
    assert [side for side, _ in points] == ["higher", "unclear", "lower"]
    first, same, last = (float(x) for _, x in points)
    assert last < zeros[0] == same < first
