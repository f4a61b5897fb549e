"""What a plan is made of: sending until refused, watching a recovery, waiting until it is worth sending again.

Each move is chosen by what is known (`redline.knowledge`); which comes next is the plan's affair (`redline.prober`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from analysis import forecast
from analysis.calls import ADMITTED
from analysis.chance import CROWDED, FAR_APART
from analysis.proposals import ROUND_WINDOWS_S
from analysis.two_limits import LOOKING
from redline import probing
from redline.knowledge import ALIGNED, ALIKE, DRIBBLE, SMALL, Knowledge

if TYPE_CHECKING:
    from redline.traffic import ProbeReport

FOCUSED = 12  # polls around a recovery that is expected
GROWTH = 0.25  # of the gaps between polls, as a share of the wait so far, while nothing is known of the window
FINER = 0.13  # and after the first recovery
LONGEST_WINDOW_S = 4000.0  # how long a recovery is waited for: an hour, and what polling at growing gaps may miss
USED_UP_S = 200.0  # and where no call ever passed: the quota may be gone for the day
ENOUGH_REFUSED = 8  # refusals that end a burst: more of one block tell nothing but the spread of delays
LUMP = 6  # calls from which on a limit is large enough to be measured by what gathers in a pause
CLEAR = 0.06  # relative difference of two expectations that one fill decides
GATHERED = 0.3  # of the limit is waited for then
MORE_GATHERED = 0.6  # and of a bucket's: what passed between two moments at which it was empty is its rate,
ENOUGH_GATHERED = 200.0  # for which so many calls are enough,
ENOUGH_SPREADS = 400.0  # and all that come in within so many times what delays vary by
LEAST_SPARE = 0.05  # of what places let through, below which an estimate of it says nothing
SLOW = 0.35  # of the window is the pause between two lumps at most: a fill that takes longer needs none
GRADUAL = frozenset({"sliding_log", "sliding_counter", "token_bucket"})  # give back as it was taken, not all at once
BLURRED_SHARE = 0.15  # of a window that nobody would choose, from which on the plan's own rhythm may have made it up
UNLOOKED = (40, 4.0, 600)  # calls that are sent then, whatever comes back: at least, for each of the limit, at most
GAPS = (0.1, 1.5)  # between them, drawn evenly on a log scale, in multiples of what the limit allows on average
FEW_GAPS = (0.1, 3.0)  # and where it is a few calls, so that a bucket of them may fill up
EARLY = (0.15, 0.6)  # of a window after its beginning that is let pass,
LATE = (0.3, 0.9)  # or where more of it tells a counter of few calls from a fixed window
PACES_APART = 10.0  # times the mean time between admissions lie between calls that tell chance from small counters
APART_REFUSED = 8.0  # of these should be refused by chance,
APART_CALLS = (16, 80)  # and so many are sent at least and at most
APART_SHARE = 0.05  # of all calls that chance must refuse: with less, the most would tell nothing
APART_S = 300.0  # is as long as that may take
CROWD, CROWDS = 16, 4  # calls at once, and how often, that tell chance from limits of a few calls
RESTED = (0.7, 0.95)  # of a window is waited for others who may come by,
LONGEST_REST = 2.5  # windows after which all should be free again
LONGER = 2.5  # times as long as for a minute's window is pushed on: others are longer


@dataclass(slots=True)
class Moves(Knowledge):
    """The moves, and what they leave for the next one."""

    blocked_s: float = math.nan  # when the rate limit was last seen to refuse
    parted: bool = False  # whether the last fill came in two lumps
    passing: bool = False  # whether the last recovery was let pass unseen
    unlooked: bool = False  # whether calls were sent at irregular moments, whatever came back
    paced: bool = False  # and whether they were far apart,
    crowded: bool = False  # and whether many were at once
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        Knowledge.__post_init__(self)  # a class with slots is made anew: `super` would mean the old one
        self.rng = np.random.default_rng(self.options.seed)

    def _burst(self, phase: str, n: int) -> ProbeReport:
        rate = self.options.max_rate_per_s
        return self.traffic.run(probing.burst(phase, n, rate_per_s=rate, stop_refused=ENOUGH_REFUSED))

    def _send(self, phase: str, n: int) -> ProbeReport:
        """Send ``n`` calls: at once, or as fast as the known limit on calls in flight allows."""
        if self.cap is None or n <= self.cap // 2:
            return self._burst(phase, n)
        duration = min(self.options.patience_s, 1.2 * n * self._mean_latency_s() / self.cap + 0.5)
        rate = self.options.max_rate_per_s
        return self.traffic.run(probing.stream(phase, rate_per_s=rate, duration_s=duration, cap=self.cap, most=n))

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
        """Return whether to push on, though nothing was refused so far."""
        most, bound = self.options.patience_calls, self.options.met_within_calls
        if bound is not None and self.fit.best is None and len(self.traffic.attempts) >= bound:
            return False
        return lasted_s < LONGER * self.options.patience_s and sent < most

    def _refused_since(self, first: int) -> bool:
        times = [a.sent_s for a in self.traffic.attempts[first:] if a.status == 429]  # noqa: PLR2004 - HTTP's number
        if times:
            self.blocked_s = times[0]
        return bool(times)

    def _let_refusals_arrive(self) -> None:
        """Wait until every call without an answer is taken for admitted: what expects the next recovery counts them."""
        self.traffic.sleep_until(self.traffic.now_s() + self.answer_s())

    def _drain(self) -> None:
        """Let the answers arrive, for as long as answers have taken so far."""
        took = [a.done_s - a.sent_s for a in self.traffic.attempts if a.status == 200]  # noqa: PLR2004
        until = self.traffic.now_s() + 1.5 * max(took, default=self.latency_s)
        while self.traffic.now_s() < until and any(a.status is None for a in self.traffic.attempts):
            self.traffic.sleep_until(min(until, self.traffic.now_s() + 0.25))

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
        report = self.traffic.run(probing.watch(times, admit_after_s=self.answer_s(), cap=self.cap))
        return report.reason == "admitted"

    def _made_up(self) -> bool:
        """Return whether the best window is one that nobody would choose, and short beside how far delays vary.

        A plan that waits for answers looks in a rhythm of its own, and comes too late for a shorter window.
        """
        best = self.fit.best
        if best is None or best.window_s is None or best.window_s in ROUND_WINDOWS_S:
            return False
        return self._spread_s() > BLURRED_SHARE * best.window_s

    def _send_unlooked(self) -> None:
        """Send at irregular moments, whatever comes back."""
        self.unlooked = True
        best = self.fit.hypotheses[0]
        least, each, most = UNLOOKED
        low, high = np.log(FEW_GAPS if best.limit <= SMALL else GAPS)
        count = int(np.clip(each * best.limit, least, most))
        gaps_s = np.exp(self.rng.uniform(low, high, count)) / best.rate_per_s
        probe = probing.at_times("fill", tuple(np.cumsum(gaps_s).tolist()), stop_refused=None, cap=self.cap)
        report = self.traffic.run(probe)
        self._let_refusals_arrive()
        self._refused_since(report.first)

    def _send_far_apart(self) -> bool:
        """Send so slowly that small counters have room: chance has no pace. False where that would tell nothing.

        Nor would many at once, then.
        """
        self.paced = True
        outcome, sent_s = self.fit.calls.outcome, self.fit.calls.sent_s
        admitted = int(np.sum(outcome == ADMITTED))
        share = self.fit.refusals / (self.fit.refusals + admitted)
        if share < APART_SHARE:
            self.crowded = True
            return False
        count = int(np.clip(math.ceil(APART_REFUSED / share), *APART_CALLS))
        gap_s = min(PACES_APART * float(sent_s[-1] - sent_s[0]) / admitted, APART_S / count)
        times_s = np.cumsum(gap_s * self.rng.uniform(0.7, 1.3, count))
        self.traffic.run(probing.at_times(FAR_APART, tuple(times_s.tolist()), stop_refused=None))
        self._let_refusals_arrive()
        return True

    def _send_many_at_once(self) -> None:
        """Send more at once than a small limit holds: it lets in few of them, chance as many as of any others.

        Nothing is sent where they would leave over more than a second.
        """
        self.crowded = True
        if self.options.max_rate_per_s < CROWD:
            return
        for _ in range(CROWDS):
            self._drain()
            self.traffic.run(
                probing.burst(CROWDED, min(CROWD, self.options.max_in_flight), rate_per_s=self.options.max_rate_per_s)
            )
        self._let_refusals_arrive()

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
        need = (MORE_GATHERED if bucket else GATHERED) * best.limit
        if bucket:
            enough = max(ENOUGH_GATHERED, ENOUGH_SPREADS * self._spread_s() * best.rate_per_s)
            need = min(need, enough * self._spare(best.rate_per_s))
        ready_s = forecast.first_room_s(self._record(best), best, now, need=need)
        return ready_s if now < ready_s < now + 1.5 * self.window_guess_s() else None

    def _spare(self, rate_per_s: float) -> float:
        """Return the share of what places let through that a rate leaves: the less, the more comes in during a fill."""
        if self.cap is None:
            return 1.0
        return float(np.clip(1.0 - rate_per_s * self._mean_latency_s() / self.cap, LEAST_SPARE, 1.0))

    def _pass_over(self) -> None:
        """Let the recovery pass unseen and go on at a random moment after it."""
        now = self.traffic.now_s()
        best = self.fit.hypotheses[0]
        ready = forecast.first_room_s(self._record(best), best, now)
        ready = ready if ready - now < 2.0 * self.window_guess_s() else now
        window_s, part = self.window_guess_s(), EARLY
        if self._alike() <= ALIGNED:
            # A counter of one call is a fixed window of two of its own until a call comes late in that.
            window_s, part = self._longest_s(), LATE
        self.traffic.sleep_until(max(now, ready) + window_s * self.rng.uniform(*part))

    def _longest_s(self) -> float:
        """Return the longest window of what explains the record about as well as the best, but no longer than seen."""
        best = self.fit.hypotheses[0]
        windows_s = [h.window_s or 0.0 for h in self.fit.leaders() if h.score > best.score - ALIKE]
        return min(2.0 * self._lasted_s(), max(self.window_guess_s(), *windows_s))

    def _rest_until_they_differ(self) -> None:
        """Wait while the leading hypotheses agree on what would pass now, until they do not.

        Where places are few, what a bucket gathers meanwhile takes far longer to use up again.
        """
        best = self.fit.best
        if not self._in_doubt() or (best is not None and best.window_s is None and self._slow(best.limit)):
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

    def _slow(self, expected: float) -> bool:
        """Return whether places are so few that a fill takes a good part of the window: it is no lump anyway."""
        return self.cap is not None and expected * self._mean_latency_s() / self.cap > SLOW * self.window_guess_s()

    def rest_s(self) -> float:
        """Return about how long `rest` takes."""
        return 2.0 * self.window_guess_s()

    def rest(self) -> float:
        """Wait until all of the limit is free, and most of a window more: so long, in seconds, others could come by."""
        self._drain()
        self._keep_up()
        best, now_s = self.fit.hypotheses[0], self.traffic.now_s()
        free_s = max(now_s, forecast.first_room_s(self._record(best), best, now_s, need=best.limit))
        free_s = min(free_s, now_s + LONGEST_REST * self.window_guess_s())
        rested_s = float(self.rng.uniform(*RESTED)) * self.window_guess_s()
        self.traffic.sleep_until(free_s + rested_s)
        return rested_s

    def burst_of_all(self) -> ProbeReport:
        """Send as many calls as the limit lets in, from a rest, and wait for what is refused.

        No more are in flight than were before: a limit on these that was out of reach must stay so.
        """
        count, rate = max(1, int(self.fit.hypotheses[0].limit)), self.options.max_rate_per_s
        cap = min(self.cap or count, max(1, self.fit.reached))
        if count <= cap:
            probe = probing.burst(LOOKING, count, rate_per_s=rate)
        else:
            lasts_s = max(1.2 * count * self._mean_latency_s() / cap + 0.5, (count + 1.0) / rate)
            probe = probing.stream(LOOKING, rate_per_s=rate, duration_s=lasts_s, cap=cap, most=count)
        report = self.traffic.run(probe)
        self._let_refusals_arrive()
        self._refused_since(report.first)
        return report

    def explain(self) -> None:
        """Explain the record again."""
        self._refit()

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
