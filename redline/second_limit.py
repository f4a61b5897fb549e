"""The search for a second, longer limit on requests once a short one is known.

All traffic is paced below the short limit, so that what is refused now is the other's doing. Apart from that the plan
is the prober's: watch the recovery, fill to the next refusal, fit. It knows nothing of settings or of verification.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis import decisions, forecast, two_limits
from analysis.calls import SILENCE_S, Calls
from analysis.conclude import conclude_limits
from analysis.fit import fit
from analysis.infer import met_no_rate
from analysis.recommend import recommend
from analysis.running import RunningCalls
from analysis.tokens import for_requests
from redline import probing
from redline.prober import Prober
from redline.traffic import REFUSED

if TYPE_CHECKING:
    from analysis.decisions import Record
    from analysis.fit import Fit
    from analysis.search import Hypothesis
    from analysis.two_limits import Pair
    from redline.traffic import Attempt, Pacing, Probe, ProbeReport, Traffic

LONGEST_REST_S = 120.0  # a window is believed to be, as far as rests go
LONGEST_FILL_S = 150.0  # and so long it is filled at most
MOST_CYCLES = 8
MOST_WINDOWS = 6.0  # of the longer limit
MARGIN = 0.01  # of the long limit's memory, by which its recovery may be later than expected
MOST_ROOM = 0.9  # of what the long limit has room for is asked of it
SLACK = 0.995  # of the rate that the short limit allows


@dataclass
class OtherProber(Prober):
    """A prober for one limit in the presence of another that is ``known`` and never to be met."""

    known: Fit = field(kw_only=True)
    began_s: float = 0.0

    def run(self) -> None:
        """Probe until the limit is settled; a single call at least, which tells that this was the plan."""
        self.paced = self.crowded = True  # chance has been ruled out
        self.traffic.sleep_until(self.traffic.now_s() + min(two_limits.memory_s(self.known), 60.0))
        self.began_s = self.traffic.now_s()
        self.traffic.run(probing.burst(two_limits.BESIDE, 1, rate_per_s=1.0))
        self._refit()
        if not self._refused_since(0):
            self._fill(0)
            self._refit()
        self._cycles(0)
        self._drain()

    @property
    def refuted(self) -> bool:
        """Whether answers contradict the two limits, although each was asked by itself: it is something else then."""
        return self.fit.misfit.kind() is not None

    def knows_enough(self) -> bool:
        """Return whether the record has settled the limit already."""
        self._refit()
        return self._settled(0)

    def _hopeless(self, cycle: int) -> bool:
        """Return whether it is something else, or too long a wait: a short limit within a long one is seldom met."""
        if self.refuted:
            return True
        window_s = max(two_limits.memory_s(self.known), two_limits.memory_s(self.fit))
        return cycle > 1 and self.traffic.now_s() - self.began_s > MOST_WINDOWS * window_s

    def _fill(self, cycle: int) -> bool:
        """Fill after a rest: at this pace little is learnt from a limit that has only just given back a call."""
        window_s = min(two_limits.memory_s(self.fit), LONGEST_REST_S)
        self.traffic.sleep_until(self.traffic.now_s() + window_s * self.rng.uniform(0.15, 0.5))
        return super()._fill(cycle)

    def _calls(self) -> Calls:
        calls = two_limits.without_overload(super()._calls())
        return calls.excuse(two_limits.explained(calls, self.known))


@dataclass(slots=True)
class LimitMet:
    """Asked after a failed verification: whether what it met is a limit that probing had not met.

    ``first``: it is the first limit on the rate at all. ``pair``: it is a second one, and these are both.
    """

    traffic: Traffic
    possible: bool = True
    first: bool = False
    pair: Pair | None = None

    @property
    def found(self) -> bool:
        """Whether there is more to probe for."""
        return self.first or self.pair is not None

    def __call__(self) -> bool:
        """Return whether a limit explains what was seen that probing says nothing of."""
        refused = sum(a.outcome == REFUSED and a.phase.startswith(two_limits.VERIFYING) for a in self.traffic.attempts)
        if self.possible and not self.found and refused >= two_limits.OWN:
            record = Calls.from_attempts(self.traffic.attempts, now_s=self.traffic.now_s(), answer_s=SILENCE_S)
            calls = for_requests(record)
            if met_no_rate(calls):
                self.first = fit(calls).best is not None
            else:
                self.pair = two_limits.pair(calls)
        return self.found


def probe_further(prober: Prober, pair: Pair) -> None:
    """Go on where a prober, or a verification, met two limits at once: for the long one, then for the short one."""
    options = replace(prober.options, max_cycles=MOST_CYCLES)
    below = Below(prober.traffic, pace_per_s(pair.short))
    long = OtherProber(below, options, prober.on_progress, known=pair.short)
    long.run()
    if long.fit.best is None or long.refuted:
        return
    within = Within(prober.traffic, long.fit)
    short = OtherProber(within, options, prober.on_progress, known=long.fit)
    if not short.knows_enough():
        short.run()


def pace_per_s(known: Fit) -> float:
    """Return the steady rate that a limit surely lets through."""
    best = known.best
    if best is None:
        raise ValueError("no limit is known that could be paced below")
    rpm = recommend(conclude_limits(known)).requests_per_minute
    return SLACK * (rpm / 60.0 if rpm else 0.5 * best.rate_per_s)


class _Shaped:
    """A `Traffic` that shapes probes for the sake of a limit which is known."""

    def __init__(self, traffic: Traffic) -> None:
        self.attempts: list[Attempt] = traffic.attempts
        self._traffic = traffic

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return self._traffic.now_s()

    def pace(self, pacing: Pacing) -> ProbeReport:
        """Drive traffic through a limiter, which paces by itself."""
        return self._traffic.pace(pacing)

    def sleep_until(self, moment_s: float) -> None:
        """Send nothing until this moment."""
        self._traffic.sleep_until(moment_s)


class Below(_Shaped):
    """Never sends faster than ``per_s``: bursts are spread out, and end once they are refused."""

    def __init__(self, traffic: Traffic, per_s: float) -> None:
        super().__init__(traffic)
        self._gap_s = 1.0 / per_s

    def run(self, probe: Probe) -> ProbeReport:
        """Carry out a probe, its calls as far apart as they must be."""
        zero_s = max(self.now_s(), probe.start_s or 0.0)
        due_s = self._spread_out(np.asarray(probe.offsets_s[: probe.max_sent], float), zero_s)
        due_s = due_s[due_s <= due_s[:1] + LONGEST_FILL_S]  # a limit that was none is filled for no longer than that
        if probe.stop_admitted is None and probe.stop_refused is None:
            probe = replace(probe, stop_refused=1, keep_s=self._gap_s)
        return self._traffic.run(replace(probe, offsets_s=tuple(due_s.tolist())))

    def _spread_out(self, offsets_s: np.ndarray, zero_s: float) -> np.ndarray:
        """Return the offsets, each at least a gap after the one before, and the first after the last call sent."""
        turn = np.arange(len(offsets_s)) * self._gap_s
        ready_s = self.attempts[-1].sent_s + self._gap_s - zero_s if self.attempts else 0.0
        return np.asarray(np.maximum.accumulate(np.maximum(offsets_s, ready_s) - turn) + turn)


class Within(_Shaped):
    """Never asks a long limit for more than it has room for: probes wait, and are cut short."""

    def __init__(self, traffic: Traffic, known: Fit) -> None:
        super().__init__(traffic)
        self._known = known
        self._running = RunningCalls(traffic.attempts)

    def run(self, probe: Probe) -> ProbeReport:
        """Carry out a probe once the long limit has room for it, or for most of what it ever has room for."""
        best = self._known.best
        if best is None:
            return self._traffic.run(probe)
        if probe.stop_admitted:
            self._wait_for(best, 2.0)
            return self._traffic.run(probe)
        count = min(len(probe.offsets_s), probe.max_sent or len(probe.offsets_s))
        room = self._wait_for(best, min(count + 1.0, MOST_ROOM * best.limit))
        return self._traffic.run(replace(probe, max_sent=max(1, min(count, int(MOST_ROOM * room)))))

    def _wait_for(self, best: Hypothesis, need: float) -> float:
        """Wait until the limit has room for so much; returns what it then has."""
        record, now_s = self._record(best), self.now_s()
        ready_s = forecast.first_room_s(record, best, now_s, need=need)
        if ready_s > now_s:
            ready_s += MARGIN * two_limits.memory_s(self._known) + 2.0 * float(self._known.offsets_s[-1])
            self.sleep_until(min(ready_s, now_s + LONGEST_REST_S))
        return float(forecast.room(record, best, np.array([self.now_s()]))[0])

    def _record(self, best: Hypothesis) -> Record:
        # What has no answer yet may have been admitted, and then it takes room.
        calls = self._running.calls(self.now_s(), answer_s=0.0)
        return decisions.prepare(
            calls, self._known.offsets_s, counts_refused=best.counts_refused, counts_other=best.counts_other
        )
