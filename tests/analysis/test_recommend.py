"""From limits and their uncertainty to settings: the tightest limit, the burst, the honest caps."""

from __future__ import annotations

import math

import pytest

from analysis.estimate import Identified, Inference, Latency
from analysis.recommend import (
    CONFIDENCE,
    longest_memory_s,
    optimum,
    optimum_found,
    recommend,
    spread_for,
    sustained_found,
    token_burst,
)
from analysis.recommend_rates import largest_rate_per_s
from analysis.result import Finding, Limit
from mock_server.limits import Concurrency, FixedWindow, Random, SlidingCounter, SlidingLog, Spec, TokenBucket

LATENCY = Latency(median_s=0.5, mean_s=0.6, p999_s=2.0, n=400)


def met(spec: Spec, metric: str = "requests", **more: object) -> Identified:
    """Return a limit that is known exactly."""
    return Identified(Limit(metric=metric, state="measured", **more), ((1.0, spec),))  # type: ignore[arg-type]


def only_told(metric: str, state: str, **more: object) -> Identified:
    """Return a limit of which nothing but its table entry is known."""
    return Identified(Limit(metric=metric, state=state, **more))  # type: ignore[arg-type]


def inferred(
    *identified: Identified,
    findings: tuple[Finding, ...] = (),
    spread_s: float = 0.0,
    spread_at: tuple[tuple[float, float], ...] = (),
    latency: Latency | None = LATENCY,
) -> Inference:
    """Return an inference of these parts."""
    return Inference(identified, findings, spread_s, latency, 0.0, spread_at)


def test_one_window_known_exactly() -> None:
    """60 a minute and a spread of 35 ms: N / (W + J), one by one."""
    made = recommend(inferred(met(FixedWindow(60, 60.0)), spread_s=0.035))
    assert made.requests_per_minute == pytest.approx(60 * 60 / 60.035, rel=1e-4)
    assert made.burst == 1.0
    assert made.max_concurrency is None
    assert made.input_tokens_per_minute is None
    assert made.requests_per_day is None


def test_a_bucket_gives_a_burst_for_nothing_and_a_window_does_not() -> None:
    """Half a bucket fits twice; a window of the same size would pay for each call of the burst."""
    bucket = recommend(inferred(met(TokenBucket(10.0, 100.0))))
    window = recommend(inferred(met(SlidingLog(600, 60.0))))
    assert bucket.burst == pytest.approx(50.0, abs=1.0)
    assert bucket.requests_per_minute == pytest.approx(600.0, rel=1e-5)
    assert window.burst == 3.0
    assert 0.99 * 600.0 < (window.requests_per_minute or 0.0) < 600.0


def test_the_tightest_of_several_limits_decides() -> None:
    """One per second and one per minute: the minute binds the rate, the second the burst."""
    made = recommend(inferred(met(SlidingLog(600, 60.0)), met(SlidingLog(20, 1.0)), met(TokenBucket(50.0, 500.0))))
    assert made.requests_per_minute == pytest.approx(600.0, rel=0.01)
    assert made.burst == 3.0


def test_an_unlikely_smaller_limit_is_taken_seriously() -> None:
    """Two per cent for 50 instead of 60 are more than the one that may go wrong; half a per cent are not."""

    def rpm(doubt: float) -> float:
        found = Identified(
            Limit(metric="requests", state="measured"),
            ((1.0 - doubt, SlidingLog(60, 60.0)), (doubt, SlidingLog(50, 60.0))),
        )
        return recommend(inferred(found)).requests_per_minute or 0.0

    assert rpm(0.005) == pytest.approx(60.0, rel=1e-4)
    assert rpm(0.02) == pytest.approx(50.0, rel=1e-4)


def test_small_doubts_about_several_limits_add_up() -> None:
    """Each limit alone holds with 99.4 %, both together do not reach 99 %: one of the two doubts is heeded."""
    doubt = 0.006
    minute = Identified(
        Limit(metric="requests", state="measured"),
        ((1.0 - doubt, SlidingLog(60, 60.0)), (doubt, SlidingLog(50, 60.0))),
    )
    bucket = Identified(
        Limit(metric="requests", state="measured"),
        ((1.0 - doubt, TokenBucket(1.0, 9.0)), (doubt, TokenBucket(0.9, 9.0))),
    )
    assert (1.0 - doubt) ** 2 < CONFIDENCE
    assert recommend(inferred(minute, bucket)).requests_per_minute == pytest.approx(54.0, rel=1e-4)


