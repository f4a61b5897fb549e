"""The search for a limit on input tokens: a few calls with large prompts beside the plan for requests.

*Look*: while the plan for requests is about to fill anyway, the first few calls of a fill carry large prompts, so that
a limit on tokens that matters is met and a service without one costs nothing more. *Measure*, only where a prompt was
refused although requests had room: a refusal of p tokens says that less than p were left, so halving finds what is left
in a dozen calls; then the recovery is watched, and the next measurement comes at the moment at which the surviving
hypotheses disagree most on what is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from analysis import forecast
from analysis.rates import rate_interval
from analysis.tokens import PHASE, explained
from redline import probing
from redline.budget import LOOK_SHARE
from redline.token_calls import NATS, SURE, TokenCalls

PER_REQUEST: Final = 4000.0  # tokens for each admitted call up to which a limit is looked for
LARGEST_PROMPT: Final = 120_000  # tokens: what every current model takes
CALLS_SHARE: Final = 16  # a look takes at most this part of the limit on requests
MOST_BLIND: Final = 8  # calls of a look where no limit on requests is known, which they may then meet
CYCLES: Final = 8
ENOUGH: Final = 0.016  # relative width of the interval of the rate that is asked for
RESOLUTION: Final = 300.0  # parts of the limit that what is left is measured to
MOST_STEPS: Final = 24
GRID: Final = np.concatenate([[0.0], np.linspace(0.05, 1.3, 40)])  # moments at which to measure, in windows
SOON: Final = 0.15  # windows that may be waited for until requests have room for a look,
SOON_S: Final = 12.0  # and, where none was sent in the end, seconds
LOOKS: Final = 3  # looks that requests or calls in flight may spoil


@dataclass(slots=True)
class TokenProbe(TokenCalls):
    """Looks for a limit on input tokens and measures it."""

    looks: int = 0
    looked: bool = False

    def look(self) -> None:
        """Send large prompts if there is room for them by now: the plan calls this before each fill."""
        known = self.prober.fit
        if self.looked or known.best is None or known.rate_doubtful():
            return
        count, size = self._plan(known.best.limit)
        # Once requests are known, what is hardly likely must not put a look off again and again. Before, all must be
        # sure: a refusal of either limit would be taken for one of the other's.
        now = self._now_s()
        at_once = known.certainty() > SURE and self._sure_of_room_s(count + 1.0, SURE) <= now
        ready = now if at_once else self._sure_of_room_s(count + 1.0)
        if count and ready - now <= SOON * self._window_s():
            self.prober.traffic.sleep_until(ready)
            self._look(count, size)

    def run(self) -> None:
        """Look, where there was no room for it so far but nearly is now, and measure what was met."""
        if not self.looked:
            self._late_look()
        if self.bound is None:
            self._settle()  # the answer to the last look
        else:
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
            sure = SURE if self.prober.fit.certainty() > SURE else 1.0
            ready = self._sure_of_room_s(min(count + 1.0, best.limit), sure)
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
