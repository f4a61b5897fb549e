"""When a probe stops: the reactive part of `redline.traffic.Probe`, as pure state.

The sender tells it what went out and what came back, and asks when to stop. It reads no clock and sends nothing.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from redline.traffic import ADMITTED, OTHER, REFUSED

if TYPE_CHECKING:
    from redline.traffic import Probe


class Reaction:
    """Watches one probe's stop conditions. The first that comes true sets ``reason`` and ``stop_s``, for good."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._waiting: deque[tuple[float, int]] = deque()  # (when it will count as admitted, call), in order
        self._open: set[int] = set()
        self._presumed: set[int] = set()  # unanswered for so long that they count as admitted
        self._counts = {ADMITTED: 0, REFUSED: 0, OTHER: 0}
        self.reason = "done"
        self.stop_s = math.inf

    @property
    def in_flight(self) -> int:
        """Calls of this probe that were sent and have not ended."""
        return len(self._open)

    def sent(self, call_id: int, now_s: float) -> None:
        """Take note of a call that goes out."""
        self._open.add(call_id)
        if self._probe.admit_after_s is not None:
            self._waiting.append((now_s + self._probe.admit_after_s, call_id))

    def ended(self, call_id: int, outcome: str, now_s: float) -> None:
        """Take note of how a call ended: admitted, refused or other."""
        self._open.discard(call_id)
        self._presumed.discard(call_id)
        self._counts[outcome] += 1
        self._judge(now_s)

    def advance(self, now_s: float) -> None:
        """Let time pass: calls that stayed unanswered for long enough now count as admitted."""
        while self._waiting and self._waiting[0][0] <= now_s:
            moment_s, call_id = self._waiting.popleft()
            if call_id in self._open:
                self._presumed.add(call_id)
                self._judge(moment_s)

    def wake_s(self) -> float:
        """Return the next moment at which something may change by time alone; ``inf`` for none."""
        if not math.isinf(self.stop_s):
            return self.stop_s
        while self._waiting and self._waiting[0][1] not in self._open:
            self._waiting.popleft()
        return self._waiting[0][0] if self._waiting else math.inf

    def _judge(self, now_s: float) -> None:
        if not math.isinf(self.stop_s):
            return
        probe = self._probe
        seen = (
            (REFUSED, self._counts[REFUSED], probe.stop_refused),
            (ADMITTED, self._counts[ADMITTED] + len(self._presumed), probe.stop_admitted),
            (OTHER, self._counts[OTHER], probe.stop_other),
        )
        for reason, count, bound in seen:
            if bound is not None and count >= bound:
                self.reason = reason
                self.stop_s = now_s + probe.keep_s
                return
