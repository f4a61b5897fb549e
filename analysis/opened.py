"""Windows that our own calls open, told from windows on the clock and from logs where delays blur them.

The likelihood has each decision at a delay that all calls of an episode share. What begins with the first call that
arrives moves with the delay of that one, and no such delay is right: of its own record such a window costs several
times what one on the clock does. So the difference of both likelihoods is held against what it is where either of them
made the record (Cox 1961, "Tests of separate families of hypotheses"). Windows nearby are held against each other by
how many calls they would let in, sent again. Pure; seconds and nats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from scipy.stats import t as student

from analysis import likelihood
from analysis.again import first, resent, surprises_of_rates
from analysis.agreement import recorded, replayed
from analysis.blurred import forgiven, strongly
from analysis.priors import ODD_COST, RATE_PRICE, roundness
from analysis.proposals import ROUND_WINDOWS_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.calls import Calls, Floats
    from analysis.search import Hypothesis

BESIDE: Final = {"fixed_window": 2.0, "sliding_log": 3.0}  # with so many calls at least; with fewer they are about one
DRAWS: Final = 8  # of all delays, past each of the two
LEAST: Final = 2.0  # nats by which a difference varies at least
MOST: Final = 12.0  # nats that so few draws may earn
NEVER: Final = 6.0  # times what a difference varies by, from which on a window did not make the record
FAR: Final = 1.5  # times a window, within which a round one is asked for,
NEARBY: Final = np.exp(np.linspace(-0.35, 0.15, 11))  # and others: the wrong family is off by more to one side


def with_opened(calls: Calls, found: list[Hypothesis], offsets_s: Floats) -> list[Hypothesis]:
    """Return the hypotheses, with windows that calls open near the leading one, where delays blur it strongly.

    ``calls``: those that no other limit refused; ``found``: with what they cost when these are sent again.
    """
    best, spread_s = max(found, key=_score), float(offsets_s[-1] - offsets_s[0])
    if best.counts_refused or best.limit < BESIDE.get(best.family, math.inf) or not strongly(best, spread_s):
        return found
    part, ours = first(calls), _opened(best)
    costs = surprises_of_rates(part, ours, spread_s)
    likeliest = max(zip(ours, costs, strict=True), key=lambda pair: pair[0].roundness - pair[1])[0]
    earned = _earned(part, best, likeliest, offsets_s)
    if earned is None:
        return found
    level = best.log_likelihood - forgiven(best) + earned
    losses = _likelihoods(calls, ours, offsets_s)
    told = [
        _scored(h, each, level - ODD_COST - RATE_PRICE + h.roundness - off)
        for h, each, off in zip(ours, losses, costs, strict=True)
    ]
    return [*(h for h in found if h.family != likeliest.family or h.counts_refused), *told]


def _score(h: Hypothesis) -> float:
    return h.score


def _scored(h: Hypothesis, log_likelihood: float, score: float) -> Hypothesis:
    return msgspec.structs.replace(h, log_likelihood=log_likelihood, log_prior=score - log_likelihood)


def _opened(h: Hypothesis) -> list[Hypothesis]:
    """Return windows that our calls open, with about as many calls in about as long a time."""
    window_s = h.window_s or 0.0
    round_s = [w for w in ROUND_WINDOWS_S if 1.0 / FAR < w / window_s < FAR]
    return [
        msgspec.structs.replace(
            h, family="anchored_window", limit=n, rate_per_s=n / w, window_s=w, phase_s=None, roundness=roundness(w)
        )
        for n in (h.limit - 1.0, h.limit, h.limit + 1.0)
        if n > 1.0
        for w in [*round_s, *(window_s * NEARBY).tolist()]
    ]


def _earned(calls: Calls, best: Hypothesis, ours: Hypothesis, offsets_s: Floats) -> float | None:
    """Return the nats by which the difference of two likelihoods speaks for the second; None if that never made it."""

    def difference(of: Calls) -> float:
        one, other = _likelihoods(of, [best, ours], offsets_s)
        return one - other

    seen = difference(calls)
    by_best, by_ours = (_about([difference(again) for again in resent(calls, h, DRAWS)]) for h in (best, ours))
    if abs(seen - by_ours[0]) > NEVER * by_ours[1]:
        return None
    earned = student.logpdf(seen, DRAWS - 1, *by_ours) - student.logpdf(seen, DRAWS - 1, *by_best)
    return float(np.clip(earned, -MOST, MOST))


def _likelihoods(calls: Calls, limits: Sequence[Hypothesis], offsets_s: Floats) -> list[float]:
    """Return the log likelihood of each; they count the same calls."""
    record = recorded(limits[0], calls, offsets_s)
    return [float(likelihood.log_likelihood(record, replayed(h, record), np.array([[h.limit]]))[0, 0]) for h in limits]


def _about(drawn: Sequence[float]) -> tuple[float, float]:
    """Return (mean, scale) of Student's t for one more where so many were drawn: their spread is not known."""
    scale = max(float(np.std(drawn, ddof=1)), LEAST) * math.sqrt(1.0 + 1.0 / len(drawn))
    return float(np.mean(drawn)), scale
