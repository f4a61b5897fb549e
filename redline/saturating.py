"""A probe for limits that others use, too: more is sent than the limit lets in, until what passes tells its rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.calls import SILENCE_S, Calls
from analysis.conclude import SURE_ODDS
from analysis.doubt import COMMON_WINDOWS_S
from analysis.running import RunningCalls
from analysis.saturation import FEWEST, SATURATED, SATURATING, most_in_flight, saturation, without_saturation
from redline import probing
from redline.traffic import ADMITTED, OTHER, PENDING, REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redline.prober import Prober
    from redline.traffic import Attempt

PACE: Final = (7.0, 20.0)  # times what passes that is sent: where that is many calls, and where it is few
FEW_PER_S: Final = 40.0  # calls a second, up to which they are few
FASTER: Final = 1.6  # times as many are sent where so few are refused for each call that passes,
SOME: Final = 0.6
LEAST: Final = 2.4  # times what passes are sent, so that it is full even at half of that
SLOWER: Final = 0.6  # and from half of the most calls on
MOST_CALLS: Final = 40_000
LONGEST_S: Final = 280.0  # a minute until it is full for sure, then three windows of one, and what is left of one
CHECK_S: Final = 45.0  # and where nothing but a check is wanted
SETTLED: Final = (1.1, 66.0)  # windows, and seconds at most, after which the limit remembers no other pace
SETTLING: Final = 0.5  # times the pace is enough until then
HALF: Final = 0.5  # of the time must be left for what passes once it is full
CHECKED: Final = 4.0  # windows that a check lasts, where one is told that nobody would choose
ENOUGH_S: Final = 120.0  # for so long the calls must last, once it is full
FIRST_S: Final = 3.0  # how long the first stretch lasts; each later one lasts as long as all before it,
LAST_S: Final = 20.0  # or so long
SILENT: Final = 1.5  # windows, and the longest stretch, after which
DRY: Final = 0.3  # of what was expected must have passed
LATE: Final = (10.0, 5.0)  # times the first call's latency, and seconds, after which an answer is given up
LAST_CALLS: Final = 200  # of which
FAILED: Final = (5, 0.15)  # calls, and so large a share, may fail
PASSED: Final = frozenset({ADMITTED, PENDING})
BELOW: Final = 0.7  # of the calls in flight that are known to pass: others hold places, too
NARROW: Final = 0.04  # relative error of what passed that is enough


def saturate(prober: Prober, *, memory_s: float, longest_s: float = LONGEST_S) -> None:
    """Keep the limit full until what passes is known, or for ``longest_s``.

    ``memory_s``: for how long the limit may remember what was sent before: after that, what passes is what it lets in.
    Nothing is sent where so little passes, or is counted for so long, that this would tell nothing.
    """
    best = prober.fit.best
    windows_s = [memory_s, best.window_s or 0.0] if best else [memory_s]
    if max(windows_s) > HALF * longest_s or _expected_per_s(prober) * longest_s < FEWEST:
        return
    before = Calls.from_attempts(prober.traffic.attempts, now_s=prober.traffic.now_s(), answer_s=prober.answer_s())
    known, pace_per_s = most_in_flight(without_saturation(before)), _pace_per_s(prober, memory_s)
    _Saturating(prober, longest_s, memory_s, pace_per_s, _cap(prober), known).run()
    prober.traffic.sleep_until(prober.traffic.now_s() + max(prober.answer_s(), SILENCE_S))  # its answers are in


@dataclass(slots=True)
class _Saturating:
    prober: Prober
    longest_s: float
    memory_s: float
    pace_per_s: float
    cap: int | None  # calls in flight at most
    known: int  # so many passed at once before
    began_s: float = field(init=False)
    first: int = field(init=False)  # of its attempts
    full_s: float | None = None  # when the limit was first full
    slower: bool = False
    _running: RunningCalls = field(init=False)

    def __post_init__(self) -> None:
        self.began_s, self.first = self.prober.traffic.now_s(), len(self.prober.traffic.attempts)
        self._running = RunningCalls(self.prober.traffic.attempts, self.first)

    def run(self) -> None:
        lasts_s = FIRST_S
        while not self._over():
            self.prober.note("what passes while more is sent")
            self._stretch(lasts_s)
            self._change_pace()
            lasts_s = min(LAST_S, self._lasted_s())

    def _over(self) -> bool:
        traffic = self.prober.traffic
        sent = traffic.attempts[self.first :]
        if self._lasted_s() > self.longest_s or len(sent) >= MOST_CALLS:
            return True
        if self._in_vain(sent) or self._failing(sent):
            return True
        found = saturation(self._running.calls(traffic.now_s(), self.prober.answer_s()), self.known)
        return found is not None and found.error < NARROW and found.parts > 1 and found.lasted_s > self.memory_s

    def _in_vain(self, sent: list[Attempt]) -> bool:
        """Return whether next to nothing has passed since the limit was full, as where refused calls count."""
        if self.full_s is None:  # and a bound on the pace may keep it from ever being full
            return self._lasted_s() > SILENT * self.memory_s + LAST_S
        lasted_s = self.prober.traffic.now_s() - self.full_s
        passed = sum(a.outcome in PASSED and a.sent_s > self.full_s for a in sent)
        return lasted_s > SILENT * self.memory_s + LAST_S and passed < DRY * self.pace_per_s / PACE[1] * lasted_s

    def _failing(self, sent: list[Attempt]) -> bool:
        """Return whether many of the last calls failed, or have no answer for long: more would only do harm."""
        longest_s, now_s = LATE[0] * self.prober.latency_s + LATE[1], self.prober.traffic.now_s()
        last = sent[-LAST_CALLS:]
        failed = sum(a.outcome == OTHER or (a.outcome == PENDING and now_s - a.sent_s > longest_s) for a in last)
        return failed > max(FAILED[0], FAILED[1] * len(last))

    def _lasted_s(self) -> float:
        return self.prober.traffic.now_s() - self.began_s

    def _stretch(self, lasts_s: float) -> None:
        """Send for so long, and until the limit is full for sure at first."""
        traffic, phase = self.prober.traffic, SATURATED
        settled_s = None if self.full_s is None else self.full_s + self.memory_s - traffic.now_s()
        if settled_s is None or settled_s > 0.0:
            phase, lasts_s = SATURATING, settled_s or lasts_s
        pace_per_s = self.pace_per_s * (SETTLING if phase == SATURATING else 1.0)
        offsets_s = np.arange(max(1.0, lasts_s * pace_per_s)) / pace_per_s
        left = MOST_CALLS - (len(traffic.attempts) - self.first)
        traffic.run(probing.at_times(phase, tuple(offsets_s[:left].tolist()), stop_refused=None, cap=self.cap))
        traffic.sleep_until(traffic.now_s() + 1.0 / pace_per_s)
        if self.full_s is None:
            refused_s = (a.sent_s for a in traffic.attempts[self.first :] if a.outcome == REFUSED)
            self.full_s = next(refused_s, None)

    def _change_pace(self) -> None:
        sent = self.prober.traffic.attempts[self.first :]
        refused = sum(a.outcome == REFUSED for a in sent)
        passed = sum(a.outcome in PASSED and a.sent_s > (self.full_s or 0.0) for a in sent)
        late = self.full_s is None and self._lasted_s() > self.prober.window_guess_s()
        if late or (self.full_s is not None and refused < SOME * passed):
            self.pace_per_s = min(FASTER * self.pace_per_s, self.prober.options.max_rate_per_s)
        elif len(sent) > MOST_CALLS // 2 and not self.slower:
            self.pace_per_s, self.slower = SLOWER * self.pace_per_s, True


def _cap(prober: Prober) -> int | None:
    """Return how many calls may be in flight, so that none is refused for their number; None where any may."""
    limit = prober.fit.concurrency
    return None if limit is None or prober.fit.behind < SURE_ODDS else max(1, int(BELOW * limit))


def check_s(windows_s: Iterable[float]) -> float:
    """Return how long to look for others who hide behind limits with these windows, of which some are odd."""
    odd_s = max((w for w in windows_s if w not in COMMON_WINDOWS_S), default=0.0)
    return float(np.clip(CHECKED * odd_s, CHECK_S, LONGEST_S))


def _pace_per_s(prober: Prober, memory_s: float) -> float:
    """Return how many calls to send a second: as many as may be until enough has passed, but more than may pass."""
    expected = _expected_per_s(prober)
    low, high = (pace * expected for pace in PACE)
    lasting = max(LEAST * expected, MOST_CALLS / (SETTLING * memory_s + ENOUGH_S))
    return float(min(np.clip(FEW_PER_S, low, high), lasting, prober.options.max_rate_per_s))


def _expected_per_s(prober: Prober) -> float:
    """Return how many calls a second should pass, by what the best limit lets in, or what passed so far."""
    attempts = prober.traffic.attempts
    passed = sum(a.outcome == ADMITTED for a in attempts) / max(1.0, prober.traffic.now_s() - attempts[0].sent_s)
    best = prober.fit.best
    return max(passed, min(best.rate_per_s, 5.0 * passed) if best else 0.0)
