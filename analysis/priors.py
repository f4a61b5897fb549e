"""What is likelier beforehand: windows of round lengths, and windows that begin with the server's clock. In nats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.proposals import ROUND_WINDOWS_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.calls import Floats
    from analysis.decisions import Record
    from analysis.proposals import Shape, Structure

ROUND_BONUS: Final = 4.0  # nats: a person chose the number
ODD_COST: Final = 0.7  # nats: half of the prior is for windows of any length
RATE_PRICE: Final = 4.0  # nats that a rate limit must earn
UNALIGNED: Final = 2.5  # nats: who counts by the minute on a clock takes the minutes of the clock
SLOW: Final = (3600.0, 6.0)  # seconds to fill that no bucket takes, and no window lasts; nats where one would
WHOLE_BONUS: Final = 1.5  # nats for a whole number of seconds


def roundness(window_s: float) -> float:
    """Return the nats by which a window is likelier beforehand because people choose such numbers."""
    return ROUND_BONUS if window_s in ROUND_WINDOWS_S else WHOLE_BONUS if window_s.is_integer() else 0.0


def prior_of(record: Record, family: str, shape: Shape, seen: Structure) -> float:
    """Return the log prior of one shape: see `priors_of`."""
    return float(priors_of(record, family, [shape], seen)[0])


def priors_of(record: Record, family: str, shapes: Sequence[Shape], seen: Structure) -> Floats:
    """Return the log priors: round windows are likelier, and so are windows aligned to the server's clock.

    A phase that the record was free to choose costs what choosing it was worth (an Occam factor): the number of
    phases that could have been told apart.
    """
    if family == "token_bucket":
        return np.full(len(shapes), -RATE_PRICE - ODD_COST)
    window_s, *phases_s = np.array(shapes, float).T
    bonus = np.array([roundness(w) for w in window_s.tolist()])
    rounded, whole = bonus == ROUND_BONUS, bonus > 0.0
    value = bonus - ODD_COST - RATE_PRICE
    if not phases_s:
        return value
    blur = 2.0 * (record.spread_s + 0.005 * window_s)
    free = np.where(rounded, UNALIGNED, 0.0) + np.clip(np.log(window_s / blur), 1.0, 6.0)
    if seen.server_offset_s is not None:
        offset, slack = seen.server_offset_s
        near = np.where(rounded, blur, 2.0 * record.spread_s)  # of so many whole seconds one fits
        off = (phases_s[0] + offset + 0.5 * window_s) % window_s - 0.5 * window_s
        # Only whole seconds: among windows of any length, one that fits the epoch by chance is always near.
        free[whole & (np.abs(off) <= slack + near)] = 0.0
    return np.asarray(value - ODD_COST - free)


def slowness(rates_per_s: Floats, bursts: Floats) -> Floats:
    """Return the nats that buckets cost which take longer to fill than any window lasts.

    With these, a few calls that come back look like the first of very many. ``bursts``: (shapes, numbers);
    ``rates_per_s``: (shapes, 1).
    """
    return np.where(bursts > SLOW[0] * rates_per_s, SLOW[1], 0.0)
