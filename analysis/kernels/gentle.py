"""How well slopes explain how many decisions were made at each value of a statistic: see `analysis.slopes`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.kernels.compiling import compiled

if TYPE_CHECKING:
    from analysis.calls import Floats, Ints

SUMMED: Final = 16.0  # groups up to which their number's distribution is summed up; beyond, it is nearly a normal one


@compiled
def beside(held: Floats, passed: Floats, admitted: Floats, refused: Floats, slopes: Floats, outlier: float) -> Floats:
    """Return the log likelihood of rows of `analysis.slopes.Counts` for each slope: (limit, share, group) of others."""
    out = np.zeros(len(slopes))
    for s in range(len(slopes)):
        limit, share, group = slopes[s]
        for k in range(len(held)):
            chance = taken(held[k], passed[k], limit, share, group)
            out[s] += _log_likelihood(outlier + (1.0 - 2.0 * outlier) * chance, admitted[k], refused[k])
    return out


@compiled
def apart(
    held: Floats,
    admitted: Floats,
    refused: Floats,
    limits: Floats,
    scales: Floats,
    starts: Ints,
    chances: Floats,
    outlier: float,
) -> Floats:
    """Return the log likelihood of the same rows for each slope on counters that count apart.

    ``chances``: one after the other, from ``starts`` on, the chance of a refusal while room for so many calls of
    ``scales`` is left, down to none.
    """
    out = np.zeros(len(limits))
    for s in range(len(limits)):
        first, last = starts[s], starts[s + 1] - 1
        for k in range(len(held)):
            at = last - max(limits[s] - held[k], 0.0) / scales[s]
            below = math.floor(max(at, float(first)))
            above = min(below + 1, last)
            chance = chances[below] + max(at - below, 0.0) * (chances[above] - chances[below])
            out[s] += _log_likelihood(outlier + (1.0 - 2.0 * outlier) * chance, admitted[k], refused[k])
    return out


@compiled
def _log_likelihood(chance: float, admitted: float, refused: float) -> float:
    found = 0.0
    if admitted > 0.0:
        found += admitted * math.log(1.0 - chance)
    if refused > 0.0:
        found += refused * math.log(chance)
    return found


@compiled
def taken(held: float, passed: float, limit: float, share: float, group: float) -> float:
    """Return the chance that others have taken what is left: that a Poisson number of groups is at least as many."""
    room = math.ceil((limit - held) / group)
    mean = passed * share * limit / group
    if room <= 0.0:
        return 1.0
    if mean <= 0.0:
        return 0.0
    if room > SUMMED:
        # Wilson and Hilferty (1931): the cube root of a chi-squared variable is nearly normal.
        part = 1.0 / (9.0 * room)
        return 0.5 * math.erfc((1.0 - part - (mean / room) ** (1.0 / 3.0)) / math.sqrt(2.0 * part))
    term = math.exp(-mean)
    fewer = term
    for k in range(1, int(room)):
        term *= mean / k
        fewer += term
    return max(0.0, 1.0 - fewer)
