"""Where to look: the shapes of each family that a record's own structure suggests, before any is judged.

A recovery (the last refusal, the first admission after it) brackets the moment at which a limit gave back. For a
window on the clock that is a boundary: with the boundaries numbered, every bracket is a pair of linear inequalities
in window and phase, so the feasible windows form an interval whose ends are known exactly. For a sliding log the
number N is fixed and the window read off a sorted list. Counters and buckets have no such corner and are found by a
smooth measure of how far each decision lies on the wrong side. Pure; seconds on the record's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import costed, decisions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analysis.calls import Floats, Ints
    from analysis.decisions import Record

Shape = tuple[float, ...]  # (window_s,) | (window_s, boundary_s) | (rate_per_s,)

ROUND_WINDOWS_S: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
LEAST_WINDOW_S: Final = 0.9  # nobody counts in less than a second; what is shorter is calls that came close together
RATES: Final = (0.003, 40.0)  # of a bucket, in multiples of what came in on average,
RATES_TRIED: Final = 1200  # between which so many are asked whether blocks agree,
MOST_BLOCKS: Final = 8  # of which every two say at which rates of a bucket they agree,
MOST_RESTS: Final = 40  # which may have been full after any of its longest rests,
SECANTS: Final = 4  # steps after which such a rate is known to far less than a call
FEW: Final = 2.0  # calls a window at which a counter passes for a fixed window
MOST_PERIODS: Final = 9  # windows between two recoveries that are tried
_BETWEEN: Final = np.array([k for k in range(36) if k % 3])  # 36ths of a window that are no twelfths
NEAREST: Final = 60  # windows, by how nearly they fit all of these, that are tried at several moments
ACROSS: Final = 13  # points across what recoveries have in common
OF_WINDOW: Final = ("anchored_window", "sliding_log")  # families whose shape is a window alone


@dataclass(frozen=True, slots=True)
class Structure:
    """What the record shows before any model: recoveries and lump sizes, and the server's clock where known.

    ``recoveries``: rows of (last refusal, first admission) in seconds; ``waits``: how long each block had lasted,
    from its first refusal. ``lumps``: what was spent between a recovery and the next refusal. ``server_offset_s``:
    server time minus the record's clock, with its uncertainty; None where no Date header was seen. ``usual``: what was
    most often spent from one block to the next.
    """

    recoveries: Floats
    waits: Floats
    lumps: Floats
    server_offset_s: tuple[float, float] | None
    usual: float = 1.0


def structure(record: Record, server_offset_s: tuple[float, float] | None = None) -> Structure:
    """Read recoveries and lumps off the decisions."""
    if costed.sized(record):
        return Structure(*costed.recoveries(record), server_offset_s)
    adm = record.admitted
    back = np.flatnonzero(adm[1:] & ~adm[:-1]) + 1
    recoveries = np.column_stack([record.sent_s[back - 1], record.sent_s[back]]) if len(back) else np.zeros((0, 2))
    block = np.flatnonzero(~adm[1:] & adm[:-1]) + 1
    starts = np.concatenate([[0], block])
    run = starts[np.searchsorted(starts, np.maximum(back - 1, 0), side="right") - 1]
    waits = record.sent_s[back] - record.sent_s[run]
    edges = np.concatenate([[0], np.searchsorted(record.history_s, record.sent_s[block])])
    lumps = np.diff(record.spent[edges]) if len(block) else np.zeros(0)
    return Structure(recoveries, waits, lumps, server_offset_s, _usual(record, lumps))


def _usual(record: Record, lumps: Floats) -> float:
    """Return what was most often spent from one block to the next; the largest lump where no two are alike.

    Admissions among the first refusals of a block, which came in another order, are no lumps of their own.
    """
    _, count = decisions.blocks(record)
    spent = np.diff(record.spent[np.unique(np.concatenate([[0], count]))])
    values, times = np.unique(spent, return_counts=True)
    if len(values) == 0 or times.max() == 1:
        return float(lumps.max()) if len(lumps) else 1.0
    return float(values[times == times.max()].max())


def proposals(record: Record, family: str, seen: Structure) -> list[Shape]:
    """Return the shapes of a family that are worth judging."""
    match family:
        case "fixed_window":
            return [*_fixed(record, seen), *clock_aligned(round_windows(4 * duration_s(record)), seen)]
        case "anchored_window":
            return [(w,) for w in _anchored_windows(record, seen)]
        case "sliding_log":
            return [(w,) for w in _log_windows(record, seen)]
        case "sliding_counter":
            return [*_counters(record, seen), *clock_aligned(round_windows(2 * duration_s(record)), seen)]
        case _:
            return [(r,) for r in (*_bucket_rates(record), *_agreeing(record))]


def clock_aligned(windows_s: Iterable[float], seen: Structure) -> list[Shape]:
    """Return these windows with boundaries at multiples of themselves on the server's clock."""
    if seen.server_offset_s is None:
        return []
    offset, slack = seen.server_offset_s
    return [(w, -(offset + d * slack) % w) for w in windows_s for d in (-0.8, -0.4, 0.0, 0.4, 0.8)]


