"""What a search did not look at is looked at where it contradicts what was found, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis import decisions, overlooked
from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.fit import fit
from analysis.search import Hypothesis
from mock_server import limits

LIMIT, WINDOW_S, BOUNDARY_S = 40, 1.0, 0.3
OFFSETS_S = np.linspace(-0.002, 0.002, 7)


def answered(at_s: np.ndarray) -> Calls:
    """Return what a counter answers to calls at these moments."""
    limiter = limits.SlidingCounter(LIMIT, WINDOW_S, BOUNDARY_S).limiter()
    outcome = []
    for t in at_s.tolist():
        admitted = limiter.check(t).admitted
        if admitted:
            limiter.commit(t)
        outcome.append(ADMITTED if admitted else REFUSED)
    n, nothing = len(at_s), np.full(len(at_s), np.nan)
    return Calls(at_s, at_s + 0.1, np.array(outcome), np.ones(n), nothing, nothing, nothing, ("",) * n, ("",) * n)


@pytest.fixture
def calls() -> Calls:
    """Two bursts that are refused in the end, and a stream between them that is close to the limit and never is."""
    burst = np.linspace(0.0, 0.2, 50)
    return answered(np.concatenate([burst, np.arange(2.0, 10.0, 1.0 / 37.0), 12.0 + burst]))


def hypothesis(limit: int) -> Hypothesis:
    """Return the counter, with a number that may be wrong."""
    return Hypothesis(
        family="sliding_counter",
        limit=float(limit),
        rate_per_s=limit / WINDOW_S,
        window_s=WINDOW_S,
        phase_s=BOUNDARY_S,
        counts_refused=False,
        counts_other=True,
        log_likelihood=0.0,
        log_prior=0.0,
    )


def test_what_passed_beyond_the_limit_is_looked_at(calls: Calls) -> None:
    """Some of the calls in the middle of the stream, which a search leaves out."""
    telling = overlooked.overlooked(calls, OFFSETS_S, None, hypothesis(35))
    assert telling is not None
    assert overlooked.FEWEST <= telling.sum() <= overlooked.MOST
    position = decisions.decided(calls)
    assert not telling[decisions.looked_at(calls, position)].any()
    seen = decisions.prepare(replace(calls, telling=telling), OFFSETS_S)
    assert set(np.flatnonzero(telling)) <= set(seen.position.tolist())


def test_what_explains_the_record_overlooks_nothing(calls: Calls) -> None:
    """No second search where the first was right, or where what it looked at contradicts it just as well."""
    assert overlooked.overlooked(calls, OFFSETS_S, None, hypothesis(LIMIT)) is None
    assert overlooked.overlooked(calls.take(np.arange(50)), OFFSETS_S, None, hypothesis(37)) is None


def test_a_fit_is_not_contradicted_by_what_it_left_out(calls: Calls) -> None:
    """The best explanation holds for every call of the record, and the record comes back as it was."""
    found = fit(calls)
    assert found.missed < overlooked.FEWEST
    assert found.calls.telling is None
