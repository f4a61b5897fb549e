"""Limiters of calls that cost one each: what the state machines of `mock_server.limits` decide, as one loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.kernels.compiling import compiled

if TYPE_CHECKING:
    from analysis.calls import Bools, Floats

CODES: Final = {"fixed_window": 0, "anchored_window": 1, "sliding_log": 2, "sliding_counter": 3, "token_bucket": 4}
EDGE: Final = 1e-9  # calls by which sums of floats may be off


@compiled
def let_in(
    code: int,
    at_s: Floats,
    limit: float,
    window_s: float,
    phase_s: float,
    counts_refused: bool,  # noqa: FBT001 - numba has no keyword-only arguments
) -> Bools:
    """Return which calls, in order of arrival, a limiter admits. ``window_s``: of a bucket, in how long it fills up."""
    admitted = np.zeros(len(at_s), np.bool_)
    size = max(1, int(limit))
    counted_s = np.full(size, -np.inf)  # the last ones, of a log
    number, begun_s, used, last, place = -np.inf, -np.inf, 0.0, 0.0, 0
    for k in range(len(at_s)):
        now_s = at_s[k]
        if code == 0 or code == 3:  # noqa: PLR1714, PLR2004 - numba compares numbers only; see CODES
            windows = (now_s - phase_s) / window_s
            current = float(math.floor(windows))
            if current != number:
                last = used if current == number + 1.0 else 0.0
                number, used = current, 0.0
            held = used if code == 0 else used + last * (1.0 - (windows - current))
        elif code == 1:
            held = used if now_s < begun_s + window_s else 0.0
        elif code == 2:  # noqa: PLR2004
            held = limit if counted_s[place] + window_s > now_s else limit - 1.0
        else:
            used = max(0.0, used - (now_s - begun_s) * limit / window_s) if used > 0.0 else 0.0
            begun_s, held = now_s, used
        admitted[k] = held + 1.0 <= limit + EDGE
        if not (admitted[k] or counts_refused):
            continue
        if code == 1 and now_s >= begun_s + window_s:
            begun_s, used = now_s, 0.0
        if code == 2:  # noqa: PLR2004
            counted_s[place] = now_s
            place = (place + 1) % size
        used += 1.0
    return admitted