def round_windows(longest_s: float) -> list[float]:
    """Return the windows that people choose, up to a little more than ``longest_s``."""
    return [w for w in ROUND_WINDOWS_S if w <= 1.2 * longest_s + 2.0]


def duration_s(record: Record) -> float:
    """Return how long the record is, in seconds."""
    return float(record.sent_s[-1] - record.sent_s[0]) + 1e-3


# ------------------------------------------------------------------------------------------- windows on the clock


def _fixed(record: Record, seen: Structure) -> list[Shape]:
    """Return, with the boundaries numbered under each plausible window, the corners of what is feasible then."""
    brackets = _real(seen, record.spread_s)
    if len(brackets) == 0:
        return []
    low, high = brackets[:, 0] - record.spread_s, brackets[:, 1] + record.spread_s
    middle = brackets.mean(axis=1)
    shapes: list[Shape] = []
    far: list[tuple[float, float]] = []  # how far a window is from what is feasible
    numbered: set[tuple[int, ...]] = set()
    for window in _periods(brackets, duration_s(record)):
        numbers = np.round((middle - middle[0]) / window).astype(np.int64)
        least, most = _feasible(low, high, numbers)
        if most <= least or window in ROUND_WINDOWS_S:
            far.append(((least - most) / window, window))
        if tuple(numbers) not in numbered and most > least:
            numbered.add(tuple(numbers))
            shapes += _corners(low, high, numbers, least, most)
    places = [float(b[0] + f * (b[1] - b[0])) for b in brackets[-3:] for f in (0.15, 0.5, 0.9)]
    return [*shapes, *((window, at) for _, window in sorted(far)[:NEAREST] for at in places)]


def _real(seen: Structure, spread_s: float) -> Floats:
    """Return the recoveries that are not mere jitter, the twelve sharpest of them, in order of time."""
    kept = seen.recoveries[seen.waits > 2.0 * spread_s]
    sharp = kept[np.argsort(kept[:, 1] - kept[:, 0], kind="stable")[:12]]
    return np.asarray(sharp[np.argsort(sharp[:, 0])])


def _periods(brackets: Floats, duration_s: float) -> list[float]:
    """Return windows that put a whole number of them between two recoveries, and the round ones."""
    middle = brackets.mean(axis=1)
    shortest = 0.5 * float((brackets[:, 1] - brackets[:, 0]).min())
    found = set(round_windows(4 * duration_s))
    for i in range(len(middle)):
        for j in range(max(0, i - 3), i):
            found |= {float(middle[i] - middle[j]) / m for m in range(1, MOST_PERIODS)}
    return sorted(w for w in found if w > max(shortest, LEAST_WINDOW_S))


def _feasible(low: Floats, high: Floats, numbers: Ints) -> tuple[float, float]:
    """Return the least and the most that a window may last if boundary number k_i lies between low_i and high_i.

    W lies between the largest (low_j - high_i) / (k_j - k_i) and the least (high_j - low_i) / (k_j - k_i): in two
    unknowns, pairs of inequalities say all there is to say. The least is more than the most where nothing is feasible;
    where all are one boundary, which any window may have, both are 0.
    """
    apart = numbers[None, :] - numbers[:, None]
    later = apart > 0
    if not later.any():
        return 0.0, 0.0
    most = float(((high[None, :] - low[:, None])[later] / apart[later]).min())
    least = float(((low[None, :] - high[:, None])[later] / apart[later]).max())
    return max(least, LEAST_WINDOW_S), most


