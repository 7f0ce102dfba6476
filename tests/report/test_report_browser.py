"""The page in a real browser, without a window."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from mra_plugin.report.folder import write_report
from mra_plugin.report.reading import read_results

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
# In a copy of the page, shown at a given width: what it fetched, and how large things are.
PROBE = """
<iframe id="page" style="width: %dpx; height: 900px; border: 0" srcdoc="%s"></iframe>
<pre id="found"></pre>
<script>
  document.getElementById("page").onload = event => {
    const inner = event.target.contentWindow, page = inner.document;
    const scrolled = [...page.querySelectorAll(".scroll")];
    document.getElementById("found").textContent = JSON.stringify({
      fetched: inner.performance.getEntriesByType("resource").map(entry => entry.name)
        .filter(name => !name.startsWith("data:")),
      pictures: [...page.images].map(
        image => [image.naturalWidth, image.naturalHeight, image.width, image.currentSrc.length]),
      width: page.documentElement.clientWidth,
      overflow: page.documentElement.scrollWidth,
      wide: [...page.querySelectorAll("h1, h2, h3, p, li, figure, .scroll, caption span")]
        .filter(one => one.getBoundingClientRect().right > page.documentElement.clientWidth + 1)
        .map(one => one.textContent.trim().slice(0, 60)),
      scrolling: scrolled.filter(one => one.scrollWidth > one.clientWidth).length,
    });
  };
</script>
"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory, cpu_file: Path, gpu_file: Path) -> str:
    folder = tmp_path_factory.mktemp("report")
    return write_report(read_results([cpu_file, gpu_file]), folder)[0].read_text()


def probed(html: str, width: int, folder: Path) -> dict[str, object]:
    page = folder / "probe.html"
    inner = html.replace("&", "&amp;").replace('"', "&quot;")
    page.write_text("<!DOCTYPE html>" + PROBE % (width, inner))
    assert BROWSER is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command = [
        BROWSER,
        *flags,
        "--disable-background-networking",
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width + 100},1000",
        "--virtual-time-budget=10000",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("width", [400, 1280])
def test_page_in_a_browser(html: str, width: int, tmp_path: Path) -> None:
    found = probed(html, width, tmp_path)
    assert found["fetched"] == []
    assert found["width"] in range(width - 20, width + 1)
    assert found["overflow"] <= found["width"]
    assert found["wide"] == []
    assert len(found["pictures"]) == 12
    for natural_width, natural_height, shown_width, _ in found["pictures"]:
        assert natural_width > 0
        assert natural_height > 0
        # The phone gets its own, upright, drawing: nothing has to shrink beyond reading.
        assert shown_width > 0.7 * natural_width
    # Only on a phone do tables need to scroll, each in its own box.
    assert (found["scrolling"] > 0) == (width == 400)
