"""Before chance is believed, calls are sent far apart, where counters have room, and crowded, where they have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.chance import CROWDED, FAR_APART, by_chance
from analysis.fit import fit
from analysis.virtual import Background, Network, Service, VirtualLimit, World
from mock_server import limits
from redline.calibration import Calibration, CalibrationOptions, calibrate
from redline.simulated import SimulatedTraffic


def found_in(
    limit: VirtualLimit, seed: int, others: Background | None = None, most: int = 1200
) -> tuple[Calibration, SimulatedTraffic]:
    """Calibrate behind one limit."""
    world = World((limit,), Network(0.03, 0.05), Service(0.8, 0.3), background=others)
    traffic = SimulatedTraffic(world, seed=seed, max_requests=most)
    return calibrate(traffic, CalibrationOptions(seed=seed, verify=False)), traffic


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.acceptance
def test_counters_of_one_call_are_not_taken_for_chance(seed: int) -> None:
    """Each of six servers admits one call a second, so about half of a hasty client's are refused, at random."""
    found, _ = found_in(VirtualLimit("requests", limits.TokenBucket(1.0, 1.0), replicas=6), seed)
    assert found.inference.identified[0].limit.state != "random"
    assert {"replicas", "background"} & {finding.kind for finding in found.inference.findings}


@pytest.mark.parametrize(("share", "calls"), [(0.3, 27), pytest.param(0.1, 80, marks=pytest.mark.acceptance)])
def test_chance_is_as_likely_at_any_pace(share: float, calls: int) -> None:
    """About eight of these should be refused, and are."""
    found, traffic = found_in(VirtualLimit("requests", limits.Random(share)), 1)
    sent_s = [a.sent_s for a in traffic.attempts if a.phase == FAR_APART]
    busy = [a for a in traffic.attempts if a.sent_s < sent_s[0]]
    between_s = (busy[-1].sent_s - busy[0].sent_s) / sum(a.status == 200 for a in busy)
    assert found.inference.identified[0].limit.state == "random"
    assert len(sent_s) == pytest.approx(calls, abs=0.3 * calls)
    assert float(np.diff(sent_s).min()) > 3.0 * between_s


@pytest.mark.parametrize("seed", [5, 8, 15])
@pytest.mark.acceptance
def test_others_on_a_limit_of_one_call_are_not_taken_for_chance(seed: int) -> None:
    """They take three calls of ten at random moments, but of sixteen calls at once next to none is let in."""
    found, traffic = found_in(VirtualLimit("requests", limits.TokenBucket(1.0, 1.0)), seed, Background(0.3, 1), 6000)
    assert "background" in {finding.kind for finding in found.inference.findings}
    assert found.inference.identified[0].limit.state != "random"
    crowd = [a.status for a in traffic.attempts if a.phase == CROWDED]
    assert len(crowd) == 64
    assert crowd.count(200) < 0.2 * len(crowd)


def test_a_crowd_fares_as_all_do_where_chance_decides() -> None:
    """About a third of the calls that are sent at once are refused, as of all others, and chance is told."""
    found, traffic = found_in(VirtualLimit("requests", limits.Random(0.3)), 1)
    crowd = [a.status for a in traffic.attempts if a.phase == CROWDED]
    assert found.inference.identified[0].limit.state == "random"
    assert len(crowd) == 64
    assert crowd.count(429) == pytest.approx(0.3 * len(crowd), abs=12)


@pytest.mark.acceptance
def test_a_little_chance_is_believed_without() -> None:
    """Of one in twenty-five, eighty calls would tell nothing."""
    found, traffic = found_in(VirtualLimit("requests", limits.Random(0.04)), 1)
    assert found.inference.identified[0].limit.state == "random"
    assert not [a for a in traffic.attempts if a.phase == FAR_APART]


def test_the_pace_decides() -> None:
    """The same answers are chance if a third of the calls far apart, or at once, were refused; not if none, or all."""
    _, traffic = found_in(VirtualLimit("requests", limits.Random(0.3)), 1)
    fitted = fit(Calls.from_attempts(traffic.attempts))
    assert by_chance(fitted)
    apart = np.array([phase == FAR_APART for phase in fitted.calls.phase])
    outcome = np.where(apart & (fitted.calls.outcome == REFUSED), ADMITTED, fitted.calls.outcome)
    assert not by_chance(replace(fitted, calls=replace(fitted.calls, outcome=outcome)))
    crowd = np.array([phase == CROWDED for phase in fitted.calls.phase])
    most = crowd & (np.cumsum(crowd) % 4 > 0)  # scattered, so that only their number tells
    outcome = np.where(most & (fitted.calls.outcome == ADMITTED), REFUSED, fitted.calls.outcome)
    assert not by_chance(replace(fitted, calls=replace(fitted.calls, outcome=outcome)))
