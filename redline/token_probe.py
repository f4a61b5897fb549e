"""The search for a limit on input tokens: a few calls with large prompts beside the plan for requests.

*Look*: while the plan for requests is about to fill anyway, the first few calls of a fill carry large prompts, so that
a limit on tokens that matters is met and a service without one costs nothing more. *Measure*, only where a prompt was
refused although requests had room: a refusal of p tokens says that less than p were left, so halving finds what is left
in a dozen calls; then the recovery is watched, and the next measurement comes at the moment at which the surviving
hypotheses disagree most on what is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions, forecast
from analysis.calls import Calls
from analysis.conclude import rate_interval
from analysis.tokens import PHASE, explained, fit_tokens
from redline import probing
from redline.budget import LOOK_SHARE

if TYPE_CHECKING:
    from analysis.calls import Floats
    from analysis.fit import Fit
    from analysis.search import Hypothesis
    from redline.prober import Prober
    from redline.traffic import Attempt

PER_REQUEST: Final = 4000.0  # tokens for each admitted call up to which a limit is looked for
LARGEST_PROMPT: Final = 120_000  # tokens: what every current model takes
CALLS_SHARE: Final = 16  # a look takes at most this part of the limit on requests
MOST_BLIND: Final = 8  # calls of a look where no limit on requests is known, which they may then meet
CYCLES: Final = 8
ENOUGH: Final = 0.016  # relative width of the interval of the rate that is asked for
RESOLUTION: Final = 300.0  # parts of the limit that what is left is measured to
MOST_STEPS: Final = 24
POLL_SHARE: Final = 16.0  # part of the limit that a call takes which watches the recovery
DOUBTFUL: Final = 4.0  # nats: a family that far behind is no longer asked
NATS: Final = 8.0  # hypotheses this far below the best are still asked
GRID: Final = np.concatenate([[0.0], np.linspace(0.05, 1.3, 40)])  # moments at which to measure, in windows
SOON: Final = 0.15  # windows that may be waited for until requests have room for a look,
SOON_S: Final = 12.0  # and, where none was sent in the end, seconds
LOOKS: Final = 3  # looks that requests or calls in flight may spoil


@dataclass(slots=True)
class TokenProbe:
    """Looks for a limit on input tokens and measures it. ``budget``: tokens that it may send in all."""

    prober: Prober
    budget: int
    looks: int = 0
    looked: bool = False
    bound: int | None = None  # tokens that did not pass together although requests had room
    counting: bool = False  # whether refused calls seem to count
    spent: int = 0
    tokens: Fit | None = None
    _base: Calls | None = None
    _known: int = 0
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng((self.prober.options.seed, 1))

    # --------------------------------------------------------------------------------------------- the look

    def look(self) -> None:
        """Send large prompts if there is room for them by now: the plan calls this before each fill."""
        known = self.prober.fit
        if self.looked or known.best is None or known.rate_doubtful():
            return
        count, size = self._plan(known.best.limit)
        ready = self._sure_of_room_s(count + 1.0)
        if count and ready - self._now_s() <= SOON * self._window_s():
            self.prober.traffic.sleep_until(ready)
            self._look(count, size)

    def run(self) -> None:
        """Look, where there was no room for it so far but nearly is now, and measure what was met."""
        if not self.looked:
            self._late_look()
            self._settle()
        if self.bound is not None:
            self._measure()

    def _plan(self, per_window: float) -> tuple[int, int]:
        """Return (calls, tokens of each) of a look, given what requests let through at once."""
        total = min(PER_REQUEST * per_window, LOOK_SHARE * self.budget - self.spent)
        count = min(math.ceil(total / LARGEST_PROMPT), max(1, int(per_window / CALLS_SHARE)))
        return (count, min(LARGEST_PROMPT, int(total / count))) if total >= 1.0 else (0, 0)

    def _late_look(self) -> None:
        best = self.prober.fit.best
        if best is None:
            now = self._now_s()
            times = np.array([a.sent_s for a in self.prober.traffic.attempts if a.status == 200])  # noqa: PLR2004
            count, size = self._plan(float(np.sum(times > now - 60.0)))
            count = min(count, MOST_BLIND)
        else:
            count, size = self._plan(best.limit)
            ready = self._sure_of_room_s(min(count + 1.0, best.limit))
            if ready - self._now_s() > max(SOON * self._window_s(), SOON_S):
                return
            self.prober.traffic.sleep_until(ready + self._spread_s())
        if count:
            self._look(count, size)

    def _look(self, count: int, size: int) -> None:
        self.looks += 1
        self.prober.note("large prompts")
        first = len(self.prober.traffic.attempts)
        rate = self.prober.options.max_rate_per_s
        lasts = count / rate + (2.0 * count * self._latency_s() / self.prober.cap if self.prober.cap else 0.0) + 0.1
        probe = probing.stream(PHASE, rate_per_s=rate, duration_s=lasts, cap=self.prober.cap, most=count, tokens=size)
        self.prober.traffic.run(probe)
        self.prober.traffic.sleep_until(self._now_s() + self._patience_s())
        sent = self.prober.traffic.attempts[first:]
        self.spent += sum(a.prompt_tokens for a in sent if a.status != 429)  # noqa: PLR2004 - HTTP's number
        refused = any(a.status == 429 for a in sent)  # noqa: PLR2004
        spoilt = refused and bool(explained(self._calls(), self.prober.fit)[first:].any())
        self.looked = not spoilt or self.looks >= LOOKS
        if refused and not spoilt:
            self.bound = size + sum(a.prompt_tokens for a in sent if a.status != 429)  # noqa: PLR2004
            self.counting = not self._ask(1, wait=False)
            if self.counting or len(sent) > 1:
                self._rest()

    def _rest(self) -> None:
        """Let the limit on tokens recover before requests are probed further."""
        self.prober.traffic.sleep_until(self._now_s() + self._window_s())
        times = probing.polling_times(self._window_s(), 3.0 * self._window_s(), [], first_gap_s=0.2, growth=0.2)
        self.prober.traffic.run(
            probing.watch(times, admit_after_s=self._patience_s(), cap=self.prober.cap, phase=PHASE)
        )

    # ---------------------------------------------------------------------------------------- the measurement

    def _measure(self) -> None:
        self._settle()
        for cycle in range(CYCLES):
            if self.spent > self.budget:
                break
            self.prober.note("input tokens")
            self._await_moment(cycle)
            self._fill(cycle)
            self._refit()
            if self.tokens is None or self._settled():
                break  # where all of it passes now, something else had refused it
            self._watch()
            self._refit()
            if self._settled():
                break
        self._settle()

    def _settle(self) -> None:
        """Let all answers arrive, and keep what is known so far as arrays."""
        until = self._now_s() + 4.0 * self._latency_s()
        attempts = self.prober.traffic.attempts
        while self._now_s() < until and any(a.status is None for a in attempts[self._known :]):
            self.prober.traffic.sleep_until(self._now_s() + 0.25)
        self._base, self._known = Calls.from_attempts(attempts), len(attempts)

    def _await_moment(self, cycle: int) -> None:
        """Rest at first; later wait for the moment at which the hypotheses differ most on what is left."""
        now = self._now_s()
        if cycle == 0:
            sized = [a.sent_s for a in self.prober.traffic.attempts if a.phase.startswith(PHASE)]
            self.prober.traffic.sleep_until(max(sized, default=now) + 1.05 * self._memory_s())
            return
        rooms, scale = self._rooms(now + GRID * self._token_window_s())
        if len(rooms) < 2:  # noqa: PLR2004 - nothing to tell apart
            return
        apart = (rooms.max(axis=0) - rooms.min(axis=0)) / scale
        clear = np.flatnonzero(apart >= max(0.7 * float(apart.max()), 2.0 / RESOLUTION))
        if len(clear):
            self.prober.traffic.sleep_until(now + float(GRID[clear[0]]) * self._token_window_s())
        elif self._family_open():  # a call after a pause opens a window where one on a clock has its own time
            self.prober.traffic.sleep_until(now + self._rng.uniform(1.2, 1.6) * self._token_window_s())

    def _fill(self, cycle: int) -> None:
        """Find out what is left by halving, which uses it up."""
        low, high, scale = 0.0, float(self.bound or 1), 0.0
        if cycle > 0:
            rooms, scale = self._rooms(np.array([self._now_s()]))
            if len(rooms):
                low, high = 0.97 * float(rooms.min()), 1.03 * float(rooms.max()) + scale / RESOLUTION
        if self._counts_refused():
            self._fill_upwards(low, high, scale)
            return
        taken = 0.0
        if cycle == 0 and high <= LARGEST_PROMPT and self._ask(int(high)):
            return
        if low > 0.5 * scale > 0.0 and self._ask(int(low * self._rng.uniform(0.35, 0.6))):
            part = self.prober.traffic.attempts[-1].prompt_tokens
            low, high, taken = low - part, high - part, float(part)
            self.prober.traffic.sleep_until(self._now_s() + self._rng.uniform(0.15, 0.3) * self._token_window_s())
        for _ in range(MOST_STEPS + int(high / LARGEST_PROMPT)):
            if high <= max(1.0, max(scale, taken) / RESOLUTION) or self.spent > self.budget:
                return
            size = max(1, min(LARGEST_PROMPT, math.ceil((low + high) / 2.0)))
            if self._ask(size):
                low, high, taken = max(0.0, low - size), high - size, taken + size
            else:
                high, low = float(size), min(low, size - 1.0)

    def _fill_upwards(self, low: float, high: float, scale: float) -> None:
        """Use up what is left in small steps: where refused calls count, the first refusal has to be a small one."""
        if low > 0.0 and not self._ask(int(low)):
            return
        step = max(1.0, (high - low) / 10.0) if scale else max(1.0, high / 512.0)
        for _ in range(MOST_STEPS):
            if not self._ask(math.ceil(step)):
                return
            step *= 1.0 if scale else 1.6

    def _watch(self) -> None:
        """Poll until something was given back."""
        now, part = self._now_s(), self._poll_size()
        focus = self._focus(now, part)
        counting = self._counts_refused()
        longest = max([3.0 * self._token_window_s(), *(2.0 * c + h for c, h in focus)])
        times = probing.polling_times(
            0.0,
            longest,
            focus,
            first_gap_s=max(0.05, self._patience_s()),
            growth=0.5 if counting else 0.15,
            least_gap_s=max(0.004, self._spread_s()),
            most_focused=6 if counting else 24,
        )
        probe = probing.watch(times, admit_after_s=self._patience_s(), cap=self.prober.cap, tokens=part, phase=PHASE)
        report = self.prober.traffic.run(probe)
        self.spent += part * (report.reason == "admitted")

    def _focus(self, now_s: float, part: int) -> list[tuple[float, float]]:
        """Return (moment from now, half width) where recoveries are expected."""
        found: list[tuple[float, float]] = []
        if self.tokens is None:
            return found
        for leader in self.tokens.leaders()[:4]:
            if leader.score < self.tokens.hypotheses[0].score - NATS:
                continue
            alike = [h for h in self._alive() if h.family == leader.family]
            alike.sort(key=lambda h: (h.window_s or 0.0, h.rate_per_s))
            chosen = alike[:: max(1, len(alike) // 10)] + alike[-1:]
            history = self._token_history(leader)
            moments = [forecast.first_room_s(history, h, now_s, need=part) for h in chosen]
            moments = [m - now_s for m in moments if math.isfinite(m)]
            if moments:
                low, high = min(moments), max(moments)
                found.append(((low + high) / 2, (high - low) / 2 + 0.003 * self._token_window_s() + self._spread_s()))
        return found

    def _settled(self) -> bool:
        found = self.tokens
        if found is None or found.best is None or self._recovered() < 2:  # noqa: PLR2004 - a window shows in the second
            return False
        low, high = rate_interval(found)
        return (high - low) / found.best.rate_per_s < ENOUGH and not self._family_open()

    def _family_open(self) -> bool:
        """Return whether another family explains the sized calls nearly as well."""
        leaders = self.tokens.leaders() if self.tokens else []
        return len(leaders) > 1 and leaders[1].score > leaders[0].score - DOUBTFUL

    def _recovered(self) -> int:
        """Return how often a refused size passed later."""
        back, most = 0, math.inf
        for a in self.prober.traffic.attempts[self._known :]:
            if not a.phase.startswith(PHASE):
                continue
            if a.status == 429:  # noqa: PLR2004 - HTTP's number
                most = min(most, a.prompt_tokens)
            elif a.prompt_tokens >= most:
                back, most = back + 1, math.inf
        return back

    # ------------------------------------------------------------------------------------------------- calls

    def _ask(self, size: int, *, wait: bool = True) -> bool:
        """Send one call of this size once requests have room; returns whether it passed."""
        traffic = self.prober.traffic
        if wait:
            self._await_requests()
        report = traffic.run(probing.burst(PHASE, 1, rate_per_s=1.0, tokens=size))
        attempt = traffic.attempts[report.first]
        until = self._now_s() + self._patience_s()
        while attempt.status is None and self._now_s() < until:
            traffic.sleep_until(min(until, self._now_s() + 0.25 * self._patience_s()))
        passed = attempt.status != 429  # noqa: PLR2004 - HTTP's number
        self.spent += size * passed
        return passed

    def _await_requests(self) -> None:
        """Wait until the limits on requests and on calls in flight let a call pass."""
        traffic, cap = self.prober.traffic, self.prober.cap
        recent = self._recent()
        until = self._now_s() + 10.0 * self._latency_s()
        while cap is not None and self._now_s() < until and sum(a.status is None for a in recent) >= cap:
            traffic.sleep_until(self._now_s() + 0.02)
        best = self.prober.fit.best
        if best is None:
            return
        now = self._now_s()
        ready = forecast.first_room_s(self._history(best), best, now, need=min(2.0, best.limit))
        if now < ready < math.inf:
            traffic.sleep_until(ready + 2.0 * self._spread_s() + 0.002 * self._window_s())

    def _recent(self) -> list[Attempt]:
        return self.prober.traffic.attempts[max(0, self._known - 1000) :]

    # ------------------------------------------------------------------------------------- what is known

    def _refit(self) -> None:
        warm = self.tokens.hypotheses[:20] if self.tokens else ()
        self.tokens = fit_tokens(self._calls(), self.prober.fit, warm)

    def _calls(self) -> Calls:
        attempts = self.prober.traffic.attempts
        if self._base is None:
            return Calls.from_attempts(attempts, now_s=self._now_s(), answer_s=self._patience_s())
        new = Calls.from_attempts(attempts[self._known :], now_s=self._now_s(), answer_s=self._patience_s())
        return self._base.joined(new)

    def _history(self, h: Hypothesis, *, tokens: bool = False) -> decisions.Record:
        calls = self._calls()
        return decisions.prepare(
            calls,
            self.prober.fit.offsets_s,
            tokens=tokens,
            counts_refused=h.counts_refused,
            counts_other=h.counts_other,
            excused=np.ones(len(calls), bool),
            thin=False,
        )

    def _token_history(self, h: Hypothesis) -> decisions.Record:
        return self._history(h, tokens=True)

    def _sure_of_room_s(self, need: float) -> float:
        """Return when all likely hypotheses on requests are sure of this room; inf beyond three windows."""
        now, likely = self._now_s(), _likely(self.prober.fit, 20)
        histories = {c: self._history(h) for h in likely for c in [(h.counts_refused, h.counts_other)]}
        return max(
            forecast.first_room_s(histories[h.counts_refused, h.counts_other], h, now, min(need, h.limit))
            for h in likely
        )

    def _alive(self) -> list[Hypothesis]:
        """Return the token hypotheses that are still likely, spread over what they differ in."""
        return _likely(self.tokens, 60) if self.tokens and self.tokens.hypotheses else []

    def _rooms(self, at_s: Floats) -> tuple[Floats, float]:
        """Return the tokens, (hypotheses, moments), that the likely hypotheses expect to be left, and the limit."""
        alive = self._alive()
        if not alive:
            return np.zeros((0, len(at_s))), float(self.bound or 1)
        histories = {c: self._token_history(h) for h in alive for c in [h.counts_refused]}
        rooms = [np.clip(forecast.room(histories[h.counts_refused], h, at_s), 0.0, None) for h in alive]
        return np.stack(rooms), alive[0].limit

    def _counts_refused(self) -> bool:
        best = self.tokens.best if self.tokens else None
        return best.counts_refused if best else self.counting

    def _poll_size(self) -> int:
        if self._counts_refused():
            return 1
        best = self.tokens.best if self.tokens else None
        return max(1, int((best.limit if best else float(self.bound or 1)) / POLL_SHARE))

    def _window_s(self) -> float:
        """Return the leading window of the limit on requests, out of no proportion to what was seen so far."""
        return 10.0 if self.prober.fit.best is None else self.prober.window_guess_s()

    def _memory_s(self) -> float:
        """Return for how long a limit of the kind that requests have remembers a call."""
        best = self.prober.fit.best
        return self._window_s() * (2.0 if best is not None and best.family == "sliding_counter" else 1.0)

    def _token_window_s(self) -> float:
        best = self.tokens.best if self.tokens else None
        return self._window_s() if best is None else best.window_s or best.limit / best.rate_per_s

    def _now_s(self) -> float:
        return self.prober.traffic.now_s()

    def _spread_s(self) -> float:
        return float(self.prober.fit.offsets_s[-1])

    def _latency_s(self) -> float:
        took = [a.done_s - a.sent_s for a in self._recent()[-200:] if a.status == 200]  # noqa: PLR2004
        return float(np.mean(took)) if took else self.prober.latency_s

    def _patience_s(self) -> float:
        """Return for how long a call may be out before silence says that it passed."""
        trips = [a.done_s - a.sent_s for a in self._recent()[-400:] if a.status == 429]  # noqa: PLR2004
        trip = float(np.quantile(trips, 0.98)) if len(trips) > 2 else min(self._latency_s(), 0.4)  # noqa: PLR2004
        return 1.5 * trip + 0.02


def _likely(fitted: Fit, most: int) -> list[Hypothesis]:
    """Return the best hypothesis, and about as many others that are likely, spread over what they differ in."""
    top = fitted.hypotheses[0]
    likely = [h for h in fitted.hypotheses if h.score > top.score - NATS]
    likely.sort(key=lambda h: (h.family, h.rate_per_s))
    return [top, *likely[:: max(1, len(likely) // most)], likely[-1]]
