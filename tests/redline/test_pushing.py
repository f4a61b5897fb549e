"""A rate limit above what calls in flight let through, as the client sees them: met by pushing past them."""

from __future__ import annotations

import pytest

from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.calibration import CalibrationOptions, calibrate
from redline.pushing import Pace, needed
from redline.simulated import SimulatedTraffic
from redline.traffic import Attempt


def test_a_rate_limit_behind_a_long_way_is_found() -> None:
    """Three places, 20 ms of work and 80 ms of way: a closed loop reaches 1 800 a minute, the limit is at 3 360."""
    rate = VirtualLimit("requests", limits.FixedWindow(560, 10.0))
    world = World((rate, VirtualLimit("concurrency", limits.Concurrency(3))), Network(0.025, 0.03), Service(0.02, 0.12))
    traffic = SimulatedTraffic(world, seed=6, max_requests=100_000)
    found = calibrate(traffic, CalibrationOptions(seed=6, verify=False)).inference.identified
    assert (found[0].limit.state, found[0].limit.limit) == ("measured", 560)
    assert found[1].limit.limit == 3


@pytest.mark.parametrize(
    ("work_s", "rate_per_s", "expected"), [(0.02, None, True), (0.02, 1.0, False), (0.5, None, False)]
)
def test_is_needed_only_where_the_way_is_long(work_s: float, rate_per_s: float | None, *, expected: bool) -> None:
    """Where a call is mostly work, or the rate is met anyway, nobody is pushed."""
    refused = Attempt(0, "fill", 0.0, 0.0, done_s=0.08, status=429)
    passed = Attempt(1, "fill", 0.0, 0.0, done_s=0.08 + work_s, status=200)
    assert needed(Pace.of([refused, passed]), 3, rate_per_s) is expected


def test_nothing_is_known_before_there_were_answers() -> None:
    """No answer, no pace, no push."""
    assert Pace.of([]) is None
    assert not needed(None, 3, None)
