"""What a server says when it refuses: told beside what was measured, checked, and never believed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis import wording
from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.infer import infer
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.calibration import Calibration, CalibrationOptions, calibrate
from redline.simulated import SimulatedTraffic

PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel"


def calibrated(*more: VirtualLimit, named: float = 120.0) -> tuple[Calibration, SimulatedTraffic]:
    """Calibrate a target that allows 120 requests a minute and names a value in its refusals."""
    minute = VirtualLimit("requests", limits.FixedWindow(20, 10.0), quota_id=PER_MINUTE, quota_value=named)
    world = World((minute, *more), Network(0.01, 0.01), Service(0.4, 0.2))
    traffic = SimulatedTraffic(world, seed=1, max_requests=20_000)
    return calibrate(traffic, CalibrationOptions(seed=1)), traffic


@pytest.mark.parametrize(("named", "said"), [(120.0, "which agrees"), (77.0, "which is not what it enforces")])
def test_the_value_that_is_named_is_told_beside_the_measured_one(named: float, said: str) -> None:
    """It changes nothing: what is measured is what the server does."""
    limit = calibrated(named=named)[0].inference.identified[0].limit
    assert (limit.rate_per_min, limit.declared_limit) == (120.0, named)
    assert said in wording.explanation(limit)


def test_a_quota_of_the_day_is_declared_and_spoils_nothing() -> None:
    """Probing ends where the day is used up; the limit per minute is what it was, and the record alone says so too."""
    day = VirtualLimit("requests", limits.FixedWindow(150, 86_400.0), quota_id=PER_DAY, quota_value=150)
    found, traffic = calibrated(day)
    told = {x.limit.metric: x.limit for x in found.inference.identified}
    assert found.ended == "budget"
    assert (told["requests"].state, told["requests"].rate_per_min) == ("measured", 120.0)
    assert (told["requests_per_day"].state, told["requests_per_day"].limit) == ("declared", 150.0)
    assert found.settings is not None
    assert found.settings.requests_per_day == 150.0
    assert (found.settings.requests_per_minute or 0.0) > 115.0
    again = infer(Calls.from_attempts(traffic.attempts))
    assert {x.limit.metric for x in again.identified} == set(told)
    assert sum(a.quota_id == PER_DAY for a in traffic.attempts) < 40


def blocks(promised_s: float, lasted_s: float, many: int) -> Calls:
    """Return blocks in which each refusal names a wait, and calls pass again after another one."""
    sent, outcome, named = [], [], []
    for k in range(many):
        start = 100.0 * k
        for t in np.arange(0.0, lasted_s + 1.0, 1.0):
            passed = t >= lasted_s
            sent.append(start + t)
            outcome.append(ADMITTED if passed else REFUSED)
            named.append(math.nan if passed else promised_s - t)
    n = len(sent)
    nothing = np.full(n, np.nan)
    at = np.array(sent)
    return Calls(at, at + 0.1, np.array(outcome), np.ones(n), nothing, np.array(named), nothing, ("",) * n, ("",) * n)


@pytest.mark.parametrize(("promised_s", "kept"), [(20.0, 1.0), (30.0, 1.0), (10.0, 0.0)])
def test_a_wait_is_kept_if_calls_passed_after_it(promised_s: float, kept: float) -> None:
    """One vote for each of eight recoveries after twenty seconds."""
    (finding,) = [f for f in infer(blocks(promised_s, 20.0, 8)).findings if f.kind == "retry_delay"]
    assert finding.value == kept
    assert finding.ci95 is not None
    assert (finding.ci95[0] > 0.5) == (kept == 1.0)


def test_no_wait_named_is_no_finding() -> None:
    """Neither is one that was named before a recovery or two."""
    assert not [f for f in infer(blocks(math.nan, 20.0, 8)).findings if f.kind == "retry_delay"]
    assert not [f for f in infer(blocks(20.0, 20.0, 2)).findings if f.kind == "retry_delay"]


@pytest.mark.parametrize("seed", [1, *(pytest.param(s, marks=pytest.mark.acceptance) for s in (2, 3))])
def test_refusals_by_chance_are_allowed_for(seed: int) -> None:
    """A tenth of all calls is refused at any rate: the share is told, no rate invented, and the verification passes."""
    world = World((VirtualLimit("requests", limits.Random(0.1)),), Network(0.01, 0.01), Service(0.4, 0.2))
    found = calibrate(SimulatedTraffic(world, seed=seed, max_requests=40_000), CalibrationOptions(seed=seed))
    (finding,) = found.inference.findings
    assert finding.kind == "random"
    assert finding.ci95 is not None
    assert finding.ci95[0] < 0.1 < finding.ci95[1]
    assert found.settings is not None
    assert found.settings.requests_per_minute is None
    assert found.verification is not None
    assert found.verification.passed
