"""What a calibration knows at each moment: the record so far, what explains it, and what that leads it to expect.

The plan (`redline.prober`) asks it what is settled, what is in doubt, how much would pass now and when recoveries are
due. It sends nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis import decisions, flight, forecast, proposals, steadiness
from analysis.calls import ADMITTED, REFUSED, server_offset
from analysis.chance import by_chance
from analysis.doubt import COMMON_WINDOWS_S
from analysis.fit import SAME_WHEN_ONE, Fit, fit
from analysis.proposals import ROUND_WINDOWS_S
from analysis.rates import UNANCHORED, near, rate_interval
from analysis.running import RunningCalls
from analysis.search import PLATEAU
from analysis.sharing import explain
from analysis.tokens import for_requests
from analysis.two_limits import Doubt, memory_s
from redline.traffic import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from analysis.calls import Calls, Floats
    from analysis.decisions import Record
    from analysis.search import Hypothesis
    from redline.traffic import Traffic

NARROW = 0.02  # relative width of the rate's interval that is asked for
FIRST = 3  # cycles whose record is explained from scratch; later ones mostly follow what is left over
MANY_REFUSALS = 25  # from which on refusals by chance are called so
UNEXPLAINED = 0.15  # share of the refusals that may contradict an explanation which is believed
WARM = 40  # hypotheses that a refit starts from
MISSED = 2  # answers that a light refit may leave unexplained,
WORSE = 1.5  # and times as many as the last thorough one did
SINGLE = 0.2  # times the spread is as well as one call in so long a time is told, for a bearable number of calls
LONG = 10  # cycles after which three times as wide will do: more of the same tells little
UNCLEAR = 3  # times as many servers as at least, from which on it is looked at for as many cycles again
SHORT_S = 10.0  # window, or time in which a bucket fills up, below which as many cycles again are cheap
DRIBBLE = 0.1  # of the limit: less came back at once
CALL_BY_CALL = frozenset({"token_bucket", "sliding_counter"})  # families that give back a call at a time
LARGE = 60  # calls from which on that is too fast to be waited for
SMALL = 3  # calls up to which a limit is looked at from a long rest before it is believed
SEEN = 2  # recoveries that are needed: a window shows in the second,
SEEN_ODD = 4  # and one that nobody would choose is more often a limit that has moved, or two, until it has shown again
LASTED_ODD = 5.0  # and has lasted for so many windows: a limit that moves for two of them bends one, until it stays
ABOUT = 0.002  # relative distance from a common window within which a limit that has moved would not lie by chance
BOUNDARIES = 1.6  # windows for which a counter is watched from the first boundary on
ALIGNED = frozenset({"fixed_window", "sliding_counter"})
BLURRED = UNANCHORED | {"sliding_counter"}  # what arrivals blur, however long it is looked at
ALIKE = 7.0  # nats behind the best within which others explain the record about as well
ANSWER = (1.5, 0.02)  # round trips of refusals, and seconds more, after which a call without an answer has passed
SURE = 0.999  # posterior probability of a family from which on its rivals are not paid for,
SURE_ENOUGH = 0.99  # and what will do once probing has lasted
LASTED_S = 150.0  # as long as two recoveries of a minute's window take, when the rate may also be known
WIDER = 1.5  # times as roughly


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """What the user may set. Rates per second, times in seconds."""

    seed: int = 0
    max_throttled: float = 0.001
    max_rate_per_s: float = 500.0
    max_in_flight: int = 512
    patience_s: float = 130.0  # how long to push without meeting a limit: a minute's window, met at its worst phase
    patience_calls: int = 60_000  # and how many calls
    met_within_calls: int | None = None  # of the run: what is not met by then is not pushed for
    max_cycles: int = 30
    probe_tokens: int = 100_000_000  # input tokens that the search for a limit on them may spend
    verify: bool = True
    verify_for_s: float | None = None


@dataclass(slots=True)
class Knowledge:
    """What was learnt of a target, and what is safe to do next."""

    traffic: Traffic
    options: CalibrationOptions
    on_progress: Callable[[Progress], None]
    cap: int | None = None  # calls in flight that are known to pass
    latency_s: float = 1.0
    thorough: bool = True  # whether the last fit looked at every family
    unexplained: int = 0  # answers that the last one which did so left over
    doubt: Doubt = field(default_factory=Doubt)  # whether one limit on requests is enough
    fit: Fit = field(init=False)
    _running: RunningCalls = field(init=False)

    def __post_init__(self) -> None:
        self._running = RunningCalls(self.traffic.attempts)

    def _refit(self, *, thorough: bool = True, afresh: bool = False) -> None:
        """Explain the record again; ``afresh`` from nothing, as it will be explained in the end."""
        calls = self._calls()
        warm = self.fit.leading(WARM) if hasattr(self, "fit") and not afresh else ()
        self.thorough = thorough or not warm
        self.fit = fit(calls, warm, thorough=self.thorough)
        if not self.thorough and self.fit.missed > MISSED + 0.01 * len(calls) + self._known_to_miss():
            self._refit()
            return
        if self.thorough:
            self.unexplained = self.fit.missed
        if self.fit.concurrency is not None:
            self.cap = max(1, min(self.fit.concurrency, self.fit.reached))
        else:
            self.cap = None

    def _known_to_miss(self) -> float:
        """Return how many answers a light refit may leave over because a thorough one did: nothing explains them."""
        return WORSE * self.unexplained

    def _settled(self, cycle: int) -> bool:
        best = self.fit.best
        if best is None or len(self.traffic.attempts) < 3:  # noqa: PLR2004 - nothing to settle
            return False
        if self.fit.missed > max(1.0, UNEXPLAINED * self.fit.refusals):
            return False
        if self._recoveries() < (SEEN_ODD if self._odd(best) else SEEN):
            return False
        if self._lasted_s() < self._needed_s(best) or self.fit.rate_doubtful():
            return False
        return self._narrow(cycle) and not self._moved(best)

    def _moved(self, best: Hypothesis) -> bool:
        """Return whether the record's beginning tells another rate, where a limit that moves would not be noticed."""
        return (best.window_s is None or self._odd(best)) and steadiness.moved(self.fit)

    def _lasted_s(self) -> float:
        return self.traffic.now_s() - self.traffic.attempts[0].sent_s

    def _odd(self, best: Hypothesis) -> bool:
        """Return whether this is a window that nobody would choose, and about none that people do."""
        return best.window_s is not None and all(abs(best.window_s / w - 1.0) > ABOUT for w in COMMON_WINDOWS_S)

    def _sure(self) -> float:
        """Return how certain a family must be: more of the same costs more time, and tells less, the longer it took."""
        return SURE if self._lasted_s() < LASTED_S else SURE_ENOUGH

    def _needed_s(self, best: Hypothesis) -> float:
        """Return how long the record must be: a counter shows its window only from one boundary to the next but one."""
        window_s = best.window_s or 0.0
        if self._odd(best):
            return LASTED_ODD * window_s
        if best.family != "sliding_counter" or best.phase_s is None:
            return window_s
        return (best.phase_s - self.traffic.attempts[0].sent_s) % window_s + BOUNDARIES * window_s

    def _narrow(self, cycle: int) -> bool:
        """Return whether the family is certain and the rate's interval as narrow as is asked for."""
        best = self.fit.hypotheses[0]
        low, high = rate_interval(self.fit)
        same = {h.limit for h in near(self.fit) if h.family == best.family}
        window_s, wanted, long = best.window_s or math.inf, NARROW, LONG
        if window_s in ROUND_WINDOWS_S:
            wanted = 2.0 * NARROW if len(same) == 1 else NARROW
            if best.family in BLURRED:
                # Each recovery tells the window anew, as well as arrivals are known; the settings give as much away.
                wanted = max(wanted, 2.0 * self._spread_s() / window_s)
            width = high - low
        else:
            width = 2.0 * max(high - best.rate_per_s, best.rate_per_s - low)  # the number that is told must be near all
            if best.limit == 1 and best.family in SAME_WHEN_ONE:
                wanted = max(wanted, SINGLE * self._spread_s() * best.rate_per_s)
            paired = best.window_s is None and best.limit == 1  # of a bucket of one, pairs tell more
            long = 2 * LONG if memory_s(self.fit) < SHORT_S and not paired else LONG
        wanted *= 3.0 if cycle >= long else WIDER if self._lasted_s() >= LASTED_S else 1.0
        return self.fit.certainty() > self._sure() and width / best.rate_per_s < wanted

    def _hopeless(self, cycle: int) -> bool:
        """Return whether more of the same would tell no more: a second limit, chance, or others on the quota."""
        many = self.fit.refusals >= MANY_REFUSALS
        if by_chance(self.fit):
            return many and cycle >= FIRST
        if self.doubt.raised(self.fit):
            return True
        misfit = self.fit.misfit.kind() is not None
        return many and cycle >= LONG and misfit and (cycle >= 2 * LONG or not self._servers_unclear())

    def _servers_unclear(self) -> bool:
        """Return whether there may be few servers that count apart, or many: that shows slowly, and costs much."""
        sharing = explain(self.fit)
        if sharing.lead_of_replicas() <= 0.0:
            return False
        _, fewest, most = sharing.places()
        return most >= UNCLEAR * fewest

    def _recoveries(self) -> int:
        """Return how often the rate limit was seen to give back.

        What a large limit gives back call by call is met again before a wait shows: it counts as often as a good part
        of it was let in anew.
        """
        best = self.fit.best
        if best is None:
            return 0
        record = self._record(best)
        waited = int(np.sum(proposals.structure(record).waits > 2.0 * self._spread_s()))
        if best.family not in CALL_BY_CALL or best.limit < LARGE:
            return waited
        return max(waited, _times_used_up(record, DRIBBLE * best.limit))

    def _given_back(self, best: Hypothesis) -> float:
        """Return how many calls have passed since the last recovery that no delay explains."""
        record = self._record(best)
        seen = proposals.structure(record)
        since = seen.recoveries[seen.waits > 2.0 * self._spread_s(), 1]
        return float(np.sum(record.history_s >= since[-1])) if len(since) else math.inf

    def _in_doubt(self) -> bool:
        ranked = self.fit.probabilities()
        return len(ranked) > 1 and ranked[0][1] < SURE

    def _alignment_in_doubt(self) -> bool:
        """Return whether windows on the clock and windows that we open ourselves explain the record alike.

        While each fill follows a recovery at once, both predict the same next one.
        """
        if self.fit.rate_doubtful() or self._recoveries() < 2:  # noqa: PLR2004 - one says nothing about a period
            return False
        alike = self._alike()
        few = self.fit.hypotheses[0].limit <= SMALL  # one call in two windows of a counter is one in a fixed window
        return bool(alike & ALIGNED) and (bool(alike & UNANCHORED) or (few and alike == ALIGNED))

    def _alike(self) -> set[str]:
        """Return the families that explain the record about as well as the best one."""
        leaders = self.fit.leaders()
        return {h.family for h in leaders if h.score > leaders[0].score - ALIKE}

    def window_guess_s(self) -> float:
        """Return the leading window, but never a wait out of proportion to what was seen so far."""
        best = self.fit.best
        if best is None:
            return 1.0
        seen = 2.0 * (self.traffic.now_s() - self.traffic.attempts[0].sent_s) + 5.0
        return min(seen, best.window_s or best.limit / best.rate_per_s)

    def _rooms(self, at_s: Floats) -> Floats:
        """Return the room, (hypotheses, moments), that the best of each family expects."""
        self._keep_up()
        ranked = [h for h in self.fit.leaders() if h.score > self.fit.hypotheses[0].score - 10.0]
        rooms = [np.floor(np.maximum(forecast.room(self._record(h), h, at_s), 0.0) + 1e-6) for h in ranked]
        return np.stack(rooms) if rooms else np.zeros((0, len(at_s)))

    def _keep_up(self) -> None:
        """Expect what comes next by all that was sent, without explaining it again."""
        calls = self._calls()
        self.fit = replace(self.fit, calls=calls, flight=flight.in_flight(calls, self.fit.offsets_s))

    def _record(self, h: Hypothesis) -> Record:
        known = self.fit
        excuse = flight.excused(known.calls, known.flight, known.concurrency) if known.concurrency else None
        return decisions.prepare(
            known.calls,
            known.offsets_s,
            counts_refused=h.counts_refused,
            counts_other=h.counts_other,
            excused=excuse,
            thin=False,
        )

    def _focus(self, now: float) -> list[tuple[float, float]]:
        """Return (moment from now, half width) where recoveries are expected."""
        found: list[tuple[float, float]] = []
        if self._recoveries() == 0:
            first = self.traffic.attempts[0].sent_s
            offset = server_offset(self.fit.calls)
            for w in COMMON_WINDOWS_S:
                ends = [first + w]
                if offset is not None:
                    ends.append(math.ceil((now + offset[0]) / w) * w - offset[0])
                found += [(e - now, 0.02 * w + 0.5 * self._trip_s()) for e in ends if 0.2 < e - now < 120.0]  # noqa: PLR2004
            return _apart(found)
        for h in self.fit.leaders()[:4]:
            if h.score < self.fit.hypotheses[0].score - 8.0:
                continue
            alike = [o for o in self.fit.hypotheses if o.family == h.family and o.score > h.score - PLATEAU]
            alike.sort(key=lambda o: (o.window_s or 0.0, o.rate_per_s))
            chosen = alike[:: max(1, len(alike) // 10)] + alike[-1:]
            record = self._record(h)
            moments = [forecast.first_room_s(record, o, now) for o in chosen]
            moments = [m for m in moments if math.isfinite(m)]
            # A few at the plateau's edge expect room at once, which the refusals just seen deny.
            moments = [m for m in moments if m > now] or moments
            if moments:
                scale = h.window_s or 1.0 / h.rate_per_s
                low, high = min(moments) - now, max(moments) - now
                found.append(((low + high) / 2, (high - low) / 2 + 0.003 * scale + self._spread_s()))
        return _apart(found)

    def _mean_latency_s(self) -> float:
        took = [a.done_s - a.sent_s for a in self.traffic.attempts[-200:] if a.status == 200]  # noqa: PLR2004
        return float(np.mean(took)) if took else self.latency_s

    def _short_latency_s(self) -> float:
        """Return what nearly all answers take at least."""
        took = [a.done_s - a.sent_s for a in self.traffic.attempts if a.status == 200]  # noqa: PLR2004
        return float(np.quantile(took, 0.1)) if took else self.latency_s

    def _calls(self) -> Calls:
        now_s, answer_s = self.traffic.now_s(), 0.999 * self.answer_s()
        return for_requests(self._running.calls(now_s, answer_s))

    def answer_s(self) -> float:
        """Return how long after it was sent a call without an answer has passed: a refusal would have come back."""
        return ANSWER[0] * self._trip_s() + ANSWER[1]

    def _trip_s(self) -> float:
        """Return how long a refusal takes to come back, at most."""
        trips = [a.done_s - a.sent_s for a in self.traffic.attempts[-400:] if a.status == 429]  # noqa: PLR2004
        return float(np.quantile(trips, 0.98)) if len(trips) > 2 else min(self.latency_s, 0.4)  # noqa: PLR2004

    def _spread_s(self) -> float:
        return float(self.fit.offsets_s[-1])

    def note(self, phase: str) -> None:
        """Tell how far the calibration is."""
        attempts = self.traffic.attempts
        refused = int(np.sum(self.fit.calls.outcome == REFUSED))
        self.on_progress(
            Progress(
                phase=phase,
                estimate=_sentence(self.fit),
                sent=len(attempts),
                admitted=int(np.sum(self.fit.calls.outcome == ADMITTED)),
                throttled=refused,
                elapsed_s=self.traffic.now_s(),
            )
        )


def _times_used_up(record: Record, part: float) -> int:
    """Return how often at least so much was spent between two refusals."""
    blocks = np.flatnonzero(~record.admitted[1:] & record.admitted[:-1]) + 1
    spent = record.spent[np.searchsorted(record.history_s, record.sent_s[blocks])].tolist()
    times, last = 0, spent[0] if spent else 0.0
    for now in spent:
        if now - last >= part:
            times, last = times + 1, now
    return times


def _apart(found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Merge overlapping intervals."""
    merged: list[tuple[float, float]] = []
    for centre, half in sorted(found):
        if merged and centre - half <= merged[-1][0] + merged[-1][1]:
            low = merged[-1][0] - merged[-1][1]
            high = max(centre + half, merged[-1][0] + merged[-1][1])
            merged[-1] = ((low + high) / 2, (high - low) / 2)
        else:
            merged.append((centre, half))
    return merged


def _sentence(fitted: Fit) -> str:
    best = fitted.best
    parts = []
    if best is not None:
        per_min = best.rate_per_s * 60
        parts.append(f"about {per_min:.4g} requests a minute ({best.family.replace('_', ' ')})")
    if fitted.concurrency is not None:
        parts.append(f"{fitted.concurrency} calls in flight")
    return ", ".join(parts)
