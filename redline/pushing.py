"""Filling a rate limit past a limit on calls in flight, where most of a call's time is spent on the way.

A client that keeps to C calls in flight, as it sees them, lets only ``C / latency`` through; the server, which holds a
call for its work alone, would take ``C / work``. A rate limit between the two is met only by sending more than C at
once and putting up with refusals. Those say nothing about the rate. What does: refusals that came after every admitted
call was answered, when nothing was in flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.flight import PUSH
from redline.traffic import Probe, ProbeReport

if TYPE_CHECKING:
    from redline.traffic import Attempt, Traffic

WORK_SHARE: Final = 0.75  # of a call's time: above it, keeping to C in flight loses little
RECENT: Final = 400  # calls that tell how long things take
CLEAR: Final = 3  # refusals with nothing in flight that say that the rate limit is full
LONGEST_S: Final = 130.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a call takes as the client sees it, and how much of it is work; seconds."""

    latency_s: float
    work_s: float
    trip_s: float  # of a refusal, at most

    @staticmethod
    def of(attempts: list[Attempt]) -> Pace | None:
        """Read it off the latest calls; None before there were both answers and refusals."""
        took = [a.done_s - a.sent_s for a in attempts[-RECENT:] if a.status == 200]  # noqa: PLR2004 - HTTP's numbers
        trips = [a.done_s - a.sent_s for a in attempts if a.status == 429][-RECENT:]  # noqa: PLR2004
        if not took or not trips:
            return None
        latency_s = float(np.mean(took))
        return Pace(latency_s, max(latency_s - float(np.median(trips)), 0.002), float(np.quantile(trips, 0.98)))


def needed(pace: Pace | None, places: int | None, rate_per_s: float | None) -> bool:
    """Return whether keeping to ``places`` in flight is what keeps a rate limit from being met.

    ``rate_per_s``: the limit as it is known; None where none was met.
    """
    if pace is None or places is None or pace.work_s > WORK_SHARE * pace.latency_s:
        return False
    return rate_per_s is None or rate_per_s > WORK_SHARE * places / pace.latency_s


def push(traffic: Traffic, pace: Pace, places: int, *, most_per_s: float, most: int) -> ProbeReport:
    """Send open loop until the rate limit refuses, or for `LONGEST_S`."""
    rate = min(most_per_s, (2.0 + 2.0 / places) * places / pace.work_s)
    count = max(8, int(rate * max(0.2, 2.0 * pace.trip_s)))
    began_s, first = traffic.now_s(), len(traffic.attempts)
    while traffic.now_s() - began_s < LONGEST_S and len(traffic.attempts) - first < most:
        traffic.run(Probe(phase=PUSH, offsets_s=tuple(np.arange(count) / rate), drain=False))
        if _full(traffic.attempts[first:], traffic.now_s() - 1.3 * pace.trip_s):
            break
    return ProbeReport(began_s, traffic.now_s(), "refused", first, len(traffic.attempts))


def _full(sent: list[Attempt], decided_s: float) -> bool:
    """Return whether calls were refused after every admitted one had been answered."""
    seen = [a for a in sent[-10 * RECENT :] if a.sent_s < decided_s]
    if any(a.status is None for a in seen):
        return False
    last_s = max((a.done_s for a in seen if a.status != 429), default=-np.inf)  # noqa: PLR2004 - HTTP's number
    return sum(a.sent_s > last_s for a in seen) >= CLEAR
