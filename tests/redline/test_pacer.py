"""Schedules: the right number of arrivals, at the right moments, with the right spread. All in exact time."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline import pacer

rates = st.floats(0.01, 200)


def even(from_per_s: float, to_per_s: float, duration_s: float) -> list[float]:
    """List the evenly spaced arrivals of a line."""
    return list(pacer.line(pacer.even_points(), from_per_s, to_per_s, duration_s))


def stream(number: int) -> Random:
    """Give one worker's seeded stream."""
    return Random(f"7/{number}")  # noqa: S311 - a schedule, not a secret


def test_steady_rate_is_one_call_each_interval() -> None:
    """Ten a second for half a second."""
    assert list(pacer.constant(pacer.even_points(), 10, 0.5)) == [0.0, 0.1, 0.2, 0.3, 0.4]


@given(rates, rates, st.floats(0.1, 30))
def test_a_line_sends_its_integral(from_per_s: float, to_per_s: float, duration_s: float) -> None:
    """The count is the area under the rate; moments rise and stay inside."""
    moments = even(from_per_s, to_per_s, duration_s)
    assert abs(len(moments) - (from_per_s + to_per_s) / 2 * duration_s) <= 1
    assert all(0 <= moment < duration_s for moment in moments)
    assert moments == sorted(moments)


@given(rates, rates, st.floats(0.5, 30))
def test_each_arrival_sits_where_the_integral_says(from_per_s: float, to_per_s: float, duration_s: float) -> None:
    """The k-th comes when the integral reaches k."""
    slope = (to_per_s - from_per_s) / duration_s
    for k, moment in enumerate(even(from_per_s, to_per_s, duration_s)):
        assert from_per_s * moment + slope * moment * moment / 2 == pytest.approx(k, abs=1e-6)


@given(st.integers(1, 7), rates, rates, st.floats(0.1, 20))
def test_workers_share_an_even_schedule_exactly(workers: int, low: float, high: float, duration_s: float) -> None:
    """Put together, their parts are the whole, call by call."""
    shares = [list(pacer.line(pacer.even_points(worker, workers), low, high, duration_s)) for worker in range(workers)]
    assert sorted(moment for share in shares for moment in share) == even(low, high, duration_s)


@pytest.mark.parametrize("workers", [1, 4, 10])
def test_poisson_arrivals_are_dispersed_as_poisson_however_many_workers_send_them(workers: int) -> None:
    """Variance over mean of the counts a second is near 1: not clumped by equal seeds, not evened out."""
    streams = [pacer.constant(pacer.poisson_points(stream(worker), workers), 50, 400) for worker in range(workers)]
    counts = [0] * 400
    for arrivals in streams:
        for moment in arrivals:
            counts[int(moment)] += 1
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert mean == pytest.approx(50, rel=0.03)
    assert 0.8 < variance / mean < 1.25


def test_poisson_gaps_have_no_memory() -> None:
    """The gaps' mean and standard deviation agree, as an exponential's do."""
    moments = list(pacer.constant(pacer.poisson_points(stream(3)), 20, 500))
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert deviation / mean == pytest.approx(1, abs=0.05)


def test_stair_holds_each_level() -> None:
    """Three levels of ten seconds at 1, 2 and 3 a second."""
    moments = list(pacer.steps(pacer.even_points(), 1, 3, 30, 3))
    counts = [sum(10 * level <= moment < 10 * (level + 1) for moment in moments) for level in range(3)]
    assert counts == [10, 20, 30]


def test_single_step_is_its_first_rate() -> None:
    """A stair of one level is flat."""
    assert len(list(pacer.steps(pacer.even_points(), 2, 9, 5, 1))) == 10


@given(st.integers(1, 50), st.integers(1, 6))
def test_bursts_are_whole_over_all_workers(size: int, workers: int) -> None:
    """Each burst has its size, whoever sends it."""
    sent = [moment for worker in range(workers) for moment in pacer.bursts(size, 2.0, 5.0, worker, workers)]
    assert {moment: sent.count(moment) for moment in set(sent)} == {0.0: size, 2.0: size, 4.0: size}


def test_one_burst_is_one() -> None:
    """Without a pause there is no second one."""
    assert list(pacer.bursts(3, None, 60)) == [0.0, 0.0, 0.0]


def test_trace_starts_at_zero_and_is_sorted() -> None:
    """A log need not be in order, nor start when its clock did."""
    assert list(pacer.replay([105.0, 103.0, 104.5, 999.0], 60)) == [0.0, 1.5, 2.0]
    assert list(pacer.replay([], 60)) == []


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: list(pacer.line(pacer.even_points(), -1, 1, 1)), "a rate takes a number that is not negative"),
        (lambda: list(pacer.line(pacer.even_points(), 1, math.nan, 1)), "a rate takes a number"),
        (lambda: list(pacer.constant(pacer.even_points(), 1, 0)), "a duration takes a positive number"),
        (lambda: list(pacer.bursts(0, 1, 1)), "at least 1 call"),
        (lambda: list(pacer.bursts(1, -1, 1)), "positive time"),
        (lambda: list(pacer.steps(pacer.even_points(), 1, 2, 1, 0)), "steps must be at least 1"),
        (lambda: list(pacer.replay([math.inf], 1)), "finite numbers"),
    ],
)
def test_nonsense_is_refused_by_name(call: object, told: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match=told):
        call()  # type: ignore[operator]
