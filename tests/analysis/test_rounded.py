"""Where delays leave a number open, the one that people choose is told; nothing else moves."""

from __future__ import annotations

import pytest

from analysis.priors import ROUND_BONUS
from analysis.rounded import LEFT_OPEN, round_first
from analysis.search import Hypothesis

SPREAD_S = 0.5


def window(window_s: float, score: float, family: str = "anchored_window") -> Hypothesis:
    """Return a limit of ten calls."""
    roundness = ROUND_BONUS if window_s == 1.0 else 0.0
    prior = (family, 10.0, 10.0 / window_s, window_s, None, False, True, score - roundness, roundness, roundness)
    return Hypothesis(*prior)


def bucket(rate_per_s: float, score: float = -5.0, size: float = 4.0) -> Hypothesis:
    """Return a bucket."""
    return Hypothesis("token_bucket", size, rate_per_s, None, None, False, True, score, 0.0)  # noqa: FBT003


def best(found: list[Hypothesis]) -> Hypothesis:
    """Return what would be told."""
    return max(found, key=lambda h: h.score)


def test_a_round_window_is_told_if_it_explains_nearly_as_much() -> None:
    """It leads, and what it is worth without the preference stays: the interval does not know of it."""
    odd, whole = window(0.94, -3.0), window(1.0, -3.0 - 0.9 * LEFT_OPEN)
    told = best(round_first([odd, whole], SPREAD_S))
    assert told.window_s == 1.0
    assert told.evidence == pytest.approx(whole.evidence)


@pytest.mark.parametrize(("behind", "spread_s"), [(1.1 * LEFT_OPEN, SPREAD_S), (0.9 * LEFT_OPEN, 0.05)])
def test_it_is_not_where_the_record_tells(behind: float, spread_s: float) -> None:
    """A record that contradicts the round window, or delays that blur nothing, leave the odd one."""
    found = [window(0.94, -3.0), window(1.0, -3.0 - behind)]
    assert round_first(found, spread_s) == found


def test_other_families_are_as_likely_as_they_were() -> None:
    """What is preferred within one family is no argument against another."""
    found = [window(0.94, -3.0), window(1.0, -6.0), bucket(9.3, -2.0)]
    told = round_first(found, SPREAD_S)
    assert max(h.score for h in told if h.family == "anchored_window") == pytest.approx(-3.0, abs=0.01)
    assert best(told).family == "token_bucket"


@pytest.mark.parametrize(
    ("rate_per_s", "told_per_s"), [(1.98, 2.0), (6.5, 6.5), (6.71, 400.0 / 60.0), (0.97, 0.97), (16.8, 1000.0 / 60.0)]
)
def test_a_rate_becomes_the_round_one_nearby(rate_per_s: float, told_per_s: float) -> None:
    """Whole calls a second, or an rpm of one digit: what is nearer."""
    assert best(round_first([bucket(rate_per_s)], SPREAD_S)).rate_per_s == pytest.approx(told_per_s)


def test_a_bucket_that_is_hardly_blurred_keeps_its_rate() -> None:
    """Hundreds of calls tell its rate to less than what it is off a round one."""
    found = [bucket(83.9, size=354.0)]
    assert round_first(found, SPREAD_S) == found
