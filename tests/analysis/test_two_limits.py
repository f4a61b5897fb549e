"""Two limits on requests in one record: which refused what, and when two are one too many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.calls import ADMITTED, EXCUSED, REFUSED, Calls
from analysis.fit import Fit, fit
from analysis.infer import infer
from analysis.two_limits import Doubt, Pair, explained, memory_s, pair, without_overload
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.simulated import SimulatedTraffic
from redline.traffic import Probe

SHORT, LONG = limits.AnchoredWindow(10, 2.0), limits.SlidingLog(25, 9.0)


def record(*specs: limits.Spec, phase: str = "fill", lumps: int = 12, verified: bool = False) -> Calls:
    """Return lumps of 13 calls at once, a good two seconds apart: each meets the short limit, some the long one."""
    world = World(tuple(VirtualLimit("requests", s) for s in specs), Network(0.005, 0.002), Service(0.2, 0.1))
    traffic = SimulatedTraffic(world, seed=3)
    rng = np.random.default_rng(3)
    for _ in range(lumps):
        traffic.run(Probe(phase, [0.004 * k for k in range(13)]))
        traffic.run(Probe(phase, [0.11 * k for k in range(int(rng.integers(16, 40)))], stop_admitted=1))
    if verified:
        traffic.sleep_until(traffic.now_s() + 60.0)
        traffic.run(Probe("verify-1-rested", [0.0, 1.0, 2.0]))
    return Calls.from_attempts(traffic.attempts, now_s=traffic.now_s(), answer_s=2.0)


@pytest.fixture(scope="module")
def both() -> Calls:
    """Return a record under two limits."""
    return record(SHORT, LONG)


@pytest.fixture(scope="module")
def alone(both: Calls) -> Fit:
    """Return the best single limit for it."""
    return fit(both)


@pytest.fixture(scope="module")
def found(both: Calls, alone: Fit) -> Pair:
    """Return the two limits for it."""
    made = pair(both, alone)
    assert made is not None
    return made


def test_two_limits_explain_together_what_neither_does_alone(alone: Fit, found: Pair) -> None:
    """The shorter one first, each with its number and its window, and nothing left over."""
    assert alone.missed >= 5
    assert found.missed == 0
    short, long = found.short.best, found.long.best
    assert short is not None
    assert long is not None
    assert (short.limit, long.limit) == (10, 25)
    assert short.window_s == pytest.approx(2.0, rel=0.02)
    assert long.window_s == pytest.approx(9.0, rel=0.02)
    assert memory_s(found.short) < memory_s(found.long)


def test_each_refusal_is_explained_by_one_of_them(both: Calls, found: Pair) -> None:
    """None is left, and each limit has some to itself."""
    short, long = explained(both, found.short), explained(both, found.long)
    refused = both.outcome == REFUSED
    assert not (refused & ~short & ~long).any()
    assert (short & ~long).any()
    assert (long & ~short).any()
    assert not (short | long)[~refused].any()


@pytest.mark.parametrize("spec", [SHORT, limits.Random(0.2)])
def test_no_second_limit_is_invented(spec: limits.Spec) -> None:
    """One limit explains its record; refusals by chance are explained by no two."""
    calls = record(spec)
    assert pair(calls, fit(calls)) is None


def test_doubt_asks_for_two_only_when_one_fails_again(alone: Fit) -> None:
    """One contradicted fit may be a fit that went astray."""
    clean = fit(record(SHORT, lumps=4))
    doubt = Doubt()
    assert [doubt.raised(f) for f in (clean, alone, clean, alone)] == [False] * 4
    assert doubt.raised(alone)
    assert doubt.settle(alone) is doubt.pair


def test_an_excused_refusal_is_spent_and_explains_nothing(both: Calls) -> None:
    """Excusing all leaves no refusal to fit, and excusing none gives them back."""
    refused = both.outcome == REFUSED
    given = both.excuse(refused)
    assert (given.outcome[refused] == EXCUSED).all()
    assert (given.throttled == refused).all()
    assert fit(given).best is None
    assert (given.excuse(np.zeros(len(both), bool)).outcome == both.outcome).all()


def test_the_overload_of_a_verification_is_left_unasked_but_for_its_beginning() -> None:
    """Calls that take turns within the spread say which came first, not which limit refused."""
    calls = record(limits.TokenBucket(5.0, 5.0), lumps=40)
    outcome = np.where(np.arange(len(calls)) % 2 == 0, ADMITTED, REFUSED)
    sent_s = 0.001 * np.arange(len(calls))
    turns = replace(calls, outcome=outcome, sent_s=sent_s, done_s=sent_s + 0.01)
    assert without_overload(turns).asked is None
    asked = without_overload(replace(turns, phase=("verify-1-rested",) * len(calls))).asked
    assert asked is not None
    assert asked[:80].all()
    assert not asked[84:-1].any()


def test_what_probing_took_for_one_limit_is_one() -> None:
    """It looks for two before anything is verified, and goes on for both: a verification shows that it found none."""
    calls = record(SHORT, LONG, verified=True)
    probed = calls.where(np.array([phase == "fill" for phase in calls.phase]))
    assert [x.limit.metric for x in infer(probed).identified[:2]] == ["requests", "requests"]
    assert [x.limit.metric for x in infer(calls).identified].count("requests") == 1
    assert infer(calls).identified == infer(probed, settled=True).identified


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(limits.SlidingLog(14, 3.1), id="about as long a window"),
        pytest.param(limits.SlidingLog(35, 8.05), id="about the same rate"),
    ],
)
def test_two_that_are_nearly_one_are_not_told(other: limits.Spec) -> None:
    """Nobody chooses 2.3 s beside 3.1 s, or two windows for one rate: others on the quota look so."""
    record_of_both = record(limits.AnchoredWindow(10, 2.3), other)
    assert pair(record_of_both, fit(record_of_both)) is None
