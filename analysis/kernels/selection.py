"""What stands at a rank of unsorted values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.kernels.compiling import compiled

if TYPE_CHECKING:
    from analysis.calls import Floats


@compiled
def selected(values: Floats, rank: int) -> float:
    """Return what stands at ``rank`` of the sorted values; those before it are no larger then (Hoare's find, 1961)."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return float(values[rank])
