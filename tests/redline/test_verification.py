"""The recommended limiter drives itself in virtual time: right settings pass, wrong ones are lowered."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from analysis.estimate import Identified, Inference, Latency
from analysis.recommend import optimum, recommend
from analysis.result import Finding, Limit, Settings
from analysis.virtual import Faults, Network, Service, VirtualLimit, World
from mock_server.limits import (
    AnchoredWindow,
    Concurrency,
    FixedWindow,
    LeakyQueue,
    Random,
    SlidingCounter,
    SlidingLog,
    Spec,
    TokenBucket,
)
from redline.simulated import SimulatedTraffic
from redline.traffic import Attempt, Probe
from redline.verification import default_duration_s, pacing_for, rested_at_s, verify, verify_and_lower

SPREAD_S = 0.035
SERVICE = Service(median_s=0.4, sigma=0.3)


def metric_of(spec: Spec) -> str:
    """Return what a family limits in these tests."""
    return "concurrency" if isinstance(spec, Concurrency) else "requests"


def inferred(*specs: Spec, findings: tuple[Finding, ...] = ()) -> Inference:
    """Return an inference that knows these limits exactly."""
    identified = tuple(
        Identified(Limit(metric=metric_of(spec), state="measured", limit=getattr(spec, "limit", None)), ((1.0, spec),))
        for spec in specs
    )
    return Inference(identified, findings, SPREAD_S, Latency(0.42, SERVICE.mean_s + 0.055, 1.2, 500))


def world(*specs: Spec, faults: Faults | None = None) -> World:
    """Return a target with these limits."""
    limits = tuple(VirtualLimit(metric_of(spec), spec) for spec in specs)
    return World(limits, Network(0.01, SPREAD_S), SERVICE, faults or Faults())


RIGHT = [
    (FixedWindow(60, 60.0, 17.0),),
    (AnchoredWindow(37, 7.5),),
    (SlidingLog(600, 10.0),),
    (SlidingLog(20, 5.0, count_refused=True),),
    (SlidingCounter(3, 1.0),),
    (SlidingCounter(80, 12.0, 5.0),),
    (TokenBucket(10.0, 100.0),),
    (TokenBucket(2.0, 1.0),),
    (LeakyQueue(3.0, 12.0),),
    (FixedWindow(120, 6.0), Concurrency(4)),
    (SlidingLog(100, 20.0), SlidingLog(12, 1.0)),
]


@pytest.mark.parametrize("specs", RIGHT)
def test_right_settings_pass_without_a_refusal(specs: tuple[Spec, ...]) -> None:
    """Every family, several limits at once: no refusal, three windows, nearly all of the optimum."""
    inference = inferred(*specs)
    story = verify_and_lower(SimulatedTraffic(world(*specs), seed=5), inference, recommend(inference))
    seen = story.verification
    assert (len(story.tried), seen.throttled, seen.passed) == (1, 0, True)
    assert seen.window_edges >= 3
    assert 0.9 < (seen.share_of_optimum or 0.0) < 1.1


def test_a_server_that_probing_left_full_is_given_time_to_forget() -> None:
    """The rested start waits for what probing spent, and for no more."""
    spec = SlidingLog(30, 5.0)
    traffic = SimulatedTraffic(world(spec), seed=1)
    traffic.run(Probe("fill", [0.01 * k for k in range(60)]))
    inference = inferred(spec)
    seen = verify(traffic, inference, recommend(inference))
    assert (seen.throttled, seen.passed) == (0, True)
    first = next(a for a in traffic.attempts if a.phase == "verify-1-rested")
    admitted = [a.sent_s for a in traffic.attempts if a.phase == "fill" and a.outcome == "admitted"]
    assert first.sent_s == pytest.approx(max(admitted) + 5.0 + SPREAD_S)


def test_settings_that_are_too_high_are_lowered_until_they_hold() -> None:
    """The estimate said 66 where 60 pass: the story has both attempts, the second one clean."""
    inference = inferred(SlidingLog(66, 10.0))
    told: list[int] = []
    story = verify_and_lower(
        SimulatedTraffic(world(SlidingLog(60, 10.0)), seed=3),
        inference,
        recommend(inference),
        on_attempt=lambda attempt, _settings: told.append(attempt),
    )
    (before, failed), (after, passed) = story.tried
    assert told == [1, 2]
    assert (failed.passed, passed.passed, passed.attempts, passed.throttled) == (False, True, 2, 0)
    assert (after.requests_per_minute or 0.0) < 360.0 < (before.requests_per_minute or 0.0)
    assert after.warmup is not None
    assert after.warmup.start_rpm == pytest.approx((after.requests_per_minute or 0.0) / 10.0, rel=0.01)
    assert story.settings == after


def test_what_is_refused_again_is_lowered_by_more() -> None:
    """Four counters apart refuse a few in a thousand however little less is sent: no edge is near."""
    apart = World((VirtualLimit("requests", SlidingLog(150, 10.0), replicas=4),), Network(0.01, SPREAD_S), SERVICE)
    inference = inferred(SlidingLog(600, 10.0))
    story = verify_and_lower(SimulatedTraffic(apart, seed=1), inference, recommend(inference))
    rates = [settings.requests_per_minute or 0.0 for settings, _ in story.tried]
    assert len(rates) == 3
    assert rates[1] > 0.85 * rates[0]
    assert rates[2] <= 0.75 * rates[1]
    assert story.verification.passed


def test_lowering_ends_after_two_more_attempts() -> None:
    """A limit ten times lower than believed is not reached by small steps: the failure is reported."""
    inference = inferred(SlidingLog(600, 10.0))
    story = verify_and_lower(SimulatedTraffic(world(SlidingLog(6, 10.0)), seed=3), inference, recommend(inference))
    assert [seen.attempts for _, seen in story.tried] == [1, 2, 3]
    assert not story.verification.passed


def test_a_place_less_in_flight_where_the_semaphore_was_full() -> None:
    """The estimate said five places where there are four."""
    inference = inferred(FixedWindow(200, 5.0), Concurrency(5))
    story = verify_and_lower(
        SimulatedTraffic(world(FixedWindow(200, 5.0), Concurrency(4)), seed=3), inference, recommend(inference)
    )
    assert story.verification.passed
    assert story.settings.max_concurrency == 4


def test_a_rate_that_was_never_met_is_pushed_for_a_minute() -> None:
    """The semaphore alone holds the client; a limit that probing missed shows, and what passes becomes the rate."""
    unmet = Identified(Limit(metric="requests", state="at_least", rate_per_min=200.0))
    places = Identified(Limit(metric="concurrency", state="measured", limit=3.0))
    inference = Inference((unmet, places), (), SPREAD_S, Latency(0.42, 0.5, 1.2, 500))
    settings = recommend(inference)
    assert (settings.requests_per_minute, settings.max_concurrency) == (None, 3)
    free = verify_and_lower(SimulatedTraffic(world(Concurrency(3)), seed=1), inference, settings)
    assert (len(free.tried), free.verification.throttled, free.verification.passed) == (1, 0, True)
    assert free.verification.share_of_limit == pytest.approx(1.0, abs=0.1)
    bound = verify_and_lower(
        SimulatedTraffic(world(Concurrency(3), TokenBucket(4.0, 40.0)), seed=1), inference, settings
    )
    assert bound.tried[0][1].throttled > 0
    assert (bound.settings.requests_per_minute or math.inf) < 60.0 * 5.0


REQUESTS = SlidingLog(120, 10.0)


def places_unmet(seen: float, p999_s: float) -> Inference:
    """Return an inference that knows the rate, and of calls in flight only how many were seen to pass."""
    found = (
        Identified(Limit(metric="requests", state="measured"), ((1.0, REQUESTS),)),
        Identified(Limit(metric="concurrency", state="at_least", limit=seen)),
    )
    return Inference(found, (), SPREAD_S, Latency(0.42, 0.5, p999_s, 500))


def test_places_that_were_never_met_are_proven_by_the_verification() -> None:
    """Two in flight were seen to pass, the rate needs eight: they pass, or settings go back to what passed."""
    inference = places_unmet(2.0, 0.55)
    settings = recommend(inference)
    assert settings.max_concurrency == 8
    free = verify_and_lower(SimulatedTraffic(world(REQUESTS), seed=1), inference, settings)
    assert (free.settings, free.verification.passed) == (settings, True)
    bound = verify_and_lower(SimulatedTraffic(world(REQUESTS, Concurrency(4)), seed=1), inference, settings)
    assert bound.tried[0][1].throttled > 0
    assert (bound.settings.max_concurrency, bound.verification.passed) == (4, True)


def test_settings_keep_to_the_places_that_were_seen_to_pass() -> None:
    """At worst the rate would need fifteen; a verification that was not refused never had so many in flight."""
    inference = places_unmet(2.0, 1.1)
    settings = recommend(inference)
    assert settings.max_concurrency == 15
    story = verify_and_lower(SimulatedTraffic(world(REQUESTS), seed=1), inference, settings)
    assert story.verification.throttled == 0
    assert 6 <= (story.settings.max_concurrency or 0) <= 9
    again = verify(SimulatedTraffic(world(REQUESTS), seed=2), inference, story.settings)
    assert again.goodput_per_min > 0.98 * story.verification.goodput_per_min
    more = verify_and_lower(SimulatedTraffic(world(REQUESTS), seed=1), places_unmet(12.0, 1.1), settings)
    assert more.settings.max_concurrency == 12


def test_a_verification_that_is_too_short_fails_but_lowers_nothing() -> None:
    """The length is the user's; two windows prove no three."""
    inference = inferred(SlidingLog(60, 10.0))
    story = verify_and_lower(
        SimulatedTraffic(world(SlidingLog(60, 10.0))), inference, recommend(inference), verify_for_s=20.0
    )
    assert (len(story.tried), story.verification.passed, story.verification.throttled) == (1, False, 0)


