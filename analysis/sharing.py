"""What else may explain a record that contradicts every exact limiter: others on the quota, or counters apart.

Both turn the threshold into a slope (`analysis.slopes`). The shapes are those of `analysis.proposals`; what explains
the record best is held against the best exact limiter and against mere chance. From the first refusals alone the two
causes often look alike; then both are said, and nothing is said about numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions, flight, judging, proposals, replay, search, slopes
from analysis.calls import server_offset
from analysis.fit import REFUSED_VARIANTS
from analysis.priors import prior_of
from analysis.remembered import asked_once
from mock_server import limits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analysis.decisions import Record
    from analysis.fit import Fit
    from analysis.proposals import Shape, Structure
    from analysis.slopes import Counts, Slope
    from mock_server.limits import Spec

    _Judged = tuple[float, Slope, tuple[str, Shape, bool]]  # score, and what of: family, shape, whether refused count

MOST_SHAPES: Final = 150  # of a family that are looked at
KEPT: Final = 12  # and that are judged closely
DECISIONS: Final = 5000  # of a long record that are looked at
BATCH: Final = 200_000  # decisions times shapes that are laid out at once
BETTER: Final = 10.0  # nats by which a slope must explain more than an edge does: it has two parameters more
CHANCE_SHARE: Final = 0.1  # and than chance does, as a share of what chance leaves: so many shapes are tried
LIKELY: Final = 6.0  # nats below the best within which a number of counters is still possible,
LIKELY_SHARE: Final = 0.03  # and as a share of what the best one leaves
NEAR: Final = 3.0  # nats below the best that explain the record about as well,
NEAR_SHARE: Final = 0.01  # and as a share of what the best one leaves
MOST: Final = 200  # explanations that settings are made for


@dataclass(frozen=True, slots=True)
class Shared:
    """One explanation: a family's shape with a slope for a threshold. ``score``: log posterior up to a constant."""

    family: str
    shape: Shape
    slope: Slope
    score: float
    counts_refused: bool

    @property
    def window_s(self) -> float | None:
        """The window, None for a bucket."""
        return None if self.family == "token_bucket" else float(self.shape[0])

    @property
    def rate_per_s(self) -> float:
        """What the whole limit admits in the long run."""
        return float(self.shape[0] if self.window_s is None else self.slope.limit / self.shape[0])

    def spec(self) -> Spec:
        """Return the whole limit as one limiter."""
        many, first = float(self.slope.limit), float(self.shape[0])
        match self.family:
            case "fixed_window":
                return limits.FixedWindow(many, first, self.shape[1] % first, self.counts_refused)
            case "anchored_window":
                return limits.AnchoredWindow(many, first, self.counts_refused)
            case "sliding_log":
                return limits.SlidingLog(many, first, self.counts_refused)
            case "sliding_counter":
                return limits.SlidingCounter(many, first, self.shape[1] % first, self.counts_refused)
            case _:
                return limits.TokenBucket(first, many, self.counts_refused)


