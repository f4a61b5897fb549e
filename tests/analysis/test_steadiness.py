"""What a record's beginning says of a limit that moves later."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from analysis import steadiness
from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.fit import Fit, fit
from analysis.rates import rate_interval
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.calibration import CalibrationOptions, calibrate
from redline.simulated import SimulatedTraffic

SIZE, PER_S, LASTS_S = 13.0, 2.7, 60.0


def bucket_record(seed: int) -> Calls:
    """Return what a bucket answers to bursts at random moments."""
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0.0, LASTS_S, 24)
    at = np.sort(np.concatenate([[0.0, LASTS_S], *(t + rng.exponential(0.05, 15).cumsum() for t in starts)]))
    limiter = limits.TokenBucket(PER_S, SIZE).limiter()
    outcome = []
    for t in at.tolist():
        admitted = limiter.check(t).admitted
        if admitted:
            limiter.commit(t)
        outcome.append(ADMITTED if admitted else REFUSED)
    n, nothing = len(at), np.full(len(at), np.nan)
    return Calls(at, at + 0.1, np.array(outcome), np.ones(n), nothing, nothing, nothing, ("",) * n, ("",) * n)


@pytest.mark.parametrize("seed", range(4))
def test_a_bucket_that_stands_still_has_not_moved(seed: int) -> None:
    """Nor is its interval much wider for what its beginning allows."""
    fitted = fit(bucket_record(seed))
    assert not steadiness.moved(fitted)
    low, high = steadiness.with_beginning(fitted, rate_interval(fitted))
    assert low <= PER_S <= high
    assert high - low <= 2.01 * steadiness.REACH * PER_S


@pytest.mark.parametrize(("seed", "share"), [(5, 0.11), (7, 0.11), (5, -0.2), (5, 0.3), (7, 0.3)])
def test_a_bucket_that_has_begun_to_move_is_told_with_the_rate_it_had(seed: int, share: float) -> None:
    """A change of a little contradicts no answer yet, but left the interval just beside the rate before it."""
    slide = tuple((25.0 + 0.5 * k, limits.TokenBucket(PER_S * (1.0 + share * k / 20), SIZE)) for k in range(1, 21))
    world = World(
        (VirtualLimit("requests", limits.TokenBucket(PER_S, SIZE), changes=slide),),
        Network(0.045, 0.066),
        Service(0.53),
    )
    found = calibrate(SimulatedTraffic(world, seed=seed), CalibrationOptions(seed=seed, verify=False))
    limit = found.inference.identified[0].limit
    assert 25.0 < found.probed_s < 60.0
    assert limit.state == "measured"
    assert limit.rate_per_min_ci95 is not None
    low, high = limit.rate_per_min_ci95
    assert low <= 60.0 * PER_S <= high
    assert high - low < 0.05 * 60.0 * PER_S


def test_a_rate_that_the_beginning_contradicts_has_moved(steady: Fit) -> None:
    """A bent answer is one that nothing contradicts, and that its own beginning does not bear out."""
    best = steady.hypotheses[0]
    for factor, moved in ((1.0, False), (1.1, True), (0.9, True)):
        bent = replace(steady, hypotheses=(msgspec.structs.replace(best, rate_per_s=factor * best.rate_per_s),))
        assert steadiness.moved(bent) is moved


def test_what_says_nothing_contradicts_nothing() -> None:
    """Too few calls, or none refused: any rate may be."""
    at = np.arange(5.0)
    nothing = np.full(5, np.nan)
    calls = Calls(at, at + 0.1, np.full(5, ADMITTED), np.ones(5), nothing, nothing, nothing, ("",) * 5, ("",) * 5)
    fitted = fit(calls)
    assert not steadiness.moved(fitted)
    assert steadiness.with_beginning(fitted, (0.5, 2.0)) == (0.5, 2.0)


@pytest.fixture
def steady() -> Fit:
    """Fit a record of a bucket that stands still."""
    return fit(bucket_record(1))
