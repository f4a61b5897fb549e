"""Windows of a second behind delays of 0.35 s: what our own calls open is told from what the clock opens, and a log."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import msgspec
import pytest

from analysis.agreement import likelihood_of, recorded
from analysis.calls import arrival_offsets
from analysis.fit import fit
from analysis.opened import with_opened
from mock_server import limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from analysis.calls import Calls
    from analysis.fit import Fit

SECONDS = {
    "anchored_window": limits.AnchoredWindow(12, 1.0),
    "fixed_window": limits.FixedWindow(12, 1.0, 0.0),
    "sliding_log": limits.SlidingLog(12, 1.0),
}
SEEDS = range(5)


@pytest.fixture(scope="module")
def record(filled: Callable[..., Calls]) -> Callable[..., Calls]:
    """Return what makes a minute of calls, three times as many as a limit lets in."""
    return partial(filled, per_s=40.0, times=30)


@pytest.fixture(scope="module")
def told(record: Callable[..., Calls]) -> Callable[[str, int], Fit]:
    """Return what is told of one record."""
    return cache(lambda family, seed: fit(record(SECONDS[family], seed)))


@pytest.mark.parametrize("family", SECONDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_is_told_for_what_it_is(told: Callable[[str, int], Fit], family: str, seed: int) -> None:
    """By their likelihoods alone, all but one of the windows that calls open would be a log that is 8 % too short."""
    best = told(family, seed).best
    assert best is not None
    assert best.family == family
    assert best.limit == 12.0
    assert best.window_s == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_told_explains_the_record(told: Callable[[str, int], Fit], seed: int) -> None:
    """Its likelihood is its own, not that of the limit beside which it was looked for: nobody else is suspected."""
    seen = told("anchored_window", seed)
    assert seen.best is not None
    its = recorded(seen.best, seen.calls, seen.offsets_s, thin=True)
    assert seen.best.log_likelihood == pytest.approx(likelihood_of(seen.best, its))
    assert seen.misfit.kind() is None


@pytest.mark.parametrize("work_s", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_none_is_told_as_places_beside_it(record: Callable[..., Calls], work_s: float, seed: int) -> None:
    """However many are in flight, its refusals are its own."""
    assert fit(record(SECONDS["anchored_window"], seed, work_s=work_s)).concurrency is None


def test_nothing_is_looked_for_where_delays_blur_nothing(record: Callable[..., Calls]) -> None:
    """Of a window that is long beside them, the likelihood can be trusted."""
    calls = record(SECONDS["fixed_window"], 0, spread_s=0.03)
    found = list(fit(calls).hypotheses)
    assert with_opened(calls, found, arrival_offsets(calls)) is found


def test_refused_calls_that_count_open_nothing(told: Callable[[str, int], Fit]) -> None:
    """Such a log is none that our calls open, however near its numbers are."""
    seen = told("sliding_log", 0)
    counting = [msgspec.structs.replace(h, counts_refused=True) for h in seen.hypotheses]
    assert with_opened(seen.calls, counting, seen.offsets_s) is counting
