"""The pages of experiments, offline and online, in a real browser: nothing is loaded, breaks or sticks out, also on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmrank.experiment.online.page import page as reading_page
from llmrank.experiment.report.page import page
from tests.integration.chromium import Tab, required_browser, tab
from tests.unit.sample_findings import ALL
from tests.unit.sample_readings import ALL as READINGS

PHONE, DESK = 360, 1200


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A tab of a Chromium; without one on the PATH the tests are skipped."""
    with tab(required_browser(), tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


PAGES = {name: lambda make=make: page(make()) for name, make in ALL.items()}
PAGES |= {f"online {name}": lambda make=make: reading_page(make()) for name, make in READINGS.items()}


@pytest.fixture(params=PAGES)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The page of one of the sample experiments."""
    path = tmp_path / "report.html"
    path.write_text(PAGES[request.param](), encoding="utf-8")
    return path


def test_a_name_is_not_squeezed_on_a_phone(chromium: Tab, tmp_path: Path) -> None:
    """Beside a long value a name goes into a line of its own: no name of a lane is a column of single letters."""
    path = tmp_path / "reading.html"
    path.write_text(reading_page(READINGS["four"]()), encoding="utf-8")
    chromium.open(path, PHONE)
    narrow = "[...document.querySelectorAll('.lane:not(.ends) .who')].filter(each => each.clientHeight > 80).length"
    assert chromium.value("document.querySelectorAll('.lane .who').length") >= 20
    assert chromium.value(narrow) == 0


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_page_is_quiet_and_fits(chromium: Tab, written: Path, width: int) -> None:
    """No line in the console, no request but for the page, and no need to scroll sideways, with all that folds unfolded."""
    chromium.open(written, width)
    chromium.value("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert chromium.console == []
    assert chromium.requests == [written.as_uri()]
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert chromium.value("document.title") != "taken"
    assert chromium.value("document.querySelectorAll('script, img').length") == 0


def test_text_can_be_read_on_its_ground(chromium: Tab, written: Path) -> None:
    """Every text has a contrast of at least 4.5 with what is behind it (WCAG 2.2, level AA), in the light and in the dark."""
    for scheme in ("light", "dark"):
        chromium.open(written, DESK, scheme=scheme)
        assert chromium.value(CONTRAST) == []


CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return Array.from(canvas.getImageData(0, 0, 1, 1).data) };
  const part = value => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4 };
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = node => { for (; node; node = node.parentElement) {
    const found = rgba(getComputedStyle(node).backgroundColor); if (found[3] === 255) return found } return [255, 255, 255] };
  const low = new Set();
  const walk = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    if (!walk.currentNode.data.trim()) continue;
    const node = walk.currentNode.parentElement, style = getComputedStyle(node);
    const [a, b] = [light(rgba(node instanceof SVGElement ? style.fill : style.color)), light(ground(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) low.add(`${node.tagName} ${node.className.baseVal ?? node.className}: ${contrast.toFixed(2)}`);
  }
  return [...low];
})()
"""


def test_the_browser_would_have_told(chromium: Tab, tmp_path: Path) -> None:
    """What is smuggled into the page is refused and told of, and what is too wide is seen: so the tests above can fail."""
    attack = "<p style='color:red'>x<script>document.title = 'taken'</script><img src='http://127.0.0.1:9/a.png'>"
    text = page(ALL["ship"]())
    smuggled = tmp_path / "smuggled.html"
    smuggled.write_text(text.replace("</main>", f"{attack}</main>"), encoding="utf-8")
    chromium.open(smuggled, PHONE)
    told = " ".join(chromium.console)
    assert "inline style" in told
    assert "inline script" in told
    assert "a.png" in told
    assert chromium.value("document.title") != "taken"
    wide = tmp_path / "wide.html"
    wide.write_text("<!doctype html><meta name=viewport content='width=device-width'><pre>" + "x" * 500, encoding="utf-8")
    chromium.open(wide, PHONE)
    assert chromium.value("document.documentElement.scrollWidth") > PHONE
    pale = tmp_path / "pale.html"
    pale.write_text("<!doctype html><main><p style='color:#aaa'>pale</main>", encoding="utf-8")
    chromium.open(pale, DESK)
    assert chromium.value(CONTRAST) == ["P : 2.32"]
