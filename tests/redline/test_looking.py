"""Others who come by so seldom that probing missed them: bursts from rests, after the settings are verified."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from analysis.calls import ADMITTED, REFUSED, SILENCE_S, Calls
from analysis.conclude import SHARED
from analysis.fit import fit
from analysis.infer import infer
from analysis.two_limits import LOOKING, VERIFYING
from analysis.virtual import Background, Network, Service, VirtualLimit, World
from mock_server import limits
from redline import traffic as outcomes
from redline.calibration import Calibration, CalibrationOptions, _Run, calibrate
from redline.simulated import SimulatedTraffic

if TYPE_CHECKING:
    from analysis.result import Settings
    from mock_server.limits import Spec

FEW = limits.SlidingLog(4, 10.0)
SELDOM = Background(0.12, group=2)


def calibrated(
    spec: Spec,
    others: Background | None = None,
    *more: VirtualLimit,
    seed: int = 1,
    lasts_s: float | None = None,
    options: CalibrationOptions | None = None,
) -> tuple[Calibration, SimulatedTraffic]:
    """Calibrate behind a limit that others may use, too."""
    world = World((VirtualLimit("requests", spec), *more), Network(0.03, 0.05), Service(0.8, 0.3), background=others)
    traffic = SimulatedTraffic(world, seed=seed, max_duration_s=lasts_s)
    return calibrate(traffic, options or CalibrationOptions(seed=seed)), traffic


def looks(traffic: SimulatedTraffic) -> list[float]:
    """Return when was looked."""
    return [a.sent_s for a in traffic.attempts if a.phase == LOOKING]


def test_who_comes_by_now_and_then_is_found() -> None:
    """Two calls each 17 seconds find no room while probes fill the limit, which then looks as if it were ours alone."""
    found = [calibrated(FEW, SELDOM, seed=seed) for seed in range(1, 7)]
    assert any(looks(traffic) for _, traffic in found)
    for each, _ in found:
        assert {finding.kind for finding in each.inference.findings} & {"background", "replicas"}
        assert not any(x.limit.state == "random" for x in each.inference.identified)


@pytest.mark.parametrize(
    ("spec", "per_min"), [(FEW, 24.0), (limits.FixedWindow(3, 10.0), 18.0), (limits.TokenBucket(0.5, 4.0), 30.0)]
)
def test_nobody_is_made_up(spec: Spec, per_min: float) -> None:
    """Alone, it says what it said before, a little more exactly, and the look ends by itself."""
    found, traffic = calibrated(spec)
    at_s = looks(traffic)
    assert 0.0 < at_s[-1] - at_s[0] < 300.0
    assert not {finding.kind for finding in found.inference.findings} & {"background", "replicas", "drift"}
    assert found.inference.identified[0].limit.rate_per_min == pytest.approx(per_min, rel=0.01)
    assert found.inference == infer(Calls.from_attempts(traffic.attempts, now_s=traffic.now_s()))


def test_settings_that_passed_by_luck_are_verified_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers look like one bucket, a verification is taken to have met a refusal, and a look finds them out."""
    monkeypatch.setattr(_Run, "passed_by_luck", lambda _: True)
    apart = VirtualLimit("requests", limits.TokenBucket(1.2, 8.0), replicas=2)
    world = World((apart,), Network(0.03, 0.05), Service(2.0, 0.3))
    traffic = SimulatedTraffic(world, seed=5)
    settled: list[tuple[Settings, ...]] = []
    found = calibrate(traffic, CalibrationOptions(seed=5), on_settled=settled.append)
    phases = [a.phase for a in traffic.attempts]
    assert any(phase.startswith(VERIFYING) for phase in phases[phases.index(LOOKING) :])
    before, after = settled
    assert after[: len(before)] == before
    assert after == found.settings_tried
    assert (after[-1].requests_per_minute or 0.0) < 0.2 * (before[-1].requests_per_minute or 0.0)
    assert found.verification is not None
    assert found.verification.throttled == 0
    assert found.probed_calls == phases.index(next(p for p in phases if p.startswith(VERIFYING)))
    calls = Calls.from_attempts(traffic.attempts, now_s=traffic.now_s(), answer_s=SILENCE_S)
    assert found.inference == infer(calls)


def test_a_refusal_in_the_verification_is_seen_as_luck() -> None:
    """It passed though one call was refused; a look finds others, and settings that know of them are verified."""
    found, traffic, settled = found_by_looking(calm=False)
    phases = [a.phase for a in traffic.attempts]
    assert any(phase.startswith(VERIFYING) for phase in phases[phases.index(LOOKING) :])
    before, after = settled
    assert after == found.settings_tried
    assert after[: len(before)] == before
    assert (after[-1].requests_per_minute or 0.0) < (before[-1].requests_per_minute or 0.0)


