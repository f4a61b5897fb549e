"""The interval of a rate: what explains a record about as well as the best, and what its arrival times leave open.

Pure; rates per second.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions, proposals
from analysis.doubt import UNSEEN
from analysis.misfit import FEWEST
from analysis.search import PLATEAU

if TYPE_CHECKING:
    from analysis.fit import Fit
    from analysis.search import Hypothesis

LEAST_BLUR: Final = 0.0005
UNANCHORED: Final = frozenset({"anchored_window", "sliding_log"})  # windows that our own calls open
MOST_TOLD: Final = 25.0  # recoveries, in thirds, that still make what their mean is known to better


def rate_interval(fitted: Fit, fewest: int = FEWEST) -> tuple[float, float]:
    """Return the range (per second) of the rates that explain the record almost as well as the best one."""
    rates = [h.rate_per_s for h in near(fitted)]
    low, high = unseen(fitted, fewest)
    return min(rates) * (1.0 - blur_of(fitted)) * low, max(rates) * (1.0 + blur_of(fitted)) * high


def unseen(fitted: Fit, fewest: int) -> tuple[float, float]:
    """Return the factors by which limits may lie lower and higher, for what others used of them unseen.

    What others use is missing from the best limit in most windows: the limit itself is at least the most that was let
    in, and may be higher by what they use, which changes from window to window.
    """
    best = fitted.best
    if best is None or fitted.misfit.kind(fewest) is None:
        return 1.0, 1.0
    return UNSEEN[0], max(UNSEEN[1], fitted.misfit.highest / best.limit)


def blur_of(fitted: Fit) -> float:
    """Return the relative error that arrival times alone leave: no time is known better than the record's ends are.

    The likelihood takes delays for independent; what several decisions share makes it a little too sure. A window that
    our own calls open does not add up over the record: each recovery tells it anew, and their mean is better than one.
    So it is with a bucket, in the time that it takes to fill up.
    """
    calls, best = fitted.calls, fitted.best
    duration = float(calls.sent_s[-1] - calls.sent_s[0]) if len(calls) > 1 else 1.0
    spread = float(fitted.offsets_s[-1])
    blur = LEAST_BLUR + 0.5 * spread / max(duration, 1e-3)
    if best is not None and best.family in (*UNANCHORED, "token_bucket"):
        waits = proposals.structure(decisions.prepare(calls, fitted.offsets_s)).waits
        told = int(np.sum(waits > 2.0 * spread))
        blur = max(
            blur, 0.3 * spread / (best.limit / best.rate_per_s) / math.sqrt(min(max(1.0, told / 3.0), MOST_TOLD))
        )
    if best is not None and best.family == "sliding_counter" and best.window_s is not None:
        blur = max(blur, 0.3 * spread / best.window_s)  # what stands in each window depends on what came in it
    return blur


def near(fitted: Fit) -> list[Hypothesis]:
    """Return the hypotheses that explain the record about as well as the best one.

    A preference for round numbers may choose the number that is told, but never makes its interval narrower.
    """
    top = fitted.hypotheses[0].score
    plain = max(h.evidence for h in fitted.hypotheses if h.family == fitted.hypotheses[0].family)
    return [h for h in fitted.hypotheses if h.score > top - PLATEAU or h.evidence > plain - PLATEAU]