def test_other_failures_are_no_refusals() -> None:
    """Five per cent of 503: goodput is less, the verdict the same."""
    spec = TokenBucket(10.0, 20.0)
    inference = inferred(spec)
    seen = verify(SimulatedTraffic(world(spec, faults=Faults(0.05)), seed=2), inference, recommend(inference))
    assert (seen.throttled, seen.passed) == (0, True)
    assert (seen.share_of_optimum or 1.0) < 0.99


def test_random_refusals_pass_with_their_own_share() -> None:
    """No limiter avoids them."""
    spec = Random(0.1)
    inference = inferred(spec, findings=(Finding(kind="random", value=0.1, ci95=(0.06, 0.15)),))
    seen = verify(SimulatedTraffic(world(spec), seed=2), inference, recommend(inference))
    assert seen.throttled > 0
    assert seen.passed


def test_a_semaphore_alone_is_kept_full() -> None:
    """Only concurrency is known: C / E[L] flows."""
    spec = Concurrency(3)
    inference = inferred(spec)
    seen = verify(SimulatedTraffic(world(spec), seed=2), inference, recommend(inference))
    assert (seen.throttled, seen.passed) == (0, True)
    assert seen.share_of_limit == pytest.approx(1.0, abs=0.15)


def test_tokens_and_requests_bind_at_once() -> None:
    """Prompts have the size at which both limits are at their edge, and neither refuses."""
    requests, tokens = SlidingLog(60, 10.0), SlidingLog(6000, 10.0)
    found = (
        Identified(Limit(metric="requests", state="measured"), ((1.0, requests),)),
        Identified(Limit(metric="input_tokens", state="measured"), ((1.0, tokens),)),
    )
    inference = Inference(found, (), SPREAD_S, Latency(0.42, 0.5, 1.2, 500))
    settings = recommend(inference)
    pacing = pacing_for(settings, inference, 10.0, "verify-1-rested")
    assert (pacing.prompt_tokens, pacing.token_burst) == (94, 300.0)  # 5700 tokens for 60 calls, rounded down
    limits = (VirtualLimit("requests", requests), VirtualLimit("input_tokens", tokens))
    traffic = SimulatedTraffic(World(limits, Network(0.01, SPREAD_S), SERVICE), seed=4)
    seen = verify(traffic, inference, settings)
    assert (seen.throttled, seen.passed) == (0, True)
    best = optimum(
        [("requests", requests), ("input_tokens", tokens)], spread_s=SPREAD_S, prompt_tokens=pacing.prompt_tokens
    )
    assert seen.goodput_per_min == pytest.approx(best, rel=0.05)


