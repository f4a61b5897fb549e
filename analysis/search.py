"""The search of one family's parameters: which window, phase, rate and limit explain a `Record` best.

Each family proposes shapes from the record's own structure (recoveries, lumps, the gaps that a sliding log
implies), the thresholds are read off the statistic, and a small population is refined around the best. All points
that were looked at are kept: the interval of a parameter is the range of those that explain the record almost as
well as the best (a profile likelihood).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import replay
from mock_server import limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analysis.replay import Floats, Record

ROUND_WINDOWS_S: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
ROUND_BONUS: Final = 4.0  # nats: a person chose the number
ODD_COST: Final = 0.7  # nats: half of the prior is for windows of any length
LEAST_WINDOW_S: Final = 0.3  # what is shorter cannot be told from calls that merely came close together
SMALL_BURST: Final = 2.0
NEAR: Final = 0.06  # relative distance within which a round window is tried
RATE_PRICE: Final = 4.0  # nats that a rate limit must earn
PLATEAU: Final = 2.5  # nats below the best that count as explaining alike
STEPS: Final = 10.0 ** np.linspace(-4.0, -0.7, 12)
WHOLE_BONUS: Final = 1.5  # nats for a whole number of seconds
CLOSEST: Final = 3  # thresholds a shape is judged with
SCREENED: Final = 60  # shapes that pass the quick look
HOPELESS: Final = 0.0  # a threshold that admits nothing, in the place of a repeated one
FAR: Final = 40.0  # nats below the best beyond which a shape is no start for a refinement
MOST: Final = 2000  # hypotheses of one search that are handed on
KEEP: Final = 12.0  # nats below the best that are still worth remembering
RATE_FAMILIES: Final = ("fixed_window", "anchored_window", "sliding_log", "sliding_counter", "token_bucket")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One fully specified rate limit and how well it explains the record. Seconds, calls (or tokens) a window.

    ``limit`` is N of a window family, the burst of a bucket; ``rate_per_s`` is N / W or the refill rate.
    """

    family: str
    limit: float
    rate_per_s: float
    window_s: float | None
    phase_s: float | None
    counts_refused: bool
    counts_other: bool
    log_likelihood: float
    log_prior: float

    @property
    def score(self) -> float:
        """Log posterior up to a constant."""
        return self.log_likelihood + self.log_prior

    def spec(self) -> limits.Spec:
        """Return the limiter that this hypothesis is."""
        window = self.window_s or 1.0
        match self.family:
            case "fixed_window":
                return limits.FixedWindow(self.limit, window, self.phase_s or 0.0, self.counts_refused)
            case "anchored_window":
                return limits.AnchoredWindow(self.limit, window, self.counts_refused)
            case "sliding_log":
                return limits.SlidingLog(self.limit, window, self.counts_refused)
            case "sliding_counter":
                return limits.SlidingCounter(self.limit, window, self.phase_s or 0.0, self.counts_refused)
            case "leaky_queue":
                return limits.LeakyQueue(self.rate_per_s, self.limit)
            case _:
                return limits.TokenBucket(self.rate_per_s, self.limit, self.counts_refused)


Shape = tuple[float, ...]  # (window_s,) | (window_s, boundary_s) | (rate_per_s,)


def statistic(record: Record, family: str, shapes: Sequence[Shape], limit: float) -> Floats:
    """Return the family's statistic, (shapes, offsets, decisions); ``limit`` matters to the anchored window alone."""
    table = np.array(shapes, float)
    match family:
        case "fixed_window":
            return replay.fixed_window(record, table[:, 0], table[:, 1])
        case "anchored_window":
            return replay.anchored_window(record, table[:, 0], limit)
        case "sliding_log":
            return replay.sliding_log(record, table[:, 0])
        case "sliding_counter":
            return replay.sliding_counter(record, table[:, 0], table[:, 1])
        case _:
            return replay.bucket_level(record, table[:, 0])


@dataclass(frozen=True, slots=True)
class Structure:
    """What the record shows before any model: recoveries and lump sizes, and the server's clock where known.

    ``recoveries``: rows of (last refusal, first admission) in seconds; ``waits``: how long each block had lasted,
    from its first refusal. ``lumps``: what was spent between a
    recovery and the next refusal. ``server_offset_s``: server time minus the record's clock, with its
    uncertainty; None where no Date header was seen.
    """

    recoveries: Floats
    waits: Floats
    lumps: Floats
    server_offset_s: tuple[float, float] | None


