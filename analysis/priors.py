"""What is likelier beforehand: windows of round lengths, and windows that begin with the server's clock. In nats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from analysis.proposals import ROUND_WINDOWS_S

if TYPE_CHECKING:
    from analysis.decisions import Record
    from analysis.proposals import Shape, Structure

ROUND_BONUS: Final = 4.0  # nats: a person chose the number
ODD_COST: Final = 0.7  # nats: half of the prior is for windows of any length
RATE_PRICE: Final = 4.0  # nats that a rate limit must earn
UNALIGNED: Final = 2.5  # nats: who counts by the minute on a clock takes the minutes of the clock
WHOLE_BONUS: Final = 1.5  # nats for a whole number of seconds


def roundness(window_s: float) -> float:
    """Return the nats by which a window is likelier beforehand because people choose such numbers."""
    return ROUND_BONUS if window_s in ROUND_WINDOWS_S else WHOLE_BONUS if window_s.is_integer() else 0.0


def prior_of(record: Record, family: str, shape: Shape, seen: Structure) -> float:
    """Return the log prior: round windows are likelier, and so are windows aligned to the server's clock.

    A phase that the record was free to choose costs what choosing it was worth (an Occam factor): the number of
    phases that could have been told apart.
    """
    if family == "token_bucket":
        return -RATE_PRICE - ODD_COST
    window_s = float(shape[0])
    value = roundness(window_s) - ODD_COST - RATE_PRICE
    if len(shape) == 1:
        return value
    blur = 2.0 * (record.spread_s + 0.005 * window_s)
    # Only whole seconds: among windows of any length, one that fits the epoch by chance is always near.
    if seen.server_offset_s is not None and window_s.is_integer():
        offset, slack = seen.server_offset_s
        near = blur if window_s in ROUND_WINDOWS_S else 2.0 * record.spread_s  # of so many whole seconds one fits
        off = (shape[1] + offset + 0.5 * window_s) % window_s - 0.5 * window_s
        if abs(off) <= slack + near:
            return value - ODD_COST
    unaligned = UNALIGNED if window_s in ROUND_WINDOWS_S else 0.0
    return value - ODD_COST - unaligned - min(6.0, max(1.0, math.log(window_s / blur)))
