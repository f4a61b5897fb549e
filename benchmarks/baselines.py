"""What people use instead: controllers that know nothing of limits, on the same worlds.

Each drives ten minutes of demand without end, learning included. They are what the sources say and no better:
none was tuned for these worlds. Sources: Chiu and Jain (1989) for AIMD; botocore's `retries/adaptive.py` and
`throttling.py` for the cubic rate (beta 0.7, scale 0.4); sonde 0.2.0 for drain-then-pace.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scoring import Driven, Limited, drive_controller

from redline.traffic import Pacing

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from worlds import Case

DURATION_S = 600.0
_THROTTLED = 429
_LOW_PER_S, _HIGH_PER_S = 1.0 / 60.0, 500.0


class Aimd:
    """Add a little each second, cut to a half when refused; at most one cut a round trip."""

    def __init__(self, start_per_s: float = 1.0, add_per_s: float = 0.5, cut: float = 0.5) -> None:
        self._rate_per_s = start_per_s
        self._add_per_s, self._cut = add_per_s, cut
        self._next_s = 0.0
        self._grown_s = 0.0
        self._cut_until_s = -math.inf

    def next_moment_s(self, now_s: float, in_flight: int) -> float:
        """Pace evenly at the present rate."""
        del in_flight
        return max(now_s, self._next_s)

    def sent(self, now_s: float) -> None:
        """Grow with time, not with calls."""
        self._rate_per_s = min(_HIGH_PER_S, self._rate_per_s + self._add_per_s * (now_s - self._grown_s))
        self._grown_s = now_s
        self._next_s = now_s + 1.0 / self._rate_per_s

    def answered(self, now_s: float, status: int) -> None:
        """Cut on a refusal, then wait a second before the next cut."""
        if status == _THROTTLED and now_s >= self._cut_until_s:
            self._rate_per_s = max(_LOW_PER_S, self._rate_per_s * self._cut)
            self._grown_s = now_s
            self._next_s = now_s + 1.0 / self._rate_per_s
            self._cut_until_s = now_s + 1.0


class Cubic:
    """The client-side rate limiter of AWS's adaptive retry mode: a token bucket whose rate follows a cubic."""

    _BETA, _SCALE, _SMOOTH, _MIN_PER_S = 0.7, 0.4, 0.8, 0.5

    def __init__(self) -> None:
        self._fill_per_s = 1.0
        self._max_per_s = 1.0
        self._capacity = 1.0
        self._tokens = 0.0
        self._at_s = 0.0
        self._throttled_s = 0.0
        self._enabled = False
        self._measured_per_s = 0.0
        self._bucket_s, self._count = 0.0, 0
        self._window_s = 0.0

    def next_moment_s(self, now_s: float, in_flight: int) -> float:
        """Wait for a token once a first refusal switched the limiter on; before it, as many as there are users."""
        if not self._enabled:
            return now_s if in_flight < 50 else math.inf  # noqa: PLR2004 - botocore's default pool, fifty users
        self._refill(now_s)
        return now_s if self._tokens >= 1.0 else now_s + (1.0 - self._tokens) / self._fill_per_s + 1e-9

    def sent(self, now_s: float) -> None:
        """Take the token."""
        if self._enabled:
            self._refill(now_s)
            self._tokens -= 1.0

    def answered(self, now_s: float, status: int) -> None:
        """Measure the rate, then cut or grow."""
        self._measure(now_s)
        if status == _THROTTLED:
            base = min(self._measured_per_s, self._fill_per_s) if self._enabled else self._measured_per_s
            self._max_per_s = base
            self._window_s = (base * (1.0 - self._BETA) / self._SCALE) ** (1.0 / 3.0)
            self._throttled_s = now_s
            self._enabled = True
            rate_per_s = base * self._BETA
        else:
            self._window_s = (self._max_per_s * (1.0 - self._BETA) / self._SCALE) ** (1.0 / 3.0)
            since_s = now_s - self._throttled_s
            rate_per_s = self._SCALE * (since_s - self._window_s) ** 3 + self._max_per_s
        self._set(now_s, min(rate_per_s, 2.0 * self._measured_per_s))

    def _set(self, now_s: float, rate_per_s: float) -> None:
        self._refill(now_s)
        self._fill_per_s = max(rate_per_s, self._MIN_PER_S)
        self._capacity = max(rate_per_s, 1.0)
        self._tokens = min(self._tokens, self._capacity)

    def _refill(self, now_s: float) -> None:
        self._tokens = min(self._capacity, self._tokens + (now_s - self._at_s) * self._fill_per_s)
        self._at_s = now_s

    def _measure(self, now_s: float) -> None:
        """Smooth the rate over half seconds."""
        self._count += 1
        half = math.floor(now_s * 2.0) / 2.0
        if half > self._bucket_s:
            rate_per_s = self._count / (half - self._bucket_s)
            self._measured_per_s = self._SMOOTH * rate_per_s + (1.0 - self._SMOOTH) * self._measured_per_s
            self._count, self._bucket_s = 0, half


