"""The search of one family's parameters: which window, phase, rate and limit explain a `Record` best.

Each family proposes shapes from the record's own structure (recoveries, lumps, the gaps that a sliding log
implies), the thresholds are read off the statistic, and a small population is refined around the best. All points
that were looked at are kept: the interval of a parameter is the range of those that explain the record almost as
well as the best (a profile likelihood).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from analysis import steps, valleys
from analysis.descent import HOPEFUL, NEARLY, Pool, other_rates, settled
from analysis.judging import judged, screened
from analysis.priors import priors_of, roundness, slowness
from analysis.proposals import LEAST_WINDOW_S, proposals
from mock_server import limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analysis.calls import Floats
    from analysis.decisions import Record
    from analysis.proposals import Shape, Structure

PLATEAU: Final = 2.5  # nats below the best that count as explaining alike
BEHIND: Final = 300.0  # nats below another family's best at which the first shapes are given up: hardly one came back,
REFINED: Final = 100.0  # a refined one,
FOLLOWED: Final = 40.0  # and one that is not worth an interval
LOST: Final = 2.0  # times what is poor, below which a record is explained by no family: it needs no second look
POOR: Final = 30.0  # nats that no limit with the right shape leaves over,
POOR_SHARE: Final = 0.1  # and for each refusal
ROUNDS: Final = 5  # of refinement, at most
IDLE: Final = 2  # of them in a row that gain little end it
LITTLE: Final = 0.3  # nats
FAR: Final = 40.0  # nats below the best beyond which a shape is no start for a refinement
CLOSE: Final = 15.0  # nats below the best within which a round window, or another rate of a bucket, is refined
MOST: Final = 2000  # hypotheses of one search that are handed on
KEEP: Final = 12.0  # nats below the best that are still worth remembering
SMOOTH: Final = ("sliding_counter", "token_bucket")  # families whose statistic changes smoothly with the shape
JAGGED: Final = ("anchored_window", "sliding_log")  # whose likelihood, of one variable, has steps and gaps
ASTRAY: Final = 2.0  # of `likelihood.overlap` at the start, from which none came near a family that explains the record
RATE_FAMILIES: Final = ("fixed_window", "anchored_window", "sliding_log", "token_bucket", "sliding_counter")


class Hypothesis(msgspec.Struct, frozen=True):
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
    roundness: float = 0.0  # the part of the prior that favours numbers which people choose

    @property
    def score(self) -> float:
        """Log posterior up to a constant."""
        return self.log_likelihood + self.log_prior

    @property
    def evidence(self) -> float:
        """The same without the preference for round numbers: intervals are made of this."""
        return self.score - self.roundness

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
            case _:
                return limits.TokenBucket(self.rate_per_s, self.limit, self.counts_refused)


def search(
    record: Record,
    family: str,
    seen: Structure,
    start: Sequence[Shape] = (),
    rng: np.random.Generator | None = None,
    *,
    afresh: bool = True,
    rival: float = -math.inf,
    bonus: float = 0.0,
) -> list[Hypothesis]:
    """Return the hypotheses of one family that explain the record best, best first (empty: nothing to explain).

    With ``start`` (shapes of an earlier fit) and not ``afresh``, a sliding counter is only followed from there; the
    others are cheap enough to be looked for everywhere. ``rival``: the score of another family's best; one
    that stays far below it is given up.
    """
    if record.n == 0 or record.admitted.all() or not record.admitted.any():
        return []
    rng = rng or np.random.default_rng(0)
    table, pool, badly = _Table(record, family, seen), None, poor(int(np.sum(~record.admitted)))
    proposed = proposals(record, family, seen) if afresh or not start or family != "sliding_counter" else []
    if family in SMOOTH and proposed:
        pool = Pool(record, family, seen)
        pool.add(start)
        pool.begin(proposed)
        near = rival < badly or pool.top < ASTRAY
        hopeful = HOPEFUL if rival < badly else 0.5 * ASTRAY
        down = pool.copy()
        proposed = settled(down, seen, rng, hopeful) if near else []
        if family == "sliding_counter" and (rival < badly or down.top < NEARLY):
            proposed += valleys.deepest(down, seen, rng)
    ranked = table.look([*start, *proposed])
    if not ranked or ranked[0][0] < rival - BEHIND:
        return []
    ranked = _refined(table, ranked, record, family, seen, rng)
    if ranked[0][0] < rival - REFINED:
        return []
    if afresh and len(ranked[0][1]) > 1 and not roundness(ranked[0][1][0]):
        whole = table.look(steps.in_phases(ranked[0][1], record.spread_s))
        if whole and whole[0][0] > ranked[0][0] - CLOSE:
            ranked = _refined(table, sorted([*ranked[:8], *whole], reverse=True), record, family, seen, rng)
    lost = max(rival, ranked[0][0]) < LOST * badly
    if pool and afresh and not lost and max(rival, ranked[0][0]) < badly:
        # Nothing explains the record, and this search may have gone down the wrong valley: once more from the top.
        again = table.look(settled(pool.copy(without=start), seen, rng))
        ranked = _refined(table, sorted([*ranked[:8], *again], reverse=True), record, family, seen, rng)
    if ranked[0][0] < rival - FOLLOWED:
        return []
    _look_on(table, ranked[0][1], record, family, seen, lost=lost)
    return _middle_first(table.hypotheses(bonus))


def _look_on(table: _Table, best: Shape, record: Record, family: str, seen: Structure, *, lost: bool) -> None:
    """Look at what lies near the best shape but is easily missed, and outwards for how far it may be off."""
    table.look(steps.rounded(family, best, seen))
    if family in JAGGED:
        around_s = record.spread_s * np.linspace(-1.5, 1.5, 61)
        table.look([(best[0] + d,) for d in around_s.tolist()])
    if lost:
        return
    if family == "token_bucket":
        for _ in range(2):
            table.look(steps.along(*table.ridge()))
    for _ in range(2):
        ends = table.ends()
        table.look([shape for end in ends for shape in steps.outwards(end, seen)])


def poor(refusals: int) -> float:
    """Return the score below which a limit does not explain a record with so many refusals."""
    return -POOR - POOR_SHARE * refusals


def _refined(
    table: _Table,
    ranked: list[tuple[float, Shape]],
    record: Record,
    family: str,
    seen: Structure,
    rng: np.random.Generator,
) -> list[tuple[float, Shape]]:
    """Look around the best shapes in ever smaller steps, for as long as that finds better ones."""
    scale, idle = steps.first_scale(record, family, seen), 0
    for _ in range(ROUNDS):
        top = ranked[0][0]
        best = [shape for _, shape in ranked[:4]]
        if family == "token_bucket" and top > -POOR:
            rivals = [shape for score, shape in ranked if score > top - CLOSE]
            best = list(dict.fromkeys([*best, *other_rates(rivals)]))
        ranked = sorted([*ranked[:8], *table.look(steps.perturbed(best, scale, seen, rng))], reverse=True)
        scale *= 0.35
        idle = idle + 1 if ranked[0][0] < top + LITTLE else 0
        if idle == IDLE:
            break
    return ranked


class _Table:
    """All points that a search has looked at and that are within `KEEP` of the best one."""

    def __init__(self, record: Record, family: str, seen: Structure) -> None:
        self._record, self._family, self._seen = record, family, seen
        self._known: set[Shape] = set()
        self._parts: list[tuple[Floats, Floats, Floats, Floats]] = []  # score, log likelihood, threshold, shape
        self._top = -math.inf

    def look(self, shapes: Iterable[Shape]) -> list[tuple[float, Shape]]:
        """Judge new shapes; returns (score, shape), best first, of those close to the best ever seen."""
        shortest = LEAST_WINDOW_S if self._family != "token_bucket" else 0.0
        fresh = [s for s in dict.fromkeys(shapes) if s not in self._known and s[0] > shortest]
        fresh = screened(self._record, self._family, fresh, self._seen)
        self._known.update(fresh)
        found: list[tuple[float, Shape]] = []
        least = self._top - FAR  # priors are none but costs
        for part, thresholds, ll in judged(self._record, self._family, fresh, self._seen, least):
            score = ll + priors_of(self._record, self._family, part, self._seen)[:, None]
            if self._family == "token_bucket":
                score -= slowness(np.array(part)[:, :1], thresholds)
            best = score.max(axis=1)
            self._top = max(self._top, float(best.max()))
            found += [(float(best[i]), part[i]) for i in np.flatnonzero(best > self._top - FAR).tolist()]
            i, j = np.nonzero(score > self._top - KEEP)
            table = np.array(part, float)
            self._parts.append((score[i, j], ll[i, j], thresholds[i, j], table[i]))
        return sorted(found, reverse=True)

    def _within(self, reach: float) -> tuple[Floats, Floats, Floats, Floats]:
        """Return the points so near the best: scores, log likelihoods, thresholds, and shapes as rows."""
        if not self._parts:
            return np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, 1))
        score, ll, limit, shapes = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        kept = score > self._top - reach
        return score[kept], ll[kept], limit[kept], shapes[kept]

    def ends(self) -> list[Shape]:
        """Return the shapes with the lowest and the highest rate on the plateau around the best."""
        _, _, limit, shapes = self._within(PLATEAU)
        if not len(shapes):
            return []
        rate = shapes[:, 0] if self._family == "token_bucket" else limit / shapes[:, 0]
        return [tuple(shapes[k].tolist()) for k in (int(np.argmin(rate)), int(np.argmax(rate)))]

    def ridge(self) -> tuple[Floats, Floats]:
        """Return (rates, thresholds) of the points that are worth remembering, the best one first."""
        score, _, limit, shapes = self._within(KEEP)
        order = np.argsort(-score, kind="stable")
        return shapes[order, 0], limit[order]

    def hypotheses(self, bonus: float) -> list[Hypothesis]:
        """Return the points near the best, best first."""
        score, ll, limit, shapes = self._within(KEEP)
        order = np.lexsort([*shapes.T[::-1], limit, ll, score])[::-1]
        rows = np.column_stack([score, ll, limit, shapes])[order]
        same = np.zeros(len(rows), bool)
        same[1:] = (rows[1:, 2:] == rows[:-1, 2:]).all(axis=1)
        return [
            hypothesis_of(self._record, self._family, tuple(row[3:]), row[2], row[1], row[0] - row[1] + bonus)
            for row in rows[~same][:MOST].tolist()
        ]


def _middle_first(found: list[Hypothesis]) -> list[Hypothesis]:
    """Put the middle of the plateau first: all of it explains the record alike, and its edge is the worst guess."""
    if not found:
        return []
    top = found[0]
    level = [h for h in found if h.score > top.score - 0.3 and h.limit == top.limit]
    centre = 0.5 * (min(h.rate_per_s for h in level) + max(h.rate_per_s for h in level))
    best = min(level, key=lambda h: abs(h.rate_per_s - centre))
    return [
        msgspec.structs.replace(best, log_prior=best.log_prior + top.score - best.score),
        *(h for h in found if h is not best),
    ]


def hypothesis_of(
    record: Record, family: str, shape: Shape, limit: float, log_likelihood: float, log_prior: float
) -> Hypothesis:
    """Return a shape with its threshold as a `Hypothesis`."""
    bucket = family == "token_bucket"
    round_part = 0.0 if bucket else roundness(float(shape[0]))
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
        roundness=round_part,
    )


def shape_of(h: Hypothesis) -> Shape:
    """Return the shape that `search` takes as a start."""
    if h.window_s is None:
        return (h.rate_per_s,)
    return (h.window_s,) if h.phase_s is None else (h.window_s, h.phase_s)
