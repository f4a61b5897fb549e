"""How likely the decisions of a record are, given a statistic and a threshold on it.

A call's own arrival is off by a little against the calls that decide. Each decision is therefore asked at several
offsets, and the share of offsets that agree is its likelihood. Pure; the shapes that are compared come first in every
array: (shapes, offsets, decisions) for statistics, (shapes, candidates) for thresholds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions
from analysis.kernels import likelihoods

if TYPE_CHECKING:
    from analysis.calls import Floats
    from analysis.decisions import Record

OUTLIER: Final = 1e-3  # chance that a decision has a cause outside the model
OWN: Final = 2  # offsets to either side that a decision's own delay may reach
_LOG_SHARE: Final = np.log(OUTLIER + (1.0 - OUTLIER) * np.arange(2 * OWN + 2) / (2 * OWN + 1))
EDGE: Final = 5e-10  # calls by which sums of floats may be off: what needs all of the limit is let in
MOST_WRONG: Final = 0.2  # of the threshold that a decision counts in `overlap`, at most
MISSED_AT_ALL: Final = 0.03  # what a decision on the wrong side costs in `overlap`, however near


def log_likelihood(record: Record, statistic: Floats, limits: Floats, least: float = -np.inf) -> Floats:
    """Return the log likelihood, (shapes, candidates), of the decisions for thresholds (shapes, candidates).

    Decisions of one episode (from one block to the next) share the calls that decide them, hence an error in time
    too: each episode is averaged over the offsets as a whole. What a decision has for itself, its own delay, is
    allowed for by its share of agreement at the neighbouring offsets. What is below ``least`` is not told exactly.
    """
    known = (statistic, record.cost, record.admitted, record.episodes)
    return likelihoods.log_likelihood(*known, limits, _LOG_SHARE, least)


def misfits(record: Record, statistic: Floats, limits: Floats) -> Floats:
    """Return how many decisions the thresholds, (shapes, candidates), miss at the middle offset."""
    need = decisions.central(record, statistic) + record.cost
    return likelihoods.misfits(need, record.admitted, limits)


def overlap(record: Record, statistic: Floats, limits: Floats) -> Floats:
    """Return how far decisions lie on the wrong side of the thresholds, (shapes, candidates), at the middle offset.

    In calls relative to the threshold, each decision at most a fifth of it: smooth in the shape, so that a search can
    go downhill, and no outlier counts for much. What is wrong counts a little however near it is: a limiter that
    never refuses is wrong by nothing at each refusal.
    """
    need = decisions.central(record, statistic) + record.cost
    side = np.where(record.admitted, 1.0, -1.0)
    return likelihoods.overlap(need, side, limits, EDGE, MOST_WRONG, MISSED_AT_ALL)


def agreement(record: Record, statistic: Floats, limit: float) -> Floats:
    """Return for each decision the share of offsets at which ``limit`` agrees with it; statistic of one shape."""
    passes = statistic[0] + record.cost <= limit + 1e-9
    return np.asarray((passes == record.admitted).mean(axis=0))
