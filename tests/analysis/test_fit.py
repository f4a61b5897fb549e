"""Any record at all, however short or senseless, is explained or is not: the arithmetic never fails on it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import again, decisions, descent, judging, proposals, search
from analysis.calls import ADMITTED, OTHER, PENDING, REFUSED, Calls, arrival_offsets
from analysis.conclude import conclude_limits
from analysis.fit import RULED_OUT, fit
from analysis.priors import SLOW, slowness
from mock_server import limits

CALL = st.tuples(
    st.floats(0.0, 20.0),  # seconds since the one before
    st.floats(0.0, 3.0),  # seconds until the answer
    st.sampled_from([ADMITTED, REFUSED, REFUSED, OTHER, PENDING]),
)


def record(calls: list[tuple[float, float, int]]) -> Calls:
    """Return these calls as a record."""
    n = len(calls)
    sent_s = np.cumsum([gap_s for gap_s, _, _ in calls])
    outcome = np.array([outcome for _, _, outcome in calls], np.int64)
    took_s = np.array([took_s for _, took_s, _ in calls])
    unknown = np.full(n, math.nan)
    return Calls(
        sent_s=sent_s,
        done_s=np.where(outcome == PENDING, math.nan, sent_s + took_s),
        outcome=outcome,
        tokens=np.ones(n),
        server_date=unknown,
        retry_delay_s=unknown,
        quota_value=unknown,
        quota_id=("",) * n,
        phase=("fill",) * n,
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(CALL, min_size=1, max_size=12))
def test_every_record_has_an_answer(calls: list[tuple[float, float, int]]) -> None:
    """Also one that begins with refusals, or in which a call passes only by chance."""
    fitted = fit(record(calls))
    fitted.rate_doubtful()
    fitted.certainty()
    assert all(h.limit > 0.0 and h.rate_per_s > 0.0 for h in (*fitted.hypotheses, *fitted.otherwise))
    assert len(conclude_limits(fitted).identified) == 2


def test_a_quota_that_is_used_up_at_first_has_no_limit_of_zero() -> None:
    """What CI met on a shared server: three refusals, one call that passed, twelve more refusals."""
    began = [(0.02, 0.005, REFUSED)] * 3 + [(0.3, 0.2, ADMITTED)] + [(0.001, 0.005, REFUSED)] * 12
    fitted = fit(record(began))
    assert all(h.limit > 0.0 for h in (*fitted.hypotheses, *fitted.otherwise))
    fitted.rate_doubtful()


def test_a_fit_that_is_remembered_is_that_of_the_record_asked_for() -> None:
    """Records that differ in nothing that a fit reads share one; whoever asks gets the calls that they gave."""
    first = record([(1.0, 0.1, ADMITTED)] * 5 + [(0.5, 0.1, REFUSED)] * 3 + [(9.0, 0.1, ADMITTED)])
    same = replace(first, phase=("watch",) * len(first))
    other = replace(first, outcome=np.where(np.arange(len(first)) == len(first) - 1, REFUSED, first.outcome))
    assert fit(same).calls is same
    assert fit(same).hypotheses == fit(first).hypotheses
    assert fit(other).hypotheses != fit(first).hypotheses


def test_a_family_far_behind_another_is_given_up() -> None:
    """What the others reach decides how long a family is looked at."""
    calls = record([(1.0, 0.1, ADMITTED)] * 5 + [(0.5, 0.1, REFUSED)] * 3 + [(9.0, 0.1, ADMITTED)])
    asked = decisions.prepare(calls, arrival_offsets(calls))
    seen = proposals.structure(asked)
    best = search.search(asked, "sliding_log", seen)[0].score
    assert search.search(asked, "sliding_log", seen, rival=best + 0.9 * search.FOLLOWED)
    assert not search.search(asked, "sliding_log", seen, rival=best + 1.1 * search.FOLLOWED)


def served(count: int, places: int | None, limit: int, seed: int) -> Calls:
    """Return bursts of 16 calls that take 0.25 s and arrive up to 0.35 s late: refused by places, or by a window."""
    rng = np.random.default_rng(seed)
    sent_s = (4.0 * np.arange(count)[:, None] + 0.002 * np.arange(16)).ravel()
    there_s, back_s = rng.uniform(0.05, 0.4, (2, len(sent_s)))
    passed: list[float] = []
    refused = np.zeros(len(sent_s), bool)
    for k in np.argsort(sent_s + there_s):
        at_s = float(sent_s[k] + there_s[k])
        held = sum(at_s - (1.0 if places is None else 0.25) < other for other in passed)
        refused[k] = held >= (limit if places is None else places)
        passed += [] if refused[k] else [at_s]
    outcome = np.where(refused, REFUSED, ADMITTED)
    n, nothing = len(sent_s), np.full(len(sent_s), np.nan)
    done_s = sent_s + there_s + back_s + np.where(refused, 0.0, 0.25)
    return Calls(sent_s, done_s, outcome, np.ones(n), nothing, nothing, nothing, ("",) * n, ("fill",) * n)


@pytest.mark.parametrize("seed", range(3))
def test_a_limit_on_calls_in_flight_must_let_in_as_many_as_were(seed: int) -> None:
    """Answers shorter than delays vary: it would have let others pass, though all may have been there at once."""
    few, many = fit(served(8, None, 12, seed)), fit(served(20, None, 12, seed))
    for fitted in (few, many):
        assert fitted.candidate is not None
        assert fitted.concurrency is None
    assert few.behind > 12.0
    assert many.behind > RULED_OUT
    assert not many.rate_doubtful()


@pytest.mark.parametrize("seed", range(3))
def test_places_are_counted_through_delays_that_vary_more_than_answers_take(seed: int) -> None:
    """The number that there are costs next to nothing, others cost more the further off they are."""
    calls = served(8, 5, 0, seed)
    everything = np.ones(len(calls), bool)
    cost = {n: again.surprise_of_places(calls, n, 0.7, everything) for n in (2, 3, 5, 7, 9)}
    assert cost[5] < 12.1  # eight bursts whose number is open to a call or so: the squares alone are below four
    assert cost[2] > cost[3] > cost[5]
    assert cost[9] > cost[7] > cost[5] + 8.0


@pytest.mark.parametrize("seed", range(3))
def test_places_that_let_in_as_many_are_told(seed: int) -> None:
    """To a call: the interval holds the number that there are."""
    fitted = fit(served(8, 5, 0, seed))
    assert fitted.concurrency in {4, 5, 6}
    assert fitted.concurrency_range is not None
    assert fitted.concurrency_range[0] <= 5 <= fitted.concurrency_range[1]


@pytest.mark.parametrize("few", [6, 10])
def test_a_few_calls_that_come_back_are_not_the_refill_of_a_bucket_of_hours(few: int) -> None:
    """Calls before a counter's boundary fade out of it one by one, as slowly as if all took days to come back."""
    fitted = fit(beyond_a_boundary(few))
    assert dict(fitted.probabilities()).get("token_bucket", 0.0) < 0.5
    assert fitted.best is not None
    assert fitted.best.family != "token_bucket"