def test_alternative_families_count_by_their_weight() -> None:
    """Where a counter may be in force, its stricter inequality is kept."""
    found = Identified(
        Limit(metric="requests", state="measured"),
        ((0.7, FixedWindow(15, 60.0)), (0.3, SlidingCounter(15, 60.0))),
    )
    assert recommend(inferred(found)).requests_per_minute == pytest.approx(14.0, rel=1e-4)


def test_the_accepted_share_picks_the_spread() -> None:
    """All but one in ten thousand keep 20 ms: that aims well below one in a thousand. Who accepts none is cautious."""
    points = ((0.5, 0.004), (0.99, 0.01), (0.9999, 0.02))
    inference = inferred(met(TokenBucket(2.0, 1.0)), spread_s=0.35, spread_at=points)
    assert spread_for(inference, 0.001) == 0.02
    assert spread_for(inference, 0.1) == 0.01
    assert spread_for(inference, 0.0) == 0.35
    assert recommend(inference, max_throttled=0.0).requests_per_minute == pytest.approx(60 / 0.85, rel=1e-4)
    assert recommend(inference, max_throttled=0.001).requests_per_minute == pytest.approx(60 / 0.52, rel=1e-4)


def test_where_no_limit_was_met_the_settings_stop_at_what_passed() -> None:
    """`at_least` is a ceiling, not an invitation; cheap probes say nothing about large prompts."""
    made = recommend(
        inferred(
            only_told("requests", "at_least", rate_per_min=480.0),
            only_told("concurrency", "at_least", limit=64.0),
            only_told("input_tokens", "at_least", rate_per_min=8000.0),
        )
    )
    assert (made.requests_per_minute, made.burst, made.max_concurrency) == (480.0, 1.0, 64)
    assert made.input_tokens_per_minute is None


def test_a_semaphore_keeps_the_rate_at_what_was_seen() -> None:
    """With places measured, a rate that was never refused is no ceiling of its own: C / E[L] passed."""
    made = recommend(
        inferred(
            only_told("requests", "at_least", rate_per_min=480.0),
            only_told("concurrency", "measured", limit=4.0),
        )
    )
    assert (made.requests_per_minute, made.burst, made.max_concurrency) == (None, None, 4)


def test_a_paced_client_gets_the_places_that_its_rate_needs() -> None:
    """Three were seen to pass; at one a second and two seconds for the slowest, as many may be in flight as that."""
    unmet = only_told("concurrency", "at_least", limit=3.0)
    assert recommend(inferred(met(SlidingLog(60, 60.0)), unmet)).max_concurrency == 3
    assert recommend(inferred(met(SlidingLog(600, 60.0)), unmet)).max_concurrency == math.ceil(597.3 / 60 * 2.0 + 3)
    assert recommend(inferred(unmet, latency=None)).max_concurrency == 3


def test_a_declared_limit_is_kept_though_nobody_saw_it() -> None:
    """Per minute as the strictest family of windows; per day as it is named."""
    made = recommend(
        inferred(
            only_told("requests", "declared", declared_limit=60.0),
            only_told("requests_per_day", "declared", declared_limit=1000.0),
            only_told("input_tokens", "declared", declared_limit=100_000.0),
            only_told("concurrency", "declared", declared_limit=9.0),
        )
    )
    assert made.requests_per_minute == pytest.approx(60.0, rel=1e-4)
    assert (made.requests_per_day, made.max_concurrency) == (1000.0, 9)
    assert made.input_tokens_per_minute == pytest.approx(95_000.0, rel=1e-4)


def test_refusals_that_no_quota_explains_give_no_number() -> None:
    """Only retries help against them: enough that all failing together is as rare as is accepted."""
    found = Identified(Limit(metric="requests", state="random"), ((1.0, Random(0.2)),))
    made = recommend(inferred(found, findings=(Finding(kind="random", value=0.2),)))
    assert (made.requests_per_minute, made.burst, made.warmup) == (None, None, None)
    assert 0.2**made.retry.attempts <= 0.001


