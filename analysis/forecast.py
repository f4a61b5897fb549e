"""What a hypothesis expects next: how much room there will be, and when, if nothing more is sent.

The planner asks this to choose where to look. Pure; times in seconds on the record's clock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis import judging, search

if TYPE_CHECKING:
    from analysis.calls import Floats
    from analysis.decisions import Record
    from analysis.search import Hypothesis


def room(record: Record, hypothesis: Hypothesis, at_s: Floats) -> Floats:
    """Return how many calls (or tokens) would pass at each moment, given the observed history."""
    n = len(at_s)
    ahead = replace(
        record,
        at_s=np.asarray(at_s, float)[None, :],
        before=np.full((1, n), len(record.history_s), np.int64),
        admitted=np.ones(n, bool),
        cost=np.ones(n),
        sent_s=np.asarray(at_s, float),
        spread_s=0.0,
    )
    s = judging.statistic(ahead, hypothesis.family, [search.shape_of(hypothesis)], hypothesis.limit)
    return np.asarray(hypothesis.limit - s[0, 0])


def first_room_s(record: Record, hypothesis: Hypothesis, now_s: float, need: float = 1.0) -> float:
    """Return the first moment from ``now_s`` on at which ``need`` would pass; inf beyond three windows."""
    span = 3.0 * (hypothesis.window_s or max(need, hypothesis.limit) / hypothesis.rate_per_s)
    low, high = now_s, now_s + span
    if room(record, hypothesis, np.array([low]))[0] >= need:
        return low
    if room(record, hypothesis, np.array([high]))[0] < need:
        return float("inf")
    for _ in range(5):
        grid = np.linspace(low, high, 17)
        ready = np.flatnonzero(room(record, hypothesis, grid) >= need)
        index = int(ready[0]) if len(ready) else len(grid) - 1
        low, high = float(grid[max(0, index - 1)]), float(grid[index])
    return high
