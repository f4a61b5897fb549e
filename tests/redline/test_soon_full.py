"""A bucket that fills up in seconds is probed until its rate is narrow: more cycles of it are cheap."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.calibration import CalibrationOptions, calibrate
from redline.simulated import SimulatedTraffic

RATE_PER_MIN = 1314.0
FULL_IN_FOUR_SECONDS = World(
    (VirtualLimit("requests", limits.TokenBucket(RATE_PER_MIN / 60.0, 92)),), Network(0.15, 0.35), Service(1.3, 0.3)
)


@pytest.fixture(scope="module")
def told() -> np.ndarray:
    """Probe it with five draws of chance: rate, low and high end of its interval, (draws, 3), in its true rate."""
    rows = []
    for seed in range(1, 6):
        traffic = SimulatedTraffic(FULL_IN_FOUR_SECONDS, seed=seed)
        found = calibrate(traffic, CalibrationOptions(seed=seed, verify=False)).inference.identified[0].limit
        rows.append((found.rate_per_min or np.nan, *(found.rate_per_min_ci95 or (0.0, np.inf))))
    return np.array(rows) / RATE_PER_MIN


def test_its_rate_is_told_within_a_hundredth(told: np.ndarray) -> None:
    """In all but one draw: with ten cycles it was in two of five."""
    assert np.sum(np.abs(told[:, 0] - 1.0) < 0.01) >= 4


def test_its_interval_is_narrow_and_holds_the_truth(told: np.ndarray) -> None:
    """In all but one draw."""
    assert np.sum((told[:, 1] <= 1.0) & (told[:, 2] >= 1.0)) >= 4
    assert np.median(told[:, 2] - told[:, 1]) < 0.05


@pytest.mark.parametrize("seed", [7, 10])
def test_what_it_leaves_over_of_its_own_answers_is_no_finding(seed: int) -> None:
    """Delays of an eighth of what it remembers contradict it as much as others on the quota would."""
    traffic = SimulatedTraffic(FULL_IN_FOUR_SECONDS, seed=seed)
    said = calibrate(traffic, CalibrationOptions(seed=seed, verify=False)).inference
    assert not {finding.kind for finding in said.findings} & {"background", "replicas", "drift"}
    assert said.identified[0].limit.family == "token_bucket"
