"""Rate and concurrency limits, each straight from its textbook sentence, with the obvious data structure.

This is the judge's own copy: it shares nothing with the rooms that it judges, so a mistake in one is not repeated
in the other. It favours the form that can be checked by reading over the one that is fast. Standard library only;
it reads no clock: every method takes the moment in seconds.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any


class FixedWindow:
    """At most ``limit`` in each of the windows [phase + k W, phase + (k + 1) W) of the server's clock."""

    def __init__(self, limit: float, window_s: float, phase_s: float = 0.0, *, counts_refused: bool = False) -> None:
        self.limit, self.window_s, self.phase_s, self.counts_refused = limit, window_s, phase_s, counts_refused
        self._window = -1
        self._used = 0.0

    def admits(self, at_s: float, cost: float) -> bool:
        """Whether the call fits into what is left of this window."""
        self._roll(at_s)
        return self._used + cost <= self.limit

    def count(self, at_s: float, cost: float) -> None:
        """Charge a call to the window of its arrival."""
        self._roll(at_s)
        self._used += cost

    def end(self, cost: float) -> None:
        """Ignore the end of a call: the window has counted its arrival."""

    def _roll(self, at_s: float) -> None:
        window = math.floor((at_s - self.phase_s) / self.window_s)
        if window != self._window:
            self._window, self._used = window, 0.0


class AnchoredWindow:
    """At most ``limit`` in a window that the first call opens; the first call after its end opens the next."""

    def __init__(self, limit: float, window_s: float, *, counts_refused: bool = False) -> None:
        self.limit, self.window_s, self.counts_refused = limit, window_s, counts_refused
        self._opened_s = -math.inf
        self._used = 0.0

    def admits(self, at_s: float, cost: float) -> bool:
        """Whether the window is over, or has room."""
        used = 0.0 if at_s - self._opened_s >= self.window_s else self._used
        return used + cost <= self.limit

    def count(self, at_s: float, cost: float) -> None:
        """Charge a call, opening a window where none is open."""
        if at_s - self._opened_s >= self.window_s:
            self._opened_s, self._used = at_s, 0.0
        self._used += cost

    def end(self, cost: float) -> None:
        """Ignore the end of a call: the window has counted its arrival."""


class SlidingLog:
    """At most ``limit`` in any window (t - W, t]: every counted call is remembered for W."""

    def __init__(self, limit: float, window_s: float, *, counts_refused: bool = False) -> None:
        self.limit, self.window_s, self.counts_refused = limit, window_s, counts_refused
        self._calls: deque[tuple[float, float]] = deque()
        self._used = 0.0

    def admits(self, at_s: float, cost: float) -> bool:
        """Whether the calls of the last W leave room."""
        while self._calls and at_s - self._calls[0][0] >= self.window_s:
            self._used -= self._calls.popleft()[1]
        return self._used + cost <= self.limit

    def count(self, at_s: float, cost: float) -> None:
        """Remember a call."""
        self._calls.append((at_s, cost))
        self._used += cost

    def end(self, cost: float) -> None:
        """Ignore the end of a call: the log keeps its arrival."""


class SlidingCounter:
    """Two aligned windows: this one's count, and the one before by the part of it that the last W still covers."""

    def __init__(self, limit: float, window_s: float, phase_s: float = 0.0, *, counts_refused: bool = False) -> None:
        self.limit, self.window_s, self.phase_s, self.counts_refused = limit, window_s, phase_s, counts_refused
        self._counts: dict[int, float] = {}

    def admits(self, at_s: float, cost: float) -> bool:
        """Whether the weighted sum of both windows leaves room."""
        elapsed_windows = (at_s - self.phase_s) / self.window_s
        now = math.floor(elapsed_windows)
        still_covered = 1.0 - (elapsed_windows - now)
        return self._counts.get(now, 0.0) + self._counts.get(now - 1, 0.0) * still_covered + cost <= self.limit

    def count(self, at_s: float, cost: float) -> None:
        """Charge a call to the window of its arrival, and forget all but the one before it."""
        now = math.floor((at_s - self.phase_s) / self.window_s)
        kept = {index: used for index, used in self._counts.items() if index >= now - 1}
        kept[now] = kept.get(now, 0.0) + cost
        self._counts = kept

    def end(self, cost: float) -> None:
        """Ignore the end of a call: the window has counted its arrival."""