def _corners(low: Floats, high: Floats, numbers: Ints, least: float, most: float) -> list[Shape]:
    """Return windows across the feasible range, each with boundaries across its own."""
    shapes: list[Shape] = []
    for share in (0.02, 0.15, 0.3, 0.5, 0.7, 0.85, 0.98):
        window = least + share * (most - least)
        first, last = float((low - numbers * window).max()), float((high - numbers * window).min())
        at = numbers[-1] * window
        shapes += [(window, at + first + f * (last - first)) for f in (0.05, 0.35, 0.65, 0.95)]
    return shapes


# ------------------------------------------------------------------------------------ windows of one's own calls


def _anchored_windows(record: Record, seen: Structure) -> list[float]:
    """Each recovery is one window after the call that opened it: the first one, or the first after a recovery."""
    real = seen.recoveries[seen.waits > 2.0 * record.spread_s]  # what is mixed up in a block opens nothing
    real = real if len(real) else seen.recoveries
    opened = [float(record.history_s[0]), *real[:, 1]]
    spans = [
        (last - start, first - start)
        for last, first in real
        for start in [o for o in opened if o < last][-3:] + opened[:1]
    ]
    found = [w for low, high in spans for w in (low, (low + high) / 2, high)]
    found += _shared(np.array(spans), record.spread_s) if spans else []
    return [w for w in [*found, *round_windows(duration_s(record))] if w > LEAST_WINDOW_S]


def _shared(spans: Floats, spread_s: float) -> list[float]:
    """Return points across the windows that most of these intervals have in common, and across those of all but one."""
    low, high = spans[:, :1] - spread_s, spans[:, 1:] + spread_s
    edges = np.unique([low, high])
    middle = (edges[1:] + edges[:-1]) / 2
    common = ((low < middle) & (middle < high)).sum(axis=0)
    found: list[float] = []
    for least in (common.max(), common.max() - 1):
        inside = np.flatnonzero(common >= least)
        found += np.linspace(edges[inside[0]], edges[inside[-1] + 1], ACROSS + 2)[1:-1].tolist()
    return found


def _log_windows(record: Record, seen: Structure) -> list[float]:
    """Fix the integer, solve for the time: for each N the window is the best threshold of a sorted list."""
    if costed.sized(record):
        found = costed.log_windows(record, seen.recoveries)
    else:
        found = [w for n in _limit_guesses(seen) for w in _threshold_windows(record, n)]
    return [w for w in [*found, *round_windows(duration_s(record))] if w > LEAST_WINDOW_S]


def _limit_guesses(seen: Structure) -> list[int]:
    if len(seen.lumps) == 0:
        return [1]
    big = {round(float(v)) for v in [*seen.lumps[:3], seen.lumps.max(), float(np.median(seen.lumps)), seen.usual]}
    near = {n + d for n in big for d in (-2, -1, 0, 1, 2)}
    return sorted(n for n in near | set(range(1, 7)) if n >= 1)


