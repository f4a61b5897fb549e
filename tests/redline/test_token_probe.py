"""Limits on input tokens in virtual time: found beside those on requests, told apart from them, never invented."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from analysis import forecast
from analysis.calls import Calls
from analysis.infer import infer
from analysis.search import Hypothesis
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline import probing
from redline.calibration import Calibration, CalibrationOptions, calibrate
from redline.prober import Prober
from redline.simulated import SimulatedTraffic
from redline.token_calls import _weights
from redline.token_probe import TokenProbe

REQUESTS = limits.FixedWindow(40, 8.0)
TOKENS = {
    "fixed_window": limits.FixedWindow(9_000, 8.0),
    "anchored_window": limits.AnchoredWindow(30_000, 10.0),
    "sliding_log": limits.SlidingLog(8_000, 10.0),
    "sliding_log that counts refused calls": limits.SlidingLog(8_000, 10.0, count_refused=True),
    "sliding_counter": limits.SlidingCounter(12_000, 10.0),
    "token_bucket": limits.TokenBucket(900.0, 5_000),
}

QUICK = ("fixed_window", "sliding_log", "token_bucket")  # the others only take longer


def calibrated(
    requests: limits.Spec, *more: VirtualLimit, probe_tokens: int = 10_000_000, verify: bool = False
) -> tuple[Calibration, SimulatedTraffic]:
    """Calibrate a world with this limit on requests and others."""
    world = World((VirtualLimit("requests", requests), *more), Network(0.01, 0.01), Service(0.4, 0.3))
    traffic = SimulatedTraffic(world, seed=3, max_requests=20_000)
    return calibrate(traffic, CalibrationOptions(seed=3, verify=verify, probe_tokens=probe_tokens)), traffic


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.acceptance) for k in TOKENS])
def test_measures_the_limit_on_tokens(kind: str) -> None:
    """Whatever its family: the rate within two per cent, inside its interval, and requests are still right."""
    spec = TOKENS[kind]
    found, _ = calibrated(REQUESTS, VirtualLimit("input_tokens", spec))
    by_metric = {x.limit.metric: x.limit for x in found.inference.identified}
    tokens, true = by_metric["input_tokens"], getattr(spec, "rate_per_s", None) or spec.limit / spec.window_s  # type: ignore[attr-defined]
    assert (tokens.state, tokens.family) == ("measured", spec.family)
    assert tokens.rate_per_min == pytest.approx(60 * true, rel=0.02)
    assert tokens.rate_per_min_ci95 is not None
    assert tokens.rate_per_min_ci95[0] * 0.999 <= 60 * true <= tokens.rate_per_min_ci95[1] * 1.001
    assert by_metric["requests"].rate_per_min == pytest.approx(300.0, rel=0.01)


def test_settings_keep_to_the_tokens_and_hold() -> None:
    """The verification sends prompts at which both limits bind, and nothing is refused."""
    found, _ = calibrated(REQUESTS, VirtualLimit("input_tokens", TOKENS["fixed_window"]), verify=True)
    assert found.settings is not None
    assert 0.9 * 67_500 < (found.settings.input_tokens_per_minute or 0.0) < 67_500
    assert found.verification is not None
    assert found.verification.passed
    assert found.verification.throttled == 0


def test_the_record_alone_says_the_same() -> None:
    """What `redline analyze` reads back needs no memory of how the calls came about."""
    found, traffic = calibrated(REQUESTS, VirtualLimit("input_tokens", TOKENS["token_bucket"]))
    again = infer(Calls.from_attempts(traffic.attempts))
    for one, other in zip(again.identified, found.inference.identified, strict=True):
        assert (one.limit.state, one.limit.family) == (other.limit.state, other.limit.family)
        assert one.limit.rate_per_min == (
            other.limit.rate_per_min and pytest.approx(other.limit.rate_per_min, rel=0.01)
        )


@pytest.mark.parametrize("spec", [REQUESTS, limits.TokenBucket(5.0, 30), limits.SlidingLog(20, 10.0)])
def test_no_limit_costs_a_few_calls_and_is_not_invented(spec: limits.Spec) -> None:
    """A service that counts no tokens: a lower bound, from no more than a handful of large prompts."""
    found, traffic = calibrated(spec)
    tokens = found.inference.identified[2].limit
    assert (tokens.metric, tokens.state) == ("input_tokens", "at_least")
    assert sum(a.prompt_tokens > 1 for a in traffic.attempts) <= 3
    assert found.settings is None or found.settings.input_tokens_per_minute is None


def test_where_requests_have_little_room_a_look_is_not_waited_for() -> None:
    """Two calls a window leave hardly one to spare: a look comes when it costs no window, or not at all."""
    requests = limits.FixedWindow(2, 8.0)
    (found, _), (without, _) = calibrated(requests), calibrated(requests, probe_tokens=0)
    tokens = found.inference.identified[2].limit
    assert (tokens.metric, tokens.limit) == ("input_tokens", None)
    assert tokens.state in {"not_tested", "at_least"}
    assert found.probed_s <= without.probed_s + requests.window_s
    assert found.inference.identified[0].limit.rate_per_min == pytest.approx(15.0, rel=0.02)


def test_without_a_budget_nothing_large_is_sent() -> None:
    """Money that may not be spent is not spent, and the result says what was left out."""
    found, traffic = calibrated(REQUESTS, VirtualLimit("input_tokens", TOKENS["fixed_window"]), probe_tokens=0)
    assert max(a.prompt_tokens for a in traffic.attempts) == 1
    assert found.inference.identified[2].limit.state == "not_tested"


def test_keeps_to_its_budget_of_tokens() -> None:
    """What a look and a measurement send stays near what they may."""
    _, traffic = calibrated(REQUESTS, VirtualLimit("input_tokens", TOKENS["anchored_window"]), probe_tokens=200_000)
    assert sum(a.prompt_tokens for a in traffic.attempts if a.status == 200) < 250_000


@pytest.mark.acceptance
def test_refusals_by_chance_make_no_token_limit() -> None:
    """A refused large prompt that passes later was no sign."""
    world = World((VirtualLimit("requests", limits.Random(0.2)),), Network(0.01, 0.01), Service(0.4, 0.3))
    traffic = SimulatedTraffic(world, seed=5, max_requests=500)
    found = calibrate(traffic, CalibrationOptions(seed=5, verify=False))
    assert found.inference.identified[2].limit.state in {"at_least", "not_tested"}


def test_what_is_hardly_likely_does_not_put_a_look_off() -> None:
    """A window that our own calls open has room at once; what is far less likely is no bar."""
    requests, tokens = limits.AnchoredWindow(577, 60.0), limits.AnchoredWindow(113_282, 60.0)
    more = (VirtualLimit("input_tokens", tokens), VirtualLimit("concurrency", limits.Concurrency(63)))
    world = World((VirtualLimit("requests", requests), *more), Network(0.041, 0.004), Service(2.8, 0.45))
    traffic = SimulatedTraffic(world, seed=5, max_requests=20_000)
    found = calibrate(traffic, CalibrationOptions(seed=5, verify=False))
    told = found.inference.identified[2].limit
    assert (told.metric, told.state) == ("input_tokens", "measured")
    assert told.rate_per_min == pytest.approx(113_282, rel=0.02)


def test_a_call_without_an_answer_takes_room() -> None:
    """A prompt that was just sent counts among the requests, before silence says that it passed."""
    world = World((VirtualLimit("requests", limits.TokenBucket(0.5, 8)),), Network(0.01, 0.01), Service(2.0, 0.1))
    traffic = SimulatedTraffic(world, seed=5, max_requests=20_000)
    prober = Prober(traffic, CalibrationOptions(seed=5), lambda _: None)
    prober.run()
    probe = TokenProbe(prober, 10_000_000)
    best = prober.fit.hypotheses[0]
    traffic.sleep_until(traffic.now_s() + 2.0 * best.limit / best.rate_per_s)
    first = len(traffic.attempts)
    traffic.run(probing.burst("tokens", 3, rate_per_s=500.0, tokens=10))
    traffic.sleep_until(traffic.now_s() + 0.01)
    assert all(a.status is None for a in traffic.attempts[first:])
    room = forecast.room(probe._history(best), best, np.array([traffic.now_s()]))
    assert room[0] == pytest.approx(best.limit - 3.0, abs=0.1)


def test_a_family_weighs_what_its_best_does() -> None:
    """However many points of it stand for it."""
    one = Hypothesis("fixed_window", 5.0, 1.0, 5.0, 0.0, False, True, -1.0, 0.0)  # noqa: FBT003 - a record's fields
    other = msgspec.structs.replace(one, family="token_bucket", window_s=None, log_likelihood=-1.0 - np.log(3.0))
    weights = _weights([one, *[other] * 5])
    assert weights.tolist() == pytest.approx([0.75, *[0.05] * 5])
