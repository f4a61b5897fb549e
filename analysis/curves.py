"""From the table of attempts to curves: per second, by offered rate, by load. Tables in, tables out.

Owns the meaning of *offered*, *admitted* and *throttled* on a chart. It fits nothing and draws nothing; which limit
is in force comes in as a spec of `mock_server.limits`, replayed by the very class that the mock serves.

A call is counted in the bin in which it was sent, whatever came of it and whenever, so that the parts add up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mock_server.limits import AnchoredWindow, FixedWindow, SlidingCounter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from mock_server.limits import Spec

OUTCOMES = ("admitted", "throttled", "failed", "censored", "dropped")
VERIFY = "verify"  # phases of the verification begin so
NICE_BINS_S = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_Z95 = 1.959963984540054
_MOST_BINS = 400
_EPS = 1e-9


def outcomes(table: pd.DataFrame) -> pd.Series[str]:
    """Return for each attempt one word of `OUTCOMES`: *censored* was in flight at the end, *dropped* never left."""
    status = table["status"].astype("float64")
    words = np.select(
        [table["error"] == "dropped", status.isna(), status == 429, (status >= 200) & (status < 300)],  # noqa: PLR2004
        ["dropped", "censored", "throttled", "admitted"],
        default="failed",
    )
    return pd.Series(words, index=table.index, dtype="string")


def moments_s(table: pd.DataFrame) -> pd.Series[float]:
    """Return when each attempt was sent; for a dropped one, when it was due."""
    return table["sent_s"].fillna(table["planned_s"])


def in_verification(table: pd.DataFrame) -> pd.Series[bool]:
    """Tell which attempts the recommended limiter itself sent."""
    return table["phase"].str.startswith(VERIFY).fillna(value=False).astype(bool)


def chart_bin_s(duration_s: float) -> float:
    """Return the bin of a chart over time: 1 s, or more where a long run would have too many."""
    return next((b for b in NICE_BINS_S if duration_s / b <= _MOST_BINS), NICE_BINS_S[-1])


def per_bin(table: pd.DataFrame, bin_s: float = 1.0, origin_s: float = 0.0) -> pd.DataFrame:
    """Count calls by bin: columns ``start_s, offered``, one for each of `OUTCOMES`, and ``verification``.

    Bins are ``[origin_s + k bin_s, origin_s + (k + 1) bin_s)``, without gaps from the first call to the last;
    ``verification`` tells bins that hold calls of the verification. Empty for an empty table.
    """
    when = moments_s(table)
    sent = when.notna()
    index = ((when[sent] - origin_s + _EPS) // bin_s).astype("int64")
    columns = ["start_s", "offered", *OUTCOMES, "verification"]
    if index.empty:
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in columns})
    counts = pd.crosstab(index.to_numpy(), outcomes(table)[sent].to_numpy(dtype=object))
    whole = range(int(index.min()), int(index.max()) + 1)
    counts = counts.reindex(index=whole, columns=list(OUTCOMES), fill_value=0)
    counts["verification"] = in_verification(table)[sent].groupby(index).any().reindex(whole, fill_value=False)
    counts["offered"] = counts[list(OUTCOMES)].sum(axis=1)
    counts["start_s"] = np.array(whole) * bin_s + origin_s
    return counts[columns].reset_index(drop=True)


def throughput_curve(table: pd.DataFrame, bin_s: float, origin_s: float = 0.0) -> pd.DataFrame:
    """Return a point a bin: ``offered_per_min, admitted_per_min, throttled_per_min, verification``.

    Only bins that lie wholly inside the record and in which something was offered: a bin cut short would show a
    rate that nobody offered.
    """
    bins = per_bin(table, bin_s, origin_s)
    when = moments_s(table)
    whole = (bins["start_s"] >= when.min() - _EPS) & (bins["start_s"] + bin_s <= when.max() + _EPS)
    kept = bins[whole & (bins["offered"] > 0)]
    scale = 60.0 / bin_s
    return pd.DataFrame(
        {
            "offered_per_min": kept["offered"] * scale,
            "admitted_per_min": kept["admitted"] * scale,
            "throttled_per_min": kept["throttled"] * scale,
            "verification": kept["verification"].astype(bool),
        }
    ).reset_index(drop=True)


def error_curve(table: pd.DataFrame, window_s: float, origin_s: float | None = None, levels: int = 8) -> pd.DataFrame:
    """Return the throttled share by the rate at which calls were offered, from low to high.

    A quota remembers, so the calls of the same second say little. The rate of a call is that of the ``window_s``
    which ends with it; with ``origin_s`` that of the aligned window it falls in, of which a cut one at either end
    of the record is left out. Calls are gathered into at most ``levels`` groups of neighbouring rates. Columns:
    ``offered_per_min`` (mean), ``calls, throttled, share, low95, high95`` (Wilson).
    """
    columns = ["offered_per_min", "calls", "throttled", "share", "low95", "high95"]
    when = moments_s(table).dropna().astype("float64").sort_values(kind="stable")
    seen = pd.DataFrame({"when": when, "throttled": (outcomes(table) == "throttled")[when.index].astype(bool)})
    seen["rate"] = _offered(when.to_numpy(), window_s, origin_s) * 60.0 / window_s
    seen = seen.dropna()
    if seen.empty:
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in columns})
    grouped = seen.groupby(_levels(seen["rate"], levels))
    calls, hits = grouped.size(), grouped["throttled"].sum()
    low, high = wilson(hits.to_numpy(), calls.to_numpy())
    parts = (grouped["rate"].mean(), calls, hits, hits / calls, low, high)
    return pd.DataFrame(dict(zip(columns, parts, strict=True))).reset_index(drop=True)


def _offered(when: npt.NDArray[np.floating[Any]], window_s: float, origin_s: float | None) -> npt.NDArray[np.float64]:
    """Return how many of the sorted moments share a window with each; NaN where an aligned window is cut."""
    if not len(when):
        return np.zeros(0)
    if origin_s is None:
        return np.asarray(np.arange(1, len(when) + 1) - np.searchsorted(when, when - window_s, side="right"), float)
    start = np.floor((when - origin_s + _EPS) / window_s) * window_s + origin_s
    count = np.searchsorted(when, start + window_s - _EPS) - np.searchsorted(when, start - _EPS)
    whole = (start >= when[0] - _EPS) & (start + window_s <= when[-1] + _EPS)
    return np.where(whole, count, np.nan)


def _levels(values: pd.Series[Any], most: int) -> pd.Series[Any]:
    """Return a group for each value: neighbouring values together where there are more than ``most`` of them."""
    return values if values.nunique() <= most else pd.qcut(values, most, labels=False, duplicates="drop")


def wilson(hits: npt.ArrayLike, n: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the 95 % score interval of a share (Wilson, JASA 22, 1927); (0, 1) where n is 0."""
    k, m = np.asarray(hits, float), np.asarray(n, float)
    some = np.maximum(m, 1.0)
    p = k / some
    centre = p + _Z95**2 / (2 * some)
    half = _Z95 * np.sqrt(p * (1 - p) / some + _Z95**2 / (4 * some**2))
    low, high = (centre - half) / (1 + _Z95**2 / some), (centre + half) / (1 + _Z95**2 / some)
    # At the ends the formula gives 0 and 1 up to rounding.
    return np.where(k > 0, np.clip(low, 0.0, 1.0), 0.0), np.where(k < m, np.clip(high, 0.0, 1.0), 1.0)


