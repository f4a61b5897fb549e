"""Window and boundary of a sliding counter that fit a record, given its number N: a small convex problem.

A counter admits a call of cost c at time t while ``cur + prev * (1 - ((t - b) / W - k)) + c <= N``, where k numbers the
window, cur and prev are what was spent in it and in the one before, and b is a boundary. For the k, cur and prev of a
shape close by, that is a bound on ``(t - b) / W``: linear in 1 / W and b / W, so that the shape that breaks the fewest
bounds, weighted by how far, is the minimum of a convex function of two unknowns (the hinge loss of a support vector
machine; Cortes and Vapnik 1995). Counting anew from there and solving again ends in a narrow feasible region that no
search downhill enters: it is some ten thousandths of a window wide. Pure; seconds on the record's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import replay
from analysis.kernels import separation

if TYPE_CHECKING:
    from analysis.calls import Floats
    from analysis.decisions import Record
    from analysis.proposals import Shape

MARGINS: Final = (1.0, 1.0, 0.3, 0.3)  # spreads that each decision keeps from its bound if it can, turn by turn
REACH: Final = 0.3  # windows from its bound within which a decision matters
TURN: Final = 0.3  # windows by which boundaries at either end of the record, and a window's own end, may move a turn
SAME: Final = 1e-5  # relative change that ends it
FEWEST: Final = 3  # bounds that say anything


def feasible(record: Record, shape: Shape, limit: float) -> list[Shape]:
    """Return the shapes, one a turn, that better and better fit what N calls a window let pass, from ``shape`` on.

    ``record``: with one offset, as of `decisions.at_middle`.
    """
    found: list[Shape] = []
    for margin in MARGINS:
        moved = _moved(record, shape, limit, margin * record.spread_s)
        if moved is None:
            break
        found.append(moved)
        if abs(moved[0] / shape[0] - 1.0) < SAME and abs(moved[1] - shape[1]) < SAME * shape[0]:
            break
        shape = moved
    return found


def _moved(record: Record, shape: Shape, limit: float, margin_s: float) -> Shape | None:
    window_s = shape[0]
    passed, bound = _bounds(record, shape, limit)
    matters = np.abs(passed - bound) < REACH  # where no window was before, no moment in it changes the answer
    rows = int(np.sum(matters))
    if rows < FEWEST:
        return None
    # In the unknowns a = 1 / W and b = (boundary - zero) / W: sign * (a * t - b - bound) >= margin.
    zero_s = float(record.at_s[0].mean())
    t = record.at_s[0] - zero_s
    least, most = passed[[0, -1]] - TURN, passed[[0, -1]] + TURN
    lasted = max(float(t[-1] - t[0]), 1e-9)
    slowest = max((1.0 - TURN) / window_s, float(least[1] - most[0]) / lasted)
    fastest = min((1.0 + TURN) / window_s, float(most[1] - least[0]) / lasted)
    ends = np.column_stack([t[[0, -1]], least, most])
    per_s, offset = separation.separated(
        t[matters], bound[matters], record.admitted[matters], margin_s / window_s, (slowest, fastest), ends
    )
    return 1.0 / per_s, zero_s + offset / per_s


def _bounds(record: Record, shape: Shape, limit: float) -> tuple[Floats, Floats]:
    """Return for each decision the windows since the boundary, and how many have to have passed for it to be let in."""
    passed, number, current, last = (part[0] for part in replay.counted(record, *shape))
    room = limit - record.cost - current
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.where(last > 0.0, number + 1.0 - room / last, np.where(room >= 0.0, -np.inf, np.inf))
    # One that no moment of its window explains belongs into the next, or into the one before.
    return passed, np.where(record.admitted, np.minimum(bound, number + 1.0), np.maximum(bound, number))
