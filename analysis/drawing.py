"""How a figure looks, and how it becomes SVG for a page: sizes, palette, text as text, dark and light.

Colours are drawn as plain light-theme values, so that a stand-alone SVG is right anywhere. Inside the report each is
replaced by a CSS variable, and the page's theme decides. Knows no data.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

# Told apart by lightness as well as by hue (after Okabe and Ito), and by marker, hatch or dash in each figure.
INK, SOFT, GRID, PAPER = "#1b1f27", "#5a6270", "#dfe3ea", "#ffffff"
ADMITTED, THROTTLED, FAILED, LIMIT, PROOF = "#2266b8", "#c8501a", "#8b8f99", "#b3123a", "#14795c"
VARIABLES = {
    INK: "ink",
    SOFT: "soft",
    GRID: "grid",
    PAPER: "paper",
    ADMITTED: "admitted",
    THROTTLED: "throttled",
    FAILED: "failed",
    LIMIT: "limit",
    PROOF: "proof",
}

_STYLE: Any = {  # Any: the stubs want literal keys
    "svg.fonttype": "none",
    "svg.hashsalt": "redline",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "hatch.linewidth": 1.1,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}

# What an SVG inside a page does without: namespaces, a size of its own, rules that would reach the whole page.
_FOR_A_PAGE = (
    (r"<metadata>.*?</metadata>", ""),
    (r"<style .*?</style>", ""),
    (r' xmlns(:xlink)?="[^"]*"', ""),
    (r"xlink:href", "href"),
    (r'(?<=<svg) ?width="[^"]*" height="[^"]*"', ""),
    (r"\s*\n\s*", "\n"),
)


@dataclass(frozen=True, slots=True)
class Size:
    """A figure's size in inches; one for wide screens and paper, one for a phone."""

    name: str
    width_in: float

    @property
    def is_narrow(self) -> bool:
        """Whether there is room for no more than a few ticks."""
        return self.width_in < 5.0  # noqa: PLR2004 - a phone


WIDE, NARROW = Size("wide", 9.6), Size("narrow", 3.9)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in redline's style inside the block; nothing outside it changes."""
    with mpl.rc_context(_STYLE):
        yield


def canvas(size: Size, height_in: float) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes, laid out tightly. Call inside `style`."""
    figure = Figure(figsize=(size.width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    axes = figure.subplots()
    axes.tick_params(length=3)
    return figure, axes


def legend(axes: Axes, *, columns: int) -> None:
    """Put the legend above the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=columns,
            borderaxespad=0.1,
            handlelength=1.6,
            columnspacing=1.2,
        )


def to_svg(figure: Figure) -> str:
    """Return a stand-alone SVG, the same bytes for the same figure."""
    with style():
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"font-family: [^;\"]*", "font-family: sans-serif", buffer.getvalue())


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure that a notebook shows as the value of a cell, whatever backend it has."""

    figure: Figure

    def _repr_svg_(self) -> str:
        return to_svg(self.figure)


def inline(svg: str, name: str, title: str) -> str:
    """Turn a stand-alone SVG into one for the report: themed, scaled, ids of its own, a title for screen readers."""
    body = svg[svg.index("<svg") :]
    for pattern, by in _FOR_A_PAGE:
        body = re.sub(pattern, by, body, flags=re.DOTALL)
    body = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip()
