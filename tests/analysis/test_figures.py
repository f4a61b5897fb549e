"""Figures: what is on the axes, that colour is never alone, and that a page can hold many of them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from analysis import curves, drawing, figures
from analysis.load import to_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE = to_table(
    {
        "call_id": i,
        "phase": "fill" if i < 80 else "verify-1-rested",
        "sent_s": 0.25 * i,
        "planned_s": 0.25 * i,
        "done_s": 0.25 * i + 0.6,
        "status": 429 if 20 <= i < 40 else 200,
    }
    for i in range(120)
)
EMPTY = to_table([])


def full(table: pd.DataFrame) -> pd.DataFrame:
    """Make points as `curves.used` does."""
    word = curves.outcomes(table)
    return pd.DataFrame(
        {"sent_s": table["sent_s"], "used": [8.0 if w == "throttled" else 3.0 for w in word], "outcome": word}
    )


FIGURES: dict[str, Callable[[pd.DataFrame, drawing.Size], Figure]] = {
    "per_second": lambda t, size: figures.per_second(
        curves.per_bin(t), 1.0, edges_s=[10.0, 20.0], proof_s=(20.0, 30.0), size=size
    ),
    "fullness": lambda t, size: figures.fullness(full(t), 8.0, edges_s=[10.0], size=size),
    "flight": lambda t, size: figures.flight(curves.by_in_flight(t), 2.0, size=size),
    "throughput": lambda t, size: figures.throughput(
        curves.throughput_curve(t, 5.0), limit_per_min=200.0, set_per_min=190.0, bin_s=5.0, size=size
    ),
    "errors": lambda t, size: figures.errors(curves.error_curve(t, 5.0), set_per_min=190.0, size=size),
    "latency": lambda t, size: figures.latency(curves.latency_by_load(t), size=size),
}


def axes_of(name: str, table: pd.DataFrame = TABLE, size: drawing.Size = drawing.WIDE) -> Axes:
    """Draw and return the only pair of axes."""
    (axes,) = FIGURES[name](table, size).axes
    return axes


@pytest.mark.parametrize("size", [drawing.WIDE, drawing.NARROW], ids=lambda s: s.name)
@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_names_its_axes_and_its_marks(name: str, size: drawing.Size) -> None:
    """A reader can tell what is drawn without the text around it."""
    axes = axes_of(name, size=size)
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    assert axes.get_legend() is not None


@pytest.mark.parametrize("size", [drawing.WIDE, drawing.NARROW], ids=lambda s: s.name)
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off(name: str, size: drawing.Size) -> None:
    """Axes and legend lie within the picture, with every kind of mark in it, and the axes keep most of its width."""
    failing = TABLE.assign(status=[500 if i % 7 == 0 else status for i, status in enumerate(TABLE["status"])])
    figure = FIGURES[name](failing, size)
    figure.draw_without_rendering()
    page = figure.bbox
    legend = figure.axes[0].get_legend()
    assert legend is not None
    for box in (figure.axes[0].get_tightbbox(), legend.get_window_extent()):
        assert box is not None
        assert (box.x0, box.y0) >= (page.x0, page.y0)
        assert box.x1 <= page.x1 + 1.0
        assert box.y1 <= page.y1 + 1.0
    assert figure.axes[0].bbox.width > 0.75 * page.width


@pytest.mark.parametrize("name", FIGURES)
def test_a_record_without_calls_can_be_drawn(name: str) -> None:
    """Empty curves give an empty figure, not an error."""
    drawing.to_svg(FIGURES[name](EMPTY, drawing.NARROW))


def test_throttled_is_told_without_colour() -> None:
    """Hatched bars, crosses instead of dots, and a limit that is dashed and labelled."""
    bars = [patch.get_hatch() for patch in axes_of("per_second").patches]
    assert "////" in bars
    svg = drawing.to_svg(FIGURES["fullness"](TABLE, drawing.WIDE))
    assert "limit: 8" in svg
    assert "stroke-dasharray" in svg


def test_the_bars_add_up_to_what_was_offered() -> None:
    """The highest stack is the highest offered rate, 4 a second."""
    axes = axes_of("per_second")
    assert max(patch.get_y() + patch.get_height() for bars in axes.containers for patch in bars) == 4.0
    assert axes.get_ylabel() == "calls per second"


def test_the_same_figure_gives_the_same_bytes() -> None:
    """A report can be made again and compared."""
    first, second = (drawing.to_svg(FIGURES["errors"](TABLE, drawing.WIDE)) for _ in range(2))
    assert first == second
    ET.fromstring(first)  # noqa: S314 - our own file


def test_text_stays_text() -> None:
    """For screen readers, for searching, and to keep the file small."""
    svg = drawing.to_svg(FIGURES["latency"](TABLE, drawing.WIDE))
    assert "calls in flight when sent" in svg
    assert "DejaVu" not in svg


def test_inside_a_page_a_figure_has_its_own_ids_the_pages_colours_and_a_name() -> None:
    """Two figures in one page do not disturb each other, and follow the theme."""
    svg = drawing.inline(
        drawing.to_svg(FIGURES["per_second"](TABLE, drawing.WIDE)), "hero", 'what "passed" & <what not>'
    )
    assert 'role="img" aria-label="what &quot;passed&quot; &amp; &lt;what not&gt;"' in svg
    assert all(name.startswith("hero-") for name in re.findall(r'\sid="([^"]*)"', svg))
    references = re.findall(r'(?:url\(#|href="#)([^)"]*)', svg)
    assert references
    assert set(references) <= set(re.findall(r'\sid="([^"]*)"', svg))
    assert "var(--throttled)" in svg
    assert not any(colour in svg for colour in drawing.VARIABLES)
    assert "http" not in svg
    assert re.search(r"<svg[^>]*(width|height)=", svg) is None


def test_a_notebook_shows_a_picture() -> None:
    """As SVG, whatever backend the kernel has."""
    assert "<svg" in drawing.Picture(FIGURES["errors"](TABLE, drawing.WIDE))._repr_svg_()
