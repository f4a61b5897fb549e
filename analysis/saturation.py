"""The rate of a limit that others use, too: what passes while more is sent than it lets in.

Whoever sends when there is room gets it. With p calls a second of ours and o of others, a full limit of rate R lets in
R p / (p + o) of ours, whatever its family, its window and how its counters share the calls: so what passed is R less at
most the part that others may have got, and the time in which room for a call waited for the next one of ours. Pure;
times in seconds, rates in calls a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.calls import ADMITTED, OTHER, REFUSED

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls, Floats, Ints

SATURATING: Final = "saturating"  # phase of calls that fill the limit, for as long as it may remember others,
SATURATED: Final = "saturated"  # and of those that keep it full: both are evidence on the rate alone
PHASES: Final = frozenset({SATURATING, SATURATED})
OTHERS: Final = 0.4  # share of the limit that others use, at most: those who use more are no background
FULL: Final = 0.4  # refusals for each call that passed, from which on the limit counts as kept full
ALIKE: Final = 0.6  # of the longest pause between admissions: so long is the rest of every window
PAUSE: Final = 0.25  # of a window, at least, nothing passes where it is kept full
SHORT: Final = 0.1  # of all the time is a pause that no window's rest is
SINCE: Final = 2.5  # longest pauses since the last one, after which no window is left to end: calls pass one by one
MOSTLY: Final = 0.5  # of the time has passed since, too: longer pauses come by chance
BLOCKS: Final = 6  # that such a time is cut into, to see how even it is
LONGEST: Final = 20.0  # times the usual gap between calls is the longest that the pace made
MOST_WAITED: Final = 0.6  # of the time, as far as that is allowed for
GROUPS: Final = 0.12  # of a window more than usual, that others may take of one at once
FREE: Final = 0.4  # of the most calls in flight, below which hardly a limit on these refuses: others hold fewer places
LOWEST, HIGH = 0.05, 0.75  # quantile of the calls in flight at refusals, and share of the most there were
FOLLOWS: Final = (0.75, 0.35)  # share of the calls that passed after an answer, and more than by accident
PART: Final = 0.6  # of what an answer takes is each part of the time at most, with so many calls on average;
LEAST_A_PART, MOST_A_PART, LEAST_PARTS = 2.0, 8.0, 40  # and so many passed at least
TOGETHER: Final = (0.3, 0.5)  # correlation with the answers from which on places bound what passes: at an even height,
BLURRED: Final = 0.3  # and at any; not where delays vary by so much of what an answer takes
FEWER: Final = 0.4  # times as many pass a second at most, and
SPREADS: Final = 2.5  # standard deviations fewer, where refused calls count
FEWEST: Final = 8  # calls that must have passed


@dataclass(frozen=True, slots=True)
class Saturation:
    """What passed: ``rate_per_s`` is the likely limit, which lies between ``low`` and ``high``.

    ``error``: of what passed, relative; ``parts``: that were compared for it, windows where it gives back by these;
    ``lasted_s``: how long they are together; ``at_once``: the most calls in a row that passed then, and
    ``ever_at_once``, at any time. ``waited``: for such a part of the time room for a call waited at most, where there
    was never room for two.
    """

    rate_per_s: float
    low: float
    high: float
    error: float
    parts: int
    lasted_s: float
    at_once: int
    ever_at_once: int
    waited: float


def without_saturation(calls: Calls) -> Calls:
    """Return the calls that are evidence on what the limit counts and when."""
    apart = np.array([phase in PHASES for phase in calls.phase], bool)
    return calls.where(~apart) if apart.any() else calls


def most_in_flight(calls: Calls) -> int:
    """Return how many calls were in flight at once that had passed."""
    passed = calls.outcome == ADMITTED
    done_s = np.sort(calls.done_s[passed & np.isfinite(calls.done_s)])
    return int(_heights(calls, passed, done_s)[passed].max(initial=-1)) + 1


def saturation(calls: Calls, known: int | None = None) -> Saturation | None:
    """Return what these calls tell; None where the limit was not kept full for long enough.

    ``known``: how many others passed at once; these are looked up among ``calls`` otherwise. What was sent before the
    first refusal is no part of it. Windows that end while it is being filled tell as much as later ones; what passes
    call by call then may be what gathered before.
    """
    every = calls.where([phase in PHASES for phase in calls.phase])
    if len(every.sent_s) == 0:
        return None
    known = most_in_flight(without_saturation(calls)) if known is None else known
    if _fewer_by_pace(every):
        return None
    late = every.where([phase == SATURATED for phase in every.phase])
    return _told(every, every, known, windows=True) or _told(late, every, known)


def _told(sent: Calls, every: Calls, known: int, *, windows: bool = False) -> Saturation | None:
    """Return what ``sent`` tells: by ``windows``, or in whatever way things pass."""
    refused_s = sent.sent_s[sent.outcome == REFUSED]
    passed_s = sent.sent_s[(sent.outcome == ADMITTED) & (sent.sent_s > refused_s.min(initial=np.inf))]
    if len(passed_s) < FEWEST or np.ptp(passed_s) == 0.0:
        return None
    marks_s = _marks_s(passed_s, float(sent.sent_s[-1]))
    if len(marks_s) < 2:  # noqa: PLR2004 - what passed between two
        return None
    if windows and not _by_windows(passed_s, marks_s):
        return None
    during = sent.where((sent.sent_s >= marks_s[0]) & (sent.sent_s < marks_s[-1]))
    passed, refused, failed = (int(np.sum(during.outcome == o)) for o in (ADMITTED, REFUSED, OTHER))
    if passed < FEWEST or refused < FULL * passed or _full_of_calls(during, known):
        return None
    rate = passed / float(marks_s[-1] - marks_s[0])
    off = np.histogram(passed_s, marks_s)[0] - rate * np.diff(marks_s)
    error = (float(np.sqrt(np.sum(off**2))) + 1.0) / passed
    share = min(MOST_WAITED, rate * _gap_s(sent, marks_s))
    first = _at_once(every.outcome)
    most = 1.0 / (1.0 - (OTHERS + 1.0 / first) * share)
    high = rate * (1.0 + error + failed / passed + GROUPS / (len(marks_s) - 1)) * most
    return Saturation(
        rate_per_s=0.5 * rate * (1.0 + most),
        low=rate * (1.0 - error),
        high=high,
        error=error,
        parts=len(marks_s) - 1,
        lasted_s=float(marks_s[-1] - marks_s[0]),
        at_once=_at_once(during.outcome),
        ever_at_once=first,
        waited=share,
    )


def _gap_s(sent: Calls, marks_s: Floats) -> float:
    """Return how far apart calls were sent while some passed: a bound on those in flight may have thinned them out.

    The time since the probe before this one is none of it.
    """
    gaps_s, at_s = np.diff(sent.sent_s), sent.sent_s[1:]
    passed = (sent.outcome[1:] == ADMITTED) & (at_s > marks_s[0]) & (at_s < marks_s[-1])
    return float(np.mean(np.minimum(gaps_s, LONGEST * np.median(gaps_s))[passed])) if passed.any() else 0.0


def _marks_s(passed_s: Floats, ended_s: float) -> Floats:
    """Return moments between which as much passed as the limit allows.

    These are the starts of windows, which follow the longest pauses; or even parts of the time since the last pause, or
    of all the time where no pause is long.
    """
    pauses_s, whole_s = np.diff(passed_s), ended_s - passed_s[0]
    longest_s = float(pauses_s.max())
    starts_s = passed_s[1:][pauses_s > ALIKE * longest_s]
    if ended_s - starts_s[-1] > max(SINCE * longest_s, MOSTLY * whole_s):
        return np.linspace(starts_s[-1], passed_s[-1], BLOCKS + 1)
    if not _by_windows(passed_s, starts_s) and longest_s < SHORT * whole_s:
        return np.linspace(passed_s[0], passed_s[-1], BLOCKS + 1)
    if len(starts_s) > 1 and ended_s - passed_s[-1] > ALIKE * longest_s:
        starts_s = np.append(starts_s, starts_s[-1] + np.mean(np.diff(starts_s)))  # the last window was used up, too
    return np.asarray(starts_s)


def _by_windows(passed_s: Floats, starts_s: Floats) -> bool:
    """Return whether a good part of the time between these starts is a pause."""
    return len(starts_s) > 1 and bool(np.diff(passed_s).max() > PAUSE * np.mean(np.diff(starts_s)))


def _full_of_calls(calls: Calls, known: int) -> bool:
    """Return whether it was calls in flight that were too many.

    Then all refusals stand about as high as any call did, and as high as others in flight leave room for where
    ``known`` passed at once. Steady calls that a limit lets in one by one do, too: but where calls wait for places,
    more pass whenever more answers have come. Where that is a few calls, what passes after a refusal follows on an
    answer more often than a little earlier or later.
    """
    passed, refused = calls.outcome == ADMITTED, calls.outcome == REFUSED
    done_s = np.sort(calls.done_s[passed & np.isfinite(calls.done_s)])
    height = _heights(calls, passed, done_s)
    if height.max(initial=0) < (1.0 - OTHERS) * known:
        return False
    took_s = (calls.done_s - calls.sent_s)[passed & np.isfinite(calls.done_s)]
    if len(took_s) == 0:  # answers take longer than this
        return False
    trips_s = (calls.done_s - calls.sent_s)[refused & np.isfinite(calls.done_s)]
    if len(trips_s) == 0 or not (passed[1:] & refused[:-1]).any():
        return False
    full = refused & (calls.sent_s > calls.sent_s[0] + float(np.quantile(took_s, 0.9)))
    lowest, usual = np.quantile(height[full], (LOWEST, 0.5)).tolist() if full.any() else (0.0, height.max())
    if usual < FREE * height.max():  # what is left of a window refuses while answers have long freed all places
        return False
    even = lowest > 1.0 and lowest > HIGH * float(height.max())
    trip_s = float(np.median(trips_s))
    blurred = np.ptp(np.quantile(trips_s, (0.05, 0.95))) > BLURRED * np.median(took_s)
    together = None if blurred else _together(calls.sent_s[passed], done_s - trip_s, float(np.median(took_s)))
    if even if together is None else together > TOGETHER[0 if even else 1]:
        return True
    return _follows(calls, done_s, trip_s)


def _together(passed_s: Floats, freed_s: Floats, took_s: float) -> float | None:
    """Return the correlation of what passed and what answers had freed by then; None where parts would be too small.

    In longer parts than an answer takes, what passes is answered at once.
    """
    lasted_s = float(np.ptp(passed_s))
    parts = math.ceil(max(lasted_s / (PART * took_s), len(passed_s) / MOST_A_PART))
    if len(passed_s) < max(LEAST_A_PART * parts, LEAST_PARTS) or lasted_s <= 0.0:
        return None
    edges_s = np.linspace(passed_s[0], passed_s[-1], parts + 1)
    passed, freed = (np.histogram(at_s, edges_s)[0] for at_s in (passed_s, freed_s))
    if min(np.ptp(passed), np.ptp(freed)) == 0:
        return 0.0
    return float(np.corrcoef(passed, freed)[0, 1])


def _follows(calls: Calls, done_s: Floats, trip_s: float) -> bool:
    """Return whether what passes after a refusal follows on an answer, more often than a little earlier or later."""
    passed, refused = calls.outcome == ADMITTED, calls.outcome == REFUSED
    let_in = np.flatnonzero(passed[1:] & refused[:-1])
    between_s = calls.sent_s[let_in] + 0.5 * trip_s, calls.sent_s[let_in + 1] + 1.5 * trip_s
    often, *else_when = (
        float(np.mean(np.searchsorted(done_s, between_s[1] + lag) > np.searchsorted(done_s, between_s[0] + lag)))
        for lag in float(np.mean(between_s[1] - between_s[0])) * np.array([0.0, -5.0, -3.0, 3.0, 5.0])
    )
    return often > FOLLOWS[0] and often - float(np.mean(else_when)) > FOLLOWS[1]


def _fewer_by_pace(every: Calls) -> bool:
    """Return whether fewer passed a second while more was sent, as where refused calls count."""
    refused_s = every.sent_s[every.outcome == REFUSED]
    late = np.array([p == SATURATED for p in every.phase], bool)
    full = every.sent_s > refused_s.min(initial=np.inf)
    if not late.any() or not (full & ~late).any():
        return False
    passed, lasts_s = np.zeros(2), np.zeros(2)
    for k, part in enumerate((full & ~late, late)):
        passed[k], lasts_s[k] = np.sum(every.outcome[part] == ADMITTED), np.ptp(every.sent_s[part])
    # Of two counts that one rate makes, the first share is that of the time, give or take its spread.
    share = lasts_s[0] / lasts_s.sum()
    spread = math.sqrt(share * (1.0 - share) * passed.sum())
    fewer = passed[1] / lasts_s[1] < FEWER * passed[0] / lasts_s[0] if lasts_s.min() > 0.0 else False
    return bool(fewer and passed[0] - share * passed.sum() > SPREADS * spread)


def _heights(calls: Calls, passed: Bools, done_s: Floats) -> Ints:
    """Return how many of the calls that passed were in flight when each was sent."""
    return np.searchsorted(calls.sent_s[passed], calls.sent_s) - np.searchsorted(done_s, calls.sent_s)


def _at_once(outcome: np.ndarray) -> int:
    """Return the most calls in a row that passed."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (outcome == ADMITTED).astype(int), [0]])))
    return int(np.max(np.diff(edges)[::2], initial=1))
