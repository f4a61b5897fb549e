"""The window and the boundary of a counter, solved for from a shape nearby."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis import counters, decisions, judging, likelihood
from analysis.calls import ADMITTED, REFUSED, Calls
from mock_server import limits

LIMIT, WINDOW_S, BOUNDARY_S = 40, 12.3, 4.1


def replayed(seed: int) -> Calls:
    """Return what a counter answers to bursts that come at random."""
    rng = np.random.default_rng(seed)
    at = np.sort(np.concatenate([t + rng.exponential(0.05, 40).cumsum() for t in rng.uniform(0.0, 150.0, 14)]))
    spec = limits.SlidingCounter(LIMIT, WINDOW_S, BOUNDARY_S)
    limiter = spec.limiter()
    outcome = []
    for t in at:
        admitted = limiter.check(float(t)).admitted
        if admitted:
            limiter.commit(float(t))
        outcome.append(ADMITTED if admitted else REFUSED)
    n, nothing = len(at), np.full(len(at), np.nan)
    return Calls(at, at + 0.1, np.array(outcome), np.ones(n), nothing, nothing, nothing, ("",) * n, ("",) * n)


def misfit(record: decisions.Record, shape: tuple[float, ...]) -> float:
    """Return how far answers lie on the wrong side."""
    at = judging.statistic(record, "sliding_counter", [shape], 1.0)
    return float(likelihood.overlap(record, at, np.array([[float(LIMIT)]]))[0, 0])


def solved(beside: float) -> tuple[list[float], list[float]]:
    """Return for twelve records (part of the misfit that is left, relative error of the window) from a start nearby."""
    left, off = [], []
    for seed in range(12):
        record = decisions.at_middle(decisions.prepare(replayed(seed), np.linspace(-0.002, 0.002, 7)))
        start = (beside * WINDOW_S, BOUNDARY_S)
        best = min(counters.feasible(record, start, LIMIT), key=lambda shape, r=record: misfit(r, shape))
        left.append(misfit(record, best) / misfit(record, start))
        off.append(abs(best[0] / WINDOW_S - 1.0))
    return left, off


def test_a_shape_nearby_is_moved_to_what_explains_the_record() -> None:
    """From a window one per cent too short, of most records nothing that matters is left of misfit or error."""
    left, off = solved(0.99)
    assert float(np.median(left)) < 0.02
    assert float(np.median(off)) < 0.0005


def test_from_a_window_too_long_it_gets_nearer_at_least() -> None:
    """There it often ends between: which is why it starts from several shapes, on either side."""
    left, off = solved(1.01)
    assert float(np.median(left)) < 0.6
    assert float(np.median(off)) < 0.005


def test_nothing_is_made_of_what_tells_nothing() -> None:
    """Where no answer depends on the window, no shape follows."""
    at = np.arange(10.0)
    few = Calls(at, at + 0.1, np.full(10, ADMITTED), np.ones(10), *[np.full(10, np.nan)] * 3, ("",) * 10, ("",) * 10)
    record = decisions.at_middle(decisions.prepare(few, np.linspace(-0.002, 0.002, 7)))
    assert counters.feasible(record, (5.0, 0.0), 1000.0) == []


@given(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.booleans()), min_size=2, max_size=40),
    st.floats(0.3, 60.0),
    st.floats(0.0, 60.0),
    st.integers(1, 30),
)
def test_every_record_has_an_answer(
    calls: list[tuple[float, bool]], window_s: float, boundary_s: float, n: int
) -> None:
    """However short the record is beside the window: what is returned is a window that is not far off, or nothing."""
    at, passed = (np.array(column) for column in zip(*sorted(calls), strict=True))
    nothing = np.full(len(at), np.nan)
    outcome = np.where(passed, ADMITTED, REFUSED)
    words = ("",) * len(at)
    made = Calls(at, at + 0.1, outcome, np.ones(len(at)), nothing, nothing, nothing, words, words)
    record = decisions.at_middle(decisions.prepare(made, np.linspace(-0.02, 0.02, 7)))
    previous = window_s
    for moved_s, moved_to_s in counters.feasible(record, (window_s, boundary_s), float(n)):
        assert np.isfinite(moved_to_s)
        assert previous / 1.4 < moved_s < previous * 1.5
        previous = moved_s
