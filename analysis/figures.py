"""The report's figures: one function each, tables in, a matplotlib figure out. No paths, no page.

Nothing is told by colour alone: what is throttled is hatched, limits are dashed and labelled, the verification has
markers of another shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from analysis.drawing import (
    ADMITTED,
    FAILED,
    GRID,
    INK,
    LIMIT,
    PROOF,
    SOFT,
    THROTTLED,
    WIDE,
    canvas,
    legend,
    style,
)
from analysis.wording import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analysis.drawing import Size

_EDGES_MOST = 60  # more rules than this are a grey wall
_AMOUNT = FuncFormatter(lambda value, _position: number(float(value)))


def per_second(
    bins: pd.DataFrame, bin_s: float, *, edges_s: Sequence[float] = (), proof_s: Sequence[float] = (), size: Size = WIDE
) -> Figure:
    """Draw offered, admitted and throttled calls over the run.

    ``bins``: `curves.per_bin`. ``edges_s``: where windows begin. ``proof_s``: (start, end) of the verification.
    """
    with style():
        figure, axes = canvas(size, 3.1)
        start, middle = bins["start_s"], bins["start_s"] + bin_s / 2
        _mark_proof(axes, proof_s)
        base = np.zeros(len(bins))
        for name, colour, hatch in (
            ("admitted", ADMITTED, ""),
            ("throttled", THROTTLED, "////"),
            ("failed", FAILED, ".."),
        ):
            if name == "admitted" or bins[name].any():
                bars: dict[str, Any] = (
                    {"facecolor": colour} if not hatch else {"facecolor": "none", "edgecolor": colour, "hatch": hatch}
                )
                axes.bar(middle, bins[name], bin_s * 0.92, bottom=base, label=name, linewidth=0.8, **bars)
                base += bins[name].to_numpy()
        if len(bins):
            steps = np.append(start, start.iloc[-1] + bin_s)
            axes.stairs(bins["offered"], steps, color=INK, linewidth=1.0, label="offered", baseline=None)
        shown = list(edges_s) if len(edges_s) <= _EDGES_MOST else []
        for i, edge in enumerate(shown):
            axes.axvline(
                edge, color=LIMIT, linewidth=1.0, linestyle=(0, (1, 2)), label="a window begins" if i == 0 else None
            )
        axes.set_xlabel("seconds since the start of the run")
        axes.set_ylabel("calls per second" if bin_s == 1.0 else f"calls per {number(bin_s)} s")
        axes.set_ylim(0, max(1.0, float(bins["offered"].max() if len(bins) else 1.0)) * 1.08)
        axes.margins(x=0.01)
        _few_ticks(axes, size)
        legend(axes, columns=2 if size.is_narrow else 6)
        return figure


def fullness(
    points: pd.DataFrame,
    limit: float,
    *,
    counts: str = "calls",
    edges_s: Sequence[float] = (),
    proof_s: Sequence[float] = (),
    size: Size = WIDE,
) -> Figure:
    """Draw how full the limit was when each call arrived, with the limit as a line.

    ``points``: `curves.used`; ``counts`` names its unit. Refusals that the limit explains lie on the line,
    admissions below it.
    """
    with style():
        figure, axes = canvas(size, 2.9)
        _mark_proof(axes, proof_s)
        axes.axhline(limit, color=LIMIT, linewidth=1.6, linestyle="--", label=f"limit: {number(limit)}", zorder=3)
        passed, refused = (points[points["outcome"] == word] for word in ("admitted", "throttled"))
        small = 9 if len(points) > 400 else 16  # noqa: PLR2004 - where dots begin to cover each other
        axes.scatter(passed["sent_s"], passed["used"], s=small, color=ADMITTED, label="admitted", linewidths=0)
        axes.scatter(
            refused["sent_s"],
            refused["used"],
            s=30,
            marker="x",
            color=THROTTLED,
            label="throttled",
            linewidths=1.3,
            zorder=4,
        )
        for edge in edges_s if len(edges_s) <= _EDGES_MOST else ():
            axes.axvline(edge, color=LIMIT, linewidth=1.0, linestyle=(0, (1, 2)))
        axes.set_xlabel("seconds since the start of the run")
        axes.set_ylabel(f"{counts} that count")
        axes.set_ylim(0, limit * 1.12)
        axes.margins(x=0.01)
        _few_ticks(axes, size)
        legend(axes, columns=2 if size.is_narrow else 4)
        return figure


def flight(counts: pd.DataFrame, limit: float | None, *, size: Size = WIDE) -> Figure:
    """Draw what came of a call by how many were in flight with it. ``counts``: `curves.by_in_flight`."""
    with style():
        figure, axes = canvas(size, 2.6)
        total = counts["admitted"] + counts["throttled"]
        share = (counts["throttled"] / total.where(total > 0)).to_numpy()
        axes.bar(counts["in_flight"], 1 - share, 0.85, facecolor=ADMITTED, label="admitted")
        some = share > 0  # a bar of no height would still draw its edge
        hatched: dict[str, Any] = {"facecolor": "none", "edgecolor": THROTTLED, "hatch": "////", "label": "throttled"}
        axes.bar(counts["in_flight"][some], share[some], 0.85, bottom=1 - share[some], **hatched)
        if limit is not None:
            axes.axvline(limit + 0.5, color=LIMIT, linewidth=1.6, linestyle="--", label=f"limit: {number(limit)}")
        axes.set_xlabel("calls in flight, this one included")
        axes.set_ylabel("share of calls")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(5 if size.is_narrow else 12, integer=True))
        axes.set_ylim(0, 1.02)
        legend(axes, columns=3)
        return figure


def throughput(
    curve: pd.DataFrame, *, limit_per_min: float | None, set_per_min: float | None, bin_s: float, size: Size = WIDE
) -> Figure:
    """Draw admitted against offered rate: the identity, then the plateau. ``curve``: `curves.throughput_curve`."""
    with style():
        figure, axes = canvas(size, 3.2)
        most = float(curve["offered_per_min"].max()) * 1.06 if len(curve) else 1.0
        axes.plot([0, most], [0, most], color=SOFT, linewidth=0.9, linestyle=":", label="all admitted")
        if limit_per_min is not None:
            axes.axhline(
                limit_per_min, color=LIMIT, linewidth=1.6, linestyle="--", label=f"limit: {number(limit_per_min)}"
            )
        if set_per_min is not None:
            axes.axvline(
                set_per_min, color=PROOF, linewidth=1.4, linestyle="-.", label=f"setting: {number(set_per_min)}"
            )
        for proof, marker, colour, name in ((False, "o", ADMITTED, "probing"), (True, "D", PROOF, "verification")):
            part = curve[curve["verification"] == proof]
            if len(part):
                axes.scatter(
                    part["offered_per_min"],
                    part["admitted_per_min"],
                    s=34,
                    marker=marker,
                    color=colour,
                    label=name,
                    zorder=3,
                )
        axes.set_xlabel(f"offered calls per minute (over {number(bin_s)} s)")
        axes.set_ylabel("admitted per minute")
        axes.set_xlim(0, most)
        axes.set_ylim(
            0, 1.25 * max(1.0, limit_per_min or 0.0, float(curve["admitted_per_min"].max() if len(curve) else 0))
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_AMOUNT)
        axes.xaxis.set_major_locator(MaxNLocator(4 if size.is_narrow else 9))
        legend(axes, columns=2 if size.is_narrow else 5)
        return figure


def errors(curve: pd.DataFrame, *, set_per_min: float | None, size: Size = WIDE) -> Figure:
    """Draw the throttled share by offered rate with its 95 % band. ``curve``: `curves.error_curve`."""
    with style():
        figure, axes = canvas(size, 2.8)
        rate, share = curve["offered_per_min"], curve["share"]
        spread = [(share - curve["low95"]).clip(lower=0), (curve["high95"] - share).clip(lower=0)]
        axes.fill_between(rate, curve["low95"], curve["high95"], color=GRID, linewidth=0, label="95 % band (Wilson)")
        axes.errorbar(
            rate,
            share,
            yerr=spread,
            color=THROTTLED,
            marker="s",
            markersize=5,
            capsize=3,
            linewidth=1.3,
            label="throttled",
        )
        if set_per_min is not None:
            axes.axvline(
                set_per_min, color=PROOF, linewidth=1.4, linestyle="-.", label=f"setting: {number(set_per_min)}"
            )
        axes.set_xlabel("calls offered per minute")
        axes.set_ylabel("share of calls throttled")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylim(-0.02, max(0.05, float(curve["high95"].max()) if len(curve) else 0.0) * 1.05)
        axes.xaxis.set_major_formatter(_AMOUNT)
        axes.xaxis.set_major_locator(MaxNLocator(4 if size.is_narrow else 9))
        legend(axes, columns=2 if size.is_narrow else 3)
        return figure


def latency(curve: pd.DataFrame, *, size: Size = WIDE) -> Figure:
    """Draw the latency of admitted calls by load: median, 95th and 99th percentile. ``curve``: `latency_by_load`."""
    with style():
        figure, axes = canvas(size, 2.6)
        lines = (
            ("p50_s", "median", "o", "-"),
            ("p95_s", "95th percentile", "^", "--"),
            ("p99_s", "99th percentile", "s", ":"),
        )
        for column, name, marker, dash in lines:
            if curve[column].notna().any():
                axes.plot(
                    curve["in_flight"],
                    curve[column],
                    marker=marker,
                    linestyle=dash,
                    color=ADMITTED,
                    markersize=5,
                    label=name,
                )
        axes.set_xlabel("calls in flight when sent")
        axes.set_ylabel("seconds to the answer")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(5 if size.is_narrow else 10, integer=True))
        legend(axes, columns=2 if size.is_narrow else 3)
        return figure


def _mark_proof(axes: Axes, proof_s: Sequence[float]) -> None:
    if proof_s:
        axes.axvspan(proof_s[0], proof_s[1], color=PROOF, alpha=0.10, linewidth=0, label="verification")


def _few_ticks(axes: Axes, size: Size) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5 if size.is_narrow else 12, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(_AMOUNT)