def structure(record: Record, server_offset_s: tuple[float, float] | None = None) -> Structure:
    """Read recoveries and lumps off the decisions."""
    adm = record.admitted
    back = np.flatnonzero(adm[1:] & ~adm[:-1]) + 1
    recoveries = np.column_stack([record.sent_s[back - 1], record.sent_s[back]]) if len(back) else np.zeros((0, 2))
    block = np.flatnonzero(~adm[1:] & adm[:-1]) + 1
    starts = np.concatenate([[0], block])
    run = starts[np.searchsorted(starts, np.maximum(back - 1, 0), side="right") - 1]
    waits = record.sent_s[back] - record.sent_s[run]
    edges = np.concatenate([[0], np.searchsorted(record.history_s, record.sent_s[block])])
    lumps = np.diff(record.spent[edges]) if len(block) else np.zeros(0)
    return Structure(recoveries, waits, lumps, server_offset_s)


def search(
    record: Record,
    family: str,
    seen: Structure,
    start: Sequence[Shape] = (),
    rng: np.random.Generator | None = None,
) -> list[Hypothesis]:
    """Return the hypotheses of one family that explain the record best, best first (empty: nothing to explain).

    With a ``start`` from an earlier fit the search is local; without one it is global.
    """
    if record.n == 0 or record.admitted.all() or not record.admitted.any():
        return []
    rng = rng or np.random.default_rng(0)
    table = _Table(record, family, seen)
    ranked = table.look([*start, *_proposals(record, family, seen)])
    if not ranked:
        return []
    scale = _first_scale(record, family, seen)
    for _ in range(5):
        best = [shape for _, shape in ranked[:4]]
        ranked = sorted([*ranked[:8], *table.look(_perturbed(best, scale, seen, rng))], reverse=True)
        scale *= 0.35
    table.look(_rounded(family, ranked[0][1], seen))
    for _ in range(2):
        ends = table.ends()
        table.look([shape for end in ends for shape in _outwards(end, seen)])
    return _middle_first(table.hypotheses())


class _Table:
    """All points that a search has looked at and that are within `KEEP` of the best one."""

    def __init__(self, record: Record, family: str, seen: Structure) -> None:
        self._record, self._family, self._seen = record, family, seen
        self._known: set[Shape] = set()
        self._rows: list[tuple[float, float, float, Shape]] = []  # score, log likelihood, threshold, shape
        self._top = -math.inf

    def look(self, shapes: Iterable[Shape]) -> list[tuple[float, Shape]]:
        """Judge new shapes; returns (score, shape), best first, of those close to the best ever seen."""
        least = LEAST_WINDOW_S if self._family != "token_bucket" else 0.0
        fresh = [s for s in dict.fromkeys(shapes) if s not in self._known and s[0] > least]
        self._known.update(fresh)
        fresh = _screened(self._record, self._family, fresh, self._seen)
        found: list[tuple[float, Shape]] = []
        for part, thresholds, ll in judged(self._record, self._family, fresh, self._seen):
            prior = np.array([prior_of(self._record, self._family, shape, self._seen) for shape in part])
            score = ll + prior[:, None]
            best = score.max(axis=1)
            self._top = max(self._top, float(best.max()))
            found += [(float(best[i]), part[i]) for i in np.flatnonzero(best > self._top - FAR).tolist()]
            for i, j in np.argwhere(score > self._top - KEEP).tolist():
                if self._blurred(part[i], float(thresholds[i, j])):
                    continue
                self._rows.append((float(score[i, j]), float(ll[i, j]), float(thresholds[i, j]), part[i]))
        return sorted(found, reverse=True)

    def _blurred(self, shape: Shape, limit: float) -> bool:
        """Return whether this is a bucket so small and fast that the spread alone would hide it."""
        small = self._family == "token_bucket" and limit <= SMALL_BURST
        return small and shape[0] * self._record.spread_s > 1.0

    def ends(self) -> list[Shape]:
        """Return the shapes with the lowest and the highest rate on the plateau around the best."""
        level = [row for row in self._rows if row[0] > self._top - PLATEAU]
        if not level:
            return []
        rate = [row[2] / row[3][0] if self._family != "token_bucket" else row[3][0] for row in level]
        low, high = int(np.argmin(rate)), int(np.argmax(rate))
        return [level[low][3], level[high][3]]

    def hypotheses(self) -> list[Hypothesis]:
        """Return the points near the best, best first."""
        unique = {(row[3], row[2]): row for row in self._rows if row[0] > self._top - KEEP}
        rows = sorted(unique.values(), reverse=True)[:MOST]
        return [
            hypothesis_of(self._record, self._family, shape, limit, ll, score - ll) for score, ll, limit, shape in rows
        ]


