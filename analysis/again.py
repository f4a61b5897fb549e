"""A record's calls, sent again past a limit that may explain it: it should refuse as many at about the same moments.

The likelihood follows what was observed, and gives each decision the benefit of all delays that are possible. Where
delays vary as much as answers take, or more calls leave within that than a limit holds, nearly everything is possible
then. What is likely shows when the delays are drawn and the limit decides: how many it lets in of each burst is known
to a call or two. Pure; times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.calls import ADMITTED, EXCUSED, OTHER, PENDING, REFUSED
from analysis.flight import WORK_S
from analysis.kernels import limiters, places

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analysis.calls import Bools, Calls, Floats, Ints
    from analysis.search import Hypothesis

DRAWS: Final = (6, 24)  # of all delays: for a long record, and for a short one
DRAWN: Final = 50_000  # calls that they are made for together
ALIKE: Final = (0.5, 50.0)  # from ways that are mostly short and seldom very long to ways that are nearly all the same
MODEL: Final = (0.5, 0.03)  # calls, and part of them, by which a number may differ beside what the draws do
MOST: Final = 15.0  # nats that one burst costs at most: something else may have held it up
FIRST: Final = 8000  # calls that are sent again past a limit on their rate


@dataclass(frozen=True, slots=True)
class _Trips:
    """How long calls were on their way. ``late_s``: what refusals took longer than the fastest of them."""

    fastest_s: float
    sent_s: Floats
    over_s: Floats  # what each call took longer than the fastest refusal; NaN where it has no answer
    refused: Bools
    held: Bools  # whether it was answered after work
    late_s: Floats

    def drawn(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return (arrivals, both ways together): what a refusal took is shared out between its ways.

        Other calls take what some refusal took, and the rest of their time is work. One of two ways that are alike and
        independent takes a part of both that is beta distributed (exactly so for gamma distributed ways; Lukacs 1955).
        """
        ways_s = np.where(self.refused, self.over_s, rng.choice(self.late_s, len(self.sent_s)))
        ways_s = np.where(self.held, np.clip(self.over_s, 0.0, ways_s), ways_s)
        return self.sent_s + ways_s * rng.beta(self._alike, self._alike, len(self.sent_s)), ways_s

    @property
    def _alike(self) -> float:
        """How alike the two ways of a call are: the shape of the gamma distribution that each of them has about."""
        squared, variance = float(np.mean(self.late_s)) ** 2, float(np.var(self.late_s))
        return float(np.clip(squared / max(2.0 * variance, 1e-12), *ALIKE))


def surprise_of_places(calls: Calls, limit: int, spread_s: float, asked: Bools) -> float:
    """Return the nats that a limit on calls in flight costs for the numbers let in.

    How far off they are, and how open it leaves them: a limit that would have let in about any number has explained
    none. ``asked``: the calls that nothing else refused, some of them refused. Those closer together than the spread
    are one burst.
    """
    calls = calls.where(asked)
    return _surprise(calls, _past_places(calls, limit), spread_s)


def surprises_of_rates(calls: Calls, limits: Iterable[Hypothesis], spread_s: float) -> list[float]:
    """Return the nats that limits on the rate cost for the numbers let in: see `surprise_of_places`.

    Of the first `FIRST` calls.
    """
    calls = first(calls)
    if not calls.throttled.any():  # nothing was refused for any of them
        return [0.0 for _ in limits]
    counted = {True: calls, False: calls.where(calls.outcome != OTHER)}
    arrived: dict[bool, list[tuple[Ints, Floats]]] = {}
    costs = []
    for limit in limits:
        counts = limit.counts_other
        if counts not in arrived:
            arrived[counts] = _arrivals(counted[counts])
        costs.append(_surprise(counted[counts], (_let_in(one, limit) for one in arrived[counts]), spread_s))
    return costs


def _surprise(calls: Calls, let_in: Iterable[Bools], spread_s: float) -> float:
    decided = _decided(calls)
    burst = np.concatenate([[0], np.cumsum(np.diff(calls.sent_s) > spread_s)])
    mean, spread = _counted(let_in, burst, decided)
    off = 0.5 * ((np.bincount(burst, decided & (calls.outcome == ADMITTED)) - mean) / spread) ** 2
    return float(np.minimum(off + np.log(spread / _model(mean)), MOST).sum())


def resent(calls: Calls, limit: Hypothesis, draws: int) -> Iterable[Calls]:
    """Yield the record as it would be if this limit on their rate had decided, each time with other delays."""
    calls = calls if limit.counts_other else calls.where(calls.outcome != OTHER)
    rng, trips, decided = np.random.default_rng(0), _trips(calls), _decided(calls)
    usual_s = 0.5 * float(np.median(trips.late_s))
    worked_s = _worked_s(calls, trips)
    for _ in range(draws):
        arrived_s, ways_s = trips.drawn(rng)
        order = np.argsort(arrived_s)
        let_in = _let_in((order, arrived_s[order] - usual_s), limit)
        busy_s = np.where(trips.held, trips.over_s - ways_s, rng.choice(worked_s, len(calls)))
        done_s = calls.sent_s + trips.fastest_s + ways_s + np.where(let_in, busy_s, 0.0)
        outcome = np.where(decided, np.where(let_in, ADMITTED, REFUSED), calls.outcome)
        yield replace(calls, outcome=outcome, done_s=np.where(decided, done_s, calls.done_s))


