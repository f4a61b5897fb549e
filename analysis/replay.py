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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.calls import Floats, Ints
    from analysis.decisions import Record
    from analysis.proposals import Shape


def _column(values: Floats) -> Floats:
    return np.asarray(values, float)[:, None, None]


def _spent_since(record: Record, first: Ints) -> Floats:
    """Return what was spent from the ``first`` entry of the history up to each decision."""
    return np.asarray(record.spent[record.before] - record.spent[np.minimum(first, record.before)])


def sliding_log(record: Record, window_s: Floats) -> Floats:
    """Return what was spent in (t - window_s, t]."""
    start = record.at_s[None] - _column(window_s)
    return _spent_since(record, np.searchsorted(record.arrived_s, start, side="right"))


def fixed_window(record: Record, window_s: Floats, phase_s: Floats) -> Floats:
    """Return what was spent since the last boundary ``phase_s + k * window_s``.

    History sent within the spread of a boundary may have arrived on either side: each decision has the benefit.
    """
    window, phase = _column(window_s), _column(phase_s)
    number = np.floor((record.at_s - phase) / window)
    slack = 0.5 * np.minimum(record.spread_s, 0.2 * window)
    phases = np.concatenate([phase - slack, phase + slack], axis=1)
    [first] = _spent_at(record, number, window, phases, record.admitted.astype(np.int64))
    held = record.spent[record.before]
    most = np.minimum(held, record.spent[np.searchsorted(record.history_s, record.at_s, side="left")])
    return np.asarray(held - np.minimum(first, most))


def _spent_at(
    record: Record, number: Floats, window: Floats, phases: Floats, which: Ints | int = 0, back: int = 0
) -> list[Floats]:
    """Return what had been spent at the boundaries ``phase + number * window``, one for each decision.

    ``phases``: (shapes, phases, 1); ``which`` of them is meant. With ``back`` also at as many boundaries before it,
    one after the other. There are far fewer boundaries than decisions, as a rule: each is looked up once.
    """
    least = number.min(axis=(1, 2), keepdims=True) - back
    many = int((number.max(axis=(1, 2), keepdims=True) - least).max()) + 1
    if many > number[0].size:
        phase = np.broadcast_to(phases[:, which, 0][:, None], number.shape) if np.ndim(which) else phases[:, :1]
        boundaries = [phase + (number - k) * window for k in range(back + 1)]
        return [record.spent[np.searchsorted(record.history_s, b, side="left")] for b in boundaries]
    boundaries = phases + (least + np.arange(many)) * window
    spent = record.spent[np.searchsorted(record.history_s, boundaries, side="left")].ravel()
    row = (phases.shape[1] * np.arange(len(number)))[:, None, None] + which
    index = (number - least + many * row).astype(np.int64)
    return [spent[index - k] for k in range(back + 1)]


def anchored_window(record: Record, window_s: Floats, limit: float) -> Floats:
    """Return what was spent since the window in force was opened by its first call.

    ``limit`` is a guess of N that tells full windows: see `_openings`.
    """
    windows = np.asarray(window_s, float)
    if len(record.history_s) == 0:
        return np.zeros((len(windows), *record.at_s.shape))
    rows = zip(windows, _openings(record, windows, limit), strict=True)
    return np.stack([_anchored_row(record, float(w), first) for w, first in rows])


def _anchored_row(record: Record, window_s: float, first: Ints) -> Floats:
    """Ask each decision in the window that was open before it: a call that opens one must have come after its end."""
    opened = record.history_s[first]
    opener = np.searchsorted(first, record.before)
    index = np.where(record.admitted, opener, np.searchsorted(opened, record.at_s, side="right")) - 1
    held = np.maximum(index, 0)
    inside = (index >= 0) & (record.at_s < opened[held] + window_s)
    return np.where(inside, _spent_since(record, first[held]), 0.0)


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
    for window_s, first in zip(windows_s, _openings(record, windows_s, limit), strict=True):
        opened = record.history_s[first]
        since = at_s - opened[np.maximum(np.searchsorted(opened, at_s, side="right") - 1, 0)]
        rows.append(np.clip(since / window_s, 0.0, 1.0))
    return np.stack(rows)


def _openings(record: Record, windows_s: Floats, limit: float) -> list[Ints]:
    """Return for each window which entries of the history opened one.

    Where the spread leaves open which call did, full windows tell: a call that was admitted while the window was full
    can only have opened the next one, and the calls between an opening and a block are as many as the limit lets pass
    (where calls differ in cost, a block only says that less was left than was asked for).
    """
    history, spent = record.history_s, record.spent
    n = len(history)
    refused_s, admitted_then = (
        np.append(found, last) for found, last in zip(decisions.blocks(record), (np.inf, 0), strict=True)
    )
    k = np.zeros(len(windows_s), np.int64)
    steps: list[Ints] = []
    while (k < n).any():
        steps.append(k)
        held = np.minimum(k, n - 1)
        end = history[held] + windows_s
        after = np.searchsorted(history, end, side="left")
        full = np.searchsorted(spent, spent[held] + limit, side="right") - 1
        early = (held < full) & (full < after) & (history[np.minimum(full, n - 1)] >= end - record.spread_s)
        after = np.where(early, full, after)
        opened_s = history[np.minimum(after, n - 1)]
        block = np.minimum(np.searchsorted(refused_s, opened_s), len(refused_s) - 1)
        left = np.searchsorted(spent, spent[admitted_then[block]] - limit)
        counted = (left > held) & (refused_s[block] > opened_s) & (refused_s[block] < opened_s + windows_s)
        counted &= not costed.sized(record)
        counted &= np.abs(history[np.minimum(left, n - 1)] - end) <= record.spread_s
        k = np.where(k < n, np.maximum(np.where(counted, left, after), held + 1), n)
    table = np.stack(steps, axis=1)
    return [row[row < n] for row in table]


def sliding_counter(record: Record, window_s: Floats, phase_s: Floats) -> Floats:
    """Return this aligned window's spending plus the last one's times the part of it that still overlaps."""
    passed, number, current, last = counted(record, window_s, phase_s)
    return np.asarray(current + last * (1.0 - (passed - number)))


def counted(record: Record, window_s: Floats, phase_s: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return (windows since ``phase_s``, whole ones of them, this one's spending, the last one's)."""
    window, phase = _column(window_s), _column(phase_s)
    passed = (record.at_s - phase) / window
    number = np.floor(passed)
    held = record.spent[record.before]
    begun, before = _spent_at(record, number, window, phase, back=1)
    first = np.minimum(begun, held)
    return passed, number, held - first, first - np.minimum(before, first)


def bucket_level(record: Record, rate_per_s: Floats) -> Floats:
    """Return the water level of a bucket that drains at ``rate_per_s``."""
    rate = np.asarray(rate_per_s, float)[:, None]
    spent, at_s, before = record.spent[:-1], record.history_s, record.before
    if len(at_s) > before.size:
        # The bucket is lowest before one of the calls that came no faster than it drains: the first of each burst.
        slow = np.diff(spent, prepend=-np.inf) < rate.max() * np.diff(at_s, prepend=-np.inf)
        slow[0] = True
        before = np.concatenate([[0], np.cumsum(slow)])[before]
        spent, at_s = spent[slow], at_s[slow]
    lowest = np.minimum.accumulate(spent - rate * at_s, axis=1)
    lowest = np.concatenate([np.full((len(rate), 1), np.inf), lowest], axis=1)
    level = record.spent[record.before] - rate[..., None] * record.at_s - lowest[:, before]
    return np.maximum(level, 0.0)
