"""A bucket that answers late is a queue: calls wait in it until those before them have been served.

Both admit the same calls, so the record of admissions cannot tell them apart; their answers' times can. Behind a
queue a call that finds s others waits s / rate before it is served. Seconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions, judging, search
from analysis.likelihood import OUTLIER

if TYPE_CHECKING:
    from analysis.calls import Floats, Ints
    from analysis.fit import Fit
    from analysis.search import Hypothesis

FEWEST: Final = 8  # admitted calls that had to wait: fewer tell no queue
EARNED: Final = 10.0  # nats by which the waits must explain the answers' times
LEAST: Final = 0.25  # of the shortest time is left when the wait is taken off; less means that the call did not wait
SHUFFLES: Final = 20  # of the times, in which they must explain less by as much


def waits(fitted: Fit, bucket: Hypothesis) -> bool:
    """Return whether admitted calls were answered the later, the more stood before them, as a queue has it.

    Which of the calls sent within the spread came first is not known: the one that was answered first is taken for it.
    That alone makes times look like waits, so they are held against the same times shuffled (a permutation test).
    """
    record = decisions.prepare(fitted.calls, fitted.offsets_s, counts_other=bucket.counts_other, thin=False, late=False)
    took = (fitted.calls.done_s - fitted.calls.sent_s)[record.position]
    level = judging.statistic(decisions.at_middle(record), bucket.family, [search.shape_of(bucket)], bucket.limit)[0, 0]
    known = record.admitted & np.isfinite(took) & (took > 0.0)
    took, wait = took[known], level[known] / bucket.rate_per_s
    if int(np.sum(wait > 0.0)) < FEWEST:
        return False
    sent_s = record.sent_s[known]
    burst = np.cumsum((np.diff(sent_s, prepend=sent_s[0]) > max(record.spread_s, 1e-3)).astype(int))
    gain = _gain(took, wait, burst)
    if gain < EARNED:
        return False
    rng = np.random.default_rng(0)
    return gain > EARNED + max(_gain(rng.permutation(took), wait, burst) for _ in range(SHUFFLES))


def _gain(took: Floats, wait: Floats, burst: Ints) -> float:
    """Return by how many nats a lognormal time after the wait explains the answers better than one without a wait."""
    took, wait = took[np.lexsort((took, burst))], wait[np.lexsort((wait, burst))]
    served = took - wait
    waited = served > LEAST * float(took.min())
    if int(waited.sum()) < FEWEST:
        return -math.inf
    early = int(np.sum(~waited))
    return _lognormal(served[waited]) - _lognormal(took[waited]) + early * math.log(OUTLIER)


def _lognormal(took: Floats) -> float:
    """Return the log likelihood of the lognormal that fits best, up to a constant."""
    logs = np.log(took)
    return -float(np.sum(logs)) - len(logs) * math.log(max(float(np.std(logs)), 1e-3))