@dataclass(frozen=True, slots=True)
class Sharing:
    """The explanations, each kind best first (empty where there was nothing to explain)."""

    replicas: tuple[Shared, ...] = ()
    others: tuple[Shared, ...] = ()

    @property
    def score(self) -> float:
        """Of the best explanation."""
        return max((found[0].score for found in (self.replicas, self.others) if found), default=-np.inf)

    def lead_of_replicas(self) -> float:
        """Return by how many nats counters apart explain more than others on the quota do."""
        if not self.replicas or not self.others:
            return 0.0
        return self.replicas[0].score - self.others[0].score

    def beats(self, exact: float, chance: float) -> bool:
        """Return whether a slope explains the record better than the best edge and than mere chance do."""
        return self.score > exact + BETTER and self.score > chance + BETTER - CHANCE_SHARE * chance

    def places(self) -> tuple[int, int, int]:
        """Return (likeliest, fewest, most) counters apart; twice as many look much the same."""
        best, top = self.replicas[0].slope.places, self.replicas[0].score
        kept = [m.slope.places for m in self.replicas if m.score > top - LIKELY - LIKELY_SHARE * abs(top)]
        return best, min(kept), max(*kept, min(2 * best, slopes.PLACES[-1]))

    def near(self, best: Shared) -> list[Shared]:
        """Return the explanations of a kind and family that are about as good as its ``best``."""
        kind = self.replicas if best.slope.places > 1 else self.others
        least = best.score - NEAR - NEAR_SHARE * abs(best.score)
        return [m for m in kind if m.score > least and m.family == best.family]

    def particles(self, kind: tuple[Shared, ...]) -> tuple[tuple[float, Spec], ...]:
        """Return the weighted specs of the whole limit under the good explanations of one kind."""
        kept = [m for m in kind[:MOST] if m.score > kind[0].score - NEAR - NEAR_SHARE * abs(kind[0].score)]
        weights = np.exp([m.score - kind[0].score for m in kept])
        return tuple((float(w), m.spec()) for w, m in zip(weights / weights.sum(), kept, strict=True))


@asked_once
def explain(fitted: Fit) -> Sharing:
    """Look for slopes that explain the record."""
    excuse = None
    if fitted.concurrency is not None:
        excuse = flight.excused(fitted.calls, fitted.flight, fitted.concurrency)
    replicas: list[_Judged] = []
    others: list[_Judged] = []
    for counts_refused in (False, True):
        record = decisions.prepare(
            fitted.calls, fitted.offsets_s, excused=excuse, counts_refused=counts_refused, thin=False, late=False
        )
        if record.n == 0 or record.admitted.all() or not record.admitted.any():
            return Sharing()
        seen = proposals.structure(record, server_offset(fitted.calls))
        for family in REFUSED_VARIANTS if counts_refused else search.RATE_FAMILIES:
            for shape, table in _promising(fitted, record, family, seen):
                prior = prior_of(record, family, shape, seen)
                for kind, judged in ((replicas, slopes.on_replicas), (others, slopes.beside_others)):
                    kind += [(ll + prior, slope, (family, shape, counts_refused)) for ll, slope in judged(table)]
    return Sharing(_ranked(replicas), _ranked(others))


def _ranked(found: list[_Judged]) -> tuple[Shared, ...]:
    best = sorted(found, key=lambda row: -row[0])[: 5 * MOST]
    return tuple(Shared(family, shape, slope, score, refused) for score, slope, (family, shape, refused) in best)


def _promising(fitted: Fit, record: Record, family: str, seen: Structure) -> list[tuple[Shape, Counts]]:
    """Return the shapes that are worth a closer look, with their tables."""
    known = [search.shape_of(h) for h in fitted.hypotheses if h.family == family][:KEPT]
    proposed = proposals.proposals(record, family, seen)
    proposed = proposed[:: len(proposed) // MOST_SHAPES + 1]
    least = proposals.LEAST_WINDOW_S if family != "token_bucket" else 0.0
    shapes = [shape for shape in dict.fromkeys([*known, *proposed]) if shape[0] > least]
    looked = sorted(
        ((slopes.rough(table), shape, table) for shape, table in _tables(record, family, shapes, seen)),
        key=lambda row: -row[0],
    )
    return [(shape, table) for _, shape, table in looked[:KEPT]]


def _tables(record: Record, family: str, shapes: list[Shape], seen: Structure) -> Iterable[tuple[Shape, Counts]]:
    quick = decisions.fewer(decisions.at_middle(record), DECISIONS)  # slopes are smooth
    guess = float(seen.lumps.max()) if len(seen.lumps) else 1.0
    size = max(1, BATCH // max(1, quick.at_s.size))
    for first in range(0, len(shapes), size):
        part = shapes[first : first + size]
        passed = replay.passed(quick, family, part, guess)
        for k, row in enumerate(judging.statistic(quick, family, part, guess)[:, 0]):
            yield part[k], slopes.counts(row, quick.admitted, record.n / quick.n, None if passed is None else passed[k])
