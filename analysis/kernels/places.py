"""Calls that meet a limit on how many may be in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis.kernels.compiling import compiled

if TYPE_CHECKING:
    from analysis.calls import Bools, Floats


@compiled
def let_in(arrived_s: Floats, busy_s: Floats, places: int) -> Bools:
    """Return which calls, in order of arrival, found one of so many places free; each then keeps it for ``busy_s``."""
    free_s = np.full(places, -np.inf)  # when each place is free, as a heap: the next one stands first
    admitted = np.zeros(len(arrived_s), np.bool_)
    for k in range(len(arrived_s)):
        if free_s[0] > arrived_s[k]:
            continue
        admitted[k] = True
        end, hole = arrived_s[k] + busy_s[k], 0
        while 2 * hole + 1 < places:
            below = 2 * hole + 1
            if below + 1 < places and free_s[below + 1] < free_s[below]:
                below += 1
            if free_s[below] >= end:
                break
            free_s[hole] = free_s[below]
            hole = below
        free_s[hole] = end
    return admitted
