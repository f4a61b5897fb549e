"""Where no exact limiter explains the record: what is said, and settings that hold all the same."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.doubt import beside_common
from analysis.infer import contradicted
from analysis.result import Limit, Settings
from analysis.virtual import Call, Network, Service, VirtualLimit, VirtualTarget, World
from mock_server import limits
from redline.calibration import Calibration, CalibrationOptions, calibrate
from redline.limiter import ClientLimiter
from redline.simulated import SimulatedTraffic
from redline.traffic import Pacing

APART = World((VirtualLimit("requests", limits.SlidingLog(12, 10.0), replicas=4),), Network(0.01, 0.01), Service(0.4))


@pytest.fixture(scope="module")
def apart() -> Calibration:
    """Calibrate four servers of 12 calls in 10 s, each counting for itself."""
    return calibrate(SimulatedTraffic(APART, seed=5, max_requests=20_000), CalibrationOptions(seed=5))


def test_servers_that_count_apart_are_a_finding(apart: Calibration) -> None:
    """It is said, with how many there may be; a number is given only if it holds the truth."""
    (found,) = [f for f in apart.inference.findings if f.kind == "replicas"]
    assert found.ci95 is not None
    assert found.ci95[0] <= 4 <= found.ci95[1]
    limit = apart.inference.identified[0].limit
    assert limit.state in {"measured", "unresolved"}
    if limit.rate_per_min_ci95 is not None:
        assert limit.rate_per_min_ci95[0] <= 288 <= limit.rate_per_min_ci95[1]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.acceptance
def test_beside_them_no_limit_on_anything_else_is_invented(seed: int) -> None:
    """They refuse at any height and size: that is no limit on calls in flight, nor on tokens."""
    found = calibrate(SimulatedTraffic(APART, seed=seed, max_requests=20_000), CalibrationOptions(seed=seed))
    states = {each.limit.metric: each.limit.state for each in found.inference.identified}
    assert states["concurrency"] == "at_least"
    assert states["input_tokens"] != "measured"


def test_settings_for_them_hold_for_an_hour(apart: Calibration) -> None:
    """Below what four servers let in together, above what one of them does."""
    assert apart.settings is not None
    assert 288 / 8 < (apart.settings.requests_per_minute or 0.0) < 288
    sent, refused = an_hour_of(apart.settings)
    assert sent > 1000
    assert refused <= 0.001 * sent


@pytest.mark.acceptance
def test_settings_for_them_hold_whatever_the_chance() -> None:
    """How many servers there are is known to a factor of two at best: some settings are low, none is too high."""
    rpms = []
    for seed in range(1, 10):
        traffic = SimulatedTraffic(APART, seed=seed, max_requests=20_000)
        settings = calibrate(traffic, CalibrationOptions(seed=seed)).settings
        assert settings is not None
        rpms.append(settings.requests_per_minute or 0.0)
        sent, refused = an_hour_of(settings)
        assert sent > 500
        assert refused <= 0.001 * sent
    assert 288 / 8 < np.median(rpms) < max(rpms) < 288


def an_hour_of(settings: Settings) -> tuple[int, int]:
    """Drive an hour through these settings; returns how many calls were sent, and refused."""
    target = VirtualTarget(APART, np.random.default_rng(5))
    per_s, burst = (settings.requests_per_minute or 0.0) / 60.0, settings.burst or 1.0
    limiter = ClientLimiter(Pacing(per_s, burst, None, 3600.0, np.inf))
    now_s, sent, refused = 0.0, 0, 0
    while now_s < 3600.0:
        moment_s = limiter.next_moment_s(now_s, 0)
        if moment_s > now_s:
            answer = target.step(moment_s)
            now_s = moment_s if answer is None else answer.done_s
            refused += answer is not None and answer.status == 429
            continue
        target.send(Call(sent, now_s + 60.0), now_s)
        limiter.sent(now_s)
        sent += 1
    return sent, refused


def record(verified: int, refused: int, phase: str) -> Calls:
    """Return a verification of so many calls."""
    n = verified
    outcome = np.array([REFUSED] * refused + [ADMITTED] * (n - refused))
    at = np.arange(n, dtype=float)
    nothing = np.full(n, np.nan)
    return Calls(at, at + 0.1, outcome, np.ones(n), nothing, nothing, nothing, ("",) * n, (phase,) * n)


@pytest.mark.parametrize(
    ("calls", "refused", "phase", "said"),
    [
        (300, 0, "verify-1-full", False),
        (300, 1, "verify-1-full", False),
        (30, 1, "verify-1-rested", True),
        (300, 4, "verify-1-full", True),
        (300, 40, "fill", False),
    ],
)
def test_a_verification_contradicts_where_chance_does_not_explain_it(
    calls: int, refused: int, phase: str, *, said: bool
) -> None:
    """More than the accepted thousandth at 95 %, in the first verification: the others have lowered settings."""
    assert contradicted(record(calls, refused, phase)) is said


def test_settings_that_were_lowered_are_not_asked_for_what_refused_them() -> None:
    """Only the first verification since probing ended counts: the next one has other settings."""
    assert not contradicted(record(300, 0, "verify-1-full").joined(record(300, 40, "verify-2-full")))


def test_an_odd_window_beside_a_common_one_may_be_that_one() -> None:
    """The interval reaches to the minute; one that is far from all stays as it is."""
    measured = {"metric": "requests", "state": "measured", "limit": 144.0, "rate_per_min_ci95": (150.8, 152.0)}
    near = beside_common(Limit(**measured, window_s=57.07, window_s_ci95=(56.9, 57.3)))  # type: ignore[arg-type]
    assert near.rate_per_min_ci95 == (144.0, 152.0)
    assert near.window_s_ci95 == (56.9, 60.0)
    far = Limit(**measured, window_s=47.0, window_s_ci95=(46.9, 47.3))  # type: ignore[arg-type]
    assert beside_common(far) is far