def test_the_limiter_is_what_the_settings_say() -> None:
    """Rate per second, burst offered at once, more offered than passes."""
    inference = inferred(TokenBucket(2.0, 40.0), Concurrency(7))
    settings = recommend(inference)
    pacing = pacing_for(settings, inference, 30.0, "verify-1-full", 12.0)
    assert pacing.rate_per_s == pytest.approx((settings.requests_per_minute or 0.0) / 60.0)
    assert (pacing.burst, pacing.max_concurrency, pacing.start_s) == (settings.burst, 7, 12.0)
    assert pacing.offered_per_s > (pacing.rate_per_s or 0.0) + (pacing.burst - 1.0)


@pytest.mark.parametrize(
    ("specs", "least_s"),
    [
        ((SlidingLog(60, 60.0),), 180.0),
        ((SlidingLog(9, 1.0),), 90.0),
        ((SlidingLog(9, 6.2),), 20.0),
        ((Concurrency(3),), 20.0),
        ((), 20.0),
    ],
)
def test_the_length_follows_from_the_longest_window(specs: tuple[Spec, ...], least_s: float) -> None:
    """Three windows, at least twenty seconds; with a very short window what meets a limit per minute; little more."""
    assert least_s <= default_duration_s(inferred(*specs)) <= 1.06 * least_s


