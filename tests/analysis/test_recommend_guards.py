"""Retry, breaker, warm-up and timeout follow from what was measured."""

from __future__ import annotations

import pytest
from scipy import stats

from analysis.estimate import Identified, Inference, Latency
from analysis.recommend_guards import FALSE_TRIPS_PER_HOUR, breaker, retry, timeout_s, warmup
from analysis.result import Finding, Limit
from mock_server.limits import Concurrency, FixedWindow, Spec, TokenBucket


def inferred(*specs: Spec, error_rate: float = 0.0, n: int = 1000, findings: tuple[Finding, ...] = ()) -> Inference:
    """Return an inference with these limits known exactly."""
    identified = tuple(Identified(Limit(metric="requests", state="measured"), ((1.0, spec),)) for spec in specs)
    latency = Latency(0.5, 0.6, 2.0, n) if n else None
    return Inference(identified, findings, 0.0, latency, error_rate)


@pytest.mark.parametrize(("p999_s", "expected_s"), [(2.0, 10.0), (31.2, 63.0)])
def test_timeout_is_twice_the_tail(p999_s: float, expected_s: float) -> None:
    """At least ten seconds."""
    assert timeout_s(Latency(0.5, 0.6, p999_s, 10)) == expected_s


def test_timeout_without_an_answer() -> None:
    """Nothing measured, nothing shortened."""
    assert timeout_s(None) == 120.0


def test_retry_after_a_window() -> None:
    """A refusal falls anywhere in the window: half of it first, the whole at most, and past it on average."""
    made = retry(inferred(FixedWindow(60, 60.0)), 0.001)
    assert (made.initial_delay_s, made.max_delay_s, made.jitter) == (30.0, 60.0, "full")
    means = [min(made.max_delay_s, made.initial_delay_s * made.exp_base**k) / 2 for k in range(made.attempts - 1)]
    assert sum(means) >= 60.0 > sum(means[:-1])


def test_retry_after_a_bucket() -> None:
    """The next token is 1/r away; the cap is the time that the bucket takes to drain."""
    made = retry(inferred(TokenBucket(2.0, 20.0)), 0.001)
    assert (made.initial_delay_s, made.max_delay_s) == (0.5, 10.0)


def test_retry_starts_with_the_limit_that_binds_and_ends_with_the_longest() -> None:
    """The minute binds, the hour remembers."""
    made = retry(inferred(FixedWindow(60, 60.0), FixedWindow(36_000, 3600.0)), 0.001)
    assert (made.initial_delay_s, made.max_delay_s) == (30.0, 3600.0)


def test_retry_without_a_limit_is_the_clients_own() -> None:
    """The google-genai defaults."""
    made = retry(inferred(Concurrency(4)), 0.001)
    assert (made.attempts, made.initial_delay_s, made.max_delay_s) == (5, 1.0, 60.0)


@pytest.mark.parametrize(
    ("finding", "honoured"),
    [
        (Finding(kind="retry_delay", value=0.93, ci95=(0.9, 0.96)), True),
        (Finding(kind="retry_delay", value=0.6, ci95=(0.3, 0.85)), False),
        (Finding(kind="retry_delay", value=0.95), True),
        (Finding(kind="retry_delay", value=None), False),
        (Finding(kind="drift", value=0.9), False),
    ],
)
def test_the_servers_delay_is_honoured_where_it_was_honest(finding: Finding, *, honoured: bool) -> None:
    """Right more often than not, beyond chance."""
    assert retry(inferred(FixedWindow(60, 60.0), findings=(finding,)), 0.001).honour_retry_delay is honoured


@pytest.mark.parametrize(("error_rate", "attempts"), [(0.0, 4), (0.3, 6), (1.0, 10)])
def test_retries_outlast_errors(error_rate: float, attempts: int) -> None:
    """All attempts failing together is as rare as accepted, as far as ten go."""
    assert retry(inferred(FixedWindow(60, 60.0), error_rate=error_rate), 0.001).attempts == attempts


def test_nothing_accepted_asks_for_the_most_retries() -> None:
    """No number of attempts makes the chance zero."""
    assert retry(inferred(FixedWindow(60, 60.0), error_rate=0.1), 0.0).attempts == 10


@pytest.mark.parametrize("error_rate", [0.0, 0.02, 0.3, 0.97])
@pytest.mark.parametrize("rate_per_s", [None, 0.1, 1.0, 100.0])
def test_the_breaker_hardly_ever_trips_by_chance(error_rate: float, rate_per_s: float | None) -> None:
    """The binomial tail at the normal error rate, over an hour of calls, stays under the bound."""
    made = breaker(inferred(FixedWindow(60, 60.0), error_rate=error_rate), rate_per_s, 0.001)
    failed = -(-made.min_calls * made.error_rate // 1)
    tail = stats.binom.sf(failed - 1, made.min_calls, min(error_rate, 0.89)) * (rate_per_s or 1.0) * 3600
    assert tail <= made.false_trips_per_hour <= FALSE_TRIPS_PER_HOUR
    assert error_rate < made.error_rate <= 1.0 or error_rate > 0.9
    assert made.window_s * (rate_per_s or 1.0) >= made.min_calls * 0.99
    assert made.open_s == 60.0


def test_the_breaker_without_answers_or_limits() -> None:
    """A normal error rate of five per cent is assumed; open as long as the client's longest delay."""
    made = breaker(inferred(n=0), None, 0.001)
    assert made.open_s == 60.0
    assert made.min_calls > breaker(inferred(n=10_000), None, 0.001).min_calls


def test_warmup_is_linear_over_two_windows() -> None:
    """From a tenth; none without a rate."""
    made = warmup(inferred(FixedWindow(60, 60.0)), 58.0)
    assert made is not None
    assert (made.start_rpm, made.duration_s, made.shape) == (pytest.approx(5.8), 120.0, "linear")
    assert warmup(inferred(), None) is None
    assert warmup(inferred(), 0.0) is None
