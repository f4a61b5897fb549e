"""What is left beside other clients, or on replicas that count apart, holds in a world that has them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from analysis.recommend_rates import capacity, largest_rate_per_s, sustained_rate_per_s
from analysis.recommend_shared import Others, left_for_us
from analysis.result import Finding
from analysis.virtual import Background, Call, Network, VirtualLimit, VirtualTarget, World
from mock_server.limits import Concurrency, FixedWindow, LeakyQueue, Random, SlidingCounter, SlidingLog, TokenBucket

if TYPE_CHECKING:
    from mock_server.limits import Spec

SPREAD_S = 0.05
ACCEPTED = 0.001


def throttled_share(world: World, rate_per_s: float, calls: int = 6000) -> float:
    """Pace calls one by one through a world; return the share that was refused."""
    target = VirtualTarget(world, np.random.default_rng(7))
    refused = 0
    for index in range(calls):
        sent_s = index / rate_per_s
        while (answer := target.step(sent_s)) is not None:
            refused += answer.status == 429
        target.send(Call(index, math.inf), sent_s)
    return refused / calls


def paced(spec: Spec, others: Others) -> float:
    """Return the rate of a client that keeps to what is left."""
    left = left_for_us(spec, others, spread_s=SPREAD_S, refused_share=ACCEPTED)
    return largest_rate_per_s(left, 1.0, spread_s=SPREAD_S)


@pytest.mark.parametrize(
    "spec",
    [FixedWindow(60, 10.0, 3.3), SlidingLog(60, 10.0), SlidingCounter(60, 10.0), TokenBucket(6.0, 30.0)],
)
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_settings_hold_beside_other_clients(spec: Spec, share: float) -> None:
    """Steady Poisson background: no more refused than is accepted, and more than half of the rest is used."""
    background = Background(calls_per_s=share * sustained_rate_per_s(spec))
    world = World((VirtualLimit("requests", spec),), Network(0.01, SPREAD_S), background=background)
    rate_per_s = paced(spec, Others(background=share))
    assert throttled_share(world, rate_per_s) <= ACCEPTED
    assert rate_per_s > 0.5 * (1.0 - share) * sustained_rate_per_s(spec)


@pytest.mark.parametrize("spec", [FixedWindow(240, 10.0), SlidingLog(240, 10.0), TokenBucket(24.0, 120.0)])
@pytest.mark.parametrize("replicas", [2, 5])
def test_settings_hold_on_replicas_that_count_apart(spec: Spec, replicas: int) -> None:
    """Random routing over R places, each with its share of the limit."""
    if isinstance(spec, TokenBucket):
        each: Spec = TokenBucket(spec.rate_per_s / replicas, spec.burst / replicas)
    else:
        each = type(spec)(capacity(spec) / replicas, 10.0)
    world = World((VirtualLimit("requests", each, replicas=replicas),), Network(0.01, SPREAD_S))
    rate_per_s = paced(spec, Others(replicas=replicas))
    assert throttled_share(world, rate_per_s) <= ACCEPTED
    assert rate_per_s > 0.3 * sustained_rate_per_s(spec)


def test_replicas_follow_the_binomial() -> None:
    """The most calls in a window at which N/R others are met on one's own replica rarely enough; one more is not."""
    left = left_for_us(SlidingLog(120, 60.0), Others(replicas=4), spread_s=0.0, refused_share=0.001)
    most = round(capacity(left))
    assert stats.binom.sf(29, most - 1, 0.25) <= 0.001 < stats.binom.sf(29, most, 0.25)


def test_what_is_left_never_reaches_zero() -> None:
    """Small limits that others fill: slow, and sure to be refused at times, but not silent."""
    for spec in (FixedWindow(3, 10.0), SlidingLog(1, 10.0), SlidingCounter(2, 10.0), TokenBucket(2.0, 1.0)):
        for others in (Others(background=0.9), Others(replicas=8), Others(background=0.5, replicas=3)):
            assert paced(spec, others) > 0.0


@pytest.mark.parametrize("spec", [Random(0.1), FixedWindow(1000, calendar="pacific_day")])
def test_what_is_no_rate_stays_as_it_is(spec: Spec) -> None:
    """Nothing to subtract from."""
    others = Others(background=0.2, replicas=3)
    assert left_for_us(spec, others, spread_s=0.0, refused_share=0.001) == spec


def test_a_share_of_zero_stands_for_once_in_a_million() -> None:
    """A random world has no zero; the quantile stays finite."""
    left = left_for_us(LeakyQueue(5.0, 40.0), Others(background=0.2), spread_s=0.0, refused_share=0.0)
    assert 0.0 < sustained_rate_per_s(left) < 4.0


def test_concurrency_on_replicas() -> None:
    """Places are routed at random as calls are."""
    left = left_for_us(Concurrency(40), Others(replicas=2), spread_s=0.0, refused_share=0.001)
    assert 20 < capacity(left) < 40


def test_findings_are_read_at_their_upper_end() -> None:
    """The interval's end where there is one, else the value; what was not quantified counts as absent."""
    findings = (
        Finding(kind="background", value=0.2, ci95=(0.1, 0.3)),
        Finding(kind="replicas", value=4.0),
        Finding(kind="drift", value=0.5),
    )
    assert Others.among(findings) == Others(0.3, 4)
    assert Others.among((Finding(kind="background", value=None),)) == Others()


def test_a_small_bucket_on_replicas_keeps_the_rate_of_one() -> None:
    """Eight buckets of one call each: what one of them admits alone is never refused, so it is the least."""
    left = left_for_us(TokenBucket(1.0, 8.0), Others(replicas=8), spread_s=0.01, refused_share=0.0001)
    assert left == TokenBucket(1.0 / 8.0, 1.0)
