"""What is left of a limit that others use too, or that is counted in several places.

Background traffic and replicas are random from where we stand, so "never refused" becomes "refused with a
probability of at most epsilon". Each is turned into a smaller limit of the same family; the inequalities of
`analysis.recommend_rates` then apply as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scipy import special

from analysis.recommend_rates import sustained_rate_per_s
from mock_server.limits import (
    AnchoredWindow,
    Concurrency,
    FixedWindow,
    LeakyQueue,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analysis.result import Finding
    from mock_server.limits import Spec

# Random worlds have no zero: where nothing may be refused, "once in a million calls" stands in for never.
LEAST_SHARE = 1e-6


@dataclass(frozen=True, slots=True)
class Others:
    """``background``: the share (0 to 1) of the limit that other clients use; ``replicas``: places that count.

    Both are upper bounds, so that what is left is a lower one.
    """

    background: float = 0.0
    replicas: int = 1

    @classmethod
    def among(cls, findings: Iterable[Finding]) -> Others:
        """Read the findings ``background`` and ``replicas``, each at the upper end of its interval."""
        upper = {"background": 0.0, "replicas": 1.0}
        for finding in findings:
            if finding.kind in upper and finding.value is not None:
                upper[finding.kind] = finding.ci95[1] if finding.ci95 else finding.value
        return cls(min(1.0, max(0.0, upper["background"])), max(1, round(upper["replicas"])))


def left_for_us(spec: Spec, others: Others, *, spread_s: float, refused_share: float) -> Spec:
    """Return the limit that is left of ``spec`` for one paced client that is refused with this probability."""
    share = max(refused_share, LEAST_SHARE)
    if others.background > 0.0:
        spec = _beside_background(spec, others.background, spread_s, share)
    if others.replicas > 1:
        spec = _on_replicas(spec, others.replicas, spread_s, share)
    return spec


def _beside_background(spec: Spec, background: float, spread_s: float, share: float) -> Spec:
    """Subtract the upper quantile of what others send, taken as a Poisson stream.

    In a window it is the quantile of their count. On a bucket their stream gets a service rate of its own
    (a queue of a sum is no longer than the sum of queues that share the service): the bucket is divided into the
    room for one call of ours and a room x for them, and they need the rate at which x overflows with a chance of
    at most epsilon: their effective bandwidth ``beta (e^theta - 1) / theta`` with ``theta = ln(1 / epsilon) / x``
    (Kelly, "Notes on effective bandwidths", 1996).
    """
    beta_per_s = background * sustained_rate_per_s(spec)
    match spec:
        case FixedWindow(calendar=None) | AnchoredWindow() | SlidingLog() | SlidingCounter():
            theirs = _poisson_quantile(1.0 - share, beta_per_s * (spec.window_s + spread_s))
            return replace(spec, limit=max(min(spec.limit, 1.0), spec.limit - theirs))
        case TokenBucket() | LeakyQueue():
            ours = min(spec.burst, 1.0 + spec.rate_per_s * spread_s)
            # With no room for them a meeting is a refusal at any rate; what is left is then the mean.
            bandwidth = _effective_bandwidth(beta_per_s, spec.burst - ours, share)
            rate_per_s = max(spec.rate_per_s - bandwidth, (spec.rate_per_s - beta_per_s) / spec.burst)
            return replace(spec, rate_per_s=max(rate_per_s, spec.rate_per_s * share), burst=ours)
        case _:
            return spec


def _on_replicas(spec: Spec, replicas: int, spread_s: float, share: float) -> Spec:
    """Shrink a limit that R places count apart, each with a part 1/R of it, calls being routed at random.

    A call that finds m - 1 others in the window meets a binomial number of them on its own replica, and is
    refused where that is N/R. (The normal form of the same bound: ``n + z sqrt(n) <= N/R`` with n = m/R.) A
    bucket of B/R with r/R sees a Poisson stream of rho/R: again its effective bandwidth must stay within r/R. What a
    single place admits by itself is never refused, wherever the calls go.
    """
    match spec:
        case FixedWindow(calendar=None) | AnchoredWindow() | SlidingLog() | SlidingCounter() | Concurrency():
            return replace(spec, limit=_routed_at_random(spec.limit, replicas, share))
        case TokenBucket() | LeakyQueue():
            room = spec.burst / replicas - 1.0
            stretch = _effective_bandwidth(1.0, room, share)
            if stretch > replicas:  # so slow that even one place alone keeps up, whichever it is
                return replace(spec, rate_per_s=spec.rate_per_s / replicas, burst=min(spec.burst, 1.0))
            ours = min(spec.burst, 1.0 + spec.rate_per_s * spread_s)
            return replace(spec, rate_per_s=spec.rate_per_s / stretch, burst=ours)
        case _:
            return spec


def _effective_bandwidth(rate_per_s: float, room: float, share: float) -> float:
    """Return the service rate at which a Poisson stream overflows ``room`` with a chance of at most ``share``."""
    theta = math.log(1.0 / share) / room if room > 0.0 else math.inf
    return rate_per_s * math.expm1(theta) / theta if theta < 100.0 else math.inf  # noqa: PLR2004 - e^100 is no rate


def _poisson_quantile(probability: float, mean: float) -> float:
    """Return the least whole number that a Poisson count exceeds with a chance of at most 1 - ``probability``."""
    count = max(0.0, math.floor(special.pdtrik(probability, mean)))
    while special.pdtr(count, mean) < probability:
        count += 1.0
    return count


def _routed_at_random(limit: float, replicas: int, share: float) -> float:
    """Return the most calls m in the window at which a call is refused with a chance of at most ``share``."""
    each = math.floor(limit / replicas)
    # As many as one place admits are never refused: the binomial tail is asked beyond that only.
    low, high = max(min(1, math.floor(limit)), each), math.floor(limit)
    while low < high:
        middle = (low + high + 1) // 2
        if special.bdtrc(each - 1, middle - 1, 1.0 / replicas) <= share:
            low = middle
        else:
            high = middle - 1
    return float(low)
