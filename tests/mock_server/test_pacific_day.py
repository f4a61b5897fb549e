"""The day of a daily quota: midnight to midnight in Los Angeles, also when the clocks change."""

from __future__ import annotations

import math
from datetime import datetime

import pytest

from mock_server.limits import PACIFIC, PACIFIC_DAY, FixedWindow

HOUR_S = 3600.0


def pacific(text: str) -> float:
    """Return the epoch seconds of a wall-clock time in Los Angeles."""
    return datetime.fromisoformat(text).replace(tzinfo=PACIFIC).timestamp()


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-08", 23), ("2026-11-01", 25), ("2026-11-23", 24), ("2028-02-29", 24)],
)
def test_a_day_is_as_long_as_the_clocks_say(day: str, hours: int) -> None:
    """23 hours in March, 25 in November, else 24."""
    start_s, end_s = FixedWindow(1, calendar=PACIFIC_DAY).bounds_s(pacific(f"{day}T12:00"))
    assert start_s == pacific(f"{day}T00:00")
    assert end_s - start_s == hours * HOUR_S


@pytest.mark.parametrize("day", ["2026-03-08", "2026-11-01", "2026-11-23"])
def test_the_last_float_of_a_day_belongs_to_it(day: str) -> None:
    """No rounding to microseconds moves a call into the next day, and the promise holds at midnight exactly."""
    spec = FixedWindow(1, calendar=PACIFIC_DAY)
    _, end_s = spec.bounds_s(pacific(f"{day}T23:30"))
    last_s = math.nextafter(end_s, 0.0)
    state = spec.limiter()
    state.commit(last_s)
    verdict = state.check(last_s)
    assert (verdict.admitted, verdict.retry_at_s) == (False, end_s)
    assert state.check(end_s).admitted


def test_a_daily_quota_comes_back_at_midnight_after_the_long_day() -> None:
    """Exhausted at noon of the day with 25 hours, back at its end."""
    state = FixedWindow(20, calendar=PACIFIC_DAY).limiter()
    for _ in range(20):
        state.commit(pacific("2026-11-01T01:30"))
    assert state.check(pacific("2026-11-01T12:00")).retry_at_s == pacific("2026-11-02T00:00")
