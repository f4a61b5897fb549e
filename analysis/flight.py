"""Calls in flight: what the server may have had in hand when each call arrived, and the limit that this implies.

The server's own count cannot be seen. A call occupies its slot from its arrival to the end of its answer; the
client sees it longer. So each call gets two counts of the others: one that was surely reached (for admissions) and
one that may have been reached (for refusals). Pure; times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.calls import ADMITTED, OTHER, PENDING, REFUSED

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls, Floats, Ints

WORK_S = 0.0015  # what a server takes to refuse, or to free a place after its answer: it is no part of the way back


@dataclass(frozen=True, slots=True)
class Flight:
    """Bounds of the calls in flight at the server when each call arrived, itself excluded."""

    surely: Ints
    maybe: Ints


def in_flight(calls: Calls, offsets_s: Floats) -> Flight:
    """Return both counts for every call."""
    # An end is seen after the way back and placed by the fastest one, so it is up to one spread too late; a start
    # may arrive up to one spread late. Where few delays are far longer than the rest, the usual ones set the bound.
    spread, usual = float(offsets_s[-1]), float(offsets_s[-2])
    trip = (calls.done_s - calls.sent_s)[calls.throttled]
    trip = trip[np.isfinite(trip)]
    back_s = float(trip.min()) if len(trip) else 0.0
    n = len(calls)
    sure = calls.outcome == ADMITTED
    possible = sure | (calls.outcome == PENDING) | (calls.outcome == OTHER)
    ends = np.where(np.isfinite(calls.done_s), calls.done_s - back_s, np.inf)

    started_before = np.concatenate([[0], np.cumsum(sure)])[:n]
    ended = np.sort(ends[sure])
    surely = started_before - np.searchsorted(ended, calls.sent_s + min(2.0 * spread, 3.2 * usual), side="right")

    # What was sent after a call's own answer had come back cannot have been there before it. How late a refused call
    # may have arrived is told by its own round trip too, where that was longer than the others'.
    answered = np.where(np.isfinite(calls.done_s), calls.done_s, np.inf)
    own_s = np.where(calls.throttled & np.isfinite(calls.done_s), calls.done_s - back_s, -np.inf)
    latest = np.minimum(np.maximum(calls.sent_s + spread, own_s), answered)
    starts = calls.sent_s[possible]
    late_ends = np.sort(ends[possible])
    maybe = np.searchsorted(starts, latest, side="right") - possible
    maybe -= np.searchsorted(late_ends, calls.sent_s - 0.25 * spread - WORK_S, side="right")
    return Flight(np.maximum(surely, 0), np.maximum(maybe, 0))


def reached(calls: Calls, flight: Flight) -> int:
    """Return the most calls that were surely in flight when one was admitted, itself included; 0 where none was."""
    return int((flight.surely[calls.outcome == ADMITTED] + 1).max(initial=0))


def candidate(calls: Calls, flight: Flight) -> int | None:
    """Return the limit that the record suggests: the least height at which refusals stood, from what was reached on.

    What may have been in flight is never too low, so a limit C refuses nobody below C; what was surely in flight is
    never too high. None where no refusal stood at such a height: nothing hints at a limit on calls in flight then.
    """
    admitted = calls.outcome == ADMITTED
    refused = calls.outcome == REFUSED
    if not refused.any() or not admitted.any():
        return None
    at = flight.maybe[refused]
    high = at[at >= reached(calls, flight)]
    return int(high.min()) if len(high) else None


def span(calls: Calls, flight: Flight, limit: int) -> tuple[int, int]:
    """Return the limits that fit about as well as ``limit``: never below what was surely reached."""
    return min(limit, max(1, reached(calls, flight))), limit


def excused(calls: Calls, flight: Flight, limit: int) -> Bools:
    """Return which refusals a concurrency limit explains."""
    return np.asarray((calls.outcome == REFUSED) & (flight.maybe >= limit))


def contradictions(calls: Calls, flight: Flight, limit: int) -> int:
    """Return how many admissions this limit forbids."""
    return int(np.sum((calls.outcome == ADMITTED) & (flight.surely + 1 > limit)))


def undecided(calls: Calls, flight: Flight, limit: int) -> tuple[int, int]:
    """Return (refused, admitted) of the calls that may have met this limit, or may not."""
    open_ = (flight.maybe >= limit) & (flight.surely < limit)
    return int(np.sum(open_ & (calls.outcome == REFUSED))), int(np.sum(open_ & (calls.outcome == ADMITTED)))


def episodes(calls: Calls, which: Bools, gap_s: float) -> int:
    """Return in how many separate moments these calls fall (further apart than ``gap_s``)."""
    times = calls.sent_s[which]
    return 0 if len(times) == 0 else 1 + int(np.sum(np.diff(times) > gap_s))
