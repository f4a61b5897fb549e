"""The prober: the plan of a calibration as a small state machine over a `Traffic`.

It owns what to send next: bursts that double, watches over recoveries, fills shaped by what the surviving
hypotheses still disagree on. It knows nothing of settings, verification or reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from analysis import forecast
from analysis.calls import ADMITTED
from analysis.two_limits import VERIFYING
from redline import probing
from redline.knowledge import FIRST, SMALL, Knowledge

if TYPE_CHECKING:
    from collections.abc import Callable

    from redline.traffic import ProbeReport

FLIGHT_PER_S = 4000.0  # a burst that tells calls in flight leaves at once: none may end before the last arrives
FOCUSED = 12  # polls around a recovery that is expected
GROWTH = 0.25  # of the gaps between polls, as a share of the wait so far, while nothing is known of the window
FINER = 0.13  # and after the first recovery
LONGEST_WINDOW_S = 4000.0  # how long a recovery is waited for: an hour, and what polling at growing gaps may miss
USED_UP_S = 200.0  # and where no call ever passed: the quota may be gone for the day
ENOUGH_REFUSED = 8  # refusals that end a burst: more of one block tell nothing but the spread of delays
LUMP = 6  # calls from which on a limit is large enough to be measured by what gathers in a pause
DRIBBLE = 0.1  # of the limit: less came back at once
AT_ONCE = 6.0  # round trips within which a bucket is full again
OVERLOAD = 1.3  # times its rate, for
OVERLOADED = 80  # calls
APART = 0.8  # of what is expected: less is another expectation, and leaves a second lump worth the name
CLEAR = 0.06  # relative difference of two expectations that one fill decides
GATHERED = 0.3  # of the limit is waited for then
MORE_GATHERED = 0.6  # and of a bucket's: what passed between two moments at which it was empty is its rate
GRADUAL = frozenset({"sliding_log", "sliding_counter", "token_bucket"})  # give back as it was taken, not all at once
LONGER = 2.5  # times as long is pushed where no more calls are sent than
FEW_SENT = 15_000
SURE_ODDS = 10.0  # nats by which a limit on calls in flight must explain more, or it is looked at again


@dataclass(slots=True)
class Prober(Knowledge):
    """The plan's state beside what is known."""

    blocked_s: float = math.nan  # when the rate limit was last seen to refuse
    unrefused: bool = False  # whether the last push below a height in question met nothing
    spreading: bool = False  # and whether that one was spread out
    parted: bool = False  # whether the last fill came in two lumps
    rested: bool = False  # whether a burst was sent from a long rest
    passing: bool = False  # whether the last recovery was let pass unseen
    on_room: Callable[[], None] = lambda: None  # told when requests have room: it may use a little of it
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.options.seed)

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
            if self.fit.refusals == 0 or self._hopeless(cycle) or self._confirmed(cycle):
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

    def _confirmed(self, cycle: int) -> bool:
        """Return whether all is settled, and still is with every answer in and everything looked at again."""
        if not self._settled(cycle):
            return False
        self._drain()
        self._refit(afresh=True)
        return self._settled(cycle) and self._seen_from_rest()

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

    def _drain(self) -> None:
        """Let the answers arrive, for as long as answers have taken so far."""
        took = [a.done_s - a.sent_s for a in self.traffic.attempts if a.status == 200]  # noqa: PLR2004
        until = self.traffic.now_s() + 1.5 * max(took, default=self.latency_s)
        while self.traffic.now_s() < until and any(a.status is None for a in self.traffic.attempts):
            self.traffic.sleep_until(min(until, self.traffic.now_s() + 0.25))

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

    def _stream(self) -> bool:
        """Send steadily until refused; False where nothing was for as long as we are patient."""
        cap = self.cap or self.options.max_in_flight
        began = self.traffic.now_s()
        first = len(self.traffic.attempts)
        while self._patient(began, first):
            probe = probing.stream("fill", rate_per_s=self.options.max_rate_per_s, duration_s=10.0, cap=cap)
            report = self.traffic.run(probe)
            if self._refused_since(report.first):
                self._let_refusals_arrive()
                return True
        return False

    def _patient(self, began_s: float, first: int) -> bool:
        return self._worth(self.traffic.now_s() - began_s, len(self.traffic.attempts) - first)

    def _worth(self, lasted_s: float, sent: int) -> bool:
        """Return whether to push on: where that takes few calls a limit in a longer window is worth the time."""
        patience_s = self.options.patience_s * (LONGER if sent < FEW_SENT else 1.0)
        return lasted_s < patience_s and sent < self.options.patience_calls

    def _recover(self) -> bool:
        """Watch until a call passes again. False where nothing came back for very long."""
        # Where two lumps were sent, their recovery is watched, unless it would be the same for all that are left.
        telling = self.parted and bool(self._alike() & GRADUAL)
        self.passing = not self.passing and not telling and self._alignment_in_doubt()
        if self.passing:
            self._pass_over()
            return True
        rested_s = self._rested_s()
        if rested_s is not None:
            self.traffic.sleep_until(rested_s)
            return True
        now = self.traffic.now_s()
        since = now - self.blocked_s
        focus = self._focus(now)
        best = self.fit.best
        few = best is not None and best.counts_refused and self._recoveries() > 0
        if few and focus:
            # Each refused poll counts as well: none before a recovery can be expected, and few then.
            now = max(now, now + min(centre - half for centre, half in focus))
            since, focus = since + now - self.traffic.now_s(), [(c - now + self.traffic.now_s(), h) for c, h in focus]
            self.traffic.sleep_until(now)
        passed = bool(np.any(self.fit.calls.outcome == ADMITTED))
        patience_s = LONGEST_WINDOW_S if passed else USED_UP_S
        longest = max([6.0 * (now - self.traffic.attempts[0].sent_s), patience_s, *(2 * c + h for c, h in focus)])
        times = probing.polling_times(
            since,
            min(longest, 5400.0),
            focus,
            first_gap_s=max(0.03, 0.5 * self._trip_s()),
            growth=GROWTH if self._recoveries() == 0 else FINER,
            least_gap_s=max(0.003, self._spread_s()),
            most_focused=max(2, int(best.limit) // 3) if few and best else FOCUSED if self._recoveries() else 4,
        )
        trip = self._trip_s()
        report = self.traffic.run(probing.watch(times, admit_after_s=1.5 * trip + 0.02, cap=self.cap))
        return report.reason == "admitted"

    def _rested_s(self) -> float | None:
        """Return until when a pause tells more than polling would; None where polling does.

        A counter that is known but for its later windows needs time, not calls. A limit that gives back call by call
        is measured by what has gathered after a while.
        """
        best = self.fit.best
        if best is None or best.limit < LUMP or self._recoveries() < 2:  # noqa: PLR2004 - nothing to count on yet
            return None
        now = self.traffic.now_s()
        if best.family == "sliding_counter" and self._narrow(0):
            return max(now, self.traffic.attempts[0].sent_s + self._needed_s(best)) + 0.1 * self.window_guess_s()
        bucket = best.window_s is None
        if best.counts_refused or (not bucket and self._given_back(best) >= DRIBBLE * best.limit):
            return None
        share = MORE_GATHERED if bucket else GATHERED
        ready_s = forecast.first_room_s(self._record(best), best, now, need=share * best.limit)
        return ready_s if now < ready_s < now + 1.5 * self.window_guess_s() else None

    def _pass_over(self) -> None:
        """Let the recovery pass unseen and go on at a random moment after it."""
        now = self.traffic.now_s()
        best = self.fit.hypotheses[0]
        ready = forecast.first_room_s(self._record(best), best, now)
        ready = ready if ready - now < 2.0 * self.window_guess_s() else now
        self.traffic.sleep_until(max(now, ready) + self.window_guess_s() * self.rng.uniform(0.15, 0.6))

    def _fill(self, cycle: int) -> bool:
        """Fill up to the next refusal: what the leaders expect at once, then bursts that double. False: none came."""
        if self.fit.rate_doubtful():
            return self._fill_below_candidate()
        if self.fit.best is None and self.cap is not None:
            return self._stream()  # with as many in flight as may be: what refuses now is a rate
        if cycle >= FIRST and self._refills_at_once():
            return self._overload()
        self._rest_until_they_differ()
        self.on_room()
        now = self.traffic.now_s()
        # What gives back as it was filled does so while the calls go out.
        sending_s = float(self._rooms(np.array([now])).max(initial=0.0)) / self.options.max_rate_per_s
        rooms = self._rooms(now + np.array([0.0, sending_s + self._trip_s()]))
        expected = int(rooms[:, 0].max(initial=0.0))
        self.parted = False
        if cycle == 0 or expected < LUMP or not self._in_doubt():
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
        self.parted = part < APART * expected
        if self.parted:
            self.traffic.sleep_until(report.ended_s + self.window_guess_s() * self.rng.uniform(0.2, 0.35))
        return self._push(expected - part)

    def _refills_at_once(self) -> bool:
        """Return whether this is a bucket that is full again before the next fill: fills do not tell its rate then."""
        best = self.fit.best
        if best is None or best.window_s is not None or best.limit < 2 or self._in_doubt():  # noqa: PLR2004
            return False
        return best.limit / best.rate_per_s < AT_ONCE * self._trip_s()

    def _overload(self) -> bool:
        """Send more than the bucket takes for a while: what passes between two refusals far apart is its rate."""
        rate = OVERLOAD * (self.fit.best.rate_per_s if self.fit.best else 1.0)
        report = self.traffic.run(probing.burst("fill", OVERLOADED, rate_per_s=rate, cap=self.cap))
        self._let_refusals_arrive()
        self._refused_since(report.first)
        return True

    def _told_apart(self, cycle: int) -> bool:
        """Return whether what passed has settled it, so that the limit need not be met again."""
        self._refit(thorough=False)
        return self._settled(cycle + 1)

    def _push(self, expected: int) -> bool:
        """Send what is expected to pass and a little more, then bursts that double. False: never refused."""
        size = min(max(1, math.ceil(expected * 1.03)) + 1, self.options.patience_calls)
        began, first = self.traffic.now_s(), len(self.traffic.attempts)
        while self._patient(began, first):
            report = self._send("fill", size)
            self.traffic.sleep_until(report.ended_s + self._trip_s())
            if self._refused_since(report.first):
                self._let_refusals_arrive()
                return True
            size = min(max(2, size * 2), 2000)
        return False

    def _fill_below_candidate(self) -> bool:
        """Push with fewer calls in flight than were ever refused: a refusal now is the rate's.

        Where that is too slow to be refused, as many calls as were refused, spread over most of an answer's time: a
        refusal now is that of the calls in flight.
        """
        height = self.fit.candidate or 2
        self.spreading = not self.spreading and self.unrefused
        if self.spreading:
            offsets = np.linspace(0.0, 0.8 * self._short_latency_s(), math.ceil(1.1 * height) + 2)
            report = self.traffic.run(probing.at_times("flight", tuple(offsets), stop_refused=ENOUGH_REFUSED))
        else:
            self.cap = max(1, height - 1)
            best = self.fit.best
            report = self._send("fill", min(3 * int(best.limit if best else 1) + 8, self.options.patience_calls))
        self._let_refusals_arrive()
        self.unrefused = not self._refused_since(report.first)
        return True

    def _rest_until_they_differ(self) -> None:
        """Wait while the leading hypotheses agree on what would pass now, until they do not."""
        if not self._in_doubt():
            return
        now = self.traffic.now_s()
        span = 1.2 * self.window_guess_s()
        ahead = now + np.concatenate([[0.0], np.geomspace(0.02, 1.0, 24) * span])
        rooms = self._rooms(ahead)
        if len(rooms) < 2:  # noqa: PLR2004 - nobody to disagree with
            return
        apart = rooms.max(axis=0) - rooms.min(axis=0)
        clear = apart >= np.maximum(1.0, CLEAR * rooms.max(axis=0))
        if clear.any():
            self.traffic.sleep_until(float(ahead[int(np.argmax(clear))]))

    def _send(self, phase: str, n: int) -> ProbeReport:
        """Send ``n`` calls: at once, or as fast as the known limit on calls in flight allows."""
        if self.cap is None or n <= self.cap // 2:
            return self._burst(phase, n)
        duration = min(self.options.patience_s, 1.2 * n * self._mean_latency_s() / self.cap + 0.5)
        rate = self.options.max_rate_per_s
        return self.traffic.run(probing.stream(phase, rate_per_s=rate, duration_s=duration, cap=self.cap, most=n))

    def _concurrency_check(self) -> None:
        """From a full limiter, as many calls at once as matter: what the fills could not put in flight or tell."""
        for turn in range(3):
            size = self._flight_in_question(again=turn > 0)
            if size is None or not self._rested_for(size):
                return
            self.note("calls in flight")
            self.traffic.run(probing.burst("flight", size, rate_per_s=FLIGHT_PER_S))
            self._drain()
            self._refit()
            self.on_room()

    def _flight_in_question(self, *, again: bool) -> int | None:
        """Return how many calls at once would tell something about the limit on them; None where nothing is open."""
        best, limit = self.fit.best, self.fit.concurrency
        room = math.inf if best is None else best.limit
        if limit is not None:
            low, high = self.fit.concurrency_range or (limit, limit)
            open_ = low < high or (not again and self.fit.concurrency_odds < SURE_ODDS)
            return math.ceil(1.1 * high) + 2 if open_ and room > 1.1 * high + 2 else None
        if best is None:
            return None
        target = min(math.ceil(0.6 * room) + 1, self.options.max_in_flight)
        # Once tried, a few failed or ended calls are no reason to try again.
        return target if self.fit.reached < (0.8 * target if again else target) and target > 1 else None

    def _rested_for(self, size: int) -> bool:
        """Wait until nothing is in flight and the rate limit has room."""
        self._drain()
        best = self.fit.best
        if best is None:
            return True
        record = self._record(best)
        ready = forecast.first_room_s(record, best, self.traffic.now_s(), need=min(size, best.limit))
        if ready - self.traffic.now_s() > 2.0 * self.window_guess_s():
            return False
        self.traffic.sleep_until(ready + 0.02 * self.window_guess_s())
        return True

    def _burst(self, phase: str, n: int) -> ProbeReport:
        rate = self.options.max_rate_per_s
        return self.traffic.run(probing.burst(phase, n, rate_per_s=rate, stop_refused=ENOUGH_REFUSED))

    def _refused_since(self, first: int) -> bool:
        times = [a.sent_s for a in self.traffic.attempts[first:] if a.status == 429]  # noqa: PLR2004 - HTTP's number
        if times:
            self.blocked_s = times[0]
        return bool(times)

    def _let_refusals_arrive(self) -> None:
        """Wait until every call without an answer is taken for admitted: what expects the next recovery counts them."""
        self.traffic.sleep_until(self.traffic.now_s() + self._answer_s())
