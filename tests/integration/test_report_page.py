"""The report's page in a real browser: it loads nothing, breaks no rule of its own policy, and shows hostile titles as text."""

from __future__ import annotations

import html
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmrank.evaluation.measures.summary import write_summary
from llmrank.evaluation.report import write_report
from tests.integration.chromium import QUIET, TIMEOUT_S, required_browser
from tests.unit.sample_run import SCRIPT, write_sample_run


@dataclass(frozen=True)
class Visit:
    """What a browser did with a page: its DOM afterwards, what it wrote to the console, and the addresses it asked for."""

    dom: str
    console: list[str]
    requests: list[str]


@pytest.fixture(scope="module")
def browser() -> str:
    """A Chromium on the PATH; without one the test is skipped."""
    return required_browser()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with every status and hostile titles."""
    pytest.importorskip("altair", reason="pip install 'llmrank[eval]'")
    folder = write_sample_run(tmp_path_factory.mktemp("run"), rankers=5)
    write_summary(folder)
    return write_report(folder)


def visit(browser: str, page: Path, scratch: Path) -> Visit:
    """Opens a page in a fresh profile, with nothing but the page's own doings in the network log."""
    log = scratch / "net.json"
    done = subprocess.run(
        [
            browser,
            *QUIET,
            "--enable-logging=stderr",
            f"--user-data-dir={scratch / 'profile'}",
            f"--log-net-log={log}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=True,
    )
    console = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    # Requests that a page makes have an origin, be it "null"; those of the browser itself have none.
    by_pages = [
        event["params"] for event in events if event.get("params", {}).get("initiator", "not an origin") != "not an origin"
    ]
    return Visit(done.stdout, console, sorted({request["url"] for request in by_pages}))


def test_the_page_loads_nothing_and_breaks_no_rule(browser: str, page: Path, tmp_path: Path) -> None:
    """No request leaves the page, its console stays empty, and a title made of tags is text."""
    found = visit(browser, page, tmp_path)
    assert found.requests == []
    assert found.console == []
    assert html.escape(SCRIPT, quote=False) in found.dom
    assert "<img" not in found.dom
    assert "<script" not in found.dom
    assert found.dom.count("<svg ") >= 15


def test_the_browser_would_have_told(browser: str, page: Path, tmp_path: Path) -> None:
    """What is smuggled into the page is refused, and the same without the policy is not: so the test above can fail."""
    address = "http://127.0.0.1:9/a.png"
    attack = f"<p style='color:red'>x<script>document.title = 'taken'</script><img src='{address}'>"
    smuggled = tmp_path / "smuggled.html"
    smuggled.write_text(page.read_text(encoding="utf-8").replace("</main>", f"{attack}</main>"), encoding="utf-8")
    found = visit(browser, smuggled, tmp_path)
    told = " ".join(found.console)
    assert "inline style" in told
    assert "inline script" in told
    assert address in told
    assert found.requests == []
    assert "taken" not in found.dom.split("</title>")[0]
    lawless = tmp_path / "lawless.html"
    lawless.write_text(f"<!doctype html><title>x</title>{attack}", encoding="utf-8")
    found = visit(browser, lawless, tmp_path)
    assert found.requests == [address]
    assert "<title>taken" in found.dom
