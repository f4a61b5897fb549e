"""Windows that start anew: aligned to the clock, or opened by the first call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from mock_server.limits.contract import ADMITTED, NEVER, Limiter, State, Verdict, require

PACIFIC = ZoneInfo("America/Los_Angeles")
PACIFIC_DAY = "pacific_day"


def aligned_window_s(now_s: float, window_s: float, phase_s: float = 0.0) -> tuple[float, float]:
    """Return the window [start, end) of the grid ``phase_s + k * window_s`` that holds ``now_s``.

    The division may round across a boundary, so the index is corrected until the bounds, computed as everybody
    else will compute them, hold the moment.
    """
    index = math.floor((now_s - phase_s) / window_s)
    while (index + 1) * window_s + phase_s <= now_s:
        index += 1
    while index * window_s + phase_s > now_s:
        index -= 1
    return index * window_s + phase_s, (index + 1) * window_s + phase_s


def pacific_day_s(now_s: float) -> tuple[float, float]:
    """Return [midnight, next midnight) in Los Angeles around ``now_s``, in seconds since the Unix epoch.

    Whole seconds go in: `datetime` rounds to microseconds, and the last instant of a day would round into the
    next one.
    """
    day = datetime.fromtimestamp(math.floor(now_s), tz=UTC).astimezone(PACIFIC).date()
    start, end = (datetime.combine(d, time(), tzinfo=PACIFIC) for d in (day, day + timedelta(days=1)))
    return start.timestamp(), end.timestamp()


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """``limit`` per window; windows are aligned to the clock at ``phase_s + k * window_s``.

    With ``calendar="pacific_day"`` a window is a civil day in Los Angeles (23 or 25 hours twice a year) and
    ``now_s`` must be seconds since the Unix epoch.
    """

    family: ClassVar[str] = "fixed_window"
    limit: float
    window_s: float = 86400.0
    phase_s: float = 0.0
    count_refused: bool = False
    calendar: str | None = None

    def __post_init__(self) -> None:
        require("limit", self.limit, minimum=0)
        require("window_s", self.window_s, minimum=0, exclusive=True)
        if self.calendar not in {None, PACIFIC_DAY}:
            raise ValueError(f"window must be {PACIFIC_DAY!r}, not {self.calendar!r}")

    def bounds_s(self, now_s: float) -> tuple[float, float]:
        """Return the window [start, end) that holds ``now_s``."""
        if self.calendar:
            return pacific_day_s(now_s)
        return aligned_window_s(now_s, self.window_s, self.phase_s)

    def limiter(self, seed: int = 0) -> Limiter:
        """Make fresh state."""
        del seed
        return _FixedWindowState(self)


class _FixedWindowState(State):
    __slots__ = ("_end_s", "_start_s", "_used", "spec")

    def __init__(self, spec: FixedWindow) -> None:
        super().__init__()
        self.spec = spec
        self._start_s = self._end_s = -math.inf
        self._used = 0.0

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        now_s = self._at(now_s)
        inside = self._start_s <= now_s < self._end_s
        if (self._used if inside else 0.0) + cost <= self.spec.limit:
            return ADMITTED
        if cost > self.spec.limit:
            return NEVER
        return Verdict(admitted=False, retry_at_s=self._end_s)

    def commit(self, now_s: float, cost: float = 1) -> None:
        now_s = self._last_s = self._at(now_s)
        if not self._start_s <= now_s < self._end_s:
            self._start_s, self._end_s = self.spec.bounds_s(now_s)
            self._used = 0.0
        self._used += cost

    def used(self, now_s: float) -> float:
        return self._used if self._start_s <= self._at(now_s) < self._end_s else 0.0

    def refused(self, now_s: float, cost: float = 1) -> None:
        if self.spec.count_refused:
            self.commit(now_s, cost)


@dataclass(frozen=True, slots=True)
class AnchoredWindow:
    """``limit`` per window; a window opens with the first counted call after the previous one ended."""

    family: ClassVar[str] = "anchored_window"
    limit: float
    window_s: float
    count_refused: bool = False

    def __post_init__(self) -> None:
        require("limit", self.limit, minimum=0)
        require("window_s", self.window_s, minimum=0, exclusive=True)

    def limiter(self, seed: int = 0) -> Limiter:
        """Make fresh state."""
        del seed
        return _AnchoredWindowState(self)


class _AnchoredWindowState(State):
    __slots__ = ("_end_s", "_used", "spec")

    def __init__(self, spec: AnchoredWindow) -> None:
        super().__init__()
        self.spec = spec
        self._end_s = -math.inf
        self._used = 0.0

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        now_s = self._at(now_s)
        if (self._used if now_s < self._end_s else 0.0) + cost <= self.spec.limit:
            return ADMITTED
        if cost > self.spec.limit:
            return NEVER
        return Verdict(admitted=False, retry_at_s=self._end_s)

    def commit(self, now_s: float, cost: float = 1) -> None:
        now_s = self._last_s = self._at(now_s)
        if now_s >= self._end_s:
            self._end_s = now_s + self.spec.window_s
            self._used = 0.0
        self._used += cost

    def used(self, now_s: float) -> float:
        return self._used if self._at(now_s) < self._end_s else 0.0

    def refused(self, now_s: float, cost: float = 1) -> None:
        if self.spec.count_refused:
            self.commit(now_s, cost)