def _threshold_windows(record: Record, limit: int) -> list[float]:
    middle = record.at_s.shape[0] // 2
    before, at = record.before[middle], record.at_s[middle]
    full = before >= limit
    if not (full & ~record.admitted).any():
        return []
    gap = at[full] - record.arrivals.mean_s[before[full] - limit]
    order = np.argsort(gap)
    gap, admitted = gap[order], record.admitted[full][order]
    wrong = np.cumsum(admitted) + np.concatenate([np.cumsum((~admitted)[::-1])[::-1][1:], [0]])
    wrong = np.concatenate([[int((~admitted).sum())], wrong])
    edges = np.concatenate([[gap[0] - 0.01], (gap[1:] + gap[:-1]) / 2, [gap[-1] + 0.01]])
    best = np.flatnonzero(wrong == wrong.min())
    return [float(edges[best[0]]), float(edges[best[len(best) // 2]]), float(edges[best[-1]])]


# ------------------------------------------------------------------------------------------- counters and buckets


def _counters(record: Record, seen: Structure) -> list[Shape]:
    """Return a grid, and for each window the boundary that lets the first recovery come one call after it."""
    duration, first_s = duration_s(record), float(record.history_s[0])
    likely = round_windows(2 * duration)
    windows = np.concatenate([likely, np.geomspace(max(0.02 * duration, 0.35), 1.6 * duration, 40)])
    shapes = [*_grid(windows, first_s, np.arange(12) / 12), *_grid(np.array(likely), first_s, _BETWEEN / 36)]
    if seen.usual <= FEW:  # one call bars the window after its own too: a fixed window twice as long, at most moments
        shapes += [(0.5 * window, boundary) for window, boundary in _fixed(record, seen)]
    many = max(1.0, float(seen.lumps.max(initial=1.0)))
    for back_s in seen.recoveries[seen.waits > record.spread_s, 1][:2].tolist():
        shapes += _grid(windows, back_s, np.array([-0.3, -1.0]) / many)
    return shapes


def _grid(windows_s: Floats, start_s: float, parts: Floats) -> list[Shape]:
    """Return each window with boundaries so many parts of it after a moment."""
    boundaries_s = start_s + windows_s[:, None] * parts
    return list(zip(np.repeat(windows_s, len(parts)).tolist(), boundaries_s.ravel().tolist(), strict=True))


def _bucket_rates(record: Record) -> list[float]:
    """Return rates around what came in on average: a small bucket that was seldom emptied may let in far more."""
    return [float(r) for r in _rates_between(record, 80)]


def _rates_between(record: Record, many: int) -> Floats:
    mean = float(record.spent[-1]) / duration_s(record)
    return np.geomspace(RATES[0] * mean, RATES[1] * mean, many)


def _agreeing(record: Record) -> list[float]:
    """Return the rates at which two blocks want a bucket of the same size, give or take a call.

    What passed before a block is all of a bucket that was full at some moment before, and what came in since. So for
    each rate a block wants a certain size, and two of them agree at one rate if the bucket was never full between
    them, at another if it was: each explains them to a call, with nothing between.
    """
    refused = np.flatnonzero(~record.admitted)
    apart = np.diff(record.sent_s[refused], prepend=-np.inf) > 2.0 * record.spread_s
    at_s = record.sent_s[refused[apart]]
    at_s = at_s[np.linspace(0, len(at_s) - 1, min(len(at_s), MOST_BLOCKS)).astype(int)]
    spent = record.spent[np.searchsorted(record.history_s, at_s)]
    at_s, spent = at_s[spent > 0], spent[spent > 0]
    rests = np.diff(record.history_s)
    full = np.unique([0, *(np.argsort(-rests, kind="stable")[:MOST_RESTS] + 1)])
    full_s, spent_before = record.history_s[full], record.spent[full]
    last = np.searchsorted(full_s, at_s, side="right") - 1

    def size(rate: Floats) -> Floats:
        least = np.minimum.accumulate(spent_before - rate[:, None] * full_s, axis=1)
        return np.asarray(spent - rate[:, None] * at_s - least[:, last])

    rates = _rates_between(record, RATES_TRIED)
    one, other = np.triu_indices(len(at_s), 1)
    sizes = size(rates)
    apart_by = (sizes[:, other] - sizes[:, one])[None] + np.array([-1.0, 0.0, 1.0])[:, None, None]
    d, k, pair = np.nonzero(np.sign(apart_by[:, 1:]) != np.sign(apart_by[:, :-1]))
    low, high = rates[k], rates[k + 1]
    at_low, at_high = apart_by[d, k, pair], apart_by[d, k + 1, pair]
    row = np.arange(len(k))
    for _ in range(SECANTS):
        between = low + (high - low) * at_low / (at_low - at_high)
        sizes = size(between)
        here = sizes[row, other[pair]] - sizes[row, one[pair]] + d - 1.0
        same = np.sign(here) == np.sign(at_low)
        low, at_low = np.where(same, between, low), np.where(same, here, at_low)
        high, at_high = np.where(same, high, between), np.where(same, at_high, here)
    return np.asarray(between).tolist() if len(k) else []
