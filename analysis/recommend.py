"""From what is known about the limits to what production's limiter is to be set to.

Pure. The inequalities for one known limit are in `analysis.recommend_rates`, what others leave of it in
`analysis.recommend_shared`, retry, breaker and warm-up in `analysis.recommend_guards`. This file owns the step
between: how uncertainty, several limits at once and the wish for a burst become one rate and one burst.

Nothing is multiplied by a folklore 0.8. The rate is the largest one that leaves every limit unviolated with a
posterior probability of at least 99 %, given the spread of delays that the accepted share of refusals allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.recommend_guards import breaker, retry, timeout_s, warmup
from analysis.recommend_places import is_measured, known_specs, measured_places, needed_places, seen_to_pass
from analysis.recommend_rates import capacity, largest_rate_per_s, memory_s, sustained_rate_per_s
from analysis.recommend_shared import Others, left_for_us
from analysis.result import Settings
from mock_server.limits import Concurrency, SlidingLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from analysis.estimate import Identified, Inference
    from analysis.result import Limit
    from mock_server.limits import Spec

# An *expected* share of refusals equal to the accepted one would be exceeded half the time.
CONFIDENCE = 0.99
# The mean that is aimed at, as a part of the accepted share. Refusals are rare and come as a Poisson number: in 1 500
# calls (an hour at 25 a minute) more than 0.1 % is two or more, and stays under 1 % for a mean of 0.15.
AIMED_PART = 0.1
# What a burst may cost: pacing with two bursts in a row (a client that restarts) keeps 99 % of the best rate.
BURST_COST = 0.01
# Beyond this nobody needs a burst; it also ends the search where none is too large.
BURST_MAX = 4096
# A token limiter must let whole prompts through, so its burst is one prompt: this share of the limit if unknown.
PROMPT_SHARE = 0.05


Pace = tuple[float | None, float | None]  # rate per second, burst


@dataclass(frozen=True, slots=True)
class _Way:
    """One limit: the weighted specs that it may be, already less what others take of it."""

    specs: tuple[tuple[float, Spec], ...]
    spread_s: float
    instances: int
    ceiling_per_s: float = math.inf  # never seen to pass beyond this
    burst_ceiling: float = math.inf

    def rates_per_s(self, burst: float) -> list[tuple[float, float]]:
        """Return (weight, largest safe rate) for each spec."""
        if burst > self.burst_ceiling:
            return [(1.0, 0.0)]
        if not self.specs:
            return [(1.0, self.ceiling_per_s)]
        return [
            (
                weight,
                min(
                    self.ceiling_per_s,
                    largest_rate_per_s(spec, burst, spread_s=self.spread_s, instances=self.instances),
                ),
            )
            for weight, spec in self.specs
        ]


def recommend(
    inference: Inference,
    *,
    max_throttled: float = 0.001,
    instances: int = 1,
    largest_prompt_tokens: float | None = None,
) -> Settings:
    """Return the settings of *one* client out of ``instances`` alike, each paced by itself.

    ``max_throttled``: the share of refusals (0 to 1) that the user accepts. ``largest_prompt_tokens``: k, the
    most input tokens that one call brings (default: a twentieth of the limit). Where a limit was not met
    (`at_least`), the settings stop at what was seen to pass; tokens excepted, since cheap probes say nothing
    about large prompts. Raises `ValueError` where the limit has no room for that many instances: they must then
    share a counter.
    """
    spread_s = spread_for(inference, max_throttled)
    ways = _ways(inference, max_throttled, spread_s, instances)
    rate_per_s, burst = _rate_and_burst(ways)
    if rate_per_s == 0.0 and instances > 1:
        raise ValueError(f"{instances} instances are too many for this limit: let them share one counter")
    rpm = None if rate_per_s is None else rounded_down(rate_per_s * 60.0)
    per_day = _requests_per_day(inference.identified)
    return Settings(
        requests_per_minute=rpm,
        burst=burst,
        max_concurrency=_max_concurrency(inference, max_throttled, instances, (rate_per_s, burst)),
        input_tokens_per_minute=_tokens_per_min(inference, spread_s, instances, largest_prompt_tokens),
        requests_per_day=None if per_day is None else float(math.floor(per_day / instances)),
        max_throttled=max_throttled,
        timeout_s=timeout_s(inference.latency),
        retry=retry(inference, max_throttled),
        circuit_breaker=breaker(inference, rate_per_s, max_throttled),
        warmup=warmup(inference, rpm),
    )


def optimum(
    limits: Iterable[tuple[str, Spec]],
    *,
    spread_s: float,
    mean_latency_s: float | None = None,
    prompt_tokens: float = 1.0,
) -> float:
    """Return the most calls per minute that the formulas reach on limits that are known exactly.

    ``limits``: (metric, spec) with the metrics ``requests``, ``input_tokens`` and ``concurrency``; others are no
    rate and are passed over. Paced one by one (burst 1), each call bringing ``prompt_tokens``. A concurrency
    limit C lets ``C / mean latency`` through (Little's law) and counts only where the latency is given.
    Returns ``inf`` where nothing limits the rate.
    """
    rates_per_s = [math.inf]
    for metric, spec in limits:
        if isinstance(spec, Concurrency):
            if mean_latency_s:
                rates_per_s.append(spec.limit / mean_latency_s)
        elif metric == "requests":
            rates_per_s.append(largest_rate_per_s(spec, 1.0, spread_s=spread_s))
        elif metric == "input_tokens":
            tokens_per_s = largest_rate_per_s(spec, prompt_tokens, spread_s=spread_s, whole_calls=False)
            rates_per_s.append(tokens_per_s / prompt_tokens)
    return min(rates_per_s) * 60.0


def spread_for(inference: Inference, max_throttled: float) -> float:
    """Return J: the delay spread (s) that all but the accepted share of calls keep.

    A call that is later than J can push at most one call over the limit, so the share of late calls bounds the
    share of refusals; the share aimed at is `AIMED_PART` of the accepted one. ``spread_s`` is the cautious bound
    where no point of the distribution reaches that far.
    """
    enough = [seconds for share, seconds in inference.spread_at if share >= 1.0 - AIMED_PART * max_throttled]
    return max(0.0, min([inference.spread_s, *enough]))


def _ways(inference: Inference, max_throttled: float, spread_s: float, instances: int) -> list[_Way]:
    """Return the request limits that bind a rate, each as the specs that it may be.

    A rate that was never refused is a ceiling only where nothing else holds the client back: with a concurrency
    limit, the semaphore alone keeps the rate at what it let through while probing, ``C / E[L]``.
    """
    others = Others.among(inference.findings)
    ways: list[_Way] = []
    for found in inference.identified:
        limit = found.limit
        if limit.metric != "requests" or limit.window is not None or limit.state in {"random", "not_tested"}:
            continue
        specs = tuple(
            (weight, left_for_us(spec, others, spread_s=spread_s, refused_share=AIMED_PART * max_throttled))
            for weight, spec in found.particles
        )
        if specs and limit.state != "at_least":
            ways.append(_Way(specs, spread_s, instances))
        elif (cap := _declared(limit)) is not None:
            ways.append(_Way(((1.0, cap),), spread_s, instances))
        elif limit.rate_per_min is not None and not (limit.state == "at_least" and is_measured(inference)):
            ceiling_per_s = limit.rate_per_min / 60.0 / instances
            ways.append(_Way((), spread_s, instances, ceiling_per_s, max(1.0, (limit.burst or 1.0) / instances)))
    return ways


def _declared(limit: Limit) -> Spec | None:
    """Return a limit that the server named and nobody saw, as the strictest family of windows: a minute's log."""
    if limit.state != "declared" or (named := limit.declared_limit or limit.limit) is None:
        return None
    return SlidingLog(named, limit.window_s or 60.0)


def _rate_and_burst(ways: Sequence[_Way]) -> Pace:
    """Return the rate (per s) and the burst; (None, None) where no limit on requests is known.

    The burst is the largest whole one of which even two in a row cost at most `BURST_COST` of the best rate. A
    window takes each call of a burst out of its budget, so its burst stays near 1; a bucket gives half of what
    it holds for free.
    """
    best_per_s = _confident_rate_per_s(ways, 1.0)
    if math.isinf(best_per_s):
        return None, None
    burst = 1
    if best_per_s > 0.0:
        enough_per_s = (1.0 - BURST_COST) * best_per_s
        burst = _largest(lambda b: _confident_rate_per_s(ways, 2.0 * b) >= enough_per_s)
    return _confident_rate_per_s(ways, float(burst)), float(burst)


def _confident_rate_per_s(ways: Sequence[_Way], burst: float) -> float:
    """Return the largest rate that keeps every limit with a posterior probability of at least `CONFIDENCE`."""
    return _confident([way.rates_per_s(burst) for way in ways])


def _confident(tables: Sequence[Sequence[tuple[float, float]]]) -> float:
    """Return the largest value that all limits allow with a probability of at least `CONFIDENCE`.

    ``tables``: for each limit (weight, allowed value) by spec. The posteriors are independent, so the probability
    of a value is a product of sums of weights, which only steps down at one of the values. ``inf`` without limits.
    """
    candidates = np.unique([value for table in tables for _, value in table])
    held = np.ones(len(candidates))
    for table in tables:
        weights, values = np.array(table).T
        order = np.argsort(values)
        below = np.concatenate(([0.0], np.cumsum(weights[order])))[np.searchsorted(values[order], candidates)]
        held *= 1.0 - below / weights.sum()
    return float(candidates[np.flatnonzero(held >= CONFIDENCE)[-1]]) if len(candidates) else math.inf


def _largest(holds: Callable[[int], bool]) -> int:
    """Return the largest whole number from 1 for which a falling condition holds (1 where it never does)."""
    high = 2
    while holds(high) and high < BURST_MAX:
        high *= 2
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _max_concurrency(inference: Inference, max_throttled: float, instances: int, pace: Pace) -> int | None:
    """Return how many calls one instance may have in flight.

    Where no limit was met, what was seen to pass, or what the rate needs where that is more: this many are then in
    flight in the verification, which lowers it again if they are refused.
    """
    places = measured_places(inference, AIMED_PART * max_throttled, _confident)
    if places is None:
        seen = seen_to_pass(inference)
        return None if seen is None else max(1, math.floor(seen / instances), needed_places(inference, *pace))
    each = math.floor(places / instances)
    if each == 0 and instances > 1:
        raise ValueError(f"{instances} instances are too many for this concurrency: let them share one counter")
    return each


def _tokens_per_min(
    inference: Inference, spread_s: float, instances: int, largest_prompt_tokens: float | None
) -> float | None:
    """Return the input tokens per minute of one instance, None where no such limit was met or declared."""
    tables: list[list[tuple[float, float]]] = []
    for found in inference.identified:
        if found.limit.metric != "input_tokens" or found.limit.state in {"at_least", "not_tested", "random"}:
            continue
        specs = found.particles
        if not specs and (named := _declared(found.limit)) is not None:
            specs = ((1.0, named),)
        if specs:
            tables.append([(w, _tokens_per_s(s, spread_s, instances, largest_prompt_tokens)) for w, s in specs])
    tokens_per_s = _confident(tables)
    return None if math.isinf(tokens_per_s) else rounded_down(tokens_per_s * 60.0)


def _tokens_per_s(spec: Spec, spread_s: float, instances: int, largest_prompt_tokens: float | None) -> float:
    """Return the safe token rate of one instance, whose bucket must hold its largest prompt."""
    burst = largest_prompt_tokens or PROMPT_SHARE * capacity(spec) / instances
    return largest_rate_per_s(spec, burst, spread_s=spread_s, instances=instances, whole_calls=False)


def _requests_per_day(identified: Sequence[Identified]) -> float | None:
    """Return the smallest daily quota that was seen or declared."""
    limits = (f.limit for f in identified if f.limit.metric == "requests_per_day" or f.limit.window is not None)
    named = [limit.limit if limit.limit is not None else limit.declared_limit for limit in limits]
    return min((value for value in named if value is not None), default=None)


def rounded_down(value: float) -> float:
    """Keep six digits, never rounding up: a limit must not be crossed for the sake of a tidy number."""
    if value <= 0.0:
        return 0.0
    scale = 10.0 ** (5 - math.floor(math.log10(value)))
    return math.floor(value * scale) / scale


def optimum_found(inference: Inference, max_throttled: float) -> float:
    """Return `optimum` (but per second) on the likeliest specs, less what others take of them."""
    spread_s = spread_for(inference, max_throttled)
    others = Others.among(inference.findings)
    limits = [
        (metric, left_for_us(spec, others, spread_s=spread_s, refused_share=AIMED_PART * max_throttled))
        for metric, spec in _likeliest(inference)
        if metric != "input_tokens"
    ]
    latency_s = inference.latency.mean_s if inference.latency else None
    return optimum(limits, spread_s=spread_s, mean_latency_s=latency_s) / 60.0


def sustained_found(inference: Inference) -> float:
    """Return what the likeliest specs admit per second in the long run; ``inf`` where none was met."""
    latency_s = inference.latency.mean_s if inference.latency else math.nan
    rates_per_s = [math.inf]
    for metric, spec in _likeliest(inference):
        if isinstance(spec, Concurrency):
            rates_per_s.append(spec.limit / latency_s if latency_s > 0.0 else math.inf)
        elif metric == "requests":
            rates_per_s.append(sustained_rate_per_s(spec))
    return min(rates_per_s)


def longest_memory_s(inference: Inference) -> float:
    """Return for how long (s) the slowest of the limits met remembers a call; 0 where none has a memory."""
    return max((memory_s(spec) for _, spec in _likeliest(inference)), default=0.0)


def token_burst(inference: Inference, largest_prompt_tokens: float | None = None) -> float | None:
    """Return the burst (tokens) that the token rate was worked out for: the largest prompt; None without a limit."""
    rooms = [capacity(spec) for metric, spec in _likeliest(inference) if metric == "input_tokens"]
    return (largest_prompt_tokens or PROMPT_SHARE * min(rooms)) if rooms else None


def _likeliest(inference: Inference) -> list[tuple[str, Spec]]:
    known = ((found.limit.metric, known_specs(found)) for found in inference.identified)
    return [(metric, specs[0][1]) for metric, specs in known if specs]