class TokenBucket:
    """``rate_per_s`` tokens drip into a bucket that holds ``burst``; a call takes its cost out, or is refused."""

    # A call that comes exactly when its token drips must not be refused for the last bit of a float.
    ROUNDING = 1e-9

    def __init__(self, rate_per_s: float, burst: float, *, counts_refused: bool = False) -> None:
        self.rate_per_s, self.burst, self.counts_refused = rate_per_s, burst, counts_refused
        self._tokens = burst
        self._at_s = -math.inf

    def admits(self, at_s: float, cost: float) -> bool:
        """Whether the bucket holds the cost at this moment."""
        return self._held(at_s) + self.ROUNDING >= cost

    def count(self, at_s: float, cost: float) -> None:
        """Take the cost out; a bucket is never in debt."""
        self._tokens = max(0.0, self._held(at_s) - cost)
        self._at_s = at_s

    def end(self, cost: float) -> None:
        """Ignore the end of a call: its token is spent."""

    def _held(self, at_s: float) -> float:
        return min(self.burst, self._tokens + self.rate_per_s * (at_s - self._at_s))


class Concurrency:
    """At most ``limit`` calls at work at once. A refused call was never at work."""

    counts_refused = False

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.at_work = 0

    def admits(self, at_s: float, cost: float) -> bool:  # noqa: ARG002 - all limits are asked alike
        """Whether a place is free."""
        return self.at_work < self.limit

    def count(self, at_s: float, cost: float) -> None:  # noqa: ARG002 - all limits are told alike
        """Occupy a place."""
        self.at_work += 1

    def end(self, cost: float) -> None:  # noqa: ARG002 - all limits are told alike
        """Free the place."""
        self.at_work -= 1


Limiter = FixedWindow | AnchoredWindow | SlidingLog | SlidingCounter | TokenBucket | Concurrency

FAMILIES: dict[str, type[Limiter]] = {
    "fixed_window": FixedWindow,
    "anchored_window": AnchoredWindow,
    "sliding_log": SlidingLog,
    "sliding_counter": SlidingCounter,
    "token_bucket": TokenBucket,
    "concurrency": Concurrency,
}


class Gate:
    """Several limits in front of one door: a call enters if all admit it, and then all count it.

    ``limits``: one table each, ``{"family": ..., "metric": "requests" | "input_tokens", parameters}``. A refused
    call is counted by those limits that count refused calls, whichever limit refused it. Raises `ValueError` in
    one line where a table is wrong.
    """

    def __init__(self, limits: list[dict[str, Any]]) -> None:
        self._limits = [_made(dict(table)) for table in limits]

    def enter(self, at_s: float, input_tokens: int) -> int | None:
        """Let the call in and return None, or refuse it and return the index of the first limit that is full."""
        priced = [(limiter, input_tokens if by_tokens else 1) for limiter, by_tokens in self._limits]
        full = [index for index, (limiter, cost) in enumerate(priced) if not limiter.admits(at_s, cost)]
        for limiter, cost in priced:
            if not full or limiter.counts_refused:
                limiter.count(at_s, cost)
        return full[0] if full else None

    def leave(self, input_tokens: int) -> None:
        """Say that a call that had entered is done."""
        for limiter, by_tokens in self._limits:
            limiter.end(input_tokens if by_tokens else 1)


def _made(table: dict[str, Any]) -> tuple[Limiter, bool]:
    family = table.pop("family", None)
    metric = table.pop("metric", "requests")
    if family not in FAMILIES:
        raise ValueError(f"limits.family must be one of {', '.join(FAMILIES)}, not {family!r}")
    if metric not in {"requests", "input_tokens"}:
        raise ValueError(f"limits.metric must be requests or input_tokens, not {metric!r}")
    try:
        return FAMILIES[family](**table), metric == "input_tokens"
    except TypeError as error:
        raise ValueError(f"limits, {family}: {error}") from None
