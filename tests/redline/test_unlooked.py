"""Where a plan's own rhythm may have made up a window, calls are sent at moments that nothing led to."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline import moves
from redline.calibration import CalibrationOptions, calibrate
from redline.prober import Prober
from redline.simulated import SimulatedTraffic


def test_they_go_on_whatever_comes_back() -> None:
    """At gaps around what the limit allows, most of them refused: no refusal ends them."""
    world = World((VirtualLimit("requests", limits.FixedWindow(2, 5.0)),), Network(0.01, 0.01), Service(0.2))
    traffic = SimulatedTraffic(world, seed=1)
    prober = Prober(traffic, CalibrationOptions(seed=1), lambda _: None)
    prober.run()
    first = len(traffic.attempts)
    prober._send_unlooked()
    sent_s = np.array([a.sent_s for a in traffic.attempts[first:]])
    gaps = np.diff(sent_s) * prober.fit.hypotheses[0].rate_per_s
    assert len(sent_s) == moves.UNLOOKED[0]
    assert moves.FEW_GAPS[0] * 0.99 < gaps.min() < 0.3
    assert 2.0 < gaps.max() < moves.FEW_GAPS[1] * 1.01
    assert sum(a.status == 429 for a in traffic.attempts[first:]) > 5
    assert not prober._made_up()  # five seconds are what people choose, and long beside these delays


@pytest.mark.acceptance
def test_a_rhythm_is_not_told_as_a_window() -> None:
    """One call a second, refused ones counted, where delays vary by a third of that: a plan that waits is too late."""
    limit = VirtualLimit("requests", limits.SlidingLog(1, 1.0, count_refused=True))
    world = World((limit,), Network(0.15, 0.35), Service(0.4))
    held = 0
    for seed in (6, 7, 8):
        found = calibrate(SimulatedTraffic(world, seed=seed), CalibrationOptions(seed=seed, verify=False))
        low, high = found.inference.identified[0].limit.rate_per_min_ci95 or (0.0, np.inf)
        held += low <= 60.0 <= high
    assert held >= 2
