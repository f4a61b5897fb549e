"""The straight line that parts admitted from refused calls best: see `analysis.counters`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.kernels.compiling import compiled
from analysis.kernels.selection import selected

if TYPE_CHECKING:
    from analysis.calls import Bools, Floats


GOLDEN: Final = 0.5 * (math.sqrt(5.0) - 1.0)
FINE: Final = 1e-7  # relative width of the rates between which the best one is looked for
LEAST_LOSS: Final = 1e-9  # windows by which two losses may differ that count as the same


@compiled
def separated(
    at: Floats, bound: Floats, admitted: Bools, margin: float, rates: tuple[float, float], ends: Floats
) -> tuple[float, float]:
    """Return (a, b) such that ``a * at - b`` lies above ``bound`` for the admitted and below it for the refused.

    By ``margin`` where that can be, else with the least sum of what is missing (a hinge loss; convex in both). Of all
    that are as good, the middle. ``rates``: the least and the most of a; ``ends``: rows of (time, least, most), between
    which ``a * time - b`` stays.
    """
    kinks, refused = np.empty(len(at)), len(at) - int(np.count_nonzero(admitted))
    low, high = rates
    lower, upper = _golden(low, high), low + high - _golden(low, high)
    lost = _missing(at, bound, admitted, margin, ends, refused, kinks, lower)[0]
    lost_upper = _missing(at, bound, admitted, margin, ends, refused, kinks, upper)[0]
    while high - low > FINE * high:
        if lost <= lost_upper:
            high, upper, lost_upper = upper, lower, lost
            lower = _golden(low, high)
            lost = _missing(at, bound, admitted, margin, ends, refused, kinks, lower)[0]
        else:
            low, lower, lost = lower, upper, lost_upper
            upper = low + high - _golden(low, high)
            lost_upper = _missing(at, bound, admitted, margin, ends, refused, kinks, upper)[0]
    best = 0.5 * (low + high)
    lost = _missing(at, bound, admitted, margin, ends, refused, kinks, best)[0]
    edges = np.array(rates)
    for k in range(2):
        inside, outside = best, edges[k]
        while abs(outside - inside) > FINE * best:
            middle = 0.5 * (inside + outside)
            if _missing(at, bound, admitted, margin, ends, refused, kinks, middle)[0] <= lost + LEAST_LOSS:
                inside = middle
            else:
                outside = middle
        edges[k] = inside
    best = 0.5 * (edges[0] + edges[1])
    return best, _missing(at, bound, admitted, margin, ends, refused, kinks, best)[1]


@compiled
def _golden(low: float, high: float) -> float:
    return high - GOLDEN * (high - low)


@compiled
def _missing(
    at: Floats,
    bound: Floats,
    admitted: Bools,
    margin: float,
    ends: Floats,
    refused: int,
    kinks: Floats,
    rate: float,
) -> tuple[float, float]:
    """Return the least hinge loss at this rate, and the boundary that has it.

    The loss of a boundary b has slope (points of change below b) - (refused): so the least is at that rank of these.
    """
    for d in range(len(at)):
        kinks[d] = rate * at[d] - bound[d] + (-margin if admitted[d] else margin)
    offset = selected(kinks, min(refused, len(kinks) - 1))
    if 0 < refused < len(kinks):
        offset = 0.5 * (offset + kinks[:refused].max())
    for end in ends:
        offset = min(max(offset, rate * end[0] - end[2]), rate * end[0] - end[1])
    lost = 0.0
    for d in range(len(at)):
        over = rate * at[d] - offset - bound[d]
        lost += max(0.0, margin - (over if admitted[d] else -over))
    return lost, offset