def in_flight(table: pd.DataFrame) -> pd.Series[float]:
    """Return how many calls were out when each one was sent, itself included, as this client saw it.

    Taken from the record's own times, so that it also holds over several workers and for logs without the column.
    """
    start = table["sent_s"].to_numpy(dtype="float64")
    out = np.sort(start[~np.isnan(start)])
    back = np.sort(table["done_s"].dropna().to_numpy(dtype="float64"))
    load = np.searchsorted(out, start, side="right") - np.searchsorted(back, start, side="right")
    return pd.Series(np.where(np.isnan(start), np.nan, np.maximum(load, 1)), index=table.index)


def by_in_flight(table: pd.DataFrame, rows: pd.Index | None = None) -> pd.DataFrame:
    """Count outcomes by the number of calls in flight: columns ``in_flight, admitted, throttled``.

    ``rows``: those of ``table`` to count (all). What another limit refused says nothing here.
    """
    word = outcomes(table)
    asked = word.isin(["admitted", "throttled"])
    if rows is not None:
        asked &= table.index.isin(rows)
    counts = pd.crosstab(in_flight(table)[asked].to_numpy(), word[asked].to_numpy(dtype=object))
    counts = counts.reindex(columns=["admitted", "throttled"], fill_value=0)
    return counts.rename_axis("in_flight").rename_axis(None, axis=1).reset_index()