@pytest.mark.parametrize(
    ("spec", "forgotten_s"),
    [
        (SlidingLog(5, 8.0), 3.0 + 8.0),
        (SlidingLog(5, 8.0, count_refused=True), 4.0 + 8.0),
        (SlidingCounter(5, 8.0), 3.0 + 16.0),
        (TokenBucket(2.0, 9.0), 3.5),
        (TokenBucket(0.5, 2.0, count_refused=True), 10.0),  # five calls of two seconds each
        (Concurrency(2), 3.0),
    ],
)
def test_when_a_limit_has_forgotten(spec: Spec, forgotten_s: float) -> None:
    """Admitted calls at 0, 1, 2 and 3 s, a refused one at 4 s."""
    attempts = [Attempt(k, "fill", float(k), float(k), done_s=k + 0.1, status=200 if k < 4 else 429) for k in range(5)]
    assert rested_at_s(attempts, inferred(spec)) == pytest.approx(forgotten_s + SPREAD_S)


def test_nothing_sent_needs_no_rest() -> None:
    """At once."""
    assert rested_at_s([], inferred(SlidingLog(5, 8.0))) == -math.inf


def test_large_steps_where_nothing_explains_the_refusals() -> None:
    """A record in doubt says nothing of how far to go down: a quarter of the rate is tried next."""
    doubt = Identified(Limit(metric="requests", state="unresolved"), ((1.0, SlidingLog(600, 10.0)),))
    inference = Inference((doubt,), (), SPREAD_S, Latency(0.42, 0.5, 1.2, 500))
    story = verify_and_lower(SimulatedTraffic(world(SlidingLog(100, 10.0)), seed=3), inference, recommend(inference))
    rates = [settings.requests_per_minute or 0.0 for settings, _ in story.tried]
    assert rates[1] == pytest.approx(rates[0] / 4.0, rel=0.01)
    assert story.verification.throttled < 0.3 * story.tried[0][1].throttled


def test_what_the_whole_record_recommends_is_never_exceeded() -> None:
    """After a failure the lower of the two is tried: the step down, or what the record says with it."""
    inference = inferred(SlidingLog(66, 10.0))
    asked: list[int] = []

    def rethink() -> Settings:
        asked.append(1)
        return recommend(inferred(SlidingLog(20, 10.0)))

    story = verify_and_lower(
        SimulatedTraffic(world(SlidingLog(60, 10.0)), seed=3), inference, recommend(inference), rethink=rethink
    )
    assert len(asked) == 1
    assert (story.settings.requests_per_minute or 0.0) <= 120.0


def test_a_slow_limiter_is_watched_for_longer() -> None:
    """A call in four seconds: a hundred of them would take too long, the handful of twenty seconds is too few."""
    inference = inferred(TokenBucket(0.25, 1.0))
    traffic = SimulatedTraffic(world(TokenBucket(0.25, 1.0)), seed=3)
    assert verify(traffic, inference, recommend(inference)).offered > 20


def test_beside_others_three_hundred_calls_are_watched() -> None:
    """What they use is known roughly, and a share of refusals that matters may not show in a hundred."""
    inference = inferred(SlidingLog(20, 10.0))
    told = replace(inference, findings=(Finding(kind="background", value=0.1),))
    alone, beside = (
        verify(SimulatedTraffic(world(SlidingLog(20, 10.0)), seed=3), each, recommend(inference)).offered
        for each in (inference, told)
    )
    assert 90 < alone < 140
    assert 280 < beside < 340
