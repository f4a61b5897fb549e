"""The prober: the plan of a calibration as a small state machine over a `Traffic`.

It owns what to send next: bursts that double, watches over recoveries, fills shaped by what the surviving
hypotheses still disagree on. It knows nothing of settings, verification or reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.chance import by_chance
from analysis.decisions import PAIRED
from analysis.fit import SAME_WHEN_ONE
from analysis.two_limits import FLIGHT, VERIFYING
from redline import probing
from redline.knowledge import FIRST, SMALL, SURE
from redline.moves import ENOUGH_REFUSED, GRADUAL, LUMP, Moves

if TYPE_CHECKING:
    from collections.abc import Callable

FLIGHT_PER_S = 4000.0  # a burst that tells calls in flight leaves at once: none may end before the last arrives
AT_ONCE = 6.0  # round trips within which a bucket is full again
OVERLOAD = 1.3  # times its rate, for
OVERLOADED = 80  # calls
JUST_IN_TIME = 30  # pairs of calls about as far apart as a limit of one lets them pass
WHOLE = (4, 12.0)  # bursts of all that a window lets in, at most, and seconds that they may take
APART = 0.8  # of what is expected: less is another expectation, and leaves a second lump worth the name
SURE_ODDS = 10.0  # nats by which a limit on calls in flight must explain more, or it is looked at again
UNLOOKED_EVERY = 4  # cycles


@dataclass(slots=True)
class Prober(Moves):
    """The plan's state beside what is known and what the last move left."""

    unrefused: int = 0  # pushes in a row, below a height in question or spread out, that met nothing
    rested: bool = False  # whether a burst was sent from a long rest
    on_room: Callable[[], None] = lambda: None  # told when requests have room: it may use a little of it

    def run(self) -> None:
        """Probe until settled."""
        self._refit()
        self._baseline()
        self._first_fill()
        self._refit()
        self._settle()

    def go_on(self) -> None:
        """Go on where a verification was the first to meet a limit on the rate: its calls are part of the record."""
        self._refused_since(next(k for k, a in enumerate(self.traffic.attempts) if a.phase.startswith(VERIFYING)))
        self._refit(afresh=True)
        self._settle()

    def _settle(self) -> None:
        """Go through cycles until all is settled, and look at the calls in flight."""
        first = self._cycles(0)
        self._concurrency_check()
        self._drain()
        self._refit(afresh=True)
        if self.fit.best is not None and not self._settled(first):
            self._cycles(first)  # what was seen of the calls in flight has opened the question again
            self._drain()

    def _cycles(self, first: int) -> int:
        """Watch a recovery, fill, fit, until all is settled or more of it is of no use; returns the cycle reached."""
        pushed_s, pushed, cycle = 0.0, 0, first
        for cycle in range(first, self.options.max_cycles):
            if self.fit.refusals == 0 or self._given_up(cycle) or self._confirmed(cycle):
                break
            self.note(f"cycle {cycle + 1}")
            if not self._recover():
                break
            began, sent = self.traffic.now_s(), len(self.traffic.attempts)
            met = self._fill(cycle)
            self._refit(thorough=cycle < FIRST or cycle % FIRST == 0)
            # Pushing at the known limit on calls in flight, with no sign of a rate limit behind it.
            pushed_s, pushed = pushed_s + self.traffic.now_s() - began, pushed + len(self.traffic.attempts) - sent
            if self.fit.best is not None:
                pushed_s, pushed = 0.0, 0
            if not met or not self._worth(pushed_s, pushed):
                break
        return cycle

    def _given_up(self, cycle: int) -> bool:
        """Return whether more is of no use; chance is believed where calls far apart, or at once, fare as all do."""
        if not self._hopeless(cycle):
            return False
        if not by_chance(self.fit) or (self.paced and self.crowded):
            return True
        if not self.paced:
            if not self._send_far_apart():
                return True
            self._refit()
        if by_chance(self.fit) and not self.crowded:
            self._send_many_at_once()
            self._refit()
        return self._hopeless(cycle)

    def _confirmed(self, cycle: int) -> bool:
        """Return whether all is settled, and still is with every answer in and everything looked at again."""
        if not self._settled(cycle):
            return False
        self._drain()
        self._refit(afresh=True)
        return self._settled(cycle) and self._seen_from_rest() and self._seen_unlooked()

    def _seen_unlooked(self) -> bool:
        """Return whether it is still settled after calls at irregular moments, where the plan may have made it up."""
        if not self._made_up() or self.unlooked:
            return True
        self._send_unlooked()
        self._refit()
        return self._settled(0)

    def _seen_from_rest(self) -> bool:
        """Return whether it is still settled after a burst from a long rest: so few calls may be less than the limit.

        One call in two windows of a counter, or one beside those of others, looks like a limit of one.
        """
        best = self.fit.best
        if best is None or best.limit > SMALL or self.rested:
            return True
        self.rested = True
        self.traffic.sleep_until(self.traffic.now_s() + 2.3 * self.window_guess_s())
        report = self._burst("fill", 2 * int(best.limit) + 2)
        self._let_refusals_arrive()
        self._refused_since(report.first)
        self._refit()
        return self._settled(0)

    def _baseline(self) -> None:
        report = self.traffic.run(probing.burst("baseline", 1, rate_per_s=1.0, drain=True))
        first = self.traffic.attempts[report.first]
        if math.isfinite(first.done_s):
            self.latency_s = max(0.02, first.done_s - first.sent_s)

    def _first_fill(self) -> None:
        """Bursts that double until one is refused, then a steady stream."""
        pause = min(0.4, self.latency_s)
        size = 2
        while size <= self.options.max_in_flight:
            report = self._burst("fill", size)
            self.traffic.sleep_until(report.ended_s + pause)
            if self._refused_since(report.first):
                self._let_refusals_arrive()
                return
            size *= 2
        self._stream()

    def _fill(self, cycle: int) -> bool:
        """Fill up to the next refusal: what the leaders expect at once, then bursts that double. False: none came."""
        if self.fit.rate_doubtful():
            return self._fill_below_candidate()
        if self.fit.best is None and self.cap is not None:
            return self._stream()  # with as many in flight as may be: what refuses now is a rate
        if cycle >= FIRST and self._sent_blindly(cycle):
            return True
        self._rest_until_they_differ()
        self.on_room()
        now = self.traffic.now_s()
        # What gives back as it was filled does so while the calls go out.
        sending_s = float(self._rooms(np.array([now])).max(initial=0.0)) / self.options.max_rate_per_s
        rooms = self._rooms(now + np.array([0.0, sending_s + self._trip_s()]))
        expected = int(rooms[:, 0].max(initial=0.0))
        self.parted = False
        if cycle == 0 or expected < LUMP or not self._in_doubt() or self._slow(expected):
            return self._push(expected)
        # A part, a pause and the rest: what comes back later, at once or in two lumps, tells windows apart. Where
        # some expect clearly less room already, the part is what they forbid.
        less = rooms[rooms[:, 1] < APART * expected, 1]
        apart = math.ceil(float(less.max()) * 1.03) + 2 if len(less) else 0
        part = max(apart, int(expected * self.rng.uniform(0.33, 0.38)))
        report = self._send("fill", min(part, expected + 1))
        self._let_refusals_arrive()
        if self._refused_since(report.first) or self._told_apart(cycle):
            return True
        self.parted = part < APART * expected or (part < expected - 1 and self._lumps_tell())
        if self.parted:
            self.traffic.sleep_until(report.ended_s + self.window_guess_s() * self.rng.uniform(0.2, 0.35))
        return self._push(expected - part)

    def _lumps_tell(self) -> bool:
        """Return whether what gives back all at once and what gives back as it was taken explain the record alike."""
        alike = self._alike()
        return bool(alike & GRADUAL) and bool(alike - GRADUAL)

    def _sent_blindly(self, cycle: int) -> bool:
        """Send on whatever comes back, where looking after each fill tells too little; returns whether that was so."""
        if self._refills_at_once():
            self._overload()
            return True
        if self._single():
            self._send_just_in_time()
            return True
        if cycle % UNLOOKED_EVERY == FIRST and self._made_up():
            self._send_unlooked()
            return True
        return False

    def _refills_at_once(self) -> bool:
        """Return whether this is a bucket that is full again before the next fill: fills do not tell its rate then."""
        best = self.fit.best
        if best is None or best.window_s is not None or best.limit < 2 or self._in_doubt():  # noqa: PLR2004
            return False
        return best.limit / best.rate_per_s < AT_ONCE * self._trip_s()

    def _single(self) -> bool:
        """Return whether this is surely one call in so long a time, whatever the family's name."""
        best = self.fit.best
        one = best is not None and best.limit == 1 and best.family in SAME_WHEN_ONE
        return one and self.fit.certainty() > SURE

    def _send_just_in_time(self) -> None:
        """Send pairs as far apart as the second may just pass, give or take the spread: so few answers decide so much.

        The first of each has surely room: a call that passed just in time was late itself, and would put off the next.
        """
        each_s, spread_s = 1.0 / self.fit.hypotheses[0].rate_per_s, self._spread_s()
        apart_s = np.maximum(each_s + spread_s * self.rng.uniform(-1.0, 1.0, JUST_IN_TIME), 0.1 * each_s)
        rests_s = np.full(JUST_IN_TIME, 1.1 * each_s + 2.0 * spread_s)
        offsets = tuple(np.cumsum(np.column_stack([rests_s, apart_s]).ravel()).tolist())
        report = self.traffic.run(probing.at_times(PAIRED, offsets, stop_refused=None, cap=self.cap))
        self._let_refusals_arrive()
        self._refused_since(report.first)

    def _overload(self) -> None:
        """Send more than the bucket takes for a while: what passes between two refusals far apart is its rate."""
        best = self.fit.hypotheses[0]
        full = np.arange(int(best.limit)) / self.options.max_rate_per_s
        over = full[-1] + np.arange(1, OVERLOADED + 1) / (OVERLOAD * best.rate_per_s)
        offsets = tuple(np.concatenate([full, over]).tolist())
        report = self.traffic.run(probing.at_times("fill", offsets, stop_refused=None, cap=self.cap))
        self._let_refusals_arrive()
        self._refused_since(report.first)

    def _told_apart(self, cycle: int) -> bool:
        """Return whether what passed has settled it, so that the limit need not be met again."""
        self._refit(thorough=False)
        return self._settled(cycle + 1)

    def _fill_below_candidate(self) -> bool:
        """Push with fewer calls in flight than were ever refused: a refusal now is the rate's.

        Where that is too slow to be refused, as many calls as were refused, spread over most of an answer's time: a
        refusal now is that of the calls in flight. Where that meets nothing either, some bursts of what the rate would
        let in at once: how many pass tells the two apart.
        """
        height = self.fit.candidate or 2
        best = self.fit.best
        room = int(best.limit if best else 1)
        first = len(self.traffic.attempts)
        match self.unrefused % 3:
            case 0:
                self.cap = max(1, height - 1)
                self._send("fill", min(3 * room + 8, self.options.patience_calls))
            case 1:
                offsets = np.linspace(0.0, 0.8 * self._short_latency_s(), math.ceil(1.1 * height) + 2)
                self.traffic.run(probing.at_times(FLIGHT, tuple(offsets), stop_refused=ENOUGH_REFUSED))
            case _:
                gap_s = 1.3 * self.window_guess_s() + self._spread_s()
                starts_s = gap_s * np.arange(np.clip(WHOLE[1] / gap_s, 1, WHOLE[0]) // 1)
                offsets = starts_s[:, None] + np.arange(max(room, height + 1)) / self.options.max_rate_per_s
                self.traffic.run(probing.at_times("fill", tuple(offsets.ravel().tolist()), stop_refused=None))
        self._let_refusals_arrive()
        self.unrefused = 0 if self._refused_since(first) else self.unrefused + 1
        return True

    def _concurrency_check(self) -> None:
        """From a full limiter, as many calls at once as matter: what the fills could not put in flight or tell."""
        for turn in range(3):
            size = self._flight_in_question(again=turn > 0)
            if size is None or not self._rested_for(size):
                return
            self.note("calls in flight")
            self.traffic.run(probing.burst(FLIGHT, size, rate_per_s=FLIGHT_PER_S))
            self._drain()
            self._refit()
            self.on_room()

    def _flight_in_question(self, *, again: bool) -> int | None:
        """Return how many calls at once would tell something about the limit on them; None where nothing is open."""
        best, limit = self.fit.best, self.fit.concurrency
        room = math.inf if best is None else best.limit
        if limit is not None:
            low, high = self.fit.concurrency_range or (limit, limit)
            open_ = low < high or (not again and self.fit.behind < SURE_ODDS)
            return math.ceil(1.1 * high) + 2 if open_ and room > 1.1 * high + 2 else None
        if best is None:
            return None
        height = self.fit.candidate
        odd = self.fit.misfit.early > 0 and self.fit.misfit.kind() is None
        if again and height is not None and odd and room > 1.1 * height + 2:
            return math.ceil(1.1 * height) + 2  # a refusal that the rate does not explain stood as high
        target = min(math.ceil(0.6 * room) + 1, self.options.max_in_flight)
        # Once tried, a few failed or ended calls are no reason to try again.
        return target if self.fit.reached < (0.8 * target if again else target) and target > 1 else None
