"""Where seconds come from, for code that waits.

Everything that decides takes the time as an argument. What reads a clock or sleeps takes a `Clock`, so that a test
hands in a virtual one. This file knows nothing of traffic.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since an agreed start, and a way to wait."""

    def now_s(self) -> float:
        """Seconds since the start; never steps back."""

    def sleep(self, duration_s: float) -> None:
        """Wait; a duration that is not positive returns at once."""


class SystemClock:
    """The machine's steady clock, counted from ``anchor_s`` (a reading of `time.monotonic`).

    All processes of one machine share that clock, so two of them with one anchor agree on the time.
    """

    def __init__(self, anchor_s: float | None = None) -> None:
        self.anchor_s = time.monotonic() if anchor_s is None else anchor_s

    def now_s(self) -> float:
        """Seconds since the anchor."""
        return time.monotonic() - self.anchor_s

    def sleep(self, duration_s: float) -> None:
        """Wait; under gevent only this greenlet waits."""
        if duration_s > 0:
            time.sleep(duration_s)


class VirtualClock:
    """A clock that moves only when somebody sleeps on it."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now_s(self) -> float:
        """Return the time as the last sleep left it."""
        return self._now_s

    def sleep(self, duration_s: float) -> None:
        """Move the time; nobody waits."""
        self._now_s += max(0.0, duration_s)
