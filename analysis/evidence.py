"""Which refusals say something about the limit on requests, by the phase that they were sent in.

A call with a large prompt may have been refused for its tokens; one of a push past the calls in flight may have been
refused for these. Neither decides anything about requests (`UNCLEAR`), though a limit that counts refused calls counts
them. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import flight
from analysis.replay import REFUSED, UNCLEAR, arrival_offsets

if TYPE_CHECKING:
    from analysis.replay import Bools, Calls

TOKENS: Final = "tokens"  # phases of calls whose prompts are sized to meet a limit on tokens


def sized(calls: Calls) -> Bools:
    """Return which calls were sent to meet the limit on input tokens."""
    return np.array([p.startswith(TOKENS) for p in calls.phase], bool)


def for_requests(calls: Calls) -> Calls:
    """Return the record as evidence on requests, where tokens may be limited too."""
    return _without(for_calls(calls), sized(calls))


def for_calls(calls: Calls) -> Calls:
    """Return the record without the refusals of a push that calls in flight may explain: all but those alone."""
    pushed = flight.pushed(calls)
    if not pushed.any():
        return calls
    return _without(calls, pushed & (flight.in_flight(calls, arrival_offsets(calls)).maybe > 0))


def _without(calls: Calls, which: Bools) -> Calls:
    unclear = which & (calls.outcome == REFUSED)
    return replace(calls, outcome=np.where(unclear, UNCLEAR, calls.outcome)) if unclear.any() else calls
