"""Two limits on requests at once, a short window within a long one: which of them refused what.

A call is admitted if both admit it. So each admission is evidence on both, while a refusal says only that at least
one was full: it is explained by either. The two are fitted in turn, each with the refusals that the other may explain
excused, until that changes nothing. Pure; times in seconds on the record's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import flight, search
from analysis.agreement import explained_by_some
from analysis.calls import ADMITTED, arrival_offsets
from analysis.chance import by_chance
from analysis.fit import Fit, fit
from analysis.proposals import ROUND_WINDOWS_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from analysis.calls import Bools, Calls
    from analysis.search import Hypothesis

BLURRED: Final = 4.0  # times the spread: outcomes that change faster are decided by it
BEGINNING: Final = 40  # refusals of a verification that are looked at whatever their pace
APART_S: Final = 0.25  # blocks closer than this are one
ROUNDS: Final = 3
MOST_FIRSTS: Final = 4  # beginnings that are tried
EXPLAINED: Final = 1  # answer that a beginning may leave over and be explained still
WARM: Final = 40  # hypotheses that a fit in turn starts from
FEW: Final = 8  # hypotheses of a limit that are asked whether they explain a refusal
FEWEST: Final = 5  # contradictions of a single limit from which on two are tried
SUSPECT: Final = 2  # and at the end of probing: a limit that was bent to explain two of them may contradict few
GAIN: Final = 10.0  # nats by which two limits must then be likelier
AGAIN: Final = 2  # fits in a row that are so contradicted
LOST: Final = 3  # answers that two limits may leave over while they are still fitted, beyond what is tolerated then
TOLERATED: Final = 0.002  # share of the calls that true pairs leave over; of a short record, which much explains, none
MORE: Final = 3.0  # times the refusals before two limits are tried again: true pairs were found at the first try
ASTRAY: Final = (0.4, 0.35)  # share of the refusals that a first one far off leaves to another, which leaves so many
BETTER: Final = 0.5  # times as much left over as by the turn before: such turns go on
MOST_TRIED: Final = 2  # sets of left-over refusals
FORBIDDEN: Final = 0.03  # share of the admissions from which on a limit that forbids them is none of the two
STILL: Final = 0.03  # of a limit's calls, by which the number may be another after more was sent
NEARLY_AS_LONG: Final = 1.5  # times as long a memory at most, and rates as near,
AS_FAST: Final = 0.01  # of two limits that are nearly one
OWN: Final = 4  # refusals that each of two limits must explain alone
VERIFYING: Final = "verify"  # how the phases of a verification begin,
BESIDE: Final = "beside"  # the phase of the first call that is sent because two limits were met,
FLIGHT: Final = "flight"  # that of a look at calls in flight,
LOOKING: Final = "look"  # and the phase of what looks for others after it


@dataclass(frozen=True, slots=True)
class Pair:
    """Two limits, the one with the shorter memory first. ``missed``: answers that both together leave unexplained."""

    short: Fit
    long: Fit
    missed: int


@dataclass(slots=True)
class Doubt:
    """Whether a single limit still does while a record grows. ``pair``: the two that explain it instead."""

    pair: Pair | None = None
    _in_a_row: int = 0
    _tried: int = 0  # refusals of the record that two limits were last tried on
    _begun: Fit | None = None  # the last fit by which a single one explained what there was by then

    def raised(self, fitted: Fit) -> bool:
        """Take the next fit; return whether its record is contradicted again and again, and two limits explain it."""
        if fitted.missed <= EXPLAINED and fitted.best is not None:
            self._begun = fitted
        self._in_a_row = self._in_a_row + 1 if fitted.missed >= FEWEST else 0
        if self._in_a_row >= AGAIN:
            self._in_a_row = 0
            self.settle(fitted)
        return self.pair is not None

    def settle(self, fitted: Fit) -> Pair | None:
        """Return the two limits that explain a record which this single one does not; None where one will do."""
        if self.pair is None and fitted.missed >= SUSPECT and fitted.refusals > MORE * self._tried:
            self._tried = fitted.refusals
            self.pair = pair(fitted.calls, fitted, () if self._begun is None else (self._begun,))
        return self.pair


def explained(calls: Calls, fitted: Fit) -> Bools:
    """Return which of all refusals the limits of a fit may explain, at some arrival time that the spread allows."""
    return _agreed(calls, fitted) & calls.throttled


def _agreed(calls: Calls, fitted: Fit) -> Bools:
    """Return which refusals and admissions some of the leading hypotheses may explain."""
    whole = calls.excuse(np.zeros(len(calls), bool))
    found = explained_by_some(_sample(fitted), whole, fitted.offsets_s)
    if fitted.concurrency is not None:
        around = flight.in_flight(whole, fitted.offsets_s)
        found |= flight.excused(whole, around, fitted.concurrency)
    return found


def _sample(fitted: Fit) -> list[Hypothesis]:
    """Return the best hypothesis, and those of about the same score that lie furthest from it."""
    if not fitted.hypotheses:
        return []
    best = fitted.hypotheses[0]
    alike = [h for h in fitted.hypotheses if h.score > best.score - search.PLATEAU]
    alike.sort(key=lambda h: (h.family, h.rate_per_s))
    step = max(1, len(alike) // (FEW - 1))
    return [best, *alike[::step]]


def without_overload(calls: Calls) -> Calls:
    """Return the record with the steady overload of a verification left unasked, but for its beginning.

    Where admissions and refusals take turns within the network's spread, it is the spread that decides which is which:
    such answers are explained by any limit that is about full, and would outweigh those that tell limits apart.
    """
    verifying = np.array([p.startswith(VERIFYING) for p in calls.phase], bool)
    if not verifying.any():
        return calls
    decided = np.flatnonzero(calls.throttled | (calls.outcome == ADMITTED))
    refused = calls.throttled[decided]
    turns = np.flatnonzero(np.diff(refused)) + 1
    run = np.searchsorted(turns, np.arange(len(decided)), side="right")
    ends_s = calls.sent_s[decided[np.append(turns, len(decided)) - 1]]
    starts_s = np.concatenate([calls.sent_s[decided[:1]], ends_s[:-1]])
    short = (ends_s - starts_s)[run] < BLURRED * float(arrival_offsets(calls)[-1])
    late = np.cumsum(refused & verifying[decided]) > BEGINNING
    asked = np.ones(len(calls), bool) if calls.asked is None else calls.asked.copy()
    asked[decided[short & late & verifying[decided]]] = False
    return replace(calls, asked=asked)


def pair(calls: Calls, whole: Fit | None = None, begun: Sequence[Fit] | None = None) -> Pair | None:
    """Return the two limits that explain a record together; None where no two do clearly better than the best one.

    ``calls``: with no refusal excused. ``whole``: the fit of a single limit to them. ``begun``: fits that explain the
    record's beginnings, where these are known; None: they are looked for, which takes several fits.
    """
    if whole is not None and by_chance(whole):
        return None
    calls = without_overload(calls)
    most = _tolerated(calls, whole)
    found: Pair | None = None
    met = _met_before(calls)
    tried: set[bytes] = set()
    for first in _firsts(calls, whole, met, begun):
        left = _left_by(calls, first)
        if left is None or left.tobytes() in tried:  # whatever explains the same leaves the same to the other
            continue
        tried.add(left.tobytes())
        other = fit(calls.excuse(calls.throttled & ~left))
        many, to_other = int(calls.throttled.sum()), int(left.sum())
        bound = LOST + most + (ASTRAY[1] * to_other if to_other > ASTRAY[0] * many else 0.0)
        near = other.best is not None and other.missed <= bound
        made = _alternated(calls, first, other, LOST + most) if near else None
        if made is not None and (found is None or made.missed < found.missed):
            found = made
        if len(tried) == MOST_TRIED or (found is not None and found.missed == 0):
            break
    if found is None or found.missed > (0 if _odd(found) else most) or not _like(met, found) or _one_twice(found):
        return None
    return found if _earned(calls, found, whole) else None


def _one_twice(found: Pair) -> bool:
    """Return whether the two are nearly one: others on its quota make it look like two, one with an odd window."""
    short, long = found.short.best, found.long.best
    if short is None or long is None or all(h.window_s in (None, *ROUND_WINDOWS_S) for h in (short, long)):
        return False
    as_long = memory_s(found.long) < NEARLY_AS_LONG * memory_s(found.short)
    return as_long or abs(long.rate_per_s / short.rate_per_s - 1.0) < AS_FAST


def _odd(found: Pair) -> bool:
    """Return whether nobody would choose either of the two windows: then something else is likelier at the outset."""
    windows_s = [each.best.window_s for each in (found.short, found.long) if each.best is not None]
    return all(w is not None and w not in ROUND_WINDOWS_S for w in windows_s)


def _like(met: Pair | None, found: Pair) -> bool:
    """Return whether a limit that probing went on for is still there: its bursts had shown how many it lets in."""
    if met is None or met.short.best is None:
        return True
    calls = met.short.best.limit
    now = [each.best.limit for each in (found.short, found.long) if each.best is not None]
    return any(abs(limit - calls) <= max(1.0, STILL * calls) for limit in now)


def _earned(calls: Calls, found: Pair, whole: Fit | None) -> bool:
    """Return whether two limits say clearly more than one: each has refusals of its own, and few are left over."""
    by_short, by_long = explained(calls, found.short), explained(calls, found.long)
    own = min(int((by_short & ~by_long).sum()), int((by_long & ~by_short).sum()))
    if own < OWN:
        return False
    if whole is None or whole.missed - found.missed >= OWN:
        return True
    return found.short.score + found.long.score > whole.score + GAIN


def _tolerated(calls: Calls, whole: Fit | None) -> int:
    """Return how many answers two limits may leave unexplained: few, and no more than a single one leaves."""
    few = int(TOLERATED * len(calls))
    return few if whole is None else min(few, whole.missed)


def _left_by(calls: Calls, first: Fit) -> Bools | None:
    """Return the refusals that a first limit leaves to another; None where it forbids too much to be one of the two."""
    admitted = calls.outcome == ADMITTED
    if calls.asked is not None:
        admitted &= calls.asked
    agreed = _agreed(calls, first)
    if int((admitted & ~agreed).sum()) > FORBIDDEN * int(admitted.sum()) + 1:
        return None
    return calls.throttled & ~agreed


def _firsts(calls: Calls, whole: Fit | None, met: Pair | None, begun: Sequence[Fit] | None) -> Iterator[Fit]:
    """Yield fits that may be near one of the two limits: to long blocks alone, and to the record's beginnings.

    Where probing went on because two limits explained what it had ``met``, the short one of these comes first.
    """
    if met is not None:
        yield met.short
    verifying = np.flatnonzero([p.startswith(VERIFYING) for p in calls.phase])
    if len(verifying):
        calls = calls.take(np.arange(verifying[0]))
        whole = fit(calls)
        yield whole
        if whole.missed == 0:
            return
    long = _long_blocks(calls)
    if long.any():
        yield fit(calls.excuse(~long))
    yield from _fitted_beginnings(calls) if begun is None else begun
    if whole is not None:
        yield whole


def _fitted_beginnings(calls: Calls) -> list[Fit]:
    """Return fits to beginnings: the longest of those that one limit explains, then those that it nearly does."""
    ends = _beginnings(calls)
    made: list[Fit] = []
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        made.append(fit(calls.take(np.arange(ends[middle]))))
        low, high = (middle + 1, high) if made[-1].missed <= EXPLAINED else (low, middle)
    made = sorted((m for m in made if m.best is not None), key=lambda m: (max(m.missed, EXPLAINED), -len(m.calls)))
    return made[:MOST_FIRSTS]


def _met_before(calls: Calls) -> Pair | None:
    """Return the two limits for which probing went on, if it did; a last look at calls in flight lies between."""
    beside = np.flatnonzero([p == BESIDE for p in calls.phase])
    if not len(beside):
        return None
    probing = np.flatnonzero([p != FLIGHT for p in calls.phase[: beside[0]]])
    return pair(calls.take(np.arange(probing[-1] + 1))) if len(probing) else None


def _long_blocks(calls: Calls) -> Bools:
    """Return the refusals of the blocks that lasted long, where they fall into short and long: the longer limit's."""
    decided = np.flatnonzero(calls.throttled | (calls.outcome == ADMITTED))
    refused = calls.throttled[decided]
    starts = np.flatnonzero(np.diff(refused, prepend=False) & refused)
    ends = np.searchsorted(np.flatnonzero(~refused), starts)
    closed = ends < int((~refused).sum())
    back_s = calls.sent_s[decided[np.flatnonzero(~refused)[ends[closed]]]]
    lasted_s = np.maximum(back_s - calls.sent_s[decided[starts[closed]]], APART_S)
    long = np.zeros(len(calls), bool)
    if len(lasted_s) < OWN:
        return long
    ranked = np.sort(lasted_s)
    cut = int(np.argmax(ranked[1:] / ranked[:-1]))
    block = np.searchsorted(starts, np.arange(len(decided)), side="right") - 1
    which = np.concatenate([lasted_s > ranked[cut], np.zeros(len(starts) - len(lasted_s), bool)])
    long[decided[refused & which[block]]] = True
    return long


