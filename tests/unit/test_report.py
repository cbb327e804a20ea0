"""The report of a run: what every file of it holds, what a reader is warned of, and that no foreign text gets through."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from llmrank.errors import DatasetError
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.measures.summary import summarize, write_summary
from llmrank.evaluation.report import write_report
from llmrank.evaluation.report.numbers import MISSING
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.plots import all_figures, style
from llmrank.evaluation.report.plots.slices import history_figure
from llmrank.evaluation.report.tables.quality import quality_tables
from tests.unit.sample_run import NASTY_TITLES, SCRIPT, write_sample_run

ALLOWED_TAGS = frozenset(
    """html head meta title style body a header h1 h2 h3 h4 h5 h6 p section ul ol li nav main div table caption thead tbody tr
    th td small strong span bdi figure figcaption details summary dl dt dd pre code b svg g path line text rect""".split()  # noqa: SIM905
)
INTERVALS = (
    *(("ci", of) for of in ("metrics", "ndcg@10", "tau", "kendall_tau", "difference")),
    ("top1_ci", "top1_same"),
    ("overlap_ci", "overlap"),
)
"""Where a summary has an interval, and of what."""
LOADING = frozenset({"src", "style", "srcset", "action", "xlink:href"})
"""Attributes that load, send or style something."""


class Page(HTMLParser):
    """Reads a page: its tags with their attributes, and its text as a reader sees it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A summarised and reported run of five rankers and 64 cases."""
    folder = write_sample_run(tmp_path_factory.mktemp("run"))
    write_summary(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: RunFolder) -> Page:
    """Its page."""
    return Page((run.path / "report.html").read_text(encoding="utf-8"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def steady(value: Any) -> Any:
    """A summary whose intervals do not depend on how they are drawn: 0.02 on either side of their values."""
    if isinstance(value, list):
        return [steady(each) for each in value]
    if not isinstance(value, dict):
        return value
    around = {key: steady(each) for key, each in value.items()}
    for interval, of in INTERVALS:
        if value.get(interval) is not None and of in value:
            around[interval] = spread(value[interval], value[of])
    return around


def spread(interval: Any, value: Any) -> Any:
    if isinstance(interval, dict):
        return {key: spread(each, value[key]) for key, each in interval.items()}
    return None if interval is None else [value - 0.02, value + 0.02]


def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)


def edit_summary(folder: RunFolder, change: Callable[[dict[str, Any]], None]) -> None:
    summary = folder.summary
    change(summary)
    (folder.path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def test_markdown_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion) -> None:
    """A change of report.md is seen in review."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(steady(summarize(folder))), encoding="utf-8")
    write_report(folder)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == snapshot


def test_every_table_carries_the_protocol(run: RunFolder, page: Page) -> None:
    """Each table of the page has it as its caption; each of report.md has it above."""
    protocol = run.manifest["protocol"]
    html = (run.path / "report.html").read_text(encoding="utf-8")
    tables = re.findall(r"<table>\s*<caption><span>(.*?)</span>", html)
    assert len(tables) >= 8
    assert set(tables) == {protocol}
    assert sum(tag == "table" for tag, _ in page.tags) == len(tables)
    markdown = (run.path / "report.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\| --- ", markdown, re.MULTILINE)) == markdown.count(f"\n\n{protocol}\n\n| ") == len(tables)


def test_table_headers_have_their_scope(page: Page) -> None:
    """Every header cell says whether it heads a row or a column."""
    assert {attributes.get("scope") for tag, attributes in page.tags if tag == "th"} == {"row", "col"}


def test_foreign_text_stays_text(page: Page) -> None:
    """No title, answer, prompt or note makes a tag, an attribute or an address; each can be read as it is."""
    assert {tag for tag, _ in page.tags} <= ALLOWED_TAGS
    attributes = [name for _, found in page.tags for name in found]
    assert not [
        name for name in attributes if name.startswith("on") or name in {"src", "style", "srcset", "action", "xlink:href"}
    ]
    assert all((found["href"] or "").startswith("#") for _, found in page.tags if "href" in found)
    assert SCRIPT in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "千と千尋の神隠し" in page.text
    assert "Evil ⟨U+202E⟩Reversed⟨U+202C⟩ (1999)" in page.text
    assert "Nul⟨U+0000⟩ and bell⟨U+0007⟩ and zero⟨U+200B⟩width" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2028\u200b]", page.text)