def beyond_a_boundary(few: int) -> Calls:
    """Send a few calls before a boundary of a counter of 700 in 570 s, all it lets in after it, and go on trying."""
    rng, window_s, before_s = np.random.default_rng(1), 570.0, 3.3
    counter = limits.SlidingCounter(700, window_s, 0.0).limiter(seed=0)
    at_once = before_s + 0.5 + np.linspace(0.0, 70.0, 706)
    tries = before_s + 72.0 + np.cumsum(rng.uniform(0.2, 0.6, 400))
    sent_s = np.concatenate([np.sort(rng.uniform(0.0, before_s - 0.5, few)), at_once, tries])
    calls = []
    for gap_s, server_s in zip(np.diff(sent_s, prepend=0.0), 10 * window_s - before_s + sent_s, strict=True):
        admitted = counter.check(server_s, 1.0).admitted
        (counter.commit if admitted else counter.refused)(server_s, 1.0)
        calls.append((float(gap_s), float(rng.uniform(0.05, 0.07)), ADMITTED if admitted else REFUSED))
    return record(calls)


def test_a_bucket_that_takes_longer_to_fill_than_any_window_lasts_costs() -> None:
    """At an hour and beyond by the same: nothing tells how much longer."""
    cost = slowness(np.array([[1.0], [0.01]]), np.array([[3600.0, 3601.0], [36.0, 500.0]]))
    assert (cost == [[0.0, SLOW[1]], [0.0, SLOW[1]]]).all()


def test_a_bucket_that_the_spread_would_hide_is_no_start_of_a_search() -> None:
    """One that refills within it explains calls that came close together, whatever refused them."""
    calls = served(8, None, 12, 0)
    asked = decisions.prepare(calls, arrival_offsets(calls))
    assert asked.spread_s > 0.3
    for rate, hidden in ((3.0, False), (400.0, True)):
        s = judging.statistic(asked, "token_bucket", [(rate,)], 1.0)
        found = judging.thresholds_of(asked, "token_bucket", [(rate,)], s)
        assert bool((found == judging.HOPELESS).all()) == hidden


@pytest.mark.parametrize("refused", [1, 200])
def test_shapes_are_sorted_out_by_decisions_of_both_kinds(refused: int) -> None:
    """However few there are of one: of a record of sized calls with a single refusal, evenly chosen ones had none."""
    rng = np.random.default_rng(refused)
    outcomes = [REFUSED if k in range(7, 7 + refused) else ADMITTED for k in range(300)]
    calls = replace(record([(0.5, 0.1, o) for o in outcomes]), tokens=rng.integers(1, 900, 300).astype(float))
    offsets = arrival_offsets(calls)
    asked = decisions.prepare(calls, offsets, tokens=True, thin=False)
    some = decisions.fewer_of_each(asked, descent.SOME)
    assert (int(some.admitted.sum()), int((~some.admitted).sum())) == (descent.SOME, min(descent.SOME, refused))
    assert (np.diff(some.sent_s) > 0).all()
    pool = descent.Pool(asked, "sliding_counter", proposals.structure(asked))
    pool.begin([(window, at) for window in np.linspace(1.0, 60.0, 40).tolist() for at in range(10)])
    assert len(pool.far) == descent.CLOSELY
