"""Windows of a log that are longer than what its likelihood prefers, where delays vary by some per cent of them.

A log gives back call by call, and what it gives back first came first of many: sooner than usual. All calls of an
episode are asked at one delay, so the likelihood prefers windows that are too short by about half of what delays vary
by, and its search may not look as far as the right one. Pure; seconds and nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from analysis.agreement import likelihood_of, recorded
from analysis.blurred import SKEWED
from analysis.priors import roundness
from analysis.proposals import LEAST_WINDOW_S, ROUND_WINDOWS_S

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls, Floats
    from analysis.search import Hypothesis

STEPS: Final = np.linspace(-0.25, 1.0, 11)  # of what delays vary by


def with_longer(
    calls: Calls, found: list[Hypothesis], offsets_s: Floats, excused: Bools | None = None
) -> list[Hypothesis]:
    """Return the hypotheses, with windows around the leading one, mostly longer, if that is a log.

    ``excused``: calls that another limit refused.
    """
    best = max(found, key=lambda h: h.score)
    spread_s = float(offsets_s[-1] - offsets_s[0])
    if best.family != "sliding_log" or best.window_s is None or spread_s < SKEWED * best.window_s:
        return found
    around_s = (best.window_s + spread_s * STEPS).tolist()
    round_s = [w for w in ROUND_WINDOWS_S if around_s[0] < w < around_s[-1]]
    record = recorded(best, calls, offsets_s, excused=excused, thin=True)
    told = []
    for window_s in [w for w in (*around_s, *round_s) if w > LEAST_WINDOW_S]:
        chosen = roundness(window_s)
        h = msgspec.structs.replace(best, window_s=window_s, rate_per_s=best.limit / window_s, roundness=chosen)
        prior = best.log_prior - best.roundness + chosen
        told.append(msgspec.structs.replace(h, log_likelihood=likelihood_of(h, record), log_prior=prior))
    return [*found, *told]
