"""The report reads well in every state that a run can end in, and needs nothing but itself."""

from __future__ import annotations

import json
import re
import tomllib
import xml.etree.ElementTree as ET
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from analysis import report, wording
from analysis.result import from_json
from analysis.verdict import examine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from analysis.estimate import Inference


def words(page: str) -> str:
    """Return what a reader sees, without the figures."""
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page[page.index("<body") :], flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).replace("\xa0", " ").split())


class Outline(HTMLParser):
    """Collects ids and what the page would fetch; complains about a tag that is closed out of order."""

    VOID = frozenset({"meta", "input", "br", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids and addresses."""
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href"} and not (value or "").startswith("#"):
                self.fetched.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids and addresses of a tag without content."""
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Check the order."""
        assert self.open.pop() == tag


def test_each_state_says_what_it_must(ending: str, says: tuple[str, ...], pages: Callable[[str], str]) -> None:
    """The words that a reader needs are there, and no value of Python's shines through."""
    seen = words(pages(ending))
    for expected in says:
        assert expected in seen
    for leak in ("None of None", "nan", " None.", "{{", "np.float", "undefined", ". .", ".."):
        assert leak not in seen, leak


def test_the_page_is_whole_and_needs_nothing_else(ending: str, pages: Callable[[str], str]) -> None:
    """Well nested, ids used once, under 1 MB, no script, nothing to fetch."""
    page = pages(ending)
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.fetched == []
    assert "<script" not in page
    assert re.search(r"https?://|url\((?!#)|@import", page) is None
    assert len(page.encode()) < 1_000_000


def test_the_verdict_comes_before_everything_else(pages: Callable[[str], str]) -> None:
    """Headline, then which limit, how sure, what to set, did it hold; only then the rest."""
    seen = words(pages("measured"))
    order = [
        "lets through",
        "Which limit",
        "How sure",
        "What to set",
        "Did it hold",
        "Settings to paste",
        "Why this is",
    ]
    places = [seen.index(text) for text in order]
    assert places == sorted(places)


def test_hostile_names_stay_text(measured_run: tuple[dict[str, Any], pd.DataFrame, Inference]) -> None:
    """A model or a target that looks like HTML does not become HTML."""
    run, table, inference = measured_run
    run |= {"model": "<script>alert(1)</script>", "target": '"><img src=x>'}
    conclusion = examine(run, table, inference)
    page = report.render(run, conclusion, [])
    assert "<script" not in page
    assert "<img" not in page


def test_write_leaves_every_file_and_can_be_repeated(
    tmp_path: Path, measured_run: tuple[dict[str, Any], pd.DataFrame, Inference]
) -> None:
    """From a ledger and run.json to verdict, settings, figures and page; a second time the same bytes."""
    run, table, _ = measured_run
    (tmp_path / "requests").mkdir()
    (tmp_path / "run.json").write_text(json.dumps(run))
    columns = [c for c in table.columns if table[c].notna().any()]
    with (tmp_path / "requests" / "0.jsonl").open("w") as ledger:
        ledger.writelines(line + "\n" for line in table[columns].to_json(orient="records", lines=True).splitlines())
    page = report.write(tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert page == tmp_path / "report.html"
    result = from_json(first["result.json"])
    assert result.model == run["model"]
    assert set(first) >= {"requests.parquet", "settings.toml", "per-second.svg", "report.html"}
    settings = tomllib.loads(first["settings.toml"].decode())
    assert settings["source"] == {"run": run["run"], "target": "mock", "model": result.model, "date": run["started"]}
    assert settings["requests_per_minute"] == result.settings.requests_per_minute  # type: ignore[union-attr]
    for figure in (tmp_path / "figures").glob("*.svg"):
        ET.fromstring(figure.read_text())  # noqa: S314 - our own file
    report.write(tmp_path)
    assert first == {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (60.0, "60"),
        (1234.5, "1,234"),
        (57.94, "57.94"),
        (0.98, "0.98"),
        (12345.6, "12,346"),
        (None, wording.NONE),
        (0.0, "0"),
    ],
)
def test_numbers_have_no_more_digits_than_they_need(value: float | None, expected: str) -> None:
    """Four digits that count, thousands apart."""
    assert wording.number(value) == expected