def latency_by_load(table: pd.DataFrame, levels: int = 8) -> pd.DataFrame:
    """Return the latency of admitted calls by calls in flight: ``in_flight, calls, p50_s, p95_s, p99_s``.

    ``in_flight`` is the mean of a group of neighbouring loads. A percentile that the number of calls does not
    carry (fewer than 20 for p95, 100 for p99) is missing.
    """
    took = (table["done_s"] - table["sent_s"])[outcomes(table) == "admitted"].dropna()
    columns = ["in_flight", "calls", "p50_s", "p95_s", "p99_s"]
    if took.empty:
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in columns})
    load = in_flight(table)[took.index]
    group = _levels(load, levels)
    grouped = took.groupby(group)
    calls = grouped.size()
    return pd.DataFrame(
        {
            "in_flight": load.groupby(group).mean(),
            "calls": calls,
            "p50_s": grouped.quantile(0.5),
            "p95_s": grouped.quantile(0.95).where(calls >= 20),  # noqa: PLR2004 - one call above it, on average
            "p99_s": grouped.quantile(0.99).where(calls >= 100),  # noqa: PLR2004 - likewise
        },
        columns=columns,
    ).reset_index(drop=True)


def edges_s(spec: Spec, table: pd.DataFrame) -> list[float]:
    """Return the moments within the record at which windows of ``spec`` begin; none for families without windows."""
    when = moments_s(table).dropna()
    if when.empty:
        return []
    first, last = float(when.min()), float(when.max())
    if isinstance(spec, AnchoredWindow):
        return _openings_s(spec, _counted_s(spec, table))
    if not isinstance(spec, FixedWindow | SlidingCounter) or getattr(spec, "calendar", None):
        return []
    k = math.ceil((first - spec.phase_s) / spec.window_s)
    count = math.floor((last - spec.phase_s) / spec.window_s) - k + 1
    return [spec.phase_s + (k + i) * spec.window_s for i in range(max(0, count))]


def _openings_s(spec: AnchoredWindow, counted_s: Sequence[float]) -> list[float]:
    opened: list[float] = []
    for moment in counted_s:
        if not opened or moment >= opened[-1] + spec.window_s:
            opened.append(moment)
    return opened


def _counted_s(spec: Spec, table: pd.DataFrame) -> list[float]:
    words = ["admitted", "failed", "censored", *(["throttled"] if getattr(spec, "count_refused", False) else [])]
    return sorted(table["sent_s"][outcomes(table).isin(words)].dropna().tolist())


def used(spec: Spec, table: pd.DataFrame, most: int = 2000, *, by_tokens: bool = False) -> pd.DataFrame:
    """Return how full the limit was when each call arrived: ``sent_s, used, outcome`` (admitted or throttled).

    Rows keep the index of ``table``.
    The limiter is told what was observed and then asked for the largest cost that it would still let in. Of more
    than ``most`` decided calls an even sample is asked about. ``used`` counts calls, without the one that asks.
    """
    word = outcomes(table)
    decided = table.index[word.isin(["admitted", "throttled"]) & table["sent_s"].notna()]
    asked = set(decided[:: max(1, math.ceil(len(decided) / most))])
    limiter = spec.limiter()
    capacity = float(getattr(spec, "limit", 0.0) or getattr(spec, "burst", 0.0))
    refused_counts = bool(getattr(spec, "count_refused", False))
    costs = table["prompt_tokens"].fillna(1).astype("float64") if by_tokens else pd.Series(1.0, index=table.index)
    rows: list[tuple[Any, float, float, str]] = []
    for index, now_s, cost, outcome in zip(table.index, table["sent_s"], costs, word, strict=True):
        if index in asked:
            room = _room(lambda ask, t=now_s: limiter.check(t, ask).admitted, capacity)
            rows.append((index, now_s, capacity - room, outcome))
        if outcome in {"admitted", "failed", "censored"}:
            limiter.commit(now_s, cost)
        elif outcome == "throttled" and refused_counts:
            limiter.refused(now_s, cost)
    return pd.DataFrame(rows, columns=["index", "sent_s", "used", "outcome"]).set_index("index")


def _room(admits: Any, capacity: float) -> float:  # noqa: ANN401 - a predicate on a cost
    """Return the largest cost in [0, capacity] that is admitted, to a thousandth of the capacity."""
    if admits(capacity):
        return capacity
    low, high = 0.0, capacity
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if admits(middle) else (low, middle)
    return low
