"""What stands around the limiter: retry, circuit breaker, warm-up and timeout, each from what was measured.

Pure. Rates are per second, durations in seconds. Where nothing was measured the defaults of the google-genai
client stand in (first delay 1 s, doubling, at most 60 s, five attempts).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scipy import special

from analysis.recommend_rates import memory_s, sustained_rate_per_s
from analysis.result import Breaker, Retry, Warmup
from mock_server.limits import LeakyQueue, TokenBucket

if TYPE_CHECKING:
    from analysis.estimate import Inference, Latency
    from mock_server.limits import Spec

SDK_FIRST_DELAY_S, SDK_MAX_DELAY_S, SDK_ATTEMPTS = 1.0, 60.0, 5
# More than this is no longer a retry: the call belongs into a queue.
ATTEMPTS_MAX = 10
TIMEOUT_LEAST_S = 10.0
# Nothing was answered, so nothing is known: the longest that Gemini's own guidance calls usual.
TIMEOUT_UNKNOWN_S = 120.0
# A breaker that trips by chance once in a thousand hours is no nuisance.
FALSE_TRIPS_PER_HOUR = 0.001
BREAKER_LEAST_WINDOW_S = 60.0
WARMUP_START_SHARE = 0.1
HONEST_SHARE = 0.5


def timeout_s(latency: Latency | None) -> float:
    """Return twice the 99.9 % quantile of latency, at least 10 s: a timed-out call has spent its quota already."""
    return TIMEOUT_UNKNOWN_S if latency is None else max(TIMEOUT_LEAST_S, math.ceil(2.0 * latency.p999_s))


def retry(inference: Inference, max_throttled: float) -> Retry:
    """Return full jitter around the time to the next recovery.

    The first delay is that of the limit that binds (half its window, since a refusal falls anywhere in it; 1/r
    for a bucket); the cap is the longest time that any limit remembers. There are as many attempts as make half
    the caps (the mean of full jitter) reach past that time, and as many as bring the chance that all fail for
    other reasons under ``max_throttled``. The server's own delay is honoured where its promise was found to hold
    more often than not, beyond chance: full jitter lands after the recovery about once in four.
    """
    specs = _binding_first(inference)
    first_s, cap_s = SDK_FIRST_DELAY_S, SDK_MAX_DELAY_S
    if specs:
        first_s = _recovery_s(specs[0])
        cap_s = max(first_s, *(memory_s(spec) for spec in specs))
    waits = _waits_past(first_s, cap_s) if specs else SDK_ATTEMPTS - 1
    attempts = max(1 + waits, _attempts_against(_failure_rate(inference), max_throttled))
    promises = (f for f in inference.findings if f.kind == "retry_delay")
    honest = any((f.ci95[0] if f.ci95 else f.value or 0.0) > HONEST_SHARE for f in promises)
    return Retry(
        attempts=min(ATTEMPTS_MAX, attempts),
        initial_delay_s=_tidy(first_s),
        max_delay_s=_tidy(cap_s),
        honour_retry_delay=honest,
    )


def breaker(inference: Inference, rate_per_s: float | None, max_throttled: float) -> Breaker:
    """Return a breaker that trips half-way between normal and all failing, and hardly ever by chance.

    The normal failure rate p is the upper 95 % bound of what was measured, refusals that the user accepts
    included. ``min_calls`` is the least n at which a binomial(n, p) count reaches the threshold so rarely that,
    asked anew at every call of an hour, it happens less than `FALSE_TRIPS_PER_HOUR` times (union bound). The
    window is long enough to hold n calls at the recommended rate; it stays open for one recovery.
    """
    specs = _binding_first(inference)
    calls_per_s = rate_per_s or 1.0
    normal = min(0.9, _upper_failure_rate(inference) + max_throttled)
    threshold = math.ceil(50.0 * (1.0 + normal)) / 100.0
    calls, trips = _calls_for(threshold, normal, calls_per_s * 3600.0)
    return Breaker(
        error_rate=threshold,
        window_s=_tidy(max(BREAKER_LEAST_WINDOW_S, calls / calls_per_s)),
        min_calls=calls,
        open_s=_tidy(max(1.0, *(memory_s(spec) for spec in specs)) if specs else SDK_MAX_DELAY_S),
        false_trips_per_hour=math.ceil(trips * 1e6) / 1e6,
    )


def warmup(inference: Inference, rpm: float | None) -> Warmup | None:
    """Return a linear start from a tenth of the rate over two of the longest windows; None without a rate."""
    if not rpm:
        return None
    longest_s = max((memory_s(spec) for spec in _binding_first(inference)), default=SDK_MAX_DELAY_S)
    return Warmup(start_rpm=_tidy(rpm * WARMUP_START_SHARE), duration_s=_tidy(2.0 * max(1.0, longest_s)))


def _binding_first(inference: Inference) -> list[Spec]:
    """Return the likeliest spec of each limit that binds a rate, the tightest first."""
    specs = [found.particles[0][1] for found in inference.identified if found.particles]
    return sorted((s for s in specs if memory_s(s) > 0.0), key=sustained_rate_per_s)


def _recovery_s(spec: Spec) -> float:
    if isinstance(spec, TokenBucket | LeakyQueue):
        return 1.0 / spec.rate_per_s
    return memory_s(spec) / 2.0


def _waits_past(first_s: float, cap_s: float) -> int:
    """Return how many waits of full jitter reach past the cap on average."""
    waits, reached_s = 0, 0.0
    while reached_s < cap_s and waits < ATTEMPTS_MAX:
        reached_s += min(cap_s, first_s * 2.0**waits) / 2.0
        waits += 1
    return waits


def _failure_rate(inference: Inference) -> float:
    """Return the chance that an attempt fails whatever we do: other errors, and refusals that no quota explains."""
    random = max((f.value or 0.0 for f in inference.findings if f.kind == "random"), default=0.0)
    return min(1.0, inference.error_rate + random)


def _upper_failure_rate(inference: Inference) -> float:
    """Return the upper 95 % bound (Clopper-Pearson) of `_failure_rate`; 5 % where nothing was answered."""
    rate = _failure_rate(inference)
    n = inference.latency.n if inference.latency else 0
    if n == 0:
        return max(0.05, rate)
    failed = round(rate * n)
    return 1.0 if failed >= n else float(special.betaincinv(failed + 1, n - failed, 0.95))


def _attempts_against(failure_rate: float, accepted: float) -> int:
    if failure_rate <= 0.0:
        return 1
    if failure_rate >= 1.0 or accepted <= 0.0:
        return ATTEMPTS_MAX
    return math.ceil(math.log(accepted) / math.log(failure_rate))


def _calls_for(threshold: float, normal: float, calls_per_hour: float) -> tuple[int, float]:
    """Return the least number of calls that keeps false trips rare, and how many an hour remain."""
    calls = 5
    while True:
        failed = math.ceil(threshold * calls)
        trips = float(special.bdtrc(failed - 1, calls, normal)) * calls_per_hour
        if trips <= FALSE_TRIPS_PER_HOUR:
            return calls, trips
        calls += 1


def _tidy(seconds: float) -> float:
    """Keep three digits: these are times to set, not to quote."""
    return float(f"{seconds:.3g}")
