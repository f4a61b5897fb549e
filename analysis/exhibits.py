"""Which figures a run deserves: each with a title, a sentence that says what to see, and its data as a table.

Owns the choice (a run that was never refused needs no picture of refusals) and the bins. It knows no HTML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from analysis import curves, figures
from analysis.drawing import NARROW, WIDE, inline, to_svg
from analysis.wording import number, seconds
from mock_server.limits import FixedWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.figure import Figure

    from analysis.drawing import Size
    from analysis.verdict import Conclusion
    from mock_server.limits import Spec

_DOTS = 700  # each is drawn twice, for wide and narrow screens, and the page stays under 1 MB
_ASKED = 50_000  # calls of which is asked how full the limit was: two seconds' work
_RATES = ("requests", "input_tokens")  # limits that a figure can show filling, the first measured one of them
_ROWS = 120  # of a data table
_BINS_PER_CURVE = 40


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One figure with its words and numbers. ``draw`` makes it in a size; ``table`` holds what it shows."""

    name: str
    title: str
    caption: str
    table: pd.DataFrame
    draw: Callable[[Size], Figure]

    def svg(self) -> str:
        """Return the stand-alone SVG."""
        return to_svg(self.draw(WIDE))

    def inline_svgs(self) -> Iterator[tuple[str, str]]:
        """Yield (size, SVG for the page) for wide and narrow screens."""
        for size in (WIDE, NARROW):
            yield (
                size.name,
                inline(to_svg(self.draw(size)), f"{self.name}-{size.name}", f"{self.title}. {self.caption}"),
            )

    def rows(self) -> list[list[str]]:
        """Return the data as text, at most `_ROWS` rows."""
        shown = self.table.head(_ROWS)
        return [[_cell(value) for value in row] for row in shown.itertuples(index=False)]

    def left_out(self) -> int:
        """Return how many rows `rows` leaves out."""
        return max(0, len(self.table) - _ROWS)


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return number(float(value))


def exhibits(conclusion: Conclusion, table: pd.DataFrame) -> list[Exhibit]:
    """Return the figures for a run in the order of the argument; none where nothing was sent."""
    if table["sent_s"].notna().sum() == 0:
        return []
    found = Common.of(conclusion, table)
    made = [_over_time(found), _fullness(found), _flight(found), _throughput(found), _errors(found), _latency(found)]
    return [exhibit for exhibit in made if exhibit is not None]


@dataclass(frozen=True, slots=True)
class Common:
    """What the figures have in common; studies use it too.

    ``spec``: the leading explanation of the rate limit, on the record's clock; None where none was measured. With
    ``by_tokens`` it counts input tokens.
    ``edges_s``: where its windows begin. ``proof_s``: (start, end) of the verification, or empty. ``curve_bin_s``:
    over how long a rate is averaged, one window where there is one, counted from ``origin_s``.
    """

    conclusion: Conclusion
    table: pd.DataFrame
    spec: Spec | None
    by_tokens: bool
    edges_s: list[float]
    proof_s: tuple[float, ...]
    curve_bin_s: float
    origin_s: float
    full: pd.Index  # rows that were refused while the rate limit was full
    open: pd.Index  # rows that this limit leaves to be explained; of a long record a sample

    @classmethod
    def of(cls, conclusion: Conclusion, table: pd.DataFrame) -> Common:
        """Read them off a verdict and its record."""
        measured = [
            (found.limit.metric, found.limit.rate_per_min or 0.0, found.particles[0][1])
            for found in conclusion.inference.identified
            if found.limit.metric in _RATES and found.limit.state == "measured" and found.particles
        ]
        # Of two limits on one metric, the one that binds a steady flow.
        metric, _, spec = min(measured, default=("", 0.0, None), key=lambda one: (_RATES.index(one[0]), one[1]))
        by_tokens = metric == "input_tokens"
        points = curves.used(spec, table, most=_ASKED, by_tokens=by_tokens) if spec else None
        full = _refused_when_full(points, capacity(spec)) if spec and points is not None else pd.Index([])
        edges = curves.edges_s(spec, table) if spec else []
        proof = curves.moments_s(table)[curves.in_verification(table)].dropna()
        when = curves.moments_s(table)
        window_s = getattr(spec, "window_s", None)
        bin_s = window_s or _curve_bin_s(float(when.max() - when.min()))
        return cls(
            conclusion,
            table,
            spec,
            by_tokens,
            edges,
            (float(proof.min()), float(proof.max())) if len(proof) else (),
            float(bin_s),
            edges[0] if edges else 0.0,
            full,
            points.index.difference(full) if points is not None else table.index,
        )

    @property
    def set_per_min(self) -> float | None:
        """The recommended rate."""
        settings = self.conclusion.result.settings
        return settings.requests_per_minute if settings else None

    @property
    def limit_per_min(self) -> float | None:
        """The measured rate in calls."""
        rates = [m.rate_per_min for m in self.conclusion.result.limits if m.metric == "requests"]
        return min((rate for rate in rates if rate), default=None) if self.spec and not self.by_tokens else None


