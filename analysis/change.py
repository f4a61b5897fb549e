"""A limit that changed while it was probed: the same family and window, with another number from some call on.

The statistic of a window family depends on our own past alone, not on its limit. So for each shape the decisions are
held against every limit at once, and where the best limit of the first part meets the best of the rest is read off
two running sums. That is looked for only where answers contradict the best single limit. Pure; seconds and calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions, flight, judging, proposals, search
from analysis.calls import server_offset
from analysis.fit import REFUSED_VARIANTS
from analysis.likelihood import OUTLIER
from analysis.priors import prior_of
from analysis.remembered import asked_once

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analysis.calls import Floats
    from analysis.decisions import Record
    from analysis.fit import Fit
    from analysis.proposals import Shape
    from analysis.search import Hypothesis
    from mock_server.limits import Spec

FAMILIES: Final = tuple(f for f in search.RATE_FAMILIES if f != "token_bucket")
MOST_SHAPES: Final = 120  # of a family that are looked at
KEPT: Final = 6  # and that are judged closely
TURNS: Final = (-0.03, -0.015, -0.008, 0.008, 0.015, 0.03)  # windows by which the boundary of the best ones is moved
LIMITS: Final = 80  # that each is held against
EARNED: Final = 10.0  # nats by which two limits must explain more than one: a number and a moment more
LEAST: Final = 0.05  # relative difference of two limits that is a change: a smaller one is what blurs every record
FEWEST: Final = 4  # refusals in each part: fewer do not tell a limit
UNEXPLAINED: Final = 0.02  # share of the decisions that a change may leave over


@dataclass(frozen=True, slots=True)
class Change:
    """The limits ``before`` and ``after``, the latter from ``at_s`` on. ``gain``: nats more than one limit explains.

    ``windows``: for how many of them the shorter part of the record lasts.
    """

    before: Hypothesis
    after: Hypothesis
    at_s: float
    score: float
    gain: float = 0.0
    windows: float = math.inf

    def particles(self) -> tuple[tuple[float, Spec], ...]:
        """Return the weighted specs: either limit may be the one that holds next."""
        return (0.5, self.before.spec()), (0.5, self.after.spec())


@asked_once
def change_of(fitted: Fit) -> Change | None:
    """Return the change of a limit that explains the record better than one limit does; None where none does."""
    excuse = None
    if fitted.concurrency is not None:
        excuse = flight.excused(fitted.calls, fitted.flight, fitted.concurrency)
    single, found = -np.inf, None
    for counts_refused in (False, True):
        record = decisions.prepare(fitted.calls, fitted.offsets_s, excused=excuse, counts_refused=counts_refused)
        if record.n == 0 or record.admitted.all() or not record.admitted.any():
            return None
        for family in REFUSED_VARIANTS if counts_refused else search.RATE_FAMILIES:
            for one, changed in _judged(fitted, record, family):
                single = max(single, one)
                if changed is not None and (found is None or changed.score > found.score):
                    found = changed
    if found is None or found.score < single + EARNED:
        return None
    return replace(found, gain=found.score - single)


def _judged(fitted: Fit, record: Record, family: str) -> Iterable[tuple[float, Change | None]]:
    """Yield (score of one limit, change) for the shapes that explain most."""
    seen = proposals.structure(record, server_offset(fitted.calls))
    own = (h for h in fitted.hypotheses if (h.family, h.counts_refused) == (family, record.counts_refused))
    known = [search.shape_of(h) for h in own][:KEPT]
    proposed = proposals.proposals(record, family, seen) if family in FAMILIES else []
    round_ones = proposals.clock_aligned(proposals.ROUND_WINDOWS_S, seen) if family == "sliding_counter" else []
    shapes = [*known, *round_ones, *proposed[:: len(proposed) // MOST_SHAPES + 1]]
    quick = decisions.at_middle(record)

    def missed(shape: Shape) -> float:
        return _missed(quick, family, shape, seen.usual)

    ranked = sorted((shape for shape in dict.fromkeys(shapes) if shape[0] > 0.0), key=missed)[:KEPT]
    turned = [(window, *(at + d * window for at in phase)) for window, *phase in ranked if phase for d in TURNS]
    ranked = sorted(dict.fromkeys([*ranked, *turned]), key=missed)[:KEPT]
    for shape in dict.fromkeys([*known[:1], *ranked]):
        yield _closely(record, family, shape, prior_of(record, family, shape, seen), seen.usual)


def _needs(record: Record, family: str, shape: Shape, usual: float) -> tuple[Floats, Floats]:
    """Return (what each decision needs, (offsets, decisions); the limits that come into question)."""
    need = judging.statistic(record, family, [shape], usual)[0] + record.cost
    middle = need[need.shape[0] // 2]
    turn = np.flatnonzero(record.admitted[:-1] & ~record.admitted[1:])
    marks = np.floor(np.concatenate([middle[turn], middle[turn + 1] - 1.0, [middle[record.admitted].max()]]) + 1e-9)
    values = np.unique(np.maximum(np.concatenate([marks, marks + 1.0]), 1.0))
    return need, values[np.unique(np.linspace(0, len(values) - 1, LIMITS).astype(int))]


def _missed(record: Record, family: str, shape: Shape, usual: float) -> float:
    """Return how many decisions two limits, one after the other, miss at the middle offset."""
    need, limits = _needs(record, family, shape, usual)
    wrong = ((need[0] <= limits[:, None] + 1e-9) != record.admitted).astype(np.int32)
    sums = np.cumsum(wrong, axis=1)
    return float((sums.min(axis=0) + (sums[:, -1:] - sums).min(axis=0)).min())


def _closely(record: Record, family: str, shape: Shape, prior: float, usual: float) -> tuple[float, Change | None]:
    need, limits = _needs(record, family, shape, usual)
    share = np.stack([((need <= limit + 1e-9) == record.admitted).mean(axis=0) for limit in limits])
    sums = np.cumsum(np.log(OUTLIER + (1.0 - OUTLIER) * share), axis=1)
    total, refused = sums[:, -1], np.cumsum(~record.admitted)
    one = float(total.max()) + prior
    both = sums.max(axis=0) + (total[:, None] - sums).max(axis=0)
    both[(refused < FEWEST) | (refused[-1] - refused < FEWEST)] = -np.inf
    at = int(np.argmax(both))
    if family not in FAMILIES or not np.isfinite(both[at]):
        return one, None
    first, then = int(np.argmax(sums[:, at])), int(np.argmax(total - sums[:, at]))
    before, after = float(limits[first]), float(limits[then])
    left = int(np.sum(share[first, : at + 1] == 0.0) + np.sum(share[then, at + 1 :] == 0.0))
    if abs(after / before - 1.0) < LEAST or left > max(2.0, UNEXPLAINED * record.n):
        return one, None
    told = [search.hypothesis_of(record, family, shape, limit, float(both[at]), prior) for limit in (before, after)]
    at_s = float(record.sent_s[at])
    windows = min(at_s - float(record.sent_s[0]), float(record.sent_s[-1]) - at_s) / float(shape[0])
    return one, Change(told[0], told[1], at_s, float(both[at]) + prior, windows=windows)
