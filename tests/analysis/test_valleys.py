"""A sliding counter's window, found among all those that nearly suit the record."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import decisions, proposals, search, valleys
from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.descent import Pool
from mock_server import limits

RECORDS = 12


def replayed(rng: np.random.Generator, limit: int, window_s: float, bursts: int, windows: int) -> Calls:
    """Return what a counter answers to bursts of somewhat more than it lets in, at random in so many windows."""
    size = round(1.15 * limit) + 1
    starts = rng.uniform(0.0, windows * window_s, bursts)
    at = np.sort(np.concatenate([t + rng.exponential(0.004 * window_s, size).cumsum() for t in starts]))
    limiter = limits.SlidingCounter(limit, window_s, 0.37 * window_s).limiter()
    outcome = []
    for t in at.tolist():
        admitted = limiter.check(t).admitted
        if admitted:
            limiter.commit(t)
        outcome.append(ADMITTED if admitted else REFUSED)
    n, nothing = len(at), np.full(len(at), np.nan)
    return Calls(at, at + 0.1, np.array(outcome), np.ones(n), nothing, nothing, nothing, ("",) * n, ("",) * n)


@pytest.mark.parametrize(("limit", "window_s", "bursts", "windows"), [(8, 1.17, 20, 30), (131, 1.6356, 10, 17)])
def test_the_right_window_is_found_among_many_that_nearly_suit(
    limit: int, window_s: float, bursts: int, windows: int
) -> None:
    """Without a look at all the valleys, a third of the first kind and half of the second were missed, surely."""
    off = []
    for seed in range(RECORDS):
        calls = replayed(np.random.default_rng(seed), limit, window_s, bursts, windows)
        record = decisions.prepare(calls, np.linspace(-0.002, 0.002, 7) * window_s)
        best = search.search(record, "sliding_counter", proposals.structure(record))[0]
        off.append(abs(best.rate_per_s / (limit / window_s) - 1.0))
    assert sum(error < 0.005 for error in off) >= RECORDS - 1
    assert float(np.median(off)) < 0.001


def test_what_is_looked_at_is_bounded_however_long_the_record_is() -> None:
    """A record of many thousands of windows is looked at less far around: the window itself is always among them."""
    rng = np.random.default_rng(1)
    at = np.sort(rng.uniform(0.0, 20_000.0, 400))
    outcome = np.where(rng.random(400) < 0.5, ADMITTED, REFUSED)
    nothing = np.full(400, np.nan)
    calls = Calls(at, at + 0.1, outcome, np.ones(400), nothing, nothing, nothing, ("",) * 400, ("",) * 400)
    record = decisions.at_middle(decisions.prepare(calls, np.linspace(-0.002, 0.002, 7)))
    windows_s, boundaries_s = valleys._grid(record, 1.17)
    assert boundaries_s.size * record.n <= 1.01 * valleys.LOOKED_AT
    assert float(np.abs(windows_s / 1.17 - 1.0).min()) < 0.001
    assert boundaries_s.shape == (len(windows_s), valleys.BOUNDARIES)


def test_no_window_is_looked_at_that_is_shorter_than_any() -> None:
    """Nor are shapes handed on that the pool would not take."""
    calls = replayed(np.random.default_rng(3), 5, 1.0, 12, 20)
    record = decisions.prepare(calls, np.linspace(-0.002, 0.002, 7))
    pool = Pool(record, "sliding_counter", proposals.structure(record))
    pool.add([(0.95, 0.1)])
    found = valleys.deepest(pool, proposals.structure(record), np.random.default_rng(0))
    assert found
    assert min(shape[0] for shape in found) > proposals.LEAST_WINDOW_S
    assert len(found) <= valleys.MOST
    assert pool.top <= min(pool.far[shape] for shape in found)
