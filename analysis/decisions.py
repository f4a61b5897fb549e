"""A record prepared for fitting: the history that counts, and the decisions that are worth explaining.

The order of calls that were sent close together is not known: they may arrive in any. So the n-th admitted call is
compared with the n - 1 admitted ones before it, whichever of them came first, and a refused call may have come after
admitted ones that were sent up to the spread later. Each decision is asked at several offsets in time (quantiles of the
measured spread). Pure; times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.calls import ADMITTED, EXCUSED, OTHER, REFUSED

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls, Floats, Ints

MOST_DECISIONS: Final = 600  # that are looked at in a search
DRAWS: Final = 8  # orders of arrival that are averaged
PAIRED: Final = "pairs"  # phase of calls that have nothing but the one before them in common with others
STRETCH: Final = 24  # of them in a row, where not all can be


class Arrivals:
    """When the first, the second … of some calls may be expected to have arrived, whichever that was.

    Of many calls sent at once some are faster than usual: what has to do with the first of them comes too early. Only
    some families ask for it, so it is worked out when it is first asked for. ``sent_s``: sorted.
    """

    def __init__(self, sent_s: Floats, offsets_s: Floats) -> None:
        self._sent_s = sent_s
        self._offsets_s = offsets_s

    @cached_property
    def mean_s(self) -> Floats:
        """The mean of each moment, up to a common delay."""
        return _mean_of_arrivals(np.asarray(self._sent_s, float).tobytes(), self._offsets_s.tobytes())


@lru_cache(maxsize=8)
def _mean_of_arrivals(sent: bytes, offsets: bytes) -> Floats:
    """Return `Arrivals.mean_s`: one record is prepared several times, with other calls excused."""
    sent_s, one_way_s = np.frombuffer(sent), np.frombuffer(offsets) / np.sqrt(2.0)  # differences of two delays
    n = len(sent_s)
    chosen = np.random.default_rng(0).integers(len(one_way_s), size=(n, DRAWS))
    total = np.zeros(n)
    for draw in range(DRAWS):
        total += np.sort(sent_s + one_way_s[chosen[:, draw]], kind="stable")
    mean_s = np.asarray(total / DRAWS)
    mean_s.setflags(write=False)
    return mean_s


@dataclass(frozen=True, slots=True)
class Record:
    """A record prepared for fitting one metric: the history that counts, and the decisions worth explaining.

    ``history_s``: when the counted calls were sent, sorted; ``spent[k]``: their cost up to the k-th. ``at_s`` and
    ``before`` are (offsets, decisions): the moment each decision is asked at, and how many of the history stand
    before it. ``episodes``: where each stretch from one block to the next starts, and each call of a pair.
    """

    history_s: Floats
    arrivals: Arrivals
    spent: Floats
    sent_s: Floats
    admitted: Bools
    cost: Floats
    at_s: Floats
    before: Ints
    position: Ints
    episodes: Ints
    spread_s: float
    counts_refused: bool
    counts_other: bool

    @property
    def n(self) -> int:
        """Return the number of decisions."""
        return len(self.sent_s)


def prepare(
    calls: Calls,
    offsets_s: Floats,
    *,
    tokens: bool = False,
    counts_refused: bool = False,
    counts_other: bool = True,
    excused: Bools | None = None,
    thin: bool = True,
    late: bool = True,
) -> Record:
    """Turn calls into a `Record`. Decisions deep inside a run of equal outcomes are thinned out: they say nothing.

    ``late``: whether a refused call has the benefit of all that may have come before it, as an edge needs it. Where a
    chance is to be fitted it must not: calls refused by mere chance would all seem to have come after many others.
    """
    counted = (calls.outcome == ADMITTED) | (counts_other & (calls.outcome == OTHER))
    if counts_refused:
        counted |= calls.throttled
    cost = calls.tokens if tokens else np.ones(len(calls))
    history = calls.sent_s[counted]
    spent = np.concatenate([[0.0], np.cumsum(cost[counted])])
    position = decided(calls, excused)
    if thin:
        position = looked_at(calls, position)
    admitted = calls.outcome[position] == ADMITTED
    at = calls.sent_s[position][None, :] + offsets_s[:, None]
    # A refused call may have come after calls sent later, but not after those sent when its answer was back.
    passed = counted & (calls.outcome != REFUSED) & (calls.outcome != EXCUSED)
    answered = np.where(np.isfinite(calls.done_s), calls.done_s, np.inf)[position]
    later = np.searchsorted(calls.sent_s[passed], np.minimum(at[-1], answered), side="right")
    later -= passed[position]
    earlier = (np.cumsum(passed) - passed)[position]
    before = np.broadcast_to(np.where(admitted | (not late), earlier, later), at.shape)
    if counts_refused:
        before = before + _refused_before(calls, position, at)
    back = np.flatnonzero(admitted[:-1] & ~admitted[1:]) + 1
    starts = np.concatenate([[0], back])
    if PAIRED in calls.phase:
        starts = np.union1d(starts, np.flatnonzero([calls.phase[k] == PAIRED for k in position]))
    return Record(
        history_s=history,
        arrivals=Arrivals(history, offsets_s),
        spent=spent,
        sent_s=calls.sent_s[position],
        admitted=admitted,
        cost=cost[position],
        at_s=at,
        before=np.ascontiguousarray(before, np.int64),
        position=position,
        episodes=_spaced(calls.sent_s[position], starts, float(offsets_s[-1] - offsets_s[0])),
        spread_s=float(offsets_s[-1] - offsets_s[0]),
        counts_refused=counts_refused,
        counts_other=counts_other,
    )


def decided(calls: Calls, excused: Bools | None = None) -> Ints:
    """Return the positions of the decisions that are to be explained."""
    asked = (calls.outcome == ADMITTED) | (calls.outcome == REFUSED)
    if excused is not None:
        asked &= ~excused
    if calls.asked is not None:
        asked &= calls.asked
    return np.flatnonzero(asked)


def looked_at(calls: Calls, position: Ints) -> Ints:
    """Return which of these decisions a search looks at."""
    chosen = _sampled(position[_informative(calls.outcome[position] == ADMITTED)])
    return chosen if calls.telling is None else np.union1d(chosen, position[calls.telling[position]])


def _refused_before(calls: Calls, position: Ints, at_s: Floats) -> Ints:
    """Return how many refused calls stand before each decision, (offsets, decisions), as its own delay has it."""
    refused_s = calls.sent_s[calls.throttled]
    sent_s = calls.sent_s[position]
    moved = np.searchsorted(refused_s, at_s) - np.searchsorted(refused_s, sent_s)
    refused = calls.throttled[position]
    stand = (np.cumsum(calls.throttled) - calls.throttled)[position] + moved - (refused & (at_s > sent_s))
    return np.asarray(np.clip(stand, 0, len(refused_s) - refused))


def blocks(record: Record) -> tuple[Floats, Ints]:
    """Return when calls were refused with no other near that passed, and how many of the history had been sent."""
    refused_s = record.sent_s[~record.admitted]
    count = np.searchsorted(record.history_s, refused_s, side="right")
    following = np.append(record.history_s, np.inf)[count]
    alone = following > refused_s + record.spread_s
    return refused_s[alone], count[alone]


def _spaced(sent_s: Floats, starts: Ints, spread_s: float) -> Ints:
    """Keep the starts that are further apart than the spread: closer ones are one jumbled moment."""
    kept = [int(starts[0])]
    for start in starts[1:]:
        if sent_s[start] - sent_s[kept[-1]] > spread_s:
            kept.append(int(start))
    return np.array(kept, np.int64)


def _informative(admitted: Bools, dense: int = 4) -> Ints:
    """Keep the ends of each run of equal outcomes and a geometrically thinning sample between."""
    n = len(admitted)
    if n == 0:
        return np.zeros(0, np.int64)
    change = np.flatnonzero(np.diff(admitted.astype(np.int8))) + 1
    starts = np.concatenate([[0], change])
    ends = np.concatenate([change, [n]])
    run = np.searchsorted(ends, np.arange(n), side="right")
    from_start = np.arange(n) - starts[run]
    from_end = ends[run] - 1 - np.arange(n)
    near = np.minimum(from_start, from_end)
    power = np.floor(np.log(np.maximum(near, 1)) / np.log(1.4))
    previous = np.floor(np.log(np.maximum(near - 1, 1)) / np.log(1.4))
    return np.flatnonzero((near < dense) | (power != previous))


def _sampled(position: Ints) -> Ints:
    """Keep both ends of a very long row and stretches of what is between: a steady overload repeats itself."""
    if len(position) <= MOST_DECISIONS:
        return position
    end = MOST_DECISIONS // 5
    every = int(np.ceil((len(position) - 2 * end) / (MOST_DECISIONS - 2 * end)))
    index = np.arange(len(position))
    inside = (index - end) % (every * STRETCH) < STRETCH
    return position[inside | (index < end) | (index >= len(position) - end)]


def at_middle(record: Record) -> Record:
    """Return the record asked at the middle offset alone: seven times cheaper, and good enough to sort out.

    Where refused calls count, admitted ones are asked at the earliest: they came before those that were refused.
    """
    middle = record.at_s.shape[0] // 2
    at_s, before = record.at_s[middle], record.before[middle]
    if record.counts_refused:
        at_s = np.where(record.admitted, record.at_s[0], at_s)
        before = np.where(record.admitted, record.before[0], before)
    return replace(record, at_s=at_s[None], before=before[None])


def fewer(record: Record, most: int) -> Record:
    """Return the record with at most so many of its decisions, evenly chosen, to be measured without episodes."""
    return _only(record, _even(np.arange(record.n), most))


def fewer_of_each(record: Record, most: int) -> Record:
    """Return the record with at most so many of its admissions and of its refusals, as `fewer` does of all."""
    sides = [np.flatnonzero(side) for side in (record.admitted, ~record.admitted)]
    return _only(record, np.sort(np.concatenate([_even(side, most) for side in sides])))


def _even(positions: Ints, most: int) -> Ints:
    if len(positions) <= most:
        return positions
    return positions[np.unique(np.linspace(0, len(positions) - 1, most).round().astype(np.int64))]


def _only(record: Record, kept: Ints) -> Record:
    return replace(
        record,
        sent_s=record.sent_s[kept],
        admitted=record.admitted[kept],
        cost=record.cost[kept],
        at_s=record.at_s[:, kept],
        before=record.before[:, kept],
        position=record.position[kept],
    )


def central(record: Record, statistic: Floats) -> Floats:
    """Return a statistic, (shapes, offsets, decisions), at the moments of `at_middle`: (shapes, decisions)."""
    middle = statistic[:, statistic.shape[1] // 2]
    return np.where(record.admitted, statistic[:, 0], middle) if record.counts_refused else middle
