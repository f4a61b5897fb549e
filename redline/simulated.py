"""`Traffic` in virtual time: the planner's probes against `analysis.virtual`, thousands of calls in a blink.

This file owns the client's side of the simulation: when a probe's calls leave, what the client knows at each
moment (only answers that have come back), and when a probe ends. It knows nothing of the target's limits. The
meaning of a `Probe` and of a `Pacing` is the one that `redline.traffic` documents.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from analysis.virtual import Call, VirtualTarget
from redline.limiter import ClientLimiter
from redline.traffic import Attempt, BudgetEndedError, ProbeReport

if TYPE_CHECKING:
    from analysis.virtual import Answer, World
    from redline.budget import Spending
    from redline.traffic import Pacing, Probe

_OK, _THROTTLED = 200, 429


class _Watch:
    """What a running probe has seen so far, and the moment at which it therefore stops sending."""

    __slots__ = (
        "_admitted",
        "_counted",
        "_graced",
        "_other",
        "_probe",
        "_refused",
        "answered",
        "first",
        "reason",
        "stop_at_s",
    )

    def __init__(self, probe: Probe, first: int) -> None:
        self._probe = probe
        self._admitted = self._refused = self._other = 0
        self._graced = first  # attempts below this one were looked at for `admit_after_s`
        self._counted: set[int] = set()  # admitted by silence; their answers do not count again
        self.first = first
        self.answered = 0
        self.reason = "done"
        self.stop_at_s = math.inf

    def answer(self, answer: Answer) -> None:
        """Take in an answer of this probe."""
        self.answered += 1
        if answer.status == _THROTTLED:
            self._refused += 1
        elif answer.status != _OK:
            self._other += 1
        elif answer.tag in self._counted:
            self._counted.discard(answer.tag)
        else:
            self._admitted += 1
        self._judge(answer.done_s)

    def grace_s(self, attempts: list[Attempt]) -> float:
        """Return when the oldest silent call will count as admitted; inf where silence means nothing."""
        after_s = self._probe.admit_after_s
        if after_s is None or self._probe.stop_admitted is None:
            return math.inf
        while self._graced < len(attempts) and attempts[self._graced].status is not None:
            self._graced += 1
        return attempts[self._graced].sent_s + after_s if self._graced < len(attempts) else math.inf

    def silence(self, now_s: float) -> None:
        """Count the call that `grace_s` spoke of as admitted."""
        self._counted.add(self._graced)
        self._graced += 1
        self._admitted += 1
        self._judge(now_s)

    def _judge(self, now_s: float) -> None:
        if self.stop_at_s < math.inf:
            return
        probe = self._probe
        for reason, seen, bound in (
            ("refused", self._refused, probe.stop_refused),
            ("admitted", self._admitted, probe.stop_admitted),
            ("other", self._other, probe.stop_other),
        ):
            if bound is not None and seen >= bound:
                self.reason = reason
                self.stop_at_s = now_s + probe.keep_s
                return


class SimulatedTraffic:
    """A sender in virtual time.

    ``max_requests`` and ``max_duration_s`` are its budget (None: none) in the form that costs nothing a call;
    ``spending`` keeps every kind of budget.
    """

    def __init__(
        self,
        world: World,
        *,
        seed: int | np.random.Generator = 0,
        max_requests: int | None = None,
        max_duration_s: float | None = None,
        spending: Spending | None = None,
    ) -> None:
        """Start a run at 0 s; equal worlds, seeds and probes give equal answers."""
        self.attempts: list[Attempt] = []
        self.target = VirtualTarget(world, np.random.default_rng(seed))
        self._now_s = 0.0
        self._in_flight = 0
        self._max_requests = math.inf if max_requests is None else max_requests
        self._max_duration_s = math.inf if max_duration_s is None else max_duration_s
        self._spending = spending
        self._day_over: str | None = None

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return self._now_s

    def run(self, probe: Probe) -> ProbeReport:
        """Carry out a probe. Raises `BudgetEndedError` once what is in flight has been answered."""
        watch = _Watch(probe, len(self.attempts))
        zero_s = self._now_s if probe.start_s is None else max(self._now_s, probe.start_s)
        most = math.inf if probe.max_in_flight is None else probe.max_in_flight
        skipped = 0
        for offset_s in probe.offsets_s:
            due_s = zero_s + offset_s
            if probe.max_sent is not None and len(self.attempts) - watch.first >= probe.max_sent:
                break
            self._advance(due_s, watch)
            if watch.stop_at_s <= due_s:
                break
            if self._in_flight >= most:
                skipped += 1
                continue
            self._guard(probe, due_s, watch)
            self._send(probe, due_s, due_s)
        if probe.drain:
            self._drain(watch)
        return ProbeReport(zero_s, self._now_s, watch.reason, watch.first, len(self.attempts), skipped)

    def pace(self, pacing: Pacing) -> ProbeReport:
        """Offer calls open loop behind the recommended limiter; what has not left when the time is up never does."""
        limiter = ClientLimiter(pacing)
        first = len(self.attempts)
        start_s = self._now_s if pacing.start_s is None else max(self._now_s, pacing.start_s)
        end_s = start_s + pacing.duration_s
        offered = 0
        while True:
            due_s = start_s + offered / pacing.offered_per_s
            leaves_s = self._leave(limiter, due_s, end_s)
            if leaves_s >= end_s:
                break
            self._guard(pacing, leaves_s)
            limiter.sent(leaves_s)
            self._send(pacing, due_s, leaves_s)
            offered += 1
        self._drain()
        return ProbeReport(start_s, self._now_s, "done", first, len(self.attempts))

    def sleep_until(self, moment_s: float) -> None:
        """Send nothing until this moment; answers still arrive."""
        self._advance(moment_s)

    def _leave(self, limiter: ClientLimiter, due_s: float, end_s: float) -> float:
        """Wait until the limiter lets the next call go; return that moment, at most ``end_s``."""
        self._advance(min(due_s, end_s))
        while self._now_s < end_s:
            moment_s = limiter.next_moment_s(self._now_s, self._in_flight)
            if moment_s <= self._now_s:
                break
            answer = self.target.step(min(moment_s, end_s))
            if answer is None:
                self._now_s = min(moment_s, end_s)
            else:
                self._take(answer)
        return self._now_s

    def _send(self, what: Probe | Pacing, planned_s: float, sent_s: float) -> None:
        tag = len(self.attempts)
        self.attempts.append(Attempt(tag, what.phase, planned_s, sent_s, what.prompt_tokens))
        self._in_flight += 1
        if self._spending:
            self._spending.sent(tag, what.prompt_tokens, what.output_tokens)
        self.target.send(Call(tag, sent_s + what.timeout_s, what.prompt_tokens, what.output_tokens), sent_s)

    def _take(self, answer: Answer) -> None:
        """Write an answer into its attempt. Time stands at its arrival."""
        attempt = self.attempts[answer.tag]
        attempt.done_s = self._now_s = answer.done_s
        attempt.status = answer.status
        attempt.error = answer.error
        if answer.error == "daily_quota":
            self._day_over = "the quota for the day is used up"
        attempt.server_date = answer.server_date
        attempt.output_tokens = answer.output_tokens
        self._in_flight -= 1
        if self._spending:
            self._settle(answer)
        limit = answer.limit
        if limit is not None:
            attempt.quota_id = limit.quota_id
            attempt.quota_metric = limit.metric
            attempt.quota_value = limit.quota_value
            attempt.retry_delay_s = answer.retry_delay_s

    def _advance(self, until_s: float, watch: _Watch | None = None) -> None:
        """Let time pass until ``until_s``, or until the probe is to stop sending."""
        while True:
            grace_s = watch.grace_s(self.attempts) if watch else math.inf
            moment_s = min(until_s, watch.stop_at_s, grace_s) if watch else until_s
            answer = self.target.step(moment_s)
            if answer is not None:
                self._take(answer)
                if watch and answer.tag >= watch.first:
                    watch.answer(answer)
                continue
            self._now_s = max(self._now_s, moment_s)
            if watch is None or moment_s < grace_s:
                return
            watch.silence(moment_s)

    def _drain(self, watch: _Watch | None = None) -> None:
        """Wait for the answers that are still out: the probe's own, or all."""
        while self._in_flight and (watch is None or watch.answered < len(self.attempts) - watch.first):
            answer = self.target.step(math.inf)
            if answer is None:
                return
            self._take(answer)
            if watch and answer.tag >= watch.first:
                watch.answered += 1

    def _guard(self, what: Probe | Pacing, now_s: float, watch: _Watch | None = None) -> None:
        """Keep to the budget: before a call goes out, not after."""
        used_up = None
        if len(self.attempts) >= self._max_requests:
            used_up = f"the budget of {self._max_requests:g} calls is used up"
        elif now_s > self._max_duration_s:
            used_up = f"the budget of {self._max_duration_s:g} s is used up"
        elif self._spending:
            used_up = self._spending.exceeded(now_s, what.prompt_tokens, what.output_tokens)
        used_up = used_up or self._day_over
        if used_up:
            self._drain(watch)
            raise BudgetEndedError(used_up)

    def _settle(self, answer: Answer) -> None:
        throttled = answer.status == _THROTTLED
        tokens = answer.output_tokens if answer.status == _OK else None
        if self._spending:
            self._spending.ended(answer.tag, None, tokens, throttled=throttled)
