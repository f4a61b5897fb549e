"""Limits whose memory is hardly longer than delays vary: what they cost when the calls are sent again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from analysis.again import surprises_of_rates
from analysis.blurred import OPEN, charged
from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.search import Hypothesis

if TYPE_CHECKING:
    from collections.abc import Callable

    from analysis.calls import Floats

SPREAD_S = 0.6


def log_of(window_s: float, score: float = -5.0, family: str = "sliding_log") -> Hypothesis:
    """Return a limit of ten calls."""
    phase_s = 0.0 if family == "fixed_window" else None
    return Hypothesis(family, 10.0, 10.0 / window_s, window_s, phase_s, False, True, score, 0.0)  # noqa: FBT003


@pytest.fixture(scope="module", params=range(3))
def calls(request: pytest.FixtureRequest) -> Calls:
    """Return a minute of bursts, twice as many calls as ten in any second, with ways of 0.05 to 0.4 s."""
    rng = np.random.default_rng(request.param)
    sent_s = np.sort(np.repeat(rng.uniform(0.0, 60.0, 150), 8) + rng.uniform(0.0, 0.05, 1200))
    there_s, back_s = rng.uniform(0.05, 0.4, (2, len(sent_s)))
    return asked(sent_s, there_s, back_s, lambda at_s, passed: sum(at_s - 1.0 < other for other in passed[-10:]) >= 10)


def asked(sent_s: Floats, there_s: Floats, back_s: Floats, is_refused: Callable[[float, list[float]], bool]) -> Calls:
    """Return what became of calls, in the order in which they came: ``is_refused`` is told when the others passed."""
    passed: list[float] = []
    refused = np.zeros(len(sent_s), bool)
    for k in np.argsort(sent_s + there_s):
        at_s = float(sent_s[k] + there_s[k])
        refused[k] = is_refused(at_s, passed)
        passed += [] if refused[k] else [at_s]
    outcome = np.where(refused, REFUSED, ADMITTED)
    n, nothing = len(sent_s), np.full(len(sent_s), np.nan)
    done_s = sent_s + there_s + back_s + np.where(refused, 0.0, 0.3)
    return Calls(sent_s, done_s, outcome, np.ones(n), nothing, nothing, nothing, ("",) * n, ("fill",) * n)


def test_the_true_window_costs_least(calls: Calls) -> None:
    """The cost rises to both sides of it, whatever the likelihood of each decision says."""
    windows_s = (0.7, 0.85, 1.0, 1.2, 1.5)
    costs = surprises_of_rates(calls, [log_of(w) for w in windows_s], SPREAD_S)
    assert int(np.argmin(costs)) == 2
    assert costs[0] > costs[1] > costs[2] < costs[3] < costs[4]


def test_a_wrong_window_that_is_a_little_likelier_falls_behind(calls: Calls) -> None:
    """Order and scores follow what the calls sent again say; between those asked the cost goes with the rate."""
    found = [log_of(1.3, -5.0), log_of(1.0, -12.0), log_of(0.75, -8.0)]
    paid = charged(calls, found, SPREAD_S)
    assert [h.window_s for h in paid] == [1.3, 1.0, 0.75]
    assert max(paid, key=lambda h: h.score).window_s == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_round_window_is_asked_with_several_boundaries(seed: int) -> None:
    """The likeliest may lie at the edge of what is possible: the window pays what its best boundary costs."""
    rng = np.random.default_rng(seed)
    sent_s = np.sort(np.repeat(rng.uniform(0.0, 60.0, 150), 8) + rng.uniform(0.0, 0.05, 1200))
    there_s, back_s = rng.uniform(0.05, 0.4, (2, len(sent_s)))
    calls = asked(
        sent_s, there_s, back_s, lambda at_s, passed: sum(other >= math.floor(at_s) for other in passed[-10:]) >= 10
    )
    at_edge, true = (
        msgspec.structs.replace(log_of(1.0, ll, "fixed_window"), roundness=4.0, phase_s=phase_s)
        for ll, phase_s in ((-5.0, 0.35), (-6.0, 0.0))
    )
    dear, cheap = surprises_of_rates(calls, [at_edge, true], SPREAD_S)
    assert cheap < dear - 5.0
    paid = charged(calls, [at_edge, true], SPREAD_S)
    assert [h.score for h in paid] == pytest.approx([-2.5 - cheap, -3.0 - cheap])


def test_nothing_is_paid_where_delays_are_short_beside_the_window(calls: Calls) -> None:
    """A window of a minute is told by the likelihood alone."""
    found = [log_of(60.0), log_of(61.0, -6.0)]
    assert charged(calls, found, SPREAD_S) is found


def test_a_family_far_behind_is_not_asked(calls: Calls) -> None:
    """It is none of the hypotheses any more."""
    paid = charged(calls, [log_of(1.0), log_of(1.0, -90.0, "fixed_window")], SPREAD_S)
    assert [h.family for h in paid] == ["sliding_log"]


def test_what_is_contradicted_is_not_forgiven(calls: Calls) -> None:
    """Half of a likelihood counts, down to some nats; whatever lies below that counts in full."""
    (cost,) = surprises_of_rates(calls, [log_of(1.0)], SPREAD_S)
    for ll, forgiven in ((-10.0, 5.0), (-OPEN, OPEN / 2.0), (-OPEN - 20.0, OPEN / 2.0)):
        (paid,) = charged(calls, [log_of(1.0, ll)], SPREAD_S)
        assert paid.score == pytest.approx(ll + forgiven - cost)


def test_others_pay_by_their_rate(calls: Calls) -> None:
    """Between limits that were asked the cost goes with the rate, whatever their numbers."""
    ends = [log_of(1.0), log_of(1.5, -5.1)]
    costs = surprises_of_rates(calls, ends, SPREAD_S)
    paid = {h.window_s: h for h in charged(calls, [*ends, log_of(1.001, -5.5)], SPREAD_S)}
    assert paid[1.0].score == pytest.approx(-2.5 - costs[0], abs=0.1)
    assert paid[1.5].score == pytest.approx(-2.55 - costs[1], abs=0.1)
    assert paid[1.001].score == pytest.approx(-2.75 - costs[0], abs=1.0)


def test_what_admits_nothing_is_none_of_them(calls: Calls) -> None:
    """A threshold that was not worth a look has no rate."""
    nothing = msgspec.structs.replace(log_of(1.0), limit=0.0, rate_per_s=0.0)
    assert [h.limit for h in charged(calls, [nothing, log_of(1.0)], SPREAD_S)] == [10.0]


def test_nothing_is_charged_where_nothing_was_refused(calls: Calls) -> None:
    """No delay of a refusal is known then, and no limit was met."""
    passed = replace(calls, outcome=np.full(len(calls), ADMITTED))
    (paid,) = charged(passed, [log_of(1.0, -8.0)], SPREAD_S)
    assert paid.score == pytest.approx(-4.0)
