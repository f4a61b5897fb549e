"""A bound that no plan gets below."""

from __future__ import annotations

import pytest
from fewest_calls import fewest_calls


@pytest.mark.parametrize(
    ("full", "lengths", "at_once", "calls"),
    [
        (1.0, 2.0, True, 3.0),  # one call, one refused, and one between the two moments
        (1.0, 4.0, True, 4.0),  # two recoveries with a call each: nothing more is spent on a limit of one
        (100.0, 4.0, True, 104.0),  # three calls in one recovery: another one would cost a hundred
        (100.0, 4.0, False, 103.0),  # each of two calls says yes or no
    ],
)
def test_small_cases_by_hand(full: float, lengths: float, *, at_once: bool, calls: float) -> None:
    """As few as a decision tree has leaves for."""
    assert fewest_calls(full, lengths, at_once=at_once) == calls


def test_a_window_costs_what_its_calls_cost() -> None:
    """With N, the cheapest mixture has fewer recoveries and more calls in each; never below N + 1 and nine bits."""
    needed = [fewest_calls(n, at_once=True) for n in (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)]
    assert needed == sorted(needed)
    for n, calls in zip((1.0, 4.0, 16.0, 64.0, 256.0, 1024.0), needed, strict=True):
        assert calls >= fewest_calls(n, at_once=False)
        assert calls <= n + 1.0 + 410.0
