"""Limits that a likelihood loses sight of where delays blur it: windows that our own calls open, and fast buckets.

The likelihood has each decision at a delay that all calls of an episode share. What begins with the first call that
arrives moves with the delay of that one, and no such delay is right: of its own record such a window costs several
times what one on the clock does. A bucket of which much comes back within what delays vary by is not searched for at
all, since it may explain about anything. So both are looked at beside what leads: the difference of both likelihoods is
held against what it is where either of them made the record (Cox 1961, "Tests of separate families of hypotheses"), and
those with other numbers against each other by how many calls they would let in, sent again. Pure; seconds and nats.
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
from analysis.search import KEEP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analysis.calls import Calls, Floats
    from analysis.search import Hypothesis

BESIDE: Final = {"fixed_window": 2.0, "sliding_log": 3.0}  # with so many calls at least; with fewer they are about one
DRAWS: Final = 8  # of all delays, past each of the two
LEAST: Final = 2.0  # nats by which a difference varies at least
MOST: Final = 12.0  # nats that so few draws may earn
NEVER: Final = 6.0  # times what a difference varies by, from which on a limit did not make the record
FAR: Final = 1.5  # times a window, within which a round one is asked for,
NEARBY: Final = np.exp(np.linspace(-0.35, 0.15, 11))  # and others: the wrong family is off by more to one side
FAST: Final = 0.3  # of a bucket that comes back within what delays vary by, from which on it is looked at
SLOWER: Final = np.exp(np.linspace(-0.5, 0.2, 11))  # times what a window lets in, for the rate of a bucket,
SMALLER: Final = np.array([0.15, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0])  # which lets in more at once than it holds
RATES: Final = np.exp(np.linspace(-0.2, 0.3, 11))  # times the rate of a bucket that leads,
SIZES: Final = np.array([0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15])  # and times its size,
FINER: Final = np.exp(np.linspace(-0.04, 0.04, 9))  # and then around the likeliest of these


def with_rivals(calls: Calls, found: list[Hypothesis], offsets_s: Floats) -> list[Hypothesis]:
    """Return the hypotheses, with those that the search lost sight of, where delays blur the leading one strongly.

    ``calls``: those that no other limit refused; ``found``: with what they cost when these are sent again.
    """
    best, spread_s = max(found, key=_score), float(offsets_s[-1] - offsets_s[0])
    if not best.counts_refused and strongly(best, spread_s):
        if best.limit >= BESIDE.get(best.family, math.inf):
            found = _beside(calls, found, best, _opened(best), offsets_s)
            best = max(found, key=_score)
        if best.window_s is not None and best.limit > 1.0:
            found = _beside(calls, found, best, _fast(best, spread_s), offsets_s)
    best = max(found, key=_score)
    if best.window_s is not None or spread_s * best.rate_per_s < FAST * best.limit:
        return found
    return _refilled(calls, found, best, offsets_s)


def _score(h: Hypothesis) -> float:
    return h.score


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


def _fast(h: Hypothesis, spread_s: float) -> list[Hypothesis]:
    """Return buckets that let in about as much as a window, and of which so much comes back within the spread."""
    shape = msgspec.structs.replace(h, family="token_bucket", window_s=None, phase_s=None, roundness=0.0)
    near = _buckets(shape, h.rate_per_s * SLOWER, h.limit * SMALLER)
    return [each for each in near if spread_s * each.rate_per_s > FAST * each.limit]


def _buckets(h: Hypothesis, rates: Iterable[float], sizes: Iterable[float]) -> list[Hypothesis]:
    whole = sorted({max(1.0, float(round(size))) for size in sizes})
    return [msgspec.structs.replace(h, rate_per_s=float(rate), limit=size) for rate in rates for size in whole]


def _beside(
    calls: Calls, found: list[Hypothesis], best: Hypothesis, theirs: Sequence[Hypothesis], offsets_s: Floats
) -> list[Hypothesis]:
    """Return the hypotheses with these, which are all of one family, instead of those of that family, if they may be.

    The leading one has paid for what it costs when the calls are sent again, and so do they.
    """
    if not theirs:
        return found
    part = first(calls)
    costs = surprises_of_rates(part, theirs, float(offsets_s[-1] - offsets_s[0]))
    likeliest = max(zip(theirs, costs, strict=True), key=lambda pair: pair[0].roundness - pair[1])[0]
    earned = _earned(part, best, likeliest, offsets_s)
    if earned is None:
        return found
    level = best.log_likelihood - forgiven(best) + earned - ODD_COST - RATE_PRICE
    told = _told(calls, theirs, [level + h.roundness - cost for h, cost in zip(theirs, costs, strict=True)], offsets_s)
    return [*(h for h in found if h.family != likeliest.family or h.counts_refused), *told]


def _refilled(calls: Calls, found: list[Hypothesis], best: Hypothesis, offsets_s: Floats) -> list[Hypothesis]:
    """Return the hypotheses, with buckets near the leading one: their likelihoods tell neither rate nor size."""
    part, spread_s = first(calls), float(offsets_s[-1] - offsets_s[0])
    near = _buckets(best, best.rate_per_s * RATES, best.limit * SIZES)
    known, *costs = surprises_of_rates(part, [best, *near], spread_s)
    likeliest = near[int(np.argmin(costs))]
    near += _buckets(best, likeliest.rate_per_s * FINER, likeliest.limit + np.array([-1.0, 0.0, 1.0]))
    costs += surprises_of_rates(part, near[len(costs) :], spread_s)
    told = _told(calls, near, [best.score + known - cost for cost in costs], offsets_s)
    return [best, *(h for h in found if h.family != best.family or h.counts_refused), *told]


def _told(calls: Calls, limits: Sequence[Hypothesis], scores: Sequence[float], offsets_s: Floats) -> list[Hypothesis]:
    """Return those worth remembering, with their scores and the likelihoods that are their own."""
    kept = [(h, score) for h, score in zip(limits, scores, strict=True) if score > max(scores) - KEEP]
    losses = _likelihoods(calls, [h for h, _ in kept], offsets_s)
    return [
        msgspec.structs.replace(h, log_likelihood=each, log_prior=score - each)
        for (h, score), each in zip(kept, losses, strict=True)
    ]


def _earned(calls: Calls, best: Hypothesis, rival: Hypothesis, offsets_s: Floats) -> float | None:
    """Return the nats by which the difference of two likelihoods speaks for the second; None if that never made it."""

    def difference(of: Calls) -> float:
        one, other = _likelihoods(of, [best, rival], offsets_s)
        return one - other

    seen = difference(calls)
    by_best, by_rival = (_about([difference(again) for again in resent(calls, h, DRAWS)]) for h in (best, rival))
    if abs(seen - by_rival[0]) > NEVER * by_rival[1]:
        return None
    earned = student.logpdf(seen, DRAWS - 1, *by_rival) - student.logpdf(seen, DRAWS - 1, *by_best)
    return float(np.clip(earned, -MOST, MOST))


def _likelihoods(calls: Calls, limits: Sequence[Hypothesis], offsets_s: Floats) -> list[float]:
    """Return the log likelihood of each; they count the same calls."""
    record = recorded(limits[0], calls, offsets_s)
    return [float(likelihood.log_likelihood(record, replayed(h, record), np.array([[h.limit]]))[0, 0]) for h in limits]


def _about(drawn: Sequence[float]) -> tuple[float, float]:
    """Return (mean, scale) of Student's t for one more where so many were drawn: their spread is not known."""
    scale = max(float(np.std(drawn, ddof=1)), LEAST) * math.sqrt(1.0 + 1.0 / len(drawn))
    return float(np.mean(drawn)), scale