def test_the_policy_allows_the_page_s_own_style_sheet_only(page: Page) -> None:
    """Nothing may be loaded or run; the style sheet is named by its hash."""
    policy = next(found["content"] for tag, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-[\w+/=]{44}'; base-uri 'none'; form-action 'none'", policy)


def test_ids_are_of_the_whole_page(page: Page) -> None:
    """No id stands twice, those inside plots included, and every link leads to one."""
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    assert {(found["href"] or "")[1:] for _, found in page.tags if "href" in found} <= set(ids)


def test_every_case_shown_has_its_order_prompt_and_answer(run: RunFolder, page: Page) -> None:
    """Ten worst and ten best a ranker; what was relevant is marked in each order; prompts and raw answers are there."""
    html = (run.path / "report.html").read_text(encoding="utf-8")
    cases = html.split('<details class="case">')[1:]
    assert len(cases) == 20 * len(run.ranker_names)
    assert all('class="hit">relevant' in case for case in cases)
    asked = sum(len(list(run.stability(name))) > 0 for name in run.ranker_names)
    assert html.count('<details class="asked">') == 20 * asked
    assert "failures stand first, 5 of them" in page.text
    assert "raw answer" in page.text
    assert "log-likelihood of each continuation" in page.text
    assert "RateLimitError: 429: slow down" in page.text


def test_plots_are_well_formed_and_have_words(run: RunFolder, page: Page) -> None:
    """Every SVG is XML of its own without addresses, and what it shows is said in words."""
    html = (run.path / "report.html").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg .*?</svg>", html, re.DOTALL)
    for drawing in drawings:
        ElementTree.fromstring(drawing)  # noqa: S314  # our own output
        assert "url(http" not in drawing
    described = [found for tag, found in page.tags if found.get("role") == "img"]
    assert len(described) == len(drawings) >= 15
    assert all(found["aria-label"] for found in described)


@pytest.mark.parametrize("rankers", [2, 12])
def test_each_figure_has_all_rankers(tmp_path: Path, rankers: int) -> None:
    """Two rankers or twelve: each has its small plots by history length and by place; dear and free ones stand on one axis."""
    folder = write_sample_run(tmp_path, rankers=rankers, cases=30)
    figures = {figure.key: figure for figure in all_figures(Overview(summarize(folder), folder.manifest))}
    for key in ("plot-history", "plot-position"):
        assert len(figures[key].panels) == rankers
    if rankers == 12:
        (cost,) = figures["plot-cost"].panels
        assert all(f">{name}</text>" in cost.svg for name in ("gpt-large", "popularity", "qwen-recency…long-name"))
        assert "not shown: unpriced" in figures["plot-cost"].caption


def test_without_the_extra_the_tables_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where altair is missing, the page says how to get the plots, and has all else."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=2, cases=12)
    write_summary(folder)
    html = write_report(folder).read_text(encoding="utf-8")
    assert "<svg" not in html
    assert "pip install &#39;llmrank[eval]&#39;" in html
    assert html.count("<table>") >= 5


def test_csv_files_hold_the_exact_values(run: RunFolder) -> None:
    """metrics.csv is the summary; the means over cases.csv are its values."""
    summary = run.summary["rankers"]
    for row in rows(run.path / "metrics.csv"):
        found = summary[row["ranker"]]
        assert float(row["value"]) == found["metrics"][row["measure"]]
        interval = found["ci"][row["measure"]]
        assert (row["low"], row["high"]) == (("", "") if interval is None else tuple(map(str, interval)))
    values = defaultdict(list)
    for row in rows(run.path / "cases.csv"):
        values[row["ranker"]].append(float(row["ndcg@10"]))
    assert {name: len(of_ranker) for name, of_ranker in values.items()} == dict.fromkeys(summary, 64)
    for name, of_ranker in values.items():
        assert sum(of_ranker) / len(of_ranker) == pytest.approx(summary[name]["metrics"]["ndcg@10"], abs=1e-9)


def test_what_prefilters_let_through_stands_beside_relevance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column for each number that is kept, in page, Markdown and on a terminal; a row of metrics.csv; none without one."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=4, cases=30)
    write_summary(folder)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "refilter recall" not in page
    found = {"popularity": None, "smol-likelihood": (20, 0.5, [0.4, 0.6]), "gpt-listwise": (50, 0.75, None)}

    def add(summary: dict[str, Any]) -> None:
        for name, passed in found.items():
            summary["rankers"][name]["prefilter"] = passed and dict(zip(("keep", "recall", "ci"), passed, strict=True))

    edit_summary(folder, add)
    page = write_report(folder).read_text(encoding="utf-8")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    (table, _) = quality_tables(Overview(folder.summary, folder.manifest))
    assert table.columns[-2:] == ("Prefilter recall@20,\N{NO-BREAK SPACE}%", "Prefilter recall@50,\N{NO-BREAK SPACE}%")
    for heading in table.columns[-2:]:
        assert heading in page
        assert heading.replace("\N{NO-BREAK SPACE}", " ") in text
    by_name = {row.header: [(cell.text, cell.detail) for cell in row.cells[-2:]] for row in table.rows}
    assert by_name["smol-likelihood"] == [("50.0", "[40.0, 60.0]"), (MISSING, "")]
    assert by_name["gpt-listwise"] == [(MISSING, ""), ("75.0", "")]
    assert by_name["popularity"] == by_name["Chance"] == [(MISSING, ""), (MISSING, "")]
    assert "no ranking finds the others" in page
    lines = [row for row in rows(tmp_path / "metrics.csv") if row["measure"].startswith("prefilter")]
    assert [tuple(row.values()) for row in lines] == [
        ("gpt-listwise", "prefilter recall@50", "0.75", "", "", "30"),
        ("smol-likelihood", "prefilter recall@20", "0.5", "0.4", "0.6", "30"),
    ]


@pytest.mark.parametrize("failures", ["fallback", "worst"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of ir_measures' own providers
def test_trec_files_give_the_summary_s_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: str) -> None:
    """A second implementation that reads the files comes to the same values, also for ids with spaces and signs in them."""
    import ir_measures

    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, failures=failures, id_prefix="id 100% \u2003\t")
    write_summary(folder)
    write_report(folder)
    names = {"ndcg@10": "nDCG@10", "ndcg@5": "nDCG@5", "hit@10": "Success@10", "mrr": "RR"}
    measures = {name: ir_measures.parse_measure(theirs) for name, theirs in names.items()}
    read_qrels: Callable[[str], Any] = ir_measures.read_trec_qrels
    read_run: Callable[[str], Any] = ir_measures.read_trec_run
    qrels = list(read_qrels(str(tmp_path / "trec" / "qrels.txt")))
    for ranker, found in folder.summary["rankers"].items():
        run = list(read_run(str(tmp_path / "trec" / f"{ranker}.run")))
        assert {unquote(line.doc_id) for line in run} <= {item.id for item in folder.catalog}
        theirs = ir_measures.calc_aggregate(measures.values(), qrels, run)
        for name, measure in measures.items():
            assert theirs[measure] == pytest.approx(found["metrics"][name], abs=1e-9), (ranker, name)


def test_a_second_report_is_the_same(run: RunFolder) -> None:
    """The same folder gives the same bytes."""
    files = sorted(path for path in run.path.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    write_report(RunFolder(run.path))
    assert {path: path.read_bytes() for path in files} == before


def test_an_incomplete_run_is_called_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said first, no value is marked as best, and nobody is said to win."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=4)
    path = folder.results_path("random")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:20]))
    write_summary(folder)
    text = Page(write_report(folder).read_text(encoding="utf-8")).text
    assert "The run is incomplete" in text
    assert "20 of 64" in text
    assert "No best value is marked" in text
    assert "best: " not in text
    assert "is no comparison" in text


