"""The calibration in virtual time: what it finds, and what it refuses to claim."""

from __future__ import annotations

import msgspec
import pytest

from analysis.virtual import Faults, Network, Service, VirtualLimit, World
from mock_server import limits
from redline.calibration import Calibration, CalibrationOptions, calibrate
from redline.prober import Prober
from redline.probing import burst
from redline.simulated import SimulatedTraffic

WORLDS = {
    "fixed_window": limits.FixedWindow(40, 8.0),
    "anchored_window": limits.AnchoredWindow(60, 10.0),
    "sliding_log": limits.SlidingLog(50, 10.0),
    "sliding_counter": limits.SlidingCounter(80, 10.0),
    "token_bucket": limits.TokenBucket(5.0, 30),
    "leaky_queue": limits.LeakyQueue(5.0, 30),
}


def found_in(
    *specs: limits.Spec, seed: int = 1, verify: bool = False, max_requests: int = 20_000, faults: Faults | None = None
) -> Calibration:
    """Calibrate a world with these limits."""
    named = tuple(VirtualLimit("concurrency" if s.family == "concurrency" else "requests", s) for s in specs)
    world = World(named, Network(0.01, 0.01), Service(0.4, 0.3), faults or Faults())
    traffic = SimulatedTraffic(world, seed=seed, max_requests=max_requests)
    return calibrate(traffic, CalibrationOptions(seed=seed, verify=verify))


@pytest.mark.parametrize("family", WORLDS)
def test_names_the_family_and_the_rate(family: str) -> None:
    """Each family is told from the others, with its rate inside one per cent and inside the interval."""
    spec = WORLDS[family]
    found = found_in(spec).inference.identified[0].limit
    true = getattr(spec, "rate_per_s", None) or spec.limit / spec.window_s  # type: ignore[attr-defined]
    assert (found.state, found.family) == ("measured", family)
    assert found.rate_per_min == pytest.approx(60 * true, rel=0.01)
    assert found.rate_per_min_ci95 is not None
    assert found.rate_per_min_ci95[0] * 0.999 <= 60 * true <= found.rate_per_min_ci95[1] * 1.001


def test_tells_calls_in_flight_from_the_rate() -> None:
    """Two limits at once: the calls in flight exactly, the window beside it."""
    found = found_in(limits.FixedWindow(40, 8.0), limits.Concurrency(12)).inference
    assert found.identified[1].limit.limit == 12
    assert found.identified[0].limit.rate_per_min == pytest.approx(300.0, rel=0.01)


def test_recommends_settings_that_hold() -> None:
    """The recommended limiter is driven and nothing is refused."""
    found = found_in(limits.SlidingLog(50, 10.0), verify=True)
    assert found.verification is not None
    assert found.verification.passed
    assert found.verification.throttled == 0
    assert found.settings is not None
    assert 0.95 * 300 < (found.settings.requests_per_minute or 0) < 300


def test_refusals_by_chance_are_called_so() -> None:
    """Refusals that nothing of ours predicts give no number."""
    found = found_in(limits.Random(0.1), max_requests=1500)
    assert found.inference.identified[0].limit.state == "random"
    assert found.inference.identified[0].limit.rate_per_min is None


def test_a_target_that_admits_nothing_is_no_crash() -> None:
    """A limit of zero: no call passes, and the result says so."""
    found = found_in(limits.FixedWindow(0, 60.0), max_requests=300)
    assert found.inference.identified[0].limit.state == "unresolved"
    assert found.settings is None


def test_a_budget_that_ends_keeps_what_was_learnt() -> None:
    """Forty calls are not enough, and the outcome says budget."""
    found = found_in(limits.SlidingLog(500, 60.0), max_requests=40)
    assert found.ended == "budget"
    assert found.inference.identified[0].limit.state == "at_least"


def test_few_refusals_by_chance_are_no_crash() -> None:
    """Where a refit takes back what was believed, no family is left whose recovery could be told."""
    prober = Prober(SimulatedTraffic(World(()), seed=1), CalibrationOptions(), lambda _: None)
    prober._refit()
    prober.parted = True
    prober.traffic.run(burst("fill", 3, rate_per_s=100.0))
    prober.blocked_s = prober.traffic.now_s()
    assert prober._recover()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.acceptance)])
def test_one_call_in_a_window_is_told_from_a_counter_of_half_of_it(seed: int) -> None:
    """Both bar one call for as long, but only after a call that came late in the window do they give back apart."""
    found = found_in(limits.FixedWindow(1, 4.4, 1.0), seed=seed)
    limit = found.inference.identified[0].limit
    assert (limit.state, limit.family) == ("measured", "fixed_window")
    assert limit.window_s == pytest.approx(4.4, rel=0.01)
    assert found.probed_calls < 350


@pytest.mark.parametrize(
    ("window_s", "odd"), [(60.0, False), (59.96, False), (10.01, False), (59.0, True), (30.0, True)]
)
def test_about_a_common_window_two_recoveries_will_do(window_s: float, *, odd: bool) -> None:
    """A limit that has moved would not lie there by chance."""
    traffic = SimulatedTraffic(World((VirtualLimit("requests", limits.SlidingLog(3, 10.0)),)), seed=1)
    prober = Prober(traffic, CalibrationOptions(), lambda _: None)
    prober.run()
    best = msgspec.structs.replace(prober.fit.hypotheses[0], window_s=window_s)
    assert prober._odd(best) is odd
    assert not prober._odd(msgspec.structs.replace(best, window_s=None))


def test_the_longer_it_takes_the_less_certain_a_family_must_be() -> None:
    """More of the same costs ever more time."""
    traffic = SimulatedTraffic(World((VirtualLimit("requests", limits.SlidingLog(3, 1.0)),)), seed=1)
    prober = Prober(traffic, CalibrationOptions(), lambda _: None)
    prober._refit()
    traffic.run(burst("fill", 1, rate_per_s=10.0))
    assert prober._sure() == 0.999
    traffic.sleep_until(200.0)
    assert prober._sure() == 0.99
