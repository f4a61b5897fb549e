"""Sized calls beside the plan for requests: sending one when requests have room, and what they have told so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions, forecast
from analysis.running import RunningCalls
from analysis.tokens import PHASE, fit_tokens
from redline import probing

if TYPE_CHECKING:
    from analysis.calls import Calls, Floats
    from analysis.fit import Fit
    from analysis.search import Hypothesis
    from redline.prober import Prober
    from redline.traffic import Attempt

POLL_SHARE: Final = 16.0  # part of the limit that a call takes which watches the recovery
DOUBTFUL: Final = 4.0  # nats: a family that far behind is no longer asked
SURE: Final = 0.95  # probability of room with which a look is sent at once: one that requests refuse is repeated
NATS: Final = 8.0  # hypotheses this far below the best are still asked


@dataclass(slots=True)
class TokenCalls:
    """What is known of a limit on input tokens. ``budget``: tokens that may be sent in all."""

    prober: Prober
    budget: int
    bound: int | None = None  # tokens that did not pass together although requests had room
    counting: bool = False  # whether refused calls seem to count
    spent: int = 0
    tokens: Fit | None = None
    _known: int = 0
    _rng: np.random.Generator = field(init=False)
    _running: RunningCalls = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng((self.prober.options.seed, 1))
        self._running = RunningCalls(self.prober.traffic.attempts)

    def _settle(self) -> None:
        """Let all answers arrive."""
        until = self._now_s() + 4.0 * self._latency_s()
        attempts = self.prober.traffic.attempts
        while self._now_s() < until and any(a.status is None for a in attempts[self._known :]):
            self.prober.traffic.sleep_until(self._now_s() + 0.25)
        self._known = len(attempts)

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

    def _refit(self) -> None:
        warm = self.tokens.hypotheses[:20] if self.tokens else ()
        self.tokens = fit_tokens(self._calls(), self.prober.fit, warm)

    def _calls(self) -> Calls:
        return self._running.calls(self._now_s(), 0.999 * self._patience_s())

    def _history(self, h: Hypothesis, *, tokens: bool = False) -> decisions.Record:
        # What has no answer yet may have been admitted, and then it takes room.
        calls = self._running.calls(self._now_s(), answer_s=0.0)
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

    def _sure_of_room_s(self, need: float, sure: float = 1.0) -> float:
        """Return from when on requests have this room with so much probability; inf beyond three windows."""
        now, likely = self._now_s(), _likely(self.prober.fit, 20)
        histories = {c: self._history(h) for h in likely for c in [(h.counts_refused, h.counts_other)]}
        ready_s = [
            forecast.first_room_s(histories[h.counts_refused, h.counts_other], h, now, min(need, h.limit))
            for h in likely
        ]
        order = np.argsort(ready_s)
        enough = int(np.searchsorted(np.cumsum(_weights(likely)[order]), sure))
        return float(ready_s[order[min(enough, len(order) - 1)]])

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

    def _family_open(self) -> bool:
        """Return whether another family explains the sized calls nearly as well."""
        leaders = self.tokens.leaders() if self.tokens else []
        return len(leaders) > 1 and leaders[1].score > leaders[0].score - DOUBTFUL

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


def _weights(likely: list[Hypothesis]) -> Floats:
    """Return the probability of each hypothesis; a family has that of its best one, however many stand for it."""
    weights = np.exp(np.array([h.score for h in likely]) - likely[0].score)
    families = np.array([h.family for h in likely])
    for family in set(families):
        own = families == family
        weights[own] *= weights[own].max() / weights[own].sum()
    return np.asarray(weights / weights.sum())
