"""A record replayed through limiters: every family as a threshold on a statistic of our own past.

A limiter without hidden state admits a call of cost c exactly when ``s + c <= K``. The family and its shape
(window, phase, refill rate) decide what ``s`` is; K is then a threshold. The state follows what was *observed*
(teacher forcing), so one jittered call cannot make everything after it look wrong. A property test holds these
statistics to the state machines of `mock_server.limits`. All are computed for many shapes at once and have the form
(shapes, offsets, decisions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis import costed, decisions
from analysis.kernels import statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.calls import Floats, Ints
    from analysis.decisions import Record
    from analysis.proposals import Shape


def sliding_log(record: Record, window_s: Floats) -> Floats:
    """Return what was spent in (t - window_s, t]."""
    return statistics.sliding_log(record.at_s, record.before, record.spent, record.arrivals.mean_s, window_s)


def fixed_window(record: Record, window_s: Floats, phase_s: Floats) -> Floats:
    """Return what was spent since the last boundary ``phase_s + k * window_s``.

    History sent within the spread of a boundary may have arrived on either side: each decision has the benefit.
    """
    history = (record.at_s, record.before, record.spent, record.history_s)
    return statistics.fixed_window(*history, record.admitted, window_s, phase_s, record.spread_s)


def anchored_window(record: Record, window_s: Floats, limit: float) -> Floats:
    """Return what was spent since the window in force was opened by its first call.

    ``limit`` is a guess of N that tells full windows: see `openings`. Each decision is asked in the window that was
    open before it: a call that opens one must have come after its end.
    """
    if len(record.history_s) == 0:
        return np.zeros((len(window_s), *record.at_s.shape))
    history = (record.at_s, record.before, record.spent, record.history_s, record.admitted)
    rule = (limit, record.spread_s, not costed.sized(record))
    return statistics.anchored_window(*history, _until(record), window_s, rule)


def passed(record: Record, family: str, shapes: Sequence[Shape], limit: float) -> Floats | None:
    """Return the part of the window that has passed at each decision, (shapes, decisions), at the first offset.

    None for families that forget calls one by one: what they remember is always as long.
    """
    at_s = record.at_s[0]
    if family == "fixed_window":
        window_s, phase_s = np.array(shapes, float).T[:, :, None]
        return np.asarray((at_s - phase_s) / window_s % 1.0)
    if family != "anchored_window" or len(record.history_s) == 0:
        return None
    windows_s = np.array(shapes, float)[:, 0]
    rows = []
    for window_s, first in zip(windows_s, openings(record, windows_s, limit), strict=True):
        opened = record.history_s[first]
        since = at_s - opened[np.maximum(np.searchsorted(opened, at_s, side="right") - 1, 0)]
        rows.append(np.clip(since / window_s, 0.0, 1.0))
    return np.stack(rows)


def openings(record: Record, windows_s: Floats, limit: float) -> list[Ints]:
    """Return for each window which entries of the history opened one.

    Where the spread leaves open which call did, full windows tell: a call that was admitted while the window was full
    can only have opened the next one, and the calls between an opening and a block are as many as the limit lets pass
    (where calls differ in cost, a block only says that less was left than was asked for).
    """
    known = (record.history_s, record.spent, *_until(record))
    alike = not costed.sized(record)
    return [statistics.openings(*known, w, limit, record.spread_s, alike) for w in windows_s.tolist()]


def _until(record: Record) -> tuple[Floats, Ints]:
    """Return `decisions.blocks`, and one that never comes."""
    refused_s, admitted_then = decisions.blocks(record)
    return np.append(refused_s, np.inf), np.append(admitted_then, 0)


def sliding_counter(record: Record, window_s: Floats, phase_s: Floats) -> Floats:
    """Return this aligned window's spending plus the last one's times the part of it that still overlaps."""
    return statistics.sliding_counter(record.at_s, record.before, record.spent, record.history_s, window_s, phase_s)


def counted(record: Record, window_s: float, phase_s: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Return (windows since ``phase_s``, whole ones of them, this one's spending, the last one's) of one shape.

    What `sliding_counter` is made of, in the form (offsets, decisions).
    """
    passed = (record.at_s - phase_s) / window_s
    number = np.floor(passed)
    held = record.spent[record.before]
    begun, before = (
        record.spent[np.searchsorted(record.history_s, phase_s + (number - back) * window_s)] for back in (0, 1)
    )
    first = np.minimum(begun, held)
    return passed, number, held - first, first - np.minimum(before, first)


def bucket_level(record: Record, rate_per_s: Floats) -> Floats:
    """Return the water level of a bucket that drains at ``rate_per_s``."""
    return statistics.bucket_level(record.at_s, record.before, record.spent, record.history_s, rate_per_s)
