"""Decisions that a search did not look at, although they contradict what it found.

Far from a change from admitted to refused a decision mostly says nothing, so a search leaves most of these out. But a
stream below a counter's limit may come close to it at the end of each window and never be refused: a shape that fits
both ends of such a run may forbid half of what passed inside it. Those decisions are the bounds that a search lacked
(as in a cutting-plane method), and a second search with some of them finds what obeys them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions
from analysis.agreement import explained_by

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls, Floats
    from analysis.search import Hypothesis

FEWEST: Final = 3  # contradictions that are worth another search
MOST: Final = 40  # decisions that are added at a time: neighbours say the same
MOSTLY: Final = 0.5  # share of all contradictions; where what was looked at is not explained either, more is no help


def overlooked(calls: Calls, offsets_s: Floats, excused: Bools | None, h: Hypothesis) -> Bools | None:
    """Return the calls that a search has to look at, after this was the best it found; None where it missed nothing.

    ``excused``: refusals that a limit on calls in flight explains.
    """
    asked, explained = explained_by(h, calls, offsets_s, excused=excused)
    wrong = asked[~explained]
    unseen = np.setdiff1d(wrong, decisions.looked_at(calls, asked))
    if len(unseen) < max(FEWEST, MOSTLY * len(wrong)):
        return None
    telling = np.zeros(len(calls), bool) if calls.telling is None else calls.telling.copy()
    telling[unseen[np.linspace(0, len(unseen) - 1, min(len(unseen), MOST)).astype(np.int64)]] = True
    return telling
