"""Counters that count apart and others on the quota: the slope is what a simulation shows, and is found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from analysis import slopes
from analysis.kernels import gentle
from analysis.slopes import Counts, Slope, Tried

if TYPE_CHECKING:
    from analysis.calls import Floats


def simulated(places: int, each: int, arrivals: int, runs: int) -> Counts:
    """Return the decisions of full windows: each call meets one of the counters by chance."""
    rng = np.random.default_rng(1)
    held: list[int] = []
    passed: list[bool] = []
    for _ in range(runs):
        counters = np.zeros(places, int)
        for place in rng.integers(places, size=arrivals):
            held.append(int(counters.sum()))
            passed.append(bool(counters[place] < each))
            counters[place] += passed[-1]
    return slopes.counts(np.array(held, float), np.array(passed))


def refused_by(slope: Slope, held: Floats) -> Floats:
    """Return the chance of a refusal at each count, read off what one refusal there is worth."""
    one, none = np.ones(1), np.zeros(1)
    each = [Counts(np.array([h]), one, none, one).judged(Tried.of((slope,)))[0][0] for h in held.tolist()]
    return np.asarray((np.exp(each) - slopes.OUTLIER) / (1.0 - 2.0 * slopes.OUTLIER))


@pytest.mark.parametrize(("places", "each"), [(2, 40), (5, 12), (8, 1)])
def test_the_slope_of_counters_apart_is_that_of_a_simulation(places: int, each: int) -> None:
    """At each number of calls held about as many are refused as the curve says."""
    seen = simulated(places, each, 3 * places * each, 400)
    decided = seen.admitted + seen.refused
    often = decided > 200
    share = (seen.refused / np.maximum(decided, 1))[often]
    assert np.abs(share - refused_by(Slope(places * each, places), seen.held)[often]).max() < 0.12
    assert share.max() > 0.5


def test_counters_apart_are_found_again() -> None:
    """Thirty windows tell what all of them hold, and that it is more than one place."""
    _, best = max(slopes.on_replicas(simulated(4, 22, 200, 30)), key=lambda pair: pair[0])
    assert best.limit == pytest.approx(88, rel=0.05)
    assert best.places in {3, 4, 5}


def test_others_take_what_is_left() -> None:
    """Nothing of ours passes beyond the limit; far below it hardly anything is refused; between them it rises."""
    refused = refused_by(Slope(100, share=0.2, group=2), np.arange(121.0))
    assert (np.diff(refused) >= 0).all()
    assert refused[30] < 0.001
    assert 0.3 < refused[80] < 0.7
    assert all(gentle.taken(held, 1.0, 100.0, 0.2, 2.0) == 1.0 for held in range(100, 121))


def test_others_on_the_quota_are_found_again() -> None:
    """What they use on average and the whole limit, from how many of ours were refused at each count."""
    rng = np.random.default_rng(2)
    held = rng.integers(0, 130, size=6000).astype(float)
    theirs = 5 * rng.poisson(0.2 * 100 / 5, size=6000)
    _, best = max(slopes.beside_others(slopes.counts(held, held + theirs < 100)), key=lambda pair: pair[0])
    assert best.limit == pytest.approx(100, rel=0.06)
    assert best.share == pytest.approx(0.2, abs=0.1)


def test_a_long_statistic_is_told_apart_in_steps() -> None:
    """The tables stay short, and no decision is lost."""
    held = np.arange(10_000.0)
    table = slopes.counts(held, held < 7000, each=2.0)
    assert len(table.held) <= slopes.BINS + 1
    assert (table.admitted.sum(), table.refused.sum()) == (14_000, 6_000)
    assert table.highest == pytest.approx(7000, rel=0.02)


def test_others_on_the_quota_have_used_little_of_a_window_that_began_just_now() -> None:
    """A window that we fill at its start holds all the limit; what others use is told by what is refused later."""
    rng = np.random.default_rng(3)
    held, passed = rng.integers(0, 130, size=6000).astype(float), rng.random(6000)
    theirs = rng.poisson(0.3 * 100 * passed)
    table = slopes.counts(held, held + theirs < 100, passed=passed)
    _, best = max(slopes.beside_others(table), key=lambda pair: pair[0])
    assert best.limit == pytest.approx(100, rel=0.04)
    assert best.share == pytest.approx(0.3, abs=0.1)
    blind, _ = max(slopes.beside_others(slopes.counts(held, held + theirs < 100)), key=lambda pair: pair[0])
    assert max(slopes.beside_others(table), key=lambda pair: pair[0])[0] > blind + 100.0


def test_what_others_have_taken_is_a_poisson_number_of_groups() -> None:
    """Summed up where few groups are left, by a normal approximation beyond: both are close to the exact chance."""
    for limit, share, group in ((12, 0.3, 1), (40, 0.4, 3), (900, 0.2, 1), (3000, 0.1, 150)):
        held = np.arange(0.0, limit, max(1, limit // 50))
        exact = stats.poisson.sf(np.ceil((limit - held) / group) - 1, share * limit / group)
        assert refused_by(Slope(limit, share=share, group=group), held) == pytest.approx(exact, abs=5e-4)
