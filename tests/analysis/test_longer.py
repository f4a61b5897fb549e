"""Logs of ten seconds behind delays of 0.35 s: their windows are not told too short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from analysis.calls import Calls, arrival_offsets
from analysis.fit import fit
from analysis.longer import with_longer
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.simulated import SimulatedTraffic
from redline.traffic import Probe

if TYPE_CHECKING:
    from mock_server.limits import Spec

LOG = limits.SlidingLog(40, 10.0, True)  # noqa: FBT003 - refused calls count


def record(spec: Spec, seed: int, spread_s: float = 0.35) -> Calls:
    """Return calls by dozens, each followed by single ones around the time at which the limit gives back."""
    world = World((VirtualLimit("requests", spec),), Network(0.15, spread_s), Service(0.3, 0.1))
    traffic, rng = SimulatedTraffic(world, seed=seed), np.random.default_rng(seed)
    for _ in range(12):
        traffic.run(Probe("fill", np.sort(rng.uniform(0.0, 2.0, int(rng.integers(4, 60)))).tolist()))
        traffic.sleep_until(traffic.now_s() + float(rng.uniform(3.0, 9.0)))
        traffic.run(Probe("watch", np.arange(0.0, 4.0, 0.1).tolist()))
    traffic.sleep_until(traffic.now_s() + 5.0)
    return Calls.from_attempts(traffic.attempts, now_s=traffic.now_s(), answer_s=2.0)


@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_a_window_is_not_told_too_short(seed: int) -> None:
    """By its likelihood alone it would be told up to 0.2 s shorter than it is: half of what delays vary by."""
    best = fit(record(LOG, seed)).best
    assert best is not None
    assert (best.family, best.limit, best.counts_refused) == ("sliding_log", 40.0, True)
    assert best.window_s == pytest.approx(10.0, rel=0.005)


def test_longer_ones_have_likelihoods_of_their_own() -> None:
    """They reach as far as delays vary, the round one among them, each with what it explains itself."""
    calls = record(LOG, 0)
    offsets_s = arrival_offsets(calls)
    best = max(fit(calls).hypotheses, key=lambda h: h.log_likelihood)
    added = with_longer(calls, [best], offsets_s)[1:]
    assert best.window_s is not None
    assert max(h.window_s or 0.0 for h in added) == pytest.approx(best.window_s + offsets_s[-1] - offsets_s[0])
    assert any(h.window_s == 10.0 and h.roundness > 0.0 for h in added)
    assert all(h.rate_per_s == pytest.approx(h.limit / (h.window_s or 0.0)) for h in added)
    assert len({h.log_likelihood for h in added}) > len(added) // 2


def test_without_delays_that_vary_none_is_added() -> None:
    """What the likelihood says of a window is right then."""
    calls = record(LOG, 0, spread_s=0.03)
    found = list(fit(calls).hypotheses)
    assert with_longer(calls, found, arrival_offsets(calls)) is found
