"""A limit on the rate that the verification is the first to meet: probing goes on from there, in virtual time."""

from __future__ import annotations

import pytest

from analysis.calls import Calls
from analysis.infer import infer, met_no_rate
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.calibration import Calibration, CalibrationOptions, calibrate
from redline.simulated import SimulatedTraffic

PLACES = 2
RATES = (limits.FixedWindow(60, 20.0), limits.AnchoredWindow(60, 20.0), limits.SlidingLog(60, 20.0))

Calibrated = tuple[str, Calibration, SimulatedTraffic]


@pytest.fixture(scope="module", params=RATES, ids=[rate.family for rate in RATES])
def calibrated(request: pytest.FixtureRequest) -> Calibrated:
    """Calibrate behind few places with so little patience that no push is long enough to meet the rate."""
    world = World(
        (VirtualLimit("concurrency", limits.Concurrency(PLACES)), VirtualLimit("requests", request.param)),
        Network(0.01, 0.004),
        Service(0.4, 0.2),
    )
    traffic = SimulatedTraffic(world, seed=2, max_requests=20_000)
    found = calibrate(traffic, CalibrationOptions(seed=2, patience_s=2.0))
    return request.param.family, found, traffic


def test_probing_had_not_met_it(calibrated: Calibrated) -> None:
    """Before the first verification there is nothing that a rate would have to explain."""
    assert met_no_rate(Calls.from_attempts(calibrated[2].attempts))


def test_it_is_measured_all_the_same(calibrated: Calibrated) -> None:
    """By more probes, and the settings that follow hold.

    So little patience may end it before a window on the clock is told from one that calls open.
    """
    family, found, _ = calibrated
    limit = found.inference.identified[0].limit
    assert (limit.metric, limit.state) == ("requests", "measured")
    assert family in {limit.family, *dict(limit.also_possible)}
    assert limit.rate_per_min == pytest.approx(180.0, rel=0.01)
    assert found.verification is not None
    assert found.verification.passed
    assert found.settings is not None
    assert 150.0 < (found.settings.requests_per_minute or 0.0) < 180.0


def test_the_record_alone_says_the_same(calibrated: Calibrated) -> None:
    """What `redline analyze` reads back tells what probing went on from."""
    _, found, traffic = calibrated
    again = infer(Calls.from_attempts(traffic.attempts)).identified[0].limit
    assert again.rate_per_min == pytest.approx(found.inference.identified[0].limit.rate_per_min, rel=0.001)


@pytest.mark.acceptance
def test_a_limit_of_many_calls_in_a_long_window_is_worth_the_wait() -> None:
    """It takes longer to meet than a minute's window does, though places in flight let in 150 calls a second."""
    world = World(
        (
            VirtualLimit("concurrency", limits.Concurrency(30)),
            VirtualLimit("requests", limits.AnchoredWindow(36_000, 300.0)),
        ),
        Network(0.01, 0.004),
        Service(0.2, 0.1),
    )
    found = calibrate(SimulatedTraffic(world, seed=2, max_requests=200_000), CalibrationOptions(seed=2))
    limit = found.inference.identified[0].limit
    assert (limit.metric, limit.state, limit.limit) == ("requests", "measured", 36_000)