class Bisect:
    """Bisect the rate on a logarithmic scale: a trial, a cool-down, and in the end the best that passed."""

    _TRIAL_S, _COOL_S, _TRIALS, _CLEAN = 20.0, 20.0, 8, 0.01

    def __init__(self) -> None:
        self._low_per_s, self._high_per_s = 10.0 / 60.0, 10_000.0 / 60.0
        self._rate_per_s = math.sqrt(self._low_per_s * self._high_per_s)
        self._trial, self._begins_s = 0, 0.0
        self._calls = self._refused = 0
        self._next_s = 0.0

    def next_moment_s(self, now_s: float, in_flight: int) -> float:
        """Pace within the trial; nothing during the cool-down."""
        del in_flight
        if self._trial < self._TRIALS and now_s >= self._begins_s + self._TRIAL_S:
            self._judge(now_s)
        return max(now_s, self._next_s)

    def sent(self, now_s: float) -> None:
        """Pace evenly."""
        self._calls += 1
        self._next_s = now_s + 1.0 / self._rate_per_s

    def answered(self, now_s: float, status: int) -> None:
        """Count."""
        del now_s
        self._refused += status == _THROTTLED

    def _judge(self, now_s: float) -> None:
        if self._refused <= self._CLEAN * self._calls:
            self._low_per_s = self._rate_per_s
        else:
            self._high_per_s = self._rate_per_s
        self._trial += 1
        last = self._trial == self._TRIALS
        self._rate_per_s = self._low_per_s if last else math.sqrt(self._low_per_s * self._high_per_s)
        self._begins_s = self._next_s = now_s + self._COOL_S
        self._calls = self._refused = 0


class Sonde:
    """Drain until three refusals in a row, then twenty calls at each gap, slow to fast; keep 0.8 of the best."""

    _GAPS_S = (8.0, 5.0, 3.0, 2.0, 1.2, 0.6, 0.3, 0.15)
    _EACH, _CLEAN, _MARGIN, _DRAIN = 20, 0.1, 0.8, 3

    def __init__(self) -> None:
        self._row = 0  # refusals in a row while draining
        self._place = -1  # of the gap being tried; -1: draining
        self._left = self._EACH
        self._out = self._refused = 0
        self._gap_s = 0.0
        self._best_s = self._GAPS_S[0]
        self._final = False
        self._next_s = 0.0

    def next_moment_s(self, now_s: float, in_flight: int) -> float:
        """Drain one call after the other; the sweep waits for its answers before the next gap."""
        waits = (self._place < 0 and in_flight > 0) or (not self._final and self._place >= 0 and self._left == 0)
        return math.inf if waits else max(now_s, self._next_s)

    def sent(self, now_s: float) -> None:
        """Pace at the gap being tried."""
        self._next_s = now_s + self._gap_s
        if not self._final and self._place >= 0:
            self._left -= 1
            self._out += 1

    def answered(self, now_s: float, status: int) -> None:
        """Move on when a stage is complete."""
        refused = status == _THROTTLED
        if self._place < 0:
            self._row = self._row + 1 if refused else 0
            if self._row >= self._DRAIN or now_s > DURATION_S / 5:
                self._try(0, now_s)
            return
        if self._final:
            return
        self._refused += refused
        self._out -= 1
        if self._left == 0 and self._out == 0:
            self._judge(now_s)

    def _judge(self, now_s: float) -> None:
        clean = self._refused <= self._CLEAN * self._EACH
        if clean:
            self._best_s = self._GAPS_S[self._place]
        if clean and self._place + 1 < len(self._GAPS_S):
            self._try(self._place + 1, now_s)
            return
        self._final = True
        self._gap_s = self._best_s / self._MARGIN
        self._next_s = now_s + self._gap_s

    def _try(self, place: int, now_s: float) -> None:
        self._place, self._left, self._refused, self._out = place, self._EACH, 0, 0
        self._gap_s = self._GAPS_S[place]
        self._next_s = now_s + self._gap_s


def _quota_value(case: Case, rng: np.random.Generator) -> Driven:
    """Pace evenly at the number that the documentation or the 429 names."""
    rate_per_s = min((truth.rate_per_s for truth in case.rates if truth.metric == "requests"), default=_HIGH_PER_S)
    pacing = Pacing(rate_per_s, 1.0, None, DURATION_S, math.inf)
    return drive_controller(case.world, Limited(pacing), DURATION_S, rng)


BASELINES: dict[str, Callable[[Case, np.random.Generator], Driven]] = {
    "aimd": lambda case, rng: drive_controller(case.world, Aimd(), DURATION_S, rng),
    "bisect": lambda case, rng: drive_controller(case.world, Bisect(), DURATION_S, rng),
    "cubic": lambda case, rng: drive_controller(case.world, Cubic(), DURATION_S, rng),
    "sonde": lambda case, rng: drive_controller(case.world, Sonde(), DURATION_S, rng),
    "quota_value": _quota_value,
}