def beside_chance(calls: Calls, limit: Hypothesis, spread_s: float) -> float:
    """Return by how many nats mere chance explains the numbers let in better than a limit on the rate does.

    Counted in stretches of at most the spread, in the first `FIRST` calls.
    """
    asked = first(calls)
    stretch, decided, passed = _stretches(asked, spread_s)
    if not asked.throttled.any() or not decided.any():
        return 0.0
    many = _bins(stretch, decided)
    share = float(passed.sum() / many.sum())
    by_limit = _cost(passed, *_counted((_let_in(one, limit) for one in _arrivals(asked)), stretch, decided))
    return by_limit - _cost(passed, share * many, np.asarray(np.sqrt(share * (1.0 - share) * many + MODEL[0] ** 2)))


def first(calls: Calls) -> Calls:
    """Return the first `FIRST` calls, of those that are asked for."""
    calls = calls.where(calls.outcome != EXCUSED)
    return calls.take(np.arange(min(len(calls), FIRST)))


def _stretches(calls: Calls, spread_s: float) -> tuple[Ints, Bools, Floats]:
    """Return the stretch that each call is in, which are decided, and how many were let in of each stretch."""
    decided = _decided(calls)
    began = np.concatenate([[True], np.diff(calls.sent_s) > spread_s])
    since_s = calls.sent_s - calls.sent_s[np.maximum.accumulate(np.where(began, np.arange(len(calls)), 0))]
    stretch = np.cumsum(began | (np.diff(since_s // spread_s, prepend=0.0) != 0.0)) - 1
    return stretch.astype(np.int64), decided, _bins(stretch, decided & (calls.outcome == ADMITTED))


def _decided(calls: Calls) -> Bools:
    """Return which calls were let in or refused, of those that a limit is asked to explain."""
    decided = (calls.outcome == ADMITTED) | (calls.outcome == REFUSED)
    return decided if calls.asked is None else np.asarray(decided & calls.asked)


def _cost(seen: Floats, mean: Floats, off: Floats) -> float:
    return float(np.sum(0.5 * ((seen - mean) / off) ** 2 + np.log(off)))


def _counted(let_in: Iterable[Bools], part: Ints, decided: Bools) -> tuple[Floats, Floats]:
    """Return the mean number let in of each part of the record, and how far it may be off."""
    drawn = [_bins(part, admitted & decided) for admitted in let_in]
    mean = np.mean(drawn, axis=0)
    return mean, np.sqrt(np.var(drawn, axis=0) + _model(mean) ** 2)


def _model(mean: Floats) -> Floats:
    return np.sqrt(MODEL[0] ** 2 + (MODEL[1] * mean) ** 2)


def _bins(part: Ints, which: Bools) -> Floats:
    """Return how many of these calls each part of the record holds."""
    return np.bincount(part, which).astype(np.float64)


def _past_places(calls: Calls, limit: int) -> Iterable[Bools]:
    """Yield for each draw of all delays which calls so many places would let in.

    How long a call that was refused would have kept its place is drawn from the others.
    """
    rng, trips = np.random.default_rng(0), _trips(calls)
    worked_s = _worked_s(calls, trips)
    for _ in range(_draws(len(calls))):
        arrived_s, ways_s = trips.drawn(rng)
        busy_s = np.where(trips.held, trips.over_s - ways_s, rng.choice(worked_s, len(calls)))
        order = np.argsort(arrived_s)
        busy_s += WORK_S * rng.random(len(calls))
        let_in = np.zeros(len(calls), bool)
        let_in[order] = places.let_in(arrived_s[order], busy_s[order], limit)
        yield let_in


def _worked_s(calls: Calls, trips: _Trips) -> Floats:
    """Return how long calls that were let in were about held."""
    work_s = trips.over_s[trips.held & (calls.outcome == ADMITTED)] - np.median(trips.late_s)
    return np.maximum(work_s, 0.0) if len(work_s) else np.zeros(1)


def _arrivals(calls: Calls) -> list[tuple[Ints, Floats]]:
    """Return for each draw of all delays the order of arrival and when it was, less the usual delay."""
    rng, trips = np.random.default_rng(0), _trips(calls)
    usual_s = 0.5 * float(np.median(trips.late_s))
    found = []
    for _ in range(_draws(len(calls))):
        arrived_s, _ = trips.drawn(rng)
        order = np.argsort(arrived_s)
        found.append((order, arrived_s[order] - usual_s))
    return found


def _let_in(arrived: tuple[Ints, Floats], limit: Hypothesis) -> Bools:
    """Return which calls that arrive so a limiter admits."""
    order, at_s = arrived
    shape = (limit.window_s or limit.limit / limit.rate_per_s, limit.phase_s or 0.0)
    admitted = np.zeros(len(order), bool)
    admitted[order] = limiters.let_in(limiters.CODES[limit.family], at_s, limit.limit, *shape, limit.counts_refused)
    return admitted


def _draws(n: int) -> int:
    return int(np.clip(DRAWN // n, *DRAWS))


def _trips(calls: Calls) -> _Trips:
    trip_s = calls.done_s - calls.sent_s
    known = np.isfinite(trip_s)
    refused, held = calls.throttled & known, known & ~calls.throttled & (calls.outcome != PENDING)
    fastest_s = float(trip_s[refused].min()) if refused.any() else 0.0
    over_s = trip_s - fastest_s
    return _Trips(fastest_s, calls.sent_s, over_s, refused, held, over_s[refused] if refused.any() else np.zeros(1))
