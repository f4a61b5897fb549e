"""Each inequality holds against the limiter it speaks of, whatever the delays, and is not wasteful."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from analysis.recommend_rates import capacity, largest_rate_per_s, memory_s, sustained_rate_per_s
from mock_server.limits import (
    FAMILIES,
    AnchoredWindow,
    Concurrency,
    FixedWindow,
    LeakyQueue,
    Random,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)
from redline.limiter import ClientLimiter
from redline.traffic import Pacing

if TYPE_CHECKING:
    from mock_server.limits import Spec

NO_RATE = {"concurrency", "random"}


def drawn(family: str, rng: random.Random, scale: float = 1.0) -> Spec:
    """Return a spec of a family with random parameters; limits from 1 to 40 (times ``scale``)."""
    limit = float(rng.choice((1, 2, 3, rng.randint(1, 40)))) * scale
    window_s = rng.uniform(0.5, 20.0)
    counts = rng.random() < 0.25
    match family:
        case "fixed_window":
            return FixedWindow(limit, window_s, rng.uniform(0.0, window_s), counts)
        case "anchored_window":
            return AnchoredWindow(limit, window_s, counts)
        case "sliding_log":
            return SlidingLog(limit, window_s, counts)
        case "sliding_counter":
            return SlidingCounter(limit, window_s, rng.uniform(0.0, window_s), counts)
        case "token_bucket":
            return TokenBucket(rng.uniform(0.2, 20.0) * scale, limit + rng.choice((0.0, 0.4 * scale)), counts)
        case _:
            return LeakyQueue(rng.uniform(0.2, 20.0) * scale, limit, counts)


def departures(rate_per_s: float, burst: float, rng: random.Random, n: int, cost: int) -> list[float]:
    """Return when the calls of one client leave: saturated demand with a pause now and then."""
    whole = cost == 1
    limiter = ClientLimiter(
        Pacing(
            rate_per_s=rate_per_s if whole else None,
            burst=burst,
            max_concurrency=None,
            duration_s=math.inf,
            offered_per_s=math.inf,
            tokens_per_s=None if whole else rate_per_s,
            token_burst=None if whole else burst,
            prompt_tokens=cost,
        )
    )
    now_s, left_s = rng.uniform(0.0, 30.0), []
    for _ in range(n):
        if rng.random() < 0.1:
            now_s += rng.uniform(0.0, 2.0) * burst / rate_per_s
        now_s = limiter.next_moment_s(now_s, 0)
        limiter.sent(now_s)
        left_s.append(now_s)
    return left_s


def spread_out(left_s: list[float], spread_s: float, rng: random.Random) -> list[float]:
    """Return the arrivals over a network of that spread, extremes included."""
    return sorted(t + spread_s * rng.choice((0.0, 1.0, rng.random())) for t in left_s)


def refused_of(spec: Spec, arrivals_s: list[float], cost: int = 1) -> int:
    """Count what the limiter refuses of calls that arrive in this order."""
    state, refused = spec.limiter(), 0
    for moment_s in arrivals_s:
        if state.check(moment_s, cost).admitted:
            state.commit(moment_s, cost)
        else:
            refused += 1
            state.refused(moment_s, cost)
    return refused


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - NO_RATE))
@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), instances=st.sampled_from((1, 1, 1, 2, 5)))
def test_nothing_is_refused_at_the_largest_rate(family: str, seed: int, instances: int) -> None:
    """Any parameters, phase, burst, spread of delays and number of clients: not one refusal."""
    rng = random.Random(seed)  # noqa: S311 - repeatable worlds, not secrets
    spec = drawn(family, rng)
    burst = float(rng.randint(1, max(1, math.floor(capacity(spec) / instances))))
    spread_s = rng.choice((0.0, 0.005, 0.07, 0.35, rng.uniform(0.0, 4.0)))
    rate_per_s = largest_rate_per_s(spec, burst, spread_s=spread_s, instances=instances)
    assume(rate_per_s > 0.0)
    n = round(3 * capacity(spec)) + 20
    left_s = [t for _ in range(instances) for t in departures(rate_per_s, burst, rng, n, 1)]
    assert refused_of(spec, spread_out(left_s, spread_s, rng)) == 0


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - NO_RATE))
@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_nothing_is_refused_at_the_largest_token_rate(family: str, seed: int) -> None:
    """Costs come whole: prompts as large as the burst, on limits of a thousand tokens a call."""
    rng = random.Random(seed)  # noqa: S311 - repeatable worlds, not secrets
    spec = drawn(family, rng, scale=1000.0)
    prompt = rng.randint(2, round(capacity(spec)))
    spread_s = rng.choice((0.0, 0.07, 0.35))
    rate_per_s = largest_rate_per_s(spec, prompt, spread_s=spread_s, whole_calls=False)
    assume(rate_per_s > 0.0)
    left_s = departures(rate_per_s, prompt, rng, 60, prompt)
    assert refused_of(spec, spread_out(left_s, spread_s, rng), prompt) == 0


@pytest.mark.parametrize(
    "spec", [AnchoredWindow(12, 6.0), SlidingLog(12, 6.0), TokenBucket(2.0, 1.0), TokenBucket(2, 4)]
)
def test_a_part_in_a_thousand_more_can_be_refused(spec: Spec) -> None:
    """The bound is tight: where delays shrink from J to nothing, calls bunch up and a little more is too much."""
    spread_s = 1.9
    rate_per_s = largest_rate_per_s(spec, 1.0, spread_s=spread_s)

    def refused_at(rate_per_s: float) -> int:
        return refused_of(spec, [max(k / rate_per_s, spread_s) for k in range(20)])

    assert refused_at(rate_per_s) == 0
    assert refused_at(rate_per_s * 1.001) > 0


@pytest.mark.parametrize(
    ("spec", "burst", "spread_s", "rate_per_s"),
    [
        (FixedWindow(60, 60.0), 1.0, 0.0, 1.0),
        (FixedWindow(60, 60.0), 7.0, 0.0, 54 / 60),
        (FixedWindow(60, 60.0), 61.0, 0.0, 0.0),  # the burst alone is too much
        (AnchoredWindow(10, 4.0), 1.0, 1.0, 2.0),
        (SlidingLog(1, 1.0), 1.0, 0.07, 1 / 1.07),  # few calls a window: slow, never zero
        (SlidingLog(0, 1.0), 1.0, 0.07, 0.0),  # a quota of zero exists
        (SlidingCounter(15, 4.0), 1.0, 0.0, 3.5),
        (SlidingCounter(2, 1.0), 1.0, 0.0, 1.0),
        (SlidingCounter(1, 1.0), 1.0, 0.07, 1 / 2.07),  # one call in any two windows
        (TokenBucket(2.0, 10.0), 5.0, 0.35, 2.0),
        (TokenBucket(2.5, 1.0), 1.0, 0.35, 1 / (0.4 + 0.35)),
        (TokenBucket(1.0, 2.0), 1.0, 3.0, 0.5),  # gap (1/r + J) / B
        (LeakyQueue(2.0, 10.0), 5.0, 0.35, 2.0),
        (Concurrency(5), 1.0, 0.35, math.inf),
        (Random(0.1), 1.0, 0.35, math.inf),
        (FixedWindow(1000, calendar="pacific_day"), 1.0, 0.35, math.inf),
    ],
)
def test_the_formulas_by_hand(spec: Spec, burst: float, spread_s: float, rate_per_s: float) -> None:
    """What the inequality gives when worked out on paper."""
    assert largest_rate_per_s(spec, burst, spread_s=spread_s) == pytest.approx(rate_per_s, rel=1e-5)


def test_instances_add_up_their_bursts() -> None:
    """Seven clients under 60 a minute get 54 together: (N + 1 - I) / W."""
    assert largest_rate_per_s(FixedWindow(60, 60.0), 1.0, spread_s=0.0, instances=7) * 7 * 60 == pytest.approx(54.0)
    assert largest_rate_per_s(FixedWindow(60, 60.0), 1.0, spread_s=0.0, instances=61) == 0.0


@pytest.mark.parametrize(
    ("spec", "sustained_per_s", "remembers_s", "at_once"),
    [
        (SlidingLog(60, 30.0), 2.0, 30.0, 60),
        (TokenBucket(2.0, 10.0), 2.0, 5.0, 10),
        (TokenBucket(2.0, 0.5), 0.0, 0.25, 0.5),
        (Concurrency(5), math.inf, 0.0, 5),
        (Random(0.1), math.inf, 0.0, math.inf),
        (FixedWindow(1000, calendar="pacific_day"), math.inf, 0.0, 1000),
    ],
)
def test_what_a_limit_admits_and_remembers(
    spec: Spec, sustained_per_s: float, remembers_s: float, at_once: float
) -> None:
    """The long-run rate, the memory and what passes from a rested state."""
    assert (sustained_rate_per_s(spec), memory_s(spec), capacity(spec)) == (sustained_per_s, remembers_s, at_once)
