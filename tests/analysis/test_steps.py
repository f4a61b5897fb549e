"""Where a search steps from the shapes that it has found."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import steps


def test_steps_along_a_ridge_keep_what_a_fill_let_in() -> None:
    """From a full bucket, 4 615 and 80 a second pass as many in 25 s as one call more and 0.04 a second less."""
    bursts = np.array([4640.0, 4639.0, 4641.0, 4635.0])
    rates = (4615.0 + 25.0 * 80.0 - bursts) / 25.0
    looked_at = np.array([shape[0] for shape in steps.along(rates, bursts)])
    many = (rates[0] - looked_at) * 25.0
    assert {-60, -10, -2, 2, 10, 60} <= set(np.round(many, 6).tolist())
    assert np.abs(looked_at - 80.0).min() < 1e-6 + 0.04


@pytest.mark.parametrize("bursts", [np.array([5.0, 5.0, 5.0]), np.array([5.0, 6.0])])
def test_a_ridge_needs_a_direction(bursts: np.ndarray) -> None:
    """One burst, or two, tell none."""
    assert steps.along(np.linspace(1.0, 1.01, len(bursts)), bursts) == []


def test_a_round_window_is_tried_at_any_phase_near_one_that_is_not() -> None:
    """0.94 s found in a long blurred record may be one second, whose boundary may then lie anywhere."""
    shapes = steps.in_phases((0.94, 3.2), 0.2)
    assert {shape[0] for shape in shapes} == {1.0}
    boundaries = np.sort([shape[1] % 1.0 for shape in shapes])
    assert np.diff(boundaries).max() < 0.05
    assert steps.in_phases((7.5, 0.0), 0.2) == []
    assert steps.in_phases((0.94, 3.2), 0.01) == []  # none of them would be near enough
