"""Windows that slide: the exact log, and the counter that approximates it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

from mock_server.limits.contract import ADMITTED, NEVER, Limiter, State, Verdict, first_moment, require
from mock_server.limits.windows import aligned_window_s


@dataclass(frozen=True, slots=True)
class SlidingLog:
    """At most ``limit`` in any interval (t - window_s, t]."""

    family: ClassVar[str] = "sliding_log"
    limit: float
    window_s: float
    count_refused: bool = False

    def __post_init__(self) -> None:
        require("limit", self.limit, minimum=0)
        require("window_s", self.window_s, minimum=0, exclusive=True)

    def limiter(self, seed: int = 0) -> Limiter:
        """Make fresh state."""
        del seed
        return _SlidingLogState(self)


class _SlidingLogState(State):
    """When and how much, oldest first, bounded: entries that newer ones already outweigh can decide nothing.

    Two deques of floats instead of one of pairs: half the memory, and nothing for the garbage collector to visit.
    """

    __slots__ = ("_costs", "_total", "_whens", "spec")

    def __init__(self, spec: SlidingLog) -> None:
        super().__init__()
        self.spec = spec
        self._whens: deque[float] = deque()
        self._costs: deque[float] = deque()
        self._total = 0.0

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        room = self.spec.limit - cost
        if room < 0:
            return NEVER
        total = self._total
        if total <= room:
            return ADMITTED
        now_s = self._at(now_s)
        for when, spent in zip(self._whens, self._costs, strict=True):
            total -= spent
            if total <= room:
                leaves_s = when + self.spec.window_s
                return ADMITTED if leaves_s <= now_s else Verdict(admitted=False, retry_at_s=leaves_s)
        return ADMITTED

    def commit(self, now_s: float, cost: float = 1) -> None:
        now_s = self._last_s = self._at(now_s)
        whens, window_s = self._whens, self.spec.window_s
        while whens and whens[0] + window_s <= now_s:
            self._forget_oldest()
        whens.append(now_s)
        self._costs.append(cost)
        self._total = self._total + cost if len(whens) > 1 else cost
        while len(whens) > 1 and self._total - self._costs[0] > self.spec.limit:
            self._forget_oldest()

    def used(self, now_s: float) -> float:
        since_s = self._at(now_s)
        pairs = zip(self._whens, self._costs, strict=True)
        return sum(cost for when, cost in pairs if when + self.spec.window_s > since_s)

    def refused(self, now_s: float, cost: float = 1) -> None:
        if self.spec.count_refused:
            self.commit(now_s, cost)

    def _forget_oldest(self) -> None:
        self._whens.popleft()
        self._total -= self._costs.popleft()


@dataclass(frozen=True, slots=True)
class SlidingCounter:
    """This aligned window's count plus the last one's, weighted by the part of it that still overlaps."""

    family: ClassVar[str] = "sliding_counter"
    limit: float
    window_s: float
    phase_s: float = 0.0
    count_refused: bool = False

    def __post_init__(self) -> None:
        require("limit", self.limit, minimum=0)
        require("window_s", self.window_s, minimum=0, exclusive=True)

    def limiter(self, seed: int = 0) -> Limiter:
        """Make fresh state."""
        del seed
        return _SlidingCounterState(self)


class _SlidingCounterState(State):
    __slots__ = ("_end_s", "_prev", "_start_s", "_used", "spec")

    def __init__(self, spec: SlidingCounter) -> None:
        super().__init__()
        self.spec = spec
        self._start_s = self._end_s = -math.inf
        self._used = self._prev = 0.0

    def _seen(self, now_s: float) -> tuple[float, float, float, float]:
        """Return (start, end, this count, last count) of the window that holds ``now_s``."""
        if self._start_s <= now_s < self._end_s:
            return self._start_s, self._end_s, self._used, self._prev
        start_s, end_s = aligned_window_s(now_s, self.spec.window_s, self.spec.phase_s)
        return start_s, end_s, 0.0, self._used if start_s == self._end_s else 0.0

    def _passes(self, now_s: float, cost: float) -> bool:
        start_s, _, current, previous = self._seen(now_s)
        overlap = 1.0 - (now_s - start_s) / self.spec.window_s
        return current + previous * overlap + cost <= self.spec.limit

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        now_s = self._at(now_s)
        if self._passes(now_s, cost):
            return ADMITTED
        if cost > self.spec.limit:
            return NEVER
        start_s, end_s, current, previous = self._seen(now_s)
        room = self.spec.limit - cost
        if current <= room and previous > 0:
            moment = start_s + self.spec.window_s * (1.0 - (room - current) / previous)
        else:
            moment = end_s + self.spec.window_s * max(0.0, 1.0 - room / current)
        moment = first_moment(max(moment, now_s), lambda t: t > now_s and self._passes(t, cost))
        return Verdict(admitted=False, retry_at_s=moment)

    def commit(self, now_s: float, cost: float = 1) -> None:
        now_s = self._last_s = self._at(now_s)
        self._start_s, self._end_s, self._used, self._prev = self._seen(now_s)
        self._used += cost

    def used(self, now_s: float) -> float:
        start_s, _, current, previous = self._seen(self._at(now_s))
        return current + previous * (1.0 - (self._at(now_s) - start_s) / self.spec.window_s)

    def refused(self, now_s: float, cost: float = 1) -> None:
        if self.spec.count_refused:
            self.commit(now_s, cost)