def _beginnings(calls: Calls) -> list[int]:
    """Return after how many calls each block but the first had begun and ended: where a beginning may be cut off."""
    decided = np.flatnonzero(calls.throttled | (calls.outcome == ADMITTED))
    passed = calls.outcome[decided] == ADMITTED
    blocks = decided[np.flatnonzero(~passed[1:] & passed[:-1]) + 1]
    apart = np.diff(calls.sent_s[blocks], prepend=-np.inf) > APART_S
    return [int(b) for b in blocks[apart][2:]]


def _alternated(calls: Calls, one: Fit, other: Fit, lost: int) -> Pair | None:
    """Fit the two in turn, beginning with one; None as soon as more than ``lost`` answers are left over.

    ``other``: what explains the refusals that ``one`` leaves: ill, where that was far from either of the two. So early
    turns may leave more, while each leaves far less than the one before.
    """
    made: Pair | None = None
    for _ in range(ROUNDS):
        if made is not None:
            other = fit(calls.excuse(explained(calls, one)), made.long.leading(WARM))
            if other.best is None or other.missed > max(lost, BETTER * made.missed):
                return None
        one = fit(calls.excuse(explained(calls, other)), one.leading(WARM))
        if one.best is None:
            return None
        before, made = made, Pair(one, other, _missed(calls, one, other))
        if before is not None and made.missed > max(lost, BETTER * before.missed):
            return None
        fresh = made.missed == 0 and other.missed == 0  # else it was fitted beside a worse one
        if fresh or (before is not None and made.missed >= before.missed):
            break
    if made is None or memory_s(made.short) <= memory_s(made.long):
        return made
    return Pair(made.long, made.short, made.missed)


def _missed(calls: Calls, one: Fit, other: Fit) -> int:
    left = calls.throttled & ~explained(calls, one) & ~explained(calls, other)
    if calls.asked is not None:
        left &= calls.asked
    return int(left.sum()) + one.misfit.over + other.misfit.over


def memory_s(fitted: Fit) -> float:
    """Return for how long the best hypothesis remembers a call; 0 where there is none."""
    best = fitted.best
    return 0.0 if best is None else best.window_s or best.limit / best.rate_per_s