def first_cases(folder: RunFolder, count: int) -> None:
    """Leaves the results of the first cases only."""
    for name in folder.ranker_names:
        path = folder.results_path(name)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:count]))


@pytest.mark.parametrize(
    ("protocol", "what"),
    [
        ({"split": "leave-last-out", "users": None}, "a random sample of them"),
        ({"split": "given", "users": None}, "no random sample"),
        ({"split": "given", "users": 64}, "a random sample of them"),
    ],
)
def test_a_run_with_a_limit_is_compared_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: dict[str, Any], what: str
) -> None:
    """All rankers have ranked the same first cases: every table says which, and rankers are told apart as in a whole run."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=4)
    manifest = folder.manifest
    manifest["suite"]["protocol"] = protocol
    manifest["protocol"] = "A protocol without a full stop"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    folder = RunFolder(tmp_path)
    first_cases(folder, 40)
    summary = write_summary(folder)
    assert "40 of 64 cases are ranked, by every ranker" in summary["notes"]
    html = write_report(folder).read_text(encoding="utf-8")
    captions = re.findall(r"<caption><span>(.*?)</span>", html)
    assert captions
    assert all(caption.startswith("A protocol without a full stop. The first 40 of 64 cases, ") for caption in captions)
    assert all(what in caption for caption in captions)
    text = Page(html).text
    assert "incomplete" not in text
    assert "is no comparison" not in text
    assert "A value is marked as best only where" in text
    assert "goes on when" not in text


def test_the_head_says_which_run_it_is(run: RunFolder, page: Page) -> None:
    """The name of the run's folder and the time at which it was begun."""
    html = (run.path / "report.html").read_text(encoding="utf-8")
    assert f"<h1>Evaluation report of <bdi>{run.path.name}</bdi></h1>" in html
    assert f"<title>Evaluation report of {run.path.name}: 5 rankers, 64 cases</title>" in html
    assert "2026-11-22 02:00 UTC · 5 rankers" in page.text