def _outwards(shape: Shape, seen: Structure) -> list[Shape]:
    """Step outwards to both sides: a likelihood with steps is flat, and its edges are the interval.

    A window is changed around each recovery that may hold a boundary still, and a phase is moved by itself.
    """
    steps = np.concatenate([-STEPS, STEPS])
    if len(shape) == 1:
        return [(shape[0] * math.exp(d),) for d in steps]
    anchors = (
        [shape[1], *seen.recoveries[[0, len(seen.recoveries) // 2, -1], 1]] if len(seen.recoveries) else [shape[1]]
    )
    window = shape[0]
    kept = [shape[1] + math.floor((a - shape[1]) / window + 0.5) * window for a in anchors]
    turned = [(window * math.exp(d), at) for at in dict.fromkeys(kept) for d in steps]
    return [*turned, *((window, shape[1] + d * window) for d in steps)]


def _middle_first(found: list[Hypothesis]) -> list[Hypothesis]:
    """Put the middle of the plateau first: all of it explains the record alike, and its edge is the worst guess."""
    if not found:
        return []
    top = found[0]
    level = [h for h in found if h.score > top.score - 0.3 and h.limit == top.limit]
    centre = 0.5 * (min(h.rate_per_s for h in level) + max(h.rate_per_s for h in level))
    best = min(level, key=lambda h: abs(h.rate_per_s - centre))
    return [replace(best, log_prior=best.log_prior + top.score - best.score), *(h for h in found if h is not best)]


# ------------------------------------------------------------------------------------------------ proposals


def _proposals(record: Record, family: str, seen: Structure) -> list[Shape]:
    match family:
        case "fixed_window":
            return _fixed_proposals(record, seen)
        case "anchored_window":
            return [(w,) for w in _anchored_windows(record, seen)]
        case "sliding_log":
            return [(w,) for w in _log_windows(record, seen)]
        case "sliding_counter":
            return _counter_proposals(record, seen)
        case _:
            return [(r,) for r in _bucket_rates(record)]


def _duration_s(record: Record) -> float:
    return float(record.sent_s[-1] - record.sent_s[0]) + 1e-3


def _round_windows(longest_s: float) -> list[float]:
    return [w for w in ROUND_WINDOWS_S if w <= 1.2 * longest_s + 2.0]


def _anchored_windows(record: Record, seen: Structure) -> list[float]:
    """Each recovery is one window after the call that opened it: the first one, or the first after a recovery."""
    opened = [float(record.history_s[0]), *seen.recoveries[:, 1]]
    found = []
    for last, first in seen.recoveries:
        for start in [o for o in opened if o < last][-3:] + opened[:1]:
            found += [last - start, (last + first) / 2 - start, first - start]
    return [w for w in [*found, *_round_windows(_duration_s(record))] if w > LEAST_WINDOW_S]


def _log_windows(record: Record, seen: Structure) -> list[float]:
    """Fix the integer, solve for the time: for each N the window is the best threshold of a sorted list."""
    found = [w for n in _limit_guesses(seen) for w in _threshold_windows(record, n)]
    return [w for w in [*found, *_round_windows(_duration_s(record))] if w > LEAST_WINDOW_S]


def _limit_guesses(seen: Structure) -> list[int]:
    if len(seen.lumps) == 0:
        return [1]
    big = {round(float(v)) for v in [*seen.lumps[:3], seen.lumps.max(), float(np.median(seen.lumps))]}
    near = {n + d for n in big for d in (-2, -1, 0, 1, 2)}
    return sorted(n for n in near | set(range(1, 7)) if n >= 1)


def _threshold_windows(record: Record, limit: int) -> list[float]:
    middle = record.at_s.shape[0] // 2
    before, at = record.before[middle], record.at_s[middle]
    full = before >= limit
    if not (full & ~record.admitted).any():
        return []
    gap = at[full] - record.history_s[before[full] - limit]
    order = np.argsort(gap)
    gap, admitted = gap[order], record.admitted[full][order]
    wrong = np.cumsum(admitted) + np.concatenate([np.cumsum((~admitted)[::-1])[::-1][1:], [0]])
    wrong = np.concatenate([[int((~admitted).sum())], wrong])
    edges = np.concatenate([[gap[0] - 0.01], (gap[1:] + gap[:-1]) / 2, [gap[-1] + 0.01]])
    best = np.flatnonzero(wrong == wrong.min())
    return [float(edges[best[0]]), float(edges[best[len(best) // 2]]), float(edges[best[-1]])]


def _fixed_proposals(record: Record, seen: Structure) -> list[Shape]:
    brackets = seen.recoveries
    if len(brackets) == 0:
        return _clock_aligned(record, seen)
    width = brackets[:, 1] - brackets[:, 0]
    sharp = brackets[np.argsort(width)[:6]]
    sharp = sharp[np.argsort(sharp[:, 0])]
    windows = set(_round_windows(4 * _duration_s(record)))
    for i in range(len(sharp)):
        for j in range(i):
            apart = sharp[j : i + 1].mean(axis=1)[-1] - sharp[j].mean()
            windows |= {apart / m for m in range(1, 9)}
    shortest = 0.5 * float(width.min())
    shapes = [
        (w, float(at))
        for w in windows
        if w > shortest
        for bracket in sharp
        for at in (bracket[0] + f * (bracket[1] - bracket[0]) for f in (0.15, 0.5, 0.9))
    ]
    return [*shapes, *_clock_aligned(record, seen)]


def _clock_aligned(record: Record, seen: Structure) -> list[Shape]:
    """Round windows that start at a multiple of themselves on the server's clock."""
    if seen.server_offset_s is None:
        return []
    offset, slack = seen.server_offset_s
    longest = 4 * _duration_s(record)
    return [(w, -(offset + d * slack) % w) for w in _round_windows(longest) for d in (-0.8, -0.4, 0.0, 0.4, 0.8)]


def _counter_proposals(record: Record, seen: Structure) -> list[Shape]:
    duration = _duration_s(record)
    windows = [*_round_windows(2 * duration), *np.geomspace(0.05 * duration, 1.5 * duration, 14)]
    if len(seen.recoveries):
        wait = seen.recoveries[:, 1] - record.history_s[0]
        windows += [float(wait[0]) * f for f in (0.8, 0.9, 1.0)]
    shapes = [(float(w), float(record.history_s[0] + f * w)) for w in windows for f in np.arange(10) / 10]
    return [*shapes, *_clock_aligned(record, seen)]


def _bucket_rates(record: Record) -> list[float]:
    total, duration = float(record.spent[-1]), _duration_s(record)
    return [float(r) for r in np.geomspace(0.003 * total / duration, 4 * total / duration, 60)]


# ------------------------------------------------------------------------------------------------ refinement


def _first_scale(record: Record, family: str, seen: Structure) -> float:
    """Return the relative step of the first refinement: about the width of the sharpest bracket."""
    if family == "token_bucket" or len(seen.recoveries) == 0:
        return 0.06
    width = float(np.min(seen.recoveries[:, 1] - seen.recoveries[:, 0])) + record.spread_s
    return float(np.clip(width / _duration_s(record) * 4, 0.005, 0.08))


def _perturbed(best: Sequence[Shape], scale: float, seen: Structure, rng: np.random.Generator) -> list[Shape]:
    shapes: list[Shape] = []
    for shape in best:
        for first, second in rng.standard_normal((5, 2)) * scale:
            value = shape[0] * math.exp(first)
            if len(shape) == 1:
                shapes.append((value,))
                continue
            boundary = shape[1] + second * shape[0]
            shapes += [(value, _carried(boundary, shape[0], seen)), (shape[0], boundary)]
    return shapes


def _carried(boundary: float, window_s: float, seen: Structure) -> float:
    """Return the boundary of this phase next to the middle recovery: changing the window moves few from there."""
    if len(seen.recoveries) == 0:
        return boundary
    anchor = float(seen.recoveries[len(seen.recoveries) // 2, 1])
    return boundary + math.floor((anchor - boundary) / window_s) * window_s


def _rounded(family: str, shape: Shape, seen: Structure) -> list[Shape]:
    """Return the round windows close to the best one, at the boundaries that keep its recoveries in place."""
    if family == "token_bucket":
        return []
    whole = float(round(shape[0]))
    close = {w for w in (*ROUND_WINDOWS_S, whole, whole - 1, whole + 1) if w > 0 and abs(w / shape[0] - 1) < NEAR}
    if len(shape) == 1:
        return [(w,) for w in sorted(close)]
    shapes: list[Shape] = []
    for w in sorted(close):
        for _, first in seen.recoveries[-8:]:
            kept = shape[1] + math.floor((first - shape[1]) / shape[0] + 0.5) * shape[0]
            shapes += [(w, kept + d * w) for d in (-0.004, -0.001, 0.0, 0.001, 0.004)]
    return shapes


# --------------------------------------------------------------------------------------------------- scoring


def judged(
    record: Record, family: str, shapes: Sequence[Shape], seen: Structure, batch: int = 100_000
) -> Iterable[tuple[Sequence[Shape], Floats, Floats]]:
    """Yield (shapes, thresholds, log likelihoods), the latter two as (shapes, candidates), in digestible parts."""
    size = max(1, batch // max(1, record.at_s.size))
    for first in range(0, len(shapes), size):
        part = shapes[first : first + size]
        s = statistic(record, family, part, _guess(seen))
        thresholds = _thresholds(record, s)
        best = np.argsort(replay.misfits(record, s, thresholds), axis=1, kind="stable")[:, :CLOSEST]
        thresholds = np.take_along_axis(thresholds, best, axis=1)
        yield part, thresholds, replay.log_likelihood(record, s, thresholds)


def _guess(seen: Structure) -> float:
    return float(seen.lumps.max()) if len(seen.lumps) else 1.0


def _screened(record: Record, family: str, shapes: Sequence[Shape], seen: Structure) -> list[Shape]:
    """Keep the shapes that miss the fewest decisions, by a quick look."""
    if len(shapes) <= SCREENED:
        return list(shapes)
    quick = replay.at_middle(record)
    size = max(1, 200_000 // max(1, quick.at_s.size))
    missed = []
    for first in range(0, len(shapes), size):
        s = statistic(quick, family, shapes[first : first + size], _guess(seen))
        missed.append(replay.misfits(quick, s, _thresholds(quick, s)).min(axis=1))
    order = np.argsort(np.concatenate(missed), kind="stable")[:SCREENED]
    return [shapes[i] for i in order]


def _thresholds(record: Record, s: Floats) -> Floats:
    """Return integers near where admissions end and refusals begin, (shapes, candidates)."""
    need = s[:, s.shape[1] // 2] + record.cost
    refused = np.sort(need[:, ~record.admitted], axis=1)
    marks = [refused[:, (refused.shape[1] - 1) // 2] - 1, refused[:, (refused.shape[1] - 1) // 10] - 1]
    if record.admitted.any():
        admitted = np.sort(need[:, record.admitted], axis=1)
        marks += [admitted[:, -1], admitted[:, max(0, admitted.shape[1] - 3)]]
    base = np.floor(np.stack(marks, axis=1) + 1e-9)
    values = np.sort(np.maximum(np.concatenate([base, base + 1], axis=1), 1.0), axis=1)
    repeated = np.concatenate([np.zeros((len(values), 1), bool), np.diff(values, axis=1) == 0], axis=1)
    return np.where(repeated, HOPELESS, values)


def hypothesis_of(
    record: Record, family: str, shape: Shape, limit: float, log_likelihood: float, log_prior: float
) -> Hypothesis:
    """Return a shape with its threshold as a `Hypothesis`."""
    bucket = family == "token_bucket"
    return Hypothesis(
        family=family,
        limit=limit,
        rate_per_s=float(shape[0] if bucket else limit / shape[0]),
        window_s=None if bucket else float(shape[0]),
        phase_s=float(shape[1] % shape[0]) if len(shape) > 1 else None,
        counts_refused=record.counts_refused,
        counts_other=record.counts_other,
        log_likelihood=log_likelihood,
        log_prior=log_prior,
    )


def prior_of(record: Record, family: str, shape: Shape, seen: Structure) -> float:
    """Return the log prior: round windows are likelier, and so are windows aligned to the server's clock.

    A phase that the record was free to choose costs what choosing it was worth (an Occam factor): the number of
    phases that could have been told apart.
    """
    if family == "token_bucket":
        return -RATE_PRICE - ODD_COST
    window_s = float(shape[0])
    bonus = ROUND_BONUS if window_s in ROUND_WINDOWS_S else WHOLE_BONUS if window_s.is_integer() else 0.0
    value = bonus - ODD_COST - RATE_PRICE
    if len(shape) == 1:
        return value
    blur = 2.0 * (record.spread_s + 0.005 * window_s)
    # Only whole seconds: among windows of any length, one that fits the epoch by chance is always near.
    if seen.server_offset_s is not None and window_s.is_integer():
        offset, slack = seen.server_offset_s
        off = (shape[1] + offset + 0.5 * window_s) % window_s - 0.5 * window_s
        if abs(off) <= slack + blur:
            return value - ODD_COST
    return value - ODD_COST - min(6.0, max(1.0, math.log(window_s / blur)))


def shape_of(h: Hypothesis) -> Shape:
    """Return the shape that `search` takes as a start."""
    if h.window_s is None:
        return (h.rate_per_s,)
    return (h.window_s,) if h.phase_s is None else (h.window_s, h.phase_s)