def test_settings_that_nobody_disturbed_stand() -> None:
    """A verification without a refusal was no luck: others are told, and what was verified stays."""
    found, traffic, settled = found_by_looking()
    phases = [a.phase for a in traffic.attempts]
    assert found.verification is not None
    assert found.verification.throttled == 0
    assert not any(phase.startswith(VERIFYING) for phase in phases[phases.index(LOOKING) :])
    assert settled == [found.settings_tried]


def found_by_looking(*, calm: bool = True) -> tuple[Calibration, SimulatedTraffic, list[tuple[Settings, ...]]]:
    """Calibrate beside others whom a look finds; ``calm``: not the first verification, either; else that met them.

    One call in twenty may be refused then, so that few calls pass with one refusal.
    """
    for seed in range(1, 20):
        world = World((VirtualLimit("requests", FEW),), Network(0.03, 0.05), Service(0.8, 0.3), background=SELDOM)
        traffic = SimulatedTraffic(world, seed=seed)
        settled: list[tuple[Settings, ...]] = []
        options = CalibrationOptions(seed=seed, max_throttled=0.001 if calm else 0.05)
        found = calibrate(traffic, options, on_settled=settled.append)
        before = traffic.attempts[: next((k for k, a in enumerate(traffic.attempts) if a.phase == LOOKING), 0)]
        met = any(a.outcome == outcomes.REFUSED for a in before if a.phase.startswith(VERIFYING))
        if before and met != calm and {finding.kind for finding in found.inference.findings} & SHARED:
            return found, traffic, settled
    raise AssertionError("nobody was found by a look")


def test_a_larger_limit_is_not_looked_at() -> None:
    """Who uses a tenth of it would have been met while it was probed."""
    _, traffic = calibrated(limits.SlidingLog(40, 10.0))
    assert not looks(traffic)


def test_it_puts_no_more_in_flight_than_probing_did() -> None:
    """A limit on calls in flight one below the rate's burst stays out of reach: what it refuses is nobody's use."""
    places = VirtualLimit("concurrency", limits.Concurrency(5))
    for seed in range(3):
        found, traffic = calibrated(limits.FixedWindow(6, 20.0), None, places, seed=seed)
        refused = [a.outcome == outcomes.REFUSED for a in traffic.attempts if a.phase == LOOKING]
        assert refused
        assert not any(refused)
        assert found.inference.identified[0].limit.limit == 6.0
        assert not found.inference.findings


@pytest.mark.parametrize("rests", [2.5, 3.0])
def test_a_budget_that_ends_in_the_look_takes_nothing_away(rests: float) -> None:
    """Between two bursts or in the midst of a rest: what was known and verified before it stands."""
    whole, traffic = calibrated(FEW)
    at_s = looks(traffic)
    cut, ended = calibrated(FEW, lasts_s=at_s[0] + rests * 10.0)
    assert 0 < len(looks(ended)) < len(at_s)
    assert (cut.ended, cut.settings, cut.verification) == (whole.ended, whole.settings, whole.verification)
    assert cut.inference.identified[0].limit.limit == 4.0


def test_a_look_that_meets_nobody_is_no_evidence_of_others() -> None:
    """Three answers that contradicted the limit before are too few for a finding, and no more were seen from rests."""
    _, traffic = calibrated(limits.SlidingLog(20, 10.0))
    calls = Calls.from_attempts(traffic.attempts, now_s=traffic.now_s())
    assert LOOKING in calls.phase
    probed = np.flatnonzero([p == "fill" and o == ADMITTED for p, o in zip(calls.phase, calls.outcome, strict=True)])
    three = 0
    for draw in range(20):
        outcome = calls.outcome.copy()
        outcome[np.random.default_rng(draw).choice(probed, 3, replace=False)] = REFUSED
        contradicted = replace(calls, outcome=outcome)
        if fit(contradicted).missed == 3:  # more where calls that passed later contradict the refusals, too
            three += 1
            assert not infer(contradicted).findings
    assert three >= 5


def test_a_burst_is_whole_where_few_calls_may_be_sent() -> None:
    """At a call a second, six take six seconds: else the look would end as if it had seen that nobody comes by."""
    places = VirtualLimit("concurrency", limits.Concurrency(5))
    _, traffic = calibrated(limits.FixedWindow(6, 20.0), None, places, options=CalibrationOptions(max_rate_per_s=1.0))
    at_s = looks(traffic)
    starts = [k for k in range(len(at_s)) if k == 0 or at_s[k] - at_s[k - 1] > 3.0]
    assert starts
    assert set(np.diff([*starts, len(at_s)]).tolist()) == {6}
