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

from analysis.again import first, resent, surprises_of_rates
from analysis.agreement import likelihood_of, recorded
from analysis.blurred import TRUSTED, forgiven, strongly
from analysis.priors import ODD_COST, RATE_PRICE, roundness
from analysis.proposals import LEAST_WINDOW_S, ROUND_WINDOWS_S

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
    level = best.log_likelihood - forgiven(best) + earned - ODD_COST - RATE_PRICE
    losses = _likelihoods(calls, [likeliest, *ours], offsets_s, thin=True)
    told = [
        _scored(h, each, level + h.roundness - off - (1.0 - TRUSTED) * max(0.0, losses[0] - each))
        for h, each, off in zip(ours, losses[1:], costs, strict=True)
    ]
    ahead = max(0.0, max(h.score for h in told) - best.score)  # between families only: the record is explained as well
    return [msgspec.structs.replace(h, log_prior=h.log_prior - ahead) for h in (*found, *told)]


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
        if w > LEAST_WINDOW_S
    ]


def _earned(calls: Calls, best: Hypothesis, ours: Hypothesis, offsets_s: Floats) -> float | None:
    """Return the nats by which the difference of two likelihoods speaks for the second.

    None if that never made such a difference, or so low a likelihood.
    """
    limits = [best, ours]
    seen, own = _apart(calls, limits, offsets_s)
    by_best, by_ours = (
        np.array([_apart(again, limits, offsets_s) for again in resent(calls, h, DRAWS)]) for h in limits
    )
    theirs, differences, likelihoods = _about(by_best[:, 0]), _about(by_ours[:, 0]), _about(by_ours[:, 1])
    if abs(seen - differences[0]) > NEVER * differences[1] or own < likelihoods[0] - NEVER * likelihoods[1]:
        return None
    earned = student.logpdf(seen, DRAWS - 1, *differences) - student.logpdf(seen, DRAWS - 1, *theirs)
    return float(np.clip(earned, -MOST, MOST))


def _apart(calls: Calls, limits: Sequence[Hypothesis], offsets_s: Floats) -> tuple[float, float]:
    """Return by how much the likelihood of the first of two is higher, and that of the second."""
    one, other = _likelihoods(calls, limits, offsets_s, thin=False)
    return one - other, other


def _likelihoods(calls: Calls, limits: Sequence[Hypothesis], offsets_s: Floats, *, thin: bool) -> list[float]:
    """Return the log likelihood of each; they count the same calls. ``thin``: as a search has it."""
    record = recorded(limits[0], calls, offsets_s, thin=thin)
    return [likelihood_of(h, record) for h in limits]


def _about(drawn: Floats) -> tuple[float, float]:
    """Return (mean, scale) of Student's t for one more where so many were drawn: their spread is not known."""
    scale = max(float(np.std(drawn, ddof=1)), LEAST) * math.sqrt(1.0 + 1.0 / len(drawn))
    return float(np.mean(drawn)), scale
