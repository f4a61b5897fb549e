"""Two limits on requests at once, from the first probe to the verified settings, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from analysis import two_limits
from analysis.calls import Calls
from analysis.fit import fit
from analysis.infer import infer
from analysis.misfit import Misfit
from analysis.saturation import PHASES
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline import calibration, second_limit
from redline.calibration import Calibration, CalibrationOptions, calibrate
from redline.prober import Prober
from redline.second_limit import Below, OtherProber, Within
from redline.simulated import SimulatedTraffic
from redline.traffic import Probe

if TYPE_CHECKING:
    from analysis.fit import Fit

Calibrated = tuple[tuple[limits.Spec, ...], SimulatedTraffic, Calibration]

MET_LATER = (limits.SlidingLog(5, 1.0), limits.FixedWindow(40, 20.0))
MET_AT_ONCE = (limits.FixedWindow(20, 4.0), limits.SlidingLog(45, 20.0))
OVERLOADED = (limits.SlidingLog(56, 1.0), limits.TokenBucket(23.6, 195.0))
FAR_FROM_EITHER = (limits.AnchoredWindow(131, 1.0), limits.SlidingCounter(386, 10.0, 3.0))


def traffic_of(*specs: limits.Spec, seed: int = 1) -> SimulatedTraffic:
    """Return traffic to a target with these limits."""
    world = World(tuple(VirtualLimit("requests", s) for s in specs), Network(0.01, 0.004), Service(0.3, 0.2))
    return SimulatedTraffic(world, seed=seed, max_requests=20_000)


def burst_of(spec: limits.Spec) -> float:
    """Return how many calls it lets in at once."""
    return spec.burst if isinstance(spec, limits.TokenBucket) else float(spec.limit)


def of(traffic: SimulatedTraffic) -> Calls:
    """Return what was seen."""
    return Calls.from_attempts(traffic.attempts, now_s=traffic.now_s(), answer_s=2.0)


@pytest.mark.parametrize("seed", [1, 3])
@pytest.mark.parametrize(
    "specs",
    [
        pytest.param(OVERLOADED, id="overloaded"),
        pytest.param(FAR_FROM_EITHER, id="far from either", marks=pytest.mark.acceptance),
    ],
)
def test_both_are_told_though_one_hides_the_other(specs: tuple[limits.Spec, ...], seed: int) -> None:
    """A long overload of the long one is no chance beside the short one; and no single limit need be near either."""
    world = World(tuple(VirtualLimit("requests", s) for s in specs), Network(0.02, 0.04), Service(0.6, 0.3))
    found = calibrate(SimulatedTraffic(world, seed=seed, max_requests=50_000), CalibrationOptions(seed=seed))
    measured = [f.limit for f in found.inference.identified if f.limit.metric == "requests"]
    assert [(limit.state, limit.burst) for limit in measured] == [
        ("measured", pytest.approx(burst_of(s), rel=0.01)) for s in specs
    ]
    assert not found.inference.findings


@pytest.fixture(scope="module", params=[MET_LATER, MET_AT_ONCE], ids=["met later", "met at once"])
def world(request: pytest.FixtureRequest) -> tuple[tuple[limits.Spec, ...], SimulatedTraffic, Calibration]:
    """Calibrate a target with two limits: the long one met in the verification, or while the short one is probed."""
    traffic = traffic_of(*request.param)
    return request.param, traffic, calibrate(traffic, CalibrationOptions(seed=1))


def test_both_are_measured(world: Calibrated) -> None:
    """Each with its own rate, the shorter one first."""
    specs, _, found = world
    measured = [f.limit for f in found.inference.identified if f.limit.metric == "requests"]
    assert [limit.state for limit in measured] == ["measured", "measured"]
    for limit, spec in zip(measured, specs, strict=True):
        assert limit.rate_per_min == pytest.approx(60.0 * spec.limit / spec.window_s, rel=0.02)  # type: ignore[union-attr]
    assert not found.inference.findings


def test_the_settings_obey_both_and_hold(world: Calibrated) -> None:
    """The pace is the long limit's, the burst below the short one; the last verification passes."""
    specs, _, found = world
    assert found.verification is not None
    assert found.verification.passed
    assert found.settings is not None
    long, short = specs[1], specs[0]
    most = 60.0 * long.limit / long.window_s  # type: ignore[union-attr]
    assert 0.9 * most < (found.settings.requests_per_minute or 0.0) < most
    assert 1.0 <= (found.settings.burst or 0.0) < short.limit  # type: ignore[union-attr]
    assert len(found.settings_tried) == found.verification.attempts


def test_the_record_alone_says_the_same(world: Calibrated) -> None:
    """What `redline analyze` makes of the ledger, verifications and all."""
    _, traffic, found = world
    again = infer(of(traffic))
    assert [f.limit for f in again.identified] == [f.limit for f in found.inference.identified]


