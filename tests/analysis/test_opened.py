"""Windows of a second behind delays of 0.35 s: what our own calls open is told from what the clock opens, and a log."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from analysis import likelihood
from analysis.agreement import recorded, replayed
from analysis.calls import Calls, arrival_offsets
from analysis.fit import fit
from analysis.opened import with_opened
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.simulated import SimulatedTraffic
from redline.traffic import Probe

if TYPE_CHECKING:
    from analysis.fit import Fit
    from mock_server.limits import Spec

SECONDS = {
    "anchored_window": limits.AnchoredWindow(12, 1.0),
    "fixed_window": limits.FixedWindow(12, 1.0, 0.0),
    "sliding_log": limits.SlidingLog(12, 1.0),
}
SEEDS = range(5)


def record(spec: Spec, seed: int, spread_s: float = 0.35, work_s: float = 0.3) -> Calls:
    """Return a minute in which three times as many calls as a limit lets in leave for a second or two at a time."""
    world = World((VirtualLimit("requests", spec),), Network(0.15, spread_s), Service(work_s, 0.1))
    traffic, rng = SimulatedTraffic(world, seed=seed), np.random.default_rng(seed)
    for _ in range(30):
        lasts_s = float(rng.uniform(0.8, 2.5))
        traffic.run(Probe("fill", np.sort(rng.uniform(0.0, lasts_s, int(40.0 * lasts_s))).tolist()))
        traffic.sleep_until(traffic.now_s() + float(rng.uniform(0.0, 1.5)))
    traffic.sleep_until(traffic.now_s() + 5.0)
    return Calls.from_attempts(traffic.attempts, now_s=traffic.now_s(), answer_s=2.0)


@cache
def told(family: str, seed: int) -> Fit:
    """Return what is told of one record."""
    return fit(record(SECONDS[family], seed))


@pytest.mark.parametrize("family", SECONDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_is_told_for_what_it_is(family: str, seed: int) -> None:
    """By their likelihoods alone, all but one of the windows that calls open would be a log that is 8 % too short."""
    best = told(family, seed).best
    assert best is not None
    assert best.family == family
    assert best.limit == 12.0
    assert best.window_s == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_told_explains_the_record(seed: int) -> None:
    """Its likelihood is its own, not that of the limit beside which it was looked for: nobody else is suspected."""
    seen = told("anchored_window", seed)
    assert seen.best is not None
    its = recorded(seen.best, seen.calls, seen.offsets_s, thin=True)
    own = likelihood.log_likelihood(its, replayed(seen.best, its), np.array([[seen.best.limit]]))[0, 0]
    assert seen.best.log_likelihood == pytest.approx(own)
    assert seen.misfit.kind() is None


@pytest.mark.parametrize("work_s", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_none_is_told_as_places_beside_it(work_s: float, seed: int) -> None:
    """However many are in flight, its refusals are its own."""
    assert fit(record(SECONDS["anchored_window"], seed, work_s=work_s)).concurrency is None


def test_nothing_is_looked_for_where_delays_blur_nothing() -> None:
    """Of a window that is long beside them, the likelihood can be trusted."""
    calls = record(SECONDS["fixed_window"], 0, spread_s=0.03)
    found = list(fit(calls).hypotheses)
    assert with_opened(calls, found, arrival_offsets(calls)) is found


def test_refused_calls_that_count_open_nothing() -> None:
    """Such a log is none that our calls open, however near its numbers are."""
    seen = told("sliding_log", 0)
    counting = [msgspec.structs.replace(h, counts_refused=True) for h in seen.hypotheses]
    assert with_opened(seen.calls, counting, seen.offsets_s) is counting