def test_brackets_are_explained_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without intervals there is no word of them."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=2, cases=12)
    write_summary(folder)
    assert "bootstrap intervals over users" in write_report(folder).read_text(encoding="utf-8")

    def no_intervals(summary: dict[str, Any]) -> None:
        for found in summary["rankers"].values():
            found["ci"] = dict.fromkeys(found["ci"])

    edit_summary(folder, no_intervals)
    assert "bootstrap intervals over users" not in write_report(folder).read_text(encoding="utf-8")


def slices_of(monkeypatch: pytest.MonkeyPatch, found: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The words and the Vega-Lite specification of the plot by history length of one ranker."""
    specifications = []

    def keep(chart: Any, *, key: str) -> str:
        specifications.append(chart.to_dict())
        return ""

    monkeypatch.setattr(style, "svg", keep)
    rankers = {"a": {"by_history": found, "metrics": {"ndcg@10": 0.5}, "cases": 9}}
    (panel,) = history_figure(Overview({"primary": "ndcg@10", "confidence": 0.95, "rankers": rankers}, {})).panels
    return panel.words, specifications[0]


def test_only_a_known_interval_is_drawn_and_no_empty_bin_is_bridged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bin of one case has a point and no interval; the line breaks where a bin has no case; a share has an axis to 100."""
    words, chart = slices_of(
        monkeypatch,
        [
            {"from": 0, "to": 0, "cases": 1, "ndcg@10": 1.0000000000000002, "ci": None},
            {"from": 1, "to": 2, "cases": 5, "ndcg@10": 0.5, "ci": [0.25, 0.75]},
            {"from": 6, "to": 10, "cases": 3, "ndcg@10": 0.5, "ci": [0.25, 0.75]},
        ],
    )
    assert "0: 100.0 (n = 1), 1–2: 50.0 [25.0, 75.0] (n = 5)" in words
    drawn = chart["data"]["values"] if "values" in chart.get("data", {}) else chart["layer"][0]["data"]["values"]
    assert [(row["low"], row["high"], row["line"]) for row in drawn] == [
        (None, None, "0-0"),
        (25.0, 75.0, "0-0"),
        (25.0, 75.0, "0-1"),
    ]
    kinds = [layer["mark"]["type"] for layer in chart["layer"]]
    assert kinds == ["line", "rule", "line"]
    assert all(layer["encoding"]["detail"]["field"] == "line" for layer in chart["layer"] if layer["mark"]["type"] == "line")
    assert {"filter": "isValid(datum.low)"} in chart["layer"][1]["transform"]
    assert chart["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0.0, 100.0]


@given(st.floats(0, 100), st.floats(0.001, 60))
def test_no_tick_of_a_share_lies_beyond_100(low: float, width: float) -> None:
    """There may be room beyond for numbers, but nothing is written there; ticks are few, in order, and on the axis."""
    ticks = style.ticks(parse_measure("ndcg@10"), low - 5, low + width)
    assert ticks == sorted(ticks)
    assert 1 <= len(ticks) <= 7
    assert all(0 <= tick <= 100 and low - 5 - 1e-6 <= tick <= low + width + 1e-6 for tick in ticks)


def test_a_run_without_any_result_has_a_report(tmp_path: Path) -> None:
    """Before the first case there are tables without values."""
    folder = write_sample_run(tmp_path, rankers=2, cases=10)
    for name in folder.ranker_names:
        folder.results_path(name).unlink()
    write_summary(folder)
    html = write_report(folder).read_text(encoding="utf-8")
    assert "No ranker has a value of the primary measure yet" in html
    assert html.count("<bdi>no results yet</bdi>") == 2


def test_sections_that_a_summary_lacks_are_left_out(tmp_path: Path) -> None:
    """Null sections make no tables and no plots; the others stand."""
    folder = write_sample_run(tmp_path, rankers=4, cases=12)
    write_summary(folder)

    def empty(summary: dict[str, Any]) -> None:
        summary["memorization"] = summary["chance"] = None
        for found in summary["rankers"].values():
            found |= dict.fromkeys(("latency", "stability", "position_bias", "answers"))
            found |= {"by_history": [], "errors": {}, "ci": dict.fromkeys(found["ci"])}
            found["usage"]["usd"] = None

    edit_summary(folder, empty)
    html = write_report(folder).read_text(encoding="utf-8")
    for key in ("bias", "by-history", "by-position", "errors", "memorization-titles", "plot-history", "plot-latency"):
        assert f'id="{key}"' not in html
    for key in ("quality", "cost", "answers", "plot-quality", "plot-status", "plot-cost"):
        assert f'id="{key}"' in html
    assert "Chance" not in html


def test_a_summary_s_failure_rule_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where failures count 0, the main table says so, and the TREC files leave them out and say so."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=4, failures="worst")
    write_summary(folder)
    assert "counts 0 in every relevance measure" in write_report(folder).read_text(encoding="utf-8")
    readme = (tmp_path / "trec" / "README.txt").read_text(encoding="utf-8")
    assert "because it counts 0" in readme
    assert "tools leave it out, while summary.json counts it 0" in readme
    failed = {
        row["case"] for row in rows(tmp_path / "cases.csv") if row["ranker"] == "gpt-listwise" and row["status"] == "error"
    }
    ranked = {line.split()[0] for line in (tmp_path / "trec" / "gpt-listwise.run").read_text(encoding="utf-8").splitlines()}
    assert failed
    assert not failed & ranked


def test_a_broken_result_leaves_no_half_written_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A malformed line is one clear error; neither cases.csv nor a part of it is left."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=2, cases=10)
    write_summary(folder)
    with folder.results_path("popularity").open("a", encoding="utf-8") as file:
        file.write("{no json}\n")
    with pytest.raises(DatasetError, match=r"popularity\.jsonl, line 11"):
        write_report(folder)
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "cases.csv").exists()
    assert not (tmp_path / "report.html").exists()


def test_long_prompts_do_not_swell_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long prompts are, and however long their signs are in HTML, the page stays under 5 MB; what is cut says so."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=12, cases=20)
    for name in folder.ranker_names:
        records = list(folder.results(name))
        for record in records:
            for exchange in record.get("trace", ()):
                exchange["messages"] = [{"role": "user", "content": "<千>" * 8_000}]
        folder.results_path(name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    write_summary(folder)
    html = write_report(folder).read_bytes()
    assert 1_000_000 < len(html) < 5_000_000
    assert b"characters left out" in html


def overview(intervals: dict[str, tuple[float, float] | None], users: int = 50) -> Overview:
    """Of rankers with these intervals of NDCG@10, from 50 cases of so many users."""
    rankers = {
        name: {
            "metrics": {"ndcg@10": 0.5 if interval is None else sum(interval) / 2},
            "ci": {"ndcg@10": interval},
            "cases": 50,
            "users": users,
            "status": {"ok": 50},
        }
        for name, interval in intervals.items()
    }
    summary = {
        "protocol": "p",
        "primary": "ndcg@10",
        "planned": 50,
        "confidence": 0.95,
        "failures": "fallback",
        "rankers": rankers,
    }
    return Overview(summary, {"metrics": ["ndcg@10"]})


def clear_best(intervals: dict[str, tuple[float, float] | None], users: int = 50) -> str | None:
    found = overview(intervals, users)
    return found.clear_best(found.measures[0])


def test_only_a_clear_best_is_marked() -> None:
    """A ranker is best if its interval lies above all others'; touching, missing or lonely intervals mark nobody."""
    assert clear_best({"a": (0.1, 0.2), "b": (0.5, 0.6), "c": (0.3, 0.4)}) == "b"
    assert clear_best({"a": (0.1, 0.5), "b": (0.5, 0.6)}) is None
    assert clear_best({"a": None, "b": (0.5, 0.6)}) is None
    assert clear_best({"b": (0.5, 0.6)}) is None


def test_the_finding_says_no_more_than_the_intervals() -> None:
    """It names those whose intervals overlap with the first one's, or says that there are none."""
    assert "overlaps with that of b" in overview({"a": (0.4, 0.6), "b": (0.3, 0.5), "c": (0.1, 0.2)}).finding
    assert "no comparison" in overview({"a": None, "b": (0.1, 0.3)}).finding
    assert "overlaps with those of b and c" in overview({"a": (0.4, 0.6), "b": (0.3, 0.5), "c": (0.1, 0.45)}).finding
    assert "lies above those of all other rankers" in overview({"a": (0.4, 0.6), "b": (0.1, 0.3), "c": (0.1, 0.2)}).finding


def test_a_few_users_have_no_winner() -> None:
    """Below 30 users nothing is called best or above, however far apart the intervals are and however many cases they have."""
    apart: dict[str, tuple[float, float] | None] = {"a": (0.8, 0.9), "b": (0.1, 0.2)}
    assert clear_best(apart, users=30) == "a"
    assert "lies above" in overview(apart, users=30).finding
    assert clear_best(apart, users=29) is None
    finding = overview(apart, users=29).finding
    assert finding.startswith("a has the highest NDCG@10")
    assert finding.endswith("The cases are of 29 users; with fewer than 30, this is no comparison.")
    assert "lies above" not in finding


def test_a_run_of_two_cases_declares_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happened in them, the files say that there are too few users, and mark no value."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=4, cases=2)
    write_summary(folder)
    html = write_report(folder).read_text(encoding="utf-8")
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert 'class="best"' not in html
    assert "interval lies above th" not in markdown
    assert "with fewer than 30, this is no comparison" in markdown
    assert "No best value is marked, because there are fewer than 30 users." in markdown


@pytest.mark.parametrize("title", NASTY_TITLES, ids=range(len(NASTY_TITLES)))
def test_a_hostile_ranker_name_or_note_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str) -> None:
    """Names and notes of a hand-made summary are foreign text too, in Markdown as in HTML."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=1, cases=5)
    manifest = folder.manifest | {"notes": [title], "protocol": title}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    write_summary(RunFolder(tmp_path))
    found = Page(write_report(RunFolder(tmp_path)).read_text(encoding="utf-8"))
    assert {tag for tag, _ in found.tags} <= ALLOWED_TAGS
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<", markdown)
    for block in markdown.split("\n\n"):
        table = [line for line in block.splitlines() if line.startswith("| ")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) <= 1


def test_only_relevance_has_a_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random order is the most novel, which makes it no better: such measures mark nobody, however clear the difference."""
    without_plots(monkeypatch)
    folder = write_sample_run(tmp_path, rankers=2, cases=30)
    write_summary(folder)

    def separate(summary: dict[str, Any]) -> None:
        for number, found in enumerate(summary["rankers"].values()):
            found["ci"] = {name: [0.4 * number, 0.4 * number + 0.1] for name in found["ci"]}

    edit_summary(folder, separate)
    html = write_report(folder).read_text(encoding="utf-8")
    relevance, _, others = html.partition('id="lists"')
    assert relevance.count('class="best"') == 5
    assert 'class="best"' not in others
