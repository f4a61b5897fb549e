"""The families once more, as a recount of the whole past at every call: slow, and hard to get wrong.

The judge's limiters are held against it on made-up histories, and its decisions over sockets on its own log.
"""

from __future__ import annotations

import math
from typing import Any

# One decision: when, whether admitted. The oracles below look at the whole past again at each call.
Past = list[tuple[float, bool]]


def used_by_brute_force(table: dict[str, Any], past: Past, at_s: float) -> float:
    """Compute the family's statistic from its definition, from nothing but the past decisions."""
    counted = [moment for moment, admitted in past if admitted or table.get("counts_refused")]
    window_s, phase_s = float(table["window_s"]), float(table.get("phase_s", 0.0))
    if table["family"] == "fixed_window":
        return sum(in_window(moment, window_s, phase_s) == in_window(at_s, window_s, phase_s) for moment in counted)
    if table["family"] == "sliding_log":
        return sum(at_s - window_s < moment for moment in counted)
    if table["family"] == "sliding_counter":
        current = in_window(at_s, window_s, phase_s)
        before = sum(in_window(moment, window_s, phase_s) == current - 1 for moment in counted)
        overlap_s = (phase_s + current * window_s) - (at_s - window_s)
        now = sum(in_window(moment, window_s, phase_s) == current for moment in counted)
        return now + before * overlap_s / window_s
    opened: list[float] = []
    for moment in counted:
        if not opened or moment >= opened[0] + window_s:
            opened = []
        opened.append(moment)
    return len(opened) if opened and at_s < opened[0] + window_s else 0


def in_window(at_s: float, window_s: float, phase_s: float) -> int:
    """Return the number of the aligned window that holds a moment."""
    return math.floor((at_s - phase_s) / window_s)


def bucket_admits_by_brute_force(table: dict[str, Any], past: Past, at_s: float) -> bool:
    """Tell whether no interval up to now would hold more than the burst and what dripped in during it."""
    admitted = [moment for moment, in_ in past if in_]
    return all(
        sum(moment >= start for moment in admitted) + 1 <= table["burst"] + table["rate_per_s"] * (at_s - start) + 1e-9
        for start in {*admitted, at_s}
    )