def test_a_quota_of_zero_is_the_only_reason_for_a_rate_of_zero() -> None:
    """Some tiers have it."""
    assert recommend(inferred(met(SlidingLog(0, 60.0)))).requests_per_minute == 0.0


def test_concurrency_by_its_posterior() -> None:
    """A doubt of more than one per cent takes a place away."""
    found = Identified(
        Limit(metric="concurrency", state="measured", limit=8.0), ((0.95, Concurrency(8)), (0.05, Concurrency(7)))
    )
    assert recommend(inferred(found)).max_concurrency == 7
    assert recommend(inferred(met(Concurrency(8), "concurrency"))).max_concurrency == 8


def test_tokens_leave_room_for_a_whole_prompt() -> None:
    """Costs come whole: ``(N - k) / (W + J)``, k from the caller or a twentieth of the limit."""
    inference = inferred(met(SlidingLog(100_000, 60.0), "input_tokens"))
    assert recommend(inference).input_tokens_per_minute == pytest.approx(95_000, rel=1e-5)
    assert recommend(inference, largest_prompt_tokens=20_000).input_tokens_per_minute == pytest.approx(80_000, rel=1e-5)
    assert token_burst(inference) == 5000.0
    assert token_burst(inferred(met(SlidingLog(60, 60.0)))) is None


def test_instances_share_what_there_is() -> None:
    """Each gets its part of rate, concurrency and day; more instances than calls need a shared counter."""
    inference = inferred(
        met(FixedWindow(60, 60.0)),
        met(Concurrency(8), "concurrency"),
        only_told("requests_per_day", "declared", declared_limit=1000.0),
    )
    made = recommend(inference, instances=7)
    assert (made.requests_per_minute or 0.0) * 7 == pytest.approx(54.0, rel=1e-4)
    assert (made.max_concurrency, made.requests_per_day) == (1, 142.0)
    with pytest.raises(ValueError, match="9 instances are too many for this concurrency"):
        recommend(inference, instances=9)
    with pytest.raises(ValueError, match="61 instances are too many for this limit"):
        recommend(inferred(met(FixedWindow(60, 60.0))), instances=61)


def test_the_optimum_is_the_tightest_formula() -> None:
    """Paced one by one, on known limits; a semaphore by Little's law; nothing known, nothing bounded."""
    minute, places = SlidingLog(60, 60.0), Concurrency(3)
    assert optimum([("requests", minute)], spread_s=0.0) == pytest.approx(60.0, rel=1e-5)
    assert optimum([("requests", minute), ("concurrency", places)], spread_s=0.0, mean_latency_s=6.0) == 30.0
    assert optimum([("concurrency", places)], spread_s=0.0) == math.inf
    tokens = optimum([("input_tokens", SlidingLog(1000, 60.0))], spread_s=0.0, prompt_tokens=100.0)
    assert tokens == pytest.approx(9.0, rel=1e-5)


def test_what_was_found_bounds_what_is_reached() -> None:
    """The long-run rate, the best reachable rate and the memory of the likeliest limits."""
    inference = inferred(met(SlidingLog(120, 60.0)), met(Concurrency(3), "concurrency"), spread_s=1.0)
    assert sustained_found(inference) == 2.0
    assert optimum_found(inference, 0.0) == pytest.approx(120 / 61, rel=1e-5)
    assert longest_memory_s(inference) == 60.0
    assert sustained_found(inferred()) == optimum_found(inferred(), 0.0) == math.inf
    assert longest_memory_s(inferred()) == 0.0


def test_rounding_never_crosses_the_limit() -> None:
    """Six digits, always downwards."""
    for n in range(1, 200):
        spec = SlidingLog(n, 7.0)
        made = recommend(inferred(met(spec), spread_s=0.013))
        best = largest_rate_per_s(spec, made.burst or 1.0, spread_s=0.013) * 60.0
        assert 0.0 <= best - (made.requests_per_minute or 0.0) <= 2e-5 * best
