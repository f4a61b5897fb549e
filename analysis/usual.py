"""What limits leave over of records that they made themselves, where delays blur what they remember.

The likelihood has each decision at a delay that all calls share. Two ways that vary by much of a window are no such
delay: of a second that our own calls open, the truth costs a hundred nats within two minutes. So calls are sent again
past a limit, and what it leaves over then is what it usually does (a parametric bootstrap; Efron 1979).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import likelihood
from analysis.again import first, resent
from analysis.agreement import recorded, replayed
from analysis.calls import EXCUSED
from analysis.misfit import misfit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.calls import Calls, Floats
    from analysis.search import Hypothesis

DRAWS: Final = 6
LEAST: Final = (5.0, 0.1)  # nats, and share of its mean, by which a loss varies at least


@dataclass(frozen=True, slots=True)
class Usual:
    """What a limit leaves over at most, usually. ``missed``: answers that contradict it; ``loss``: nats."""

    missed: int
    loss: float


def usual(h: Hypothesis, calls: Calls, offsets_s: Floats) -> Usual:
    """Return what this limit leaves over of records that it made itself. ``calls``: those that no other refused.

    Of a long record some are sent again, and stand for the others.
    """
    missed, losses, part = [], [], first(calls)
    for again in resent(part, h, DRAWS):
        record = recorded(h, again, offsets_s)
        statistic = replayed(h, record)
        seen = misfit_of(record, statistic, h.limit)
        missed.append(seen.early + seen.over)
        losses.append(-float(likelihood.log_likelihood(record, statistic, np.array([[h.limit]]))[0, 0]))
    times = np.count_nonzero(calls.outcome != EXCUSED) / max(1, len(part))
    return Usual(math.ceil(_at_most(missed, times)), _at_most(losses, times, LEAST))


def _at_most(drawn: Sequence[float], times: float, least: tuple[float, float] = (0.0, 0.0)) -> float:
    """Return what so many ``times`` as much hardly exceeds. ``least``: by which it varies, and share of it."""
    mean = float(np.mean(drawn))
    spread = max(float(np.std(drawn, ddof=1)), least[0], least[1] * abs(mean))
    return times * mean + 2.0 * math.sqrt(times) * spread
