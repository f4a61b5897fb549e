"""What passes while more is sent than a limit lets in is its rate, less what others may have got."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.calls import Calls
from analysis.saturation import OTHERS, SATURATED, SATURATING, Saturation, saturation, without_saturation
from analysis.virtual import Background, Network, Service, VirtualLimit, World
from mock_server import limits
from redline import probing
from redline.simulated import SimulatedTraffic

SPECS = [
    limits.FixedWindow(30, 10.0, 3.0),
    limits.AnchoredWindow(30, 10.0),
    limits.SlidingLog(30, 10.0),
    limits.SlidingCounter(30, 10.0, 3.0),
    limits.TokenBucket(3.0, 20.0),
    limits.TokenBucket(3.0, 1.0),
]


def told(world: World, *, pace_per_s: float, lasts_s: float = 60.0, settles_s: float = 15.0) -> Saturation | None:
    """Keep a limit full at an even pace, of which half is enough at first."""
    traffic = SimulatedTraffic(world, seed=1, max_requests=100_000)
    for phase, so_long_s, pace in ((SATURATING, settles_s, 0.5 * pace_per_s), (SATURATED, lasts_s, pace_per_s)):
        offsets_s = np.arange(so_long_s * pace) / pace
        traffic.run(probing.at_times(phase, tuple(offsets_s.tolist()), stop_refused=None))
        traffic.sleep_until(traffic.now_s() + 1.0 / pace_per_s)
    traffic.sleep_until(traffic.now_s() + 30.0)
    return saturation(Calls.from_attempts(traffic.attempts))


def world_of(spec: limits.Spec, background: Background | None = None, **limits_: int) -> World:
    """Return a world of one limit, with places where they are given."""
    extra = tuple(VirtualLimit("concurrency", limits.Concurrency(c)) for c in limits_.values())
    return World(
        (VirtualLimit("requests", spec), *extra), Network(0.02, 0.02), Service(0.3, 0.3), background=background
    )


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{type(spec).__name__}-{getattr(spec, 'burst', '')}")
@pytest.mark.parametrize("others", [None, Background(0.9), Background(0.9, group=6)], ids=["alone", "steady", "bursts"])
def test_the_rate_lies_between(spec: limits.Spec, others: Background | None) -> None:
    """Three a second, whatever the family and whoever else calls."""
    found = told(world_of(spec, others), pace_per_s=24.0)
    assert found is not None
    kept_back = 30.0 / 29.0 if isinstance(spec, limits.SlidingCounter) else 1.0
    assert found.low <= 3.0 <= kept_back * found.high
    assert found.high / found.low < 1.35
    assert found.rate_per_s == pytest.approx(3.0, rel=0.12)


def test_slower_is_wider() -> None:
    """At twice the rate others may have got a fifth of what they use of it; at eight times hardly anything."""
    slow, fast = (told(world_of(SPECS[4]), pace_per_s=pace) for pace in (6.0, 24.0))
    assert slow is not None
    assert fast is not None
    assert slow.high / slow.low > fast.high / fast.low
    assert slow.high / slow.low > 1.0 / (1.0 - 0.4 * OTHERS)


def test_nothing_is_told_of_a_limit_that_was_not_full() -> None:
    """Below its rate, or for less than a window."""
    assert told(world_of(SPECS[0]), pace_per_s=2.0) is None
    assert told(world_of(limits.FixedWindow(30, 100.0)), pace_per_s=24.0, lasts_s=20.0) is None


@pytest.mark.parametrize("places", [2, 40])
def test_calls_in_flight_are_no_rate(places: int) -> None:
    """Each call takes three tenths of a second: what passes is what leaves."""
    spec = limits.TokenBucket(1000.0, 1000.0)
    assert told(world_of(spec, c=places), pace_per_s=4.0 * places / 0.3, lasts_s=20.0, settles_s=3.0) is None


def test_the_rest_of_a_record_is_left() -> None:
    """What was sent for other reasons says when the limit counts what."""
    traffic = SimulatedTraffic(world_of(SPECS[0]), seed=1)
    for phase in ("fill", SATURATING, "watch", SATURATED):
        traffic.run(probing.burst(phase, 3, rate_per_s=10.0))
    assert without_saturation(Calls.from_attempts(traffic.attempts)).phase == ("fill",) * 3 + ("watch",) * 3


def test_calls_of_one_moment_tell_nothing() -> None:
    """As in a table whose times are coarse."""
    traffic = SimulatedTraffic(world_of(SPECS[0]), seed=1)
    traffic.run(probing.burst(SATURATED, 60, rate_per_s=100.0))
    for attempt in traffic.attempts:
        attempt.sent_s = 1.0
    assert saturation(Calls.from_attempts(traffic.attempts)) is None


def test_steady_calls_in_flight_are_no_limit_on_them() -> None:
    """A bucket lets them in one by one and answers take equally long, so that as many are in flight all the time."""
    world = World((VirtualLimit("requests", limits.TokenBucket(29.0, 23.0)),), Network(0.02, 0.02), Service(3.4, 0.1))
    found = told(world, pace_per_s=90.0)
    assert found is not None
    assert found.low <= 29.0 <= found.high


def test_nothing_is_told_where_refused_calls_count() -> None:
    """The more is sent, the less passes: behind seven counters a little does, and it is not their rate."""
    spec = limits.SlidingLog(1, 1.0, count_refused=True)
    assert told(World((VirtualLimit("requests", spec, replicas=7),), Network(0.02, 0.02)), pace_per_s=28.0) is None