def capacity(spec: Spec) -> float:
    """Return how much a limit holds: N of a window, the burst of a bucket."""
    return float(getattr(spec, "limit", 0.0) or getattr(spec, "burst", 0.0))


def _refused_when_full(points: pd.DataFrame, limit: float) -> pd.Index:
    return points.index[(points["outcome"] == "throttled") & (points["used"] >= limit - 1.0)]


def _curve_bin_s(duration_s: float) -> float:
    """Return the averaging time of a curve by rate where no window is known."""
    return next((b for b in curves.NICE_BINS_S if duration_s / b <= _BINS_PER_CURVE), curves.NICE_BINS_S[-1])


def _over_time(found: Common) -> Exhibit:
    when = curves.moments_s(found.table)
    bin_s = curves.chart_bin_s(float(when.max() - when.min()))
    bins = curves.per_bin(found.table, bin_s)
    edges = " Dotted rules: a window begins." if found.edges_s else ""
    proof = " Shaded: the recommended settings drive the traffic." if found.proof_s else ""
    throttled = int(bins["throttled"].sum())
    what = f"{number(throttled)} of {number(int(bins['offered'].sum()))} calls were throttled."
    return Exhibit(
        "per-second",
        "What was offered, and what passed",
        f"{what}{edges}{proof}",
        bins.drop(columns="verification"),
        lambda size: figures.per_second(bins, bin_s, edges_s=found.edges_s, proof_s=found.proof_s, size=size),
    )


def _fullness(found: Common) -> Exhibit | None:
    spec = found.spec
    if spec is None:
        return None
    points = curves.used(spec, found.table, most=_DOTS, by_tokens=found.by_tokens)
    limit = capacity(spec)
    refused = int((curves.outcomes(found.table) == "throttled").sum())
    caption = "The limit found, replayed over the whole record: calls pass while there is room below the line."
    if refused and len(found.table) <= _ASKED:
        full = len(found.full)
        caption += f" {number(full)} of {number(refused)} refusals came when it was full"
        caption += "." if full == refused else f", the other {number(refused - full)} for another reason."
    return Exhibit(
        "fullness",
        "Why this limit: how full it was at each call",
        caption,
        points,
        lambda size: figures.fullness(
            points,
            limit,
            counts="input tokens" if found.by_tokens else "calls",
            edges_s=found.edges_s,
            proof_s=found.proof_s,
            size=size,
        ),
    )


def _flight(found: Common) -> Exhibit | None:
    counts = curves.by_in_flight(found.table, found.open)
    if counts["in_flight"].max() < 2 or not counts["throttled"].any():  # noqa: PLR2004 - never two at once
        return None
    limits = [m for m in found.conclusion.result.limits if m.metric == "concurrency" and m.state == "measured"]
    limit = limits[0].limit if limits else None
    without = " Left out: refusals while the limit above was full." if len(found.full) else ""
    caption = (
        f"From {number(limit + 1)} calls in flight on, refusals set in: that is the limit on concurrency."
        if limit is not None
        else "Refusals do not set in at one number of calls in flight: what refuses here is no limit on concurrency."
    )
    return Exhibit(
        "in-flight",
        "Calls in flight",
        caption + without,
        counts,
        lambda size: figures.flight(counts, limit, size=size),
    )


def _throughput(found: Common) -> Exhibit | None:
    curve = curves.throughput_curve(found.table, found.curve_bin_s, found.origin_s)
    if len(curve) < 2:  # noqa: PLR2004 - no curve
        return None
    window = f"Each point is {seconds(found.curve_bin_s)} of the run."
    plateau = " No point rises above the limit; one below both lines paid for the window before it."
    return Exhibit(
        "throughput",
        "Throughput: what passes at which rate",
        window + (plateau if found.limit_per_min else ""),
        curve,
        lambda size: figures.throughput(
            curve,
            limit_per_min=found.limit_per_min,
            set_per_min=found.set_per_min,
            bin_s=found.curve_bin_s,
            size=size,
        ),
    )


def _errors(found: Common) -> Exhibit | None:
    aligned = isinstance(found.spec, FixedWindow)
    curve = curves.error_curve(found.table, found.curve_bin_s, found.origin_s if aligned else None)
    if curve.empty or not curve["throttled"].any():
        return None
    where = "the same window" if aligned else f"the {seconds(found.curve_bin_s)} before each call"
    return Exhibit(
        "errors",
        "Errors: the share that is throttled",
        f"By the rate offered in {where}, with its 95\u00a0% band.",
        curve,
        lambda size: figures.errors(curve, set_per_min=found.set_per_min, size=size),
    )


def _latency(found: Common) -> Exhibit | None:
    curve = curves.latency_by_load(found.table)
    if curve.empty:
        return None
    latency = found.conclusion.inference.latency
    middle = f"The median is {seconds(latency.median_s)}. " if latency else ""
    return Exhibit(
        "latency",
        "Latency by load",
        f"{middle}Admitted calls only; a percentile is shown where there are calls enough for it.",
        curve,
        lambda size: figures.latency(curve, size=size),
    )
