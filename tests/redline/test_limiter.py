"""The client's limiter keeps its promise: never more than it says, and never less than it could."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.limiter import ClientLimiter
from redline.traffic import Pacing


def pacing(
    rate_per_s: float | None = None,
    burst: float = 1.0,
    max_concurrency: int | None = None,
    tokens_per_s: float | None = None,
    token_burst: float | None = None,
    prompt_tokens: int = 1,
) -> Pacing:
    """Return a Pacing of which only the limiter's part matters."""
    return Pacing(
        rate_per_s=rate_per_s,
        burst=burst,
        max_concurrency=max_concurrency,
        duration_s=math.inf,
        offered_per_s=math.inf,
        tokens_per_s=tokens_per_s,
        token_burst=token_burst,
        prompt_tokens=prompt_tokens,
    )


def leave(limiter: ClientLimiter, demand_s: list[float]) -> list[float]:
    """Let calls that are wanted at these moments leave as early as they may."""
    left_s: list[float] = []
    now_s = 0.0
    for wanted_s in demand_s:
        now_s = limiter.next_moment_s(max(now_s, wanted_s), 0)
        limiter.sent(now_s)
        left_s.append(now_s)
    return left_s


def demand(seed: int, n: int, rate_per_s: float) -> list[float]:
    """Return moments of demand: lumps and pauses around the limiter's own rate."""
    rng = random.Random(seed)  # noqa: S311 - repeatable demand, not secrets
    moments, now_s = [], 0.0
    for _ in range(n):
        now_s += rng.choice((0.0, 0.0, 0.0, rng.random(), 4.0 * rng.random())) / rate_per_s
        moments.append(now_s)
    return moments


@given(rate_per_s=st.floats(0.01, 500.0), burst=st.floats(1.0, 20.0), seed=st.integers(0, 2**32), n=st.integers(2, 120))
def test_no_interval_holds_more_than_burst_and_rate(rate_per_s: float, burst: float, seed: int, n: int) -> None:
    """At most floor(b + rho x) calls leave in any closed interval of length x."""
    left_s = leave(ClientLimiter(pacing(rate_per_s, burst)), demand(seed, n, rate_per_s))
    for first in range(n):
        for last in range(first, n):
            assert last - first + 1 <= burst + rate_per_s * (left_s[last] - left_s[first]) + 1e-6


@given(rate_per_s=st.floats(0.01, 500.0), burst=st.floats(1.0, 20.0), seed=st.integers(0, 2**32))
def test_nothing_is_held_back_beyond_the_promise(rate_per_s: float, burst: float, seed: int) -> None:
    """A call that waited was needed to wait: leaving a little earlier would have broken the promise."""
    wanted_s = demand(seed, 60, rate_per_s)
    left_s = leave(ClientLimiter(pacing(rate_per_s, burst)), wanted_s)
    for index, (wanted, left) in enumerate(zip(wanted_s, left_s, strict=True)):
        if left > wanted:
            earlier = left - 1e-3 / rate_per_s
            assert any(
                index - first + 1 > burst + rate_per_s * (earlier - left_s[first]) - 1e-9 for first in range(index)
            )


def test_the_trace_of_a_small_bucket() -> None:
    """Two at once, then one every half second; an idle second refills both."""
    limiter = ClientLimiter(pacing(2.0, 2.0))
    assert leave(limiter, [0.0, 0.0, 0.0, 0.0]) == [0.0, 0.0, 0.5, 1.0]
    assert leave(limiter, [5.0, 5.0, 5.0]) == [5.0, 5.0, 5.5]


def test_asking_changes_nothing() -> None:
    """The same question gives the same answer however often it is asked."""
    limiter = ClientLimiter(pacing(1.0, 1.0))
    limiter.sent(0.0)
    assert [limiter.next_moment_s(0.25, 0) for _ in range(3)] == [1.0, 1.0, 1.0]


def test_a_full_semaphore_has_no_next_moment() -> None:
    """With all places taken only an ending call can help."""
    limiter = ClientLimiter(pacing(1.0, 1.0, max_concurrency=2))
    assert limiter.next_moment_s(3.0, 2) == math.inf
    assert limiter.next_moment_s(3.0, 1) == 3.0


def test_tokens_hold_calls_back_too() -> None:
    """The slower of the two buckets decides; prompts of 100 tokens at 50 a second leave every two seconds."""
    limiter = ClientLimiter(pacing(10.0, 5.0, tokens_per_s=50.0, token_burst=100.0, prompt_tokens=100))
    assert leave(limiter, [0.0, 0.0, 0.0]) == [0.0, 2.0, 4.0]


def test_without_rates_every_call_leaves_at_once() -> None:
    """No limit found, none applied."""
    assert leave(ClientLimiter(pacing()), [1.0, 1.0, 2.0]) == [1.0, 1.0, 2.0]


def test_a_rate_of_zero_lets_nothing_pass() -> None:
    """A quota of zero exists: the limiter says never, and does not divide by it."""
    limiter = ClientLimiter(pacing(0.0))
    assert limiter.next_moment_s(7.0, 0) == math.inf
    limiter.sent(7.0)


def test_a_clock_that_steps_back_gains_nothing() -> None:
    """The next moment stands where it was on the clock."""
    limiter = ClientLimiter(pacing(1.0, 1.0))
    limiter.sent(100.0)
    assert limiter.next_moment_s(50.0, 0) == 101.0
    limiter.sent(50.0)
    assert limiter.next_moment_s(50.0, 0) == 102.0


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (pacing(1.0, 0.5), "burst must be at least 1"),
        (pacing(-1.0), "rate must be at least 0"),
        (pacing(math.nan), "rate must be at least 0"),
        (pacing(tokens_per_s=5.0, token_burst=9.0, prompt_tokens=10), "token_burst must be at least 10"),
    ],
)
def test_a_limiter_that_could_never_let_a_call_pass_is_refused(made: Pacing, says: str) -> None:
    """The error names the setting and what it takes."""
    with pytest.raises(ValueError, match=says):
        ClientLimiter(made)
