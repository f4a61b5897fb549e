"""A limit of one call is measured by pairs of calls of which the second may just pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis import decisions
from analysis.calls import Calls
from analysis.decisions import PAIRED
from analysis.fit import fit
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.calibration import CalibrationOptions, calibrate
from redline.simulated import SimulatedTraffic

SIX_A_SECOND = World((VirtualLimit("requests", limits.TokenBucket(6.0, 1)),), Network(0.04, 0.045), Service(0.9, 0.1))


@pytest.fixture(scope="module")
def traffic() -> SimulatedTraffic:
    """Calibrate one call in a sixth of a second, where delays vary by a quarter of that."""
    traffic = SimulatedTraffic(SIX_A_SECOND, seed=2)
    found = calibrate(traffic, CalibrationOptions(seed=2, verify=False)).inference.identified[0].limit
    assert found.burst == 1
    assert found.rate_per_min == pytest.approx(360.0, rel=0.03)
    low, high = found.rate_per_min_ci95 or (0.0, np.inf)
    assert low <= 360.0 <= high < 1.15 * low
    return traffic


def test_the_first_of_each_pair_passes_and_the_second_may(traffic: SimulatedTraffic) -> None:
    """About half of the second ones: these decide most."""
    pairs = [a for a in traffic.attempts if a.phase == PAIRED]
    first, second = pairs[::2], pairs[1::2]
    assert len(pairs) >= 60
    assert np.mean([a.status != 429 for a in first]) > 0.95
    assert 0.25 < np.mean([a.status == 429 for a in second]) < 0.75


def test_each_call_of_a_pair_is_a_case_of_its_own(traffic: SimulatedTraffic) -> None:
    """Where the calls between two refusals were excused together, the limit would come out too low."""
    calls = Calls.from_attempts(traffic.attempts)
    plain = replace(calls, phase=("fill",) * len(calls))
    alone, together = (decisions.prepare(c, fit(c).offsets_s).episodes for c in (calls, plain))
    assert set(together) <= set(alone)
    assert len(alone) > 1.3 * len(together)
    assert fit(calls).hypotheses != fit(plain).hypotheses


@pytest.mark.acceptance
def test_its_interval_holds_the_truth_whatever_the_chance() -> None:
    """As often as it should, but for one."""
    held = 0
    for seed in range(1, 9):
        found = calibrate(SimulatedTraffic(SIX_A_SECOND, seed=seed), CalibrationOptions(seed=seed, verify=False))
        low, high = found.inference.identified[0].limit.rate_per_min_ci95 or (0.0, np.inf)
        held += low <= 360.0 <= high
    assert held >= 7
