"""What each family of limiters would have counted before each decision: see `analysis.replay`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from analysis.kernels.compiling import compiled

if TYPE_CHECKING:
    from analysis.calls import Bools, Floats, Ints


@compiled
def _place(values: Floats | Ints, x: float, hint: int, after: bool = False) -> int:  # noqa: FBT001, FBT002 - numba has no `*`
    """Return the first position in sorted ``values`` that holds at least ``x``, looking outwards from ``hint``.

    ``after``: the first that holds more.
    """
    n = len(values)
    step = 1
    if hint < n and _stands_before(values[hint], x, after):
        low, high = hint, hint + 1
        while high < n and _stands_before(values[high], x, after):
            low, high, step = high, high + 2 * step, 2 * step
        high = min(high, n)
    else:
        high, low = hint, hint - 1
        while low >= 0 and not _stands_before(values[low], x, after):
            high, low, step = low, low - 2 * step, 2 * step
        low = max(low, -1)
    while high - low > 1:
        middle = (low + high) >> 1
        if _stands_before(values[middle], x, after):
            low = middle
        else:
            high = middle
    return high


@compiled
def _stands_before(value: float, x: float, after: bool) -> bool:  # noqa: FBT001 - numba has no keyword-only arguments
    return value < x or (after and value == x)


@compiled
def sliding_log(at_s: Floats, before: Ints, spent: Floats, arrived_s: Floats, window_s: Floats) -> Floats:
    """Return what was spent in (t - window_s, t] before each decision."""
    offsets, decisions = at_s.shape
    out = np.empty((len(window_s), offsets, decisions))
    for s in range(len(window_s)):
        for o in range(offsets):
            first = 0
            for d in range(decisions):
                first = _place(arrived_s, at_s[o, d] - window_s[s], first, after=True)
                held = before[o, d]
                out[s, o, d] = spent[held] - spent[min(first, held)]
    return out


@compiled
def fixed_window(
    at_s: Floats,
    before: Ints,
    spent: Floats,
    history_s: Floats,
    admitted: Bools,
    window_s: Floats,
    phase_s: Floats,
    spread_s: float,
) -> Floats:
    """Return what was spent since the last boundary, which lies late for the admitted and early for the refused.

    Not for a call that was admitted after a refusal in the same window, with no doubt about either: it has no more
    room than the refused one had.
    """
    offsets, decisions = at_s.shape
    out = np.empty((len(window_s), offsets, decisions))
    sent_before = np.empty((offsets, decisions), np.int64)
    for o in range(offsets):
        hint = 0
        for d in range(decisions):
            hint = _place(history_s, at_s[o, d], hint)
            sent_before[o, d] = hint
    numbers, places = np.empty(2), np.empty(2, np.int64)
    for s in range(len(window_s)):
        window, phase = window_s[s], phase_s[s]
        slack = 0.5 * min(spread_s, 0.2 * window)
        for o in range(offsets):
            numbers[:], places[:] = np.nan, 0
            full, full_s, early = np.nan, 0.0, 0  # the last window that refused, since when, and its early boundary
            for d in range(decisions):
                number = math.floor((at_s[o, d] - phase) / window)
                side = 1 if admitted[d] else 0
                if number != numbers[side]:
                    boundary = phase + slack + number * window if side else phase - slack + number * window
                    places[side] = _place(history_s, boundary, places[side])
                    numbers[side] = number
                since = at_s[o, d] - phase - number * window
                inside = slack < since < window - slack
                place = places[side]
                if not side and number != full and inside:
                    full, full_s, early = number, at_s[o, d], place
                elif side and number == full and inside and at_s[o, d] > full_s + spread_s:
                    place = early
                held = spent[before[o, d]]
                out[s, o, d] = held - min(spent[place], held, spent[sent_before[o, d]])
    return out


@compiled
def sliding_counter(
    at_s: Floats, before: Ints, spent: Floats, history_s: Floats, window_s: Floats, phase_s: Floats
) -> Floats:
    """Return this aligned window's spending plus the last one's times the part of it that still overlaps."""
    offsets, decisions = at_s.shape
    out = np.empty((len(window_s), offsets, decisions))
    windows, numbers = np.empty(decisions), np.empty(decisions)
    since, since_last = np.empty(decisions), np.empty(decisions)  # what was spent before either window
    for s in range(len(window_s)):
        window, phase = window_s[s], phase_s[s]
        for o in range(offsets):
            for d in range(decisions):  # three loops: the first and the last are vectorised
                windows[d] = (at_s[o, d] - phase) / window
                numbers[d] = math.floor(windows[d])
            known, begun, earlier = np.nan, 0, 0
            for d in range(decisions):
                number = numbers[d]
                if number != known:
                    follows = number == known + 1.0
                    earlier = begun if follows else _place(history_s, phase + (number - 1.0) * window, earlier)
                    begun = _place(history_s, phase + number * window, begun)
                    known = number
                since[d], since_last[d] = spent[begun], spent[earlier]
            for d in range(decisions):
                held = spent[before[o, d]]
                first = since[d] if since[d] < held else held  # noqa: FURB136 - unlike min, this is vectorised
                last = first - (since_last[d] if since_last[d] < first else first)  # noqa: FURB136
                out[s, o, d] = held - first + last * (1.0 - (windows[d] - numbers[d]))
    return out


@compiled
def bucket_level(at_s: Floats, before: Ints, spent: Floats, history_s: Floats, rate_per_s: Floats) -> Floats:
    """Return the water level, before each decision, of a bucket that drains at ``rate_per_s``."""
    offsets, decisions = at_s.shape
    out = np.empty((len(rate_per_s), offsets, decisions))
    lowest = np.empty(len(history_s) + 1)
    for s in range(len(rate_per_s)):
        rate = rate_per_s[s]
        low = np.inf
        lowest[0] = low
        for k in range(len(history_s)):
            low = min(low, spent[k] - rate * history_s[k])
            lowest[k + 1] = low
        for o in range(offsets):
            for d in range(decisions):
                held = before[o, d]
                out[s, o, d] = max(spent[held] - rate * at_s[o, d] - lowest[held], 0.0)
    return out


@compiled
def openings(
    history_s: Floats,
    spent: Floats,
    refused_s: Floats,
    admitted_then: Ints,
    window_s: float,
    limit: float,
    spread_s: float,
    counted_blocks: bool,  # noqa: FBT001 - numba has no keyword-only arguments
) -> Ints:
    """Return which entries of the history opened a window: see `analysis.replay.openings`."""
    n = len(history_s)
    steps = np.empty(n, np.int64)
    many = held = after = full = block = left = 0
    while held < n:
        steps[many] = held
        many += 1
        end = history_s[held] + window_s
        after = _place(history_s, end, after)
        full = _place(spent, spent[held] + limit, full, after=True) - 1
        if held < full < after and history_s[min(full, n - 1)] >= end - spread_s:
            after = full
        following = after
        if counted_blocks:
            opened_s = history_s[min(after, n - 1)]
            block = min(_place(refused_s, opened_s, block), len(refused_s) - 1)
            if opened_s < refused_s[block] < opened_s + window_s:
                left = _place(spent, spent[admitted_then[block]] - limit, left)
                if left > held and abs(history_s[min(left, n - 1)] - end) <= spread_s:
                    following = left
        held = max(following, held + 1)
    return steps[:many].copy()


@compiled
def anchored_window(
    at_s: Floats,
    before: Ints,
    spent: Floats,
    history_s: Floats,
    admitted: Bools,
    blocks: tuple[Floats, Ints],
    window_s: Floats,
    rule: tuple[float, float, bool],
) -> Floats:
    """Return what was spent in the window that was open before each decision.

    ``blocks``: refused_s and admitted_then of `openings`, ``rule``: its limit, spread_s and counted_blocks.
    """
    offsets, decisions = at_s.shape
    out = np.zeros((len(window_s), offsets, decisions))
    for s in range(len(window_s)):
        window = window_s[s]
        first = openings(history_s, spent, blocks[0], blocks[1], window, rule[0], rule[1], rule[2])
        opened_s = history_s[first]
        for o in range(offsets):
            by_call = by_time = 0
            for d in range(decisions):
                held = before[o, d]
                if admitted[d]:
                    by_call = _place(first, held, by_call)
                    index = by_call - 1
                else:
                    by_time = _place(opened_s, at_s[o, d], by_time, after=True)
                    index = by_time - 1
                if index >= 0 and at_s[o, d] < opened_s[index] + window:
                    out[s, o, d] = spent[held] - spent[min(first[index], held)]
    return out