def test_verifying_costs_no_probe(world: Calibrated) -> None:
    """What is counted as probing are the calls of no verification."""
    _, traffic, found = world
    after = (two_limits.VERIFYING, *PHASES)  # what checks the limits once the settings hold is no probe either
    assert found.probed_calls == sum(not a.phase.startswith(after) for a in traffic.attempts)
    assert found.probed_s < traffic.now_s()


def test_below_a_limit_bursts_are_spread_out_and_end_when_refused() -> None:
    """Four a second pass a limit of five a second; three more than the other limit holds are refused, and no more."""
    traffic = traffic_of(limits.SlidingLog(5, 1.0), limits.AnchoredWindow(12, 60.0))
    below = Below(traffic, 4.0)
    report = below.run(Probe("fill", [0.01 * k for k in range(40)]))
    sent_s = np.array([a.sent_s for a in traffic.attempts])
    assert np.diff(sent_s).min() >= 0.25 - 1e-9
    assert (report.reason, 13 <= len(sent_s) <= 16) == ("refused", True)
    below.run(Probe("watch", [0.0, 0.01], stop_admitted=1))
    assert np.diff([a.sent_s for a in traffic.attempts]).min() >= 0.25 - 1e-9


def test_within_a_limit_probes_wait_for_room_and_are_cut_short() -> None:
    """A burst after the window of ten is used up leaves once it has ended, and none of it is refused."""
    traffic = traffic_of(limits.AnchoredWindow(10, 6.0))
    for _ in range(3):
        traffic.run(Probe("fill", [0.02 * k for k in range(14)]))
        traffic.run(Probe("watch", [0.1 * k for k in range(80)], stop_admitted=1))
    traffic.run(Probe("fill", [0.02 * k for k in range(14)]))
    within = Within(traffic, fit(of(traffic)))
    report = within.run(Probe("fill", [0.01 * k for k in range(30)], stop_refused=1))
    sent = traffic.attempts[report.first : report.last]
    assert 6 <= len(sent) <= 9
    assert all(a.outcome == "admitted" for a in sent)


def test_a_second_limit_that_was_none_does_not_hide_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that were suspected too early turn out to be one: the verification still meets the other."""
    nothing = fit(of(traffic_of(*MET_LATER)))
    suspected = two_limits.Pair(nothing, nothing, 0)
    further = calibration.probe_further
    monkeypatch.setattr(two_limits.Doubt, "settle", lambda *_: suspected)
    monkeypatch.setattr(calibration, "probe_further", lambda p, pair: None if pair is suspected else further(p, pair))
    found = calibrate(traffic_of(*MET_LATER), CalibrationOptions(seed=1))
    measured = [f.limit for f in found.inference.identified if f.limit.metric == "requests"]
    assert [limit.state for limit in measured] == ["measured", "measured"]


def test_a_refusal_at_a_height_is_looked_at_again() -> None:
    """One that the rate does not explain is worth as many calls once more; those of a disturbed record are not."""
    prober = Prober(traffic_of(*MET_LATER), CalibrationOptions(seed=1), lambda _: None)
    best = SimpleNamespace(limit=241.0)
    known = {"best": best, "concurrency": None, "candidate": 145, "reached": 142}
    for early, size in ((0, None), (1, 162), (20, None)):
        prober.fit = cast("Fit", SimpleNamespace(**known, misfit=Misfit(early=early)))
        assert prober._flight_in_question(again=True) == size


def test_probing_for_a_second_limit_ends_where_answers_contradict_both() -> None:
    """Others on the quota look like a second limit for a while, and probing on would cost windows and calls."""
    traffic = traffic_of(*MET_AT_ONCE)
    prober = Prober(traffic, CalibrationOptions(seed=1), lambda _: None)
    prober.run()
    pair = prober.doubt.settle(prober.fit)
    assert pair is not None
    other = OtherProber(traffic, CalibrationOptions(seed=1), lambda _: None, known=pair.short)
    other.fit = replace(pair.long, misfit=Misfit())
    assert not other.refuted
    other.fit = replace(pair.long, misfit=Misfit(early=5))
    assert other.refuted
    assert other._hopeless(0)


@pytest.mark.parametrize(("early", "probed"), [(0, 2), (5, 1)])
def test_the_short_limit_is_not_probed_for_again_where_the_long_one_is_refuted(
    early: int, probed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What contradicts two limits is not a second one, so neither is asked any further."""
    traffic = traffic_of(*MET_AT_ONCE)
    prober = Prober(traffic, CalibrationOptions(seed=1), lambda _: None)
    prober.run()
    pair = prober.doubt.settle(prober.fit)
    assert pair is not None
    asked: list[OtherProber] = []

    def run(other: OtherProber) -> None:
        asked.append(other)
        other.fit = replace(pair.long, misfit=Misfit(early=early))

    monkeypatch.setattr(OtherProber, "run", run)
    monkeypatch.setattr(OtherProber, "knows_enough", lambda _: False)
    second_limit.probe_further(prober, pair)
    assert len(asked) == probed
