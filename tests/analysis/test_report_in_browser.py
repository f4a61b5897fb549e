"""The report in a real browser: the first screen answers, at 1280 and at 400 pixels, and nothing scrolls sideways."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

BROWSER = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--hide-scrollbars", "--virtual-time-budget=2000"),
)
FRAME = """<!doctype html><body style="margin:0"><iframe id="f" style="border:0" width="{width}" height="{height}"
 srcdoc="{page}"></iframe><p id="seen"></p><script>f.onload = () => {{
 const d = f.contentDocument, box = d.querySelector('.answers').getBoundingClientRect();
 seen.textContent = JSON.stringify({{wide: d.documentElement.scrollWidth, answers_end: box.bottom}}); }}</script>"""


def browse(chromium: str, page: str, width: int, height: int, *flags: str) -> str:
    """Open the page in a frame of this size (a browser's window has a least width) and return the DOM."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        path = Path(home) / "frame.html"
        path.write_text(FRAME.format(width=width, height=height, page=escape(page)))
        command = [chromium, *BROWSER, f"--user-data-dir={home}/profile", f"--window-size={max(500, width)},{height}"]
        done = subprocess.run(
            [*command, *flags, path.as_uri()], capture_output=True, text=True, timeout=300, check=True
        )
        return done.stdout


@pytest.mark.acceptance
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (400, 800)])
@pytest.mark.parametrize("name", ["measured", "several", "failed", "unresolved", "random", "interrupted"])
def test_the_first_screen_answers_in_a_real_browser(
    name: str,
    width: int,
    height: int,
    pages: Callable[[str], str],
    require_program: Callable[..., str],
    tmp_path: Path,
) -> None:
    """The four answers end within the first screen, nothing scrolls sideways, and a picture can be taken."""
    chromium = require_program("chromium", "chromium-browser", "google-chrome")
    dom = browse(chromium, pages(name), width, height, "--dump-dom")
    seen = json.loads(unescape(re.findall(r'<p id="seen">(.*?)</p>', dom)[-1]))
    assert seen["wide"] <= width
    assert seen["answers_end"] <= height
    picture = tmp_path / "page.png"
    browse(chromium, pages(name), width, height, f"--screenshot={picture}")
    assert picture.stat().st_size > 10_000
