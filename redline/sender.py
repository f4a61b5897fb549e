"""The sender: carries out probes and pacings on an absolute schedule, one greenlet a call, and keeps the ledger.

Open loop: the dispatcher waits for moments, never for answers, and no pool stands between a call and the wire.
What cannot be sent is recorded as dropped. Runs inside a Locust process (gevent), but imports no Locust: whoever
owns the process passes ``observe`` to feed Locust's statistics.
"""

from __future__ import annotations

import math
import resource
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from redline.client import Order, Outcome
from redline.health import Health
from redline.limiter import ClientLimiter
from redline.reaction import Reaction
from redline.record import Done, Dropped, Sent
from redline.traffic import ADMITTED, OTHER, REFUSED, BudgetEndedError, ProbeReport, TargetError
from redline.wire import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from redline.budget import Spending
    from redline.client import Transport
    from redline.prompts import Prompts
    from redline.record import Ledger
    from redline.traffic import Pacing, Probe

MAX_OPEN_CALLS = 4096  # beyond this many in flight an arrival is dropped
SPARE_FILES = 64  # file handles kept free for all that is no call, where the system allows fewer
MAX_WARM = 256  # connections opened ahead of a burst
YIELD_EVERY = 16  # sends between two looks at what came back, when many are due at once
BIG_PROMPT_TOKENS = 32  # from here on the size matters, so the server counts a sample first
FLUSH_EVERY_S = 0.05
CALLER_REST_S = 0.05
LET_OUT_S = 0.0005


class Sender:
    """Sends calls to one target. One `run` or `pace` at a time; answers may arrive at any time."""

    def __init__(  # noqa: PLR0913 - everything that the process owns is handed in
        self,
        transport: Transport,
        ledger: Ledger,
        now_s: Callable[[], float],
        *,
        url: str,
        model: str,
        prompts: Prompts,
        spending: Spending,
        observe: Callable[[Sent, Outcome], None] = lambda _sent, _outcome: None,
        worker: str = "0",
        first_call_id: int = 0,
    ) -> None:
        self._transport = transport
        self._ledger = ledger
        self._now_s = now_s
        self._url = url
        self._model = model
        self._prompts = prompts
        self._spending = spending
        self._observe = observe
        self._worker = worker
        self._next_call_id = first_call_id
        self._health = Health(url, model)
        self._wake = Event()
        self._sized = False
        self._most_open = min(MAX_OPEN_CALLS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES)
        self.stopping = False
        self.launched = 0  # calls handed to a greenlet and not ended
        self._out = 0  # of these, calls whose bytes are on their way

    def run(self, probe: Probe) -> ProbeReport:
        """Carry out a probe; see `Probe`. ``first`` and ``last`` of the report are 0: the reader counts attempts.

        Raises BudgetEndedError before the call that a budget does not cover, TargetError where the target is of no
        use any more. A call id is used up by every arrival that was sent or dropped.
        """
        self._prepare(probe.prompt_tokens, _burst_size(probe))
        started_s = max(probe.start_s if probe.start_s is not None else -math.inf, self._now_s())
        reaction = Reaction(probe)
        skipped = 0
        for index, offset_s in enumerate(probe.offsets_s):
            if probe.max_sent is not None and index - skipped >= probe.max_sent:
                break
            if index % YIELD_EVERY == 0:
                gevent.sleep(0)
            due_s = started_s + offset_s
            if not self._wait_until(due_s, reaction):
                break
            if probe.max_in_flight is not None and self.launched >= probe.max_in_flight:
                skipped += 1
                continue
            self._launch(probe, due_s, reaction)
        if probe.drain:
            self._drain(lambda: reaction.in_flight)
        else:
            self._let_out()
        reason = "stopped" if self.stopping else reaction.reason
        return ProbeReport(started_s, self._now_s(), reason, 0, 0, skipped)

    def pace(self, pacing: Pacing) -> ProbeReport:
        """Drive traffic through the recommended limiter; see `Pacing`. Raises as `run` does."""
        self._prepare(pacing.prompt_tokens, math.ceil(pacing.burst))
        started_s = max(pacing.start_s if pacing.start_s is not None else -math.inf, self._now_s())
        ends_s = started_s + pacing.duration_s
        limiter = ClientLimiter(pacing)
        first_id = self._next_call_id
        while (due_s := self._limiter_lets(limiter, pacing, started_s, first_id, ends_s)) < ends_s:
            limiter.sent(self._now_s())
            self._launch(pacing, due_s, None)
        self._drain(lambda: self.launched)
        return ProbeReport(started_s, self._now_s(), "stopped" if self.stopping else "done", 0, 0)

    def closed(self, order: Probe, callers: int, ends_s: float) -> None:
        """Keep ``callers`` busy until ``ends_s``, each waiting for its answer before it calls again.

        ``order`` says what a call is like; its offsets do not count. Raises as `run` does. A caller whose call failed
        rests for a moment, or a server that refuses at once would be flooded.
        """
        self._prepare(order.prompt_tokens, callers)
        busy = [gevent.spawn(self._caller, order, ends_s) for _ in range(callers)]
        while not all(caller.dead for caller in busy):
            self._wake.clear()
            self._raise_if_hopeless()
            self._wake.wait(CALLER_REST_S)
        for ended in (caller.value for caller in busy):
            if ended is not None:
                raise ended

    def idle_until(self, moment_s: float) -> None:
        """Send nothing until this moment, or until told to stop."""
        while not self.stopping and (left_s := moment_s - self._now_s()) > 0:
            self._wake.clear()
            self._wake.wait(left_s)

    def drain(self) -> None:
        """Wait until every call has ended, or until told to stop; raises as `run` does."""
        self._drain(lambda: self.launched)

    def warm(self, connections: int) -> None:
        """Open idle connections; raises TargetError where none can be had."""
        try:
            self._transport.warm(min(connections, MAX_WARM))
        except OSError as error:
            raise TargetError(f"nothing answers at {self._url}: {error.strerror or error}") from error

    def stop(self) -> None:
        """End the present probe or pacing as soon as possible."""
        self.stopping = True
        self._wake.set()

    def flush_for_ever(self) -> None:
        """Flush the ledger again and again: the body of a greenlet."""
        while True:
            gevent.sleep(FLUSH_EVERY_S)
            self._ledger.flush()

    # ------------------------------------------------------------------------------------------- waiting

    def _prepare(self, prompt_tokens: int, connections: int) -> None:
        """Open what the first burst needs and learn the size of a word, before any moment is taken."""
        if prompt_tokens >= BIG_PROMPT_TOKENS and not self._sized:
            self._sized = True
            counted = self._transport.count_tokens(self._model, self._prompts.sample())
            if counted:
                self._prompts.learn(counted)
        self.warm(connections)

    def _wait_until(self, due_s: float, reaction: Reaction) -> bool:
        """Wait for an arrival's moment; False where the probe is to stop before it."""
        while True:
            self._raise_if_over()
            self._wake.clear()
            now_s = self._now_s()
            reaction.advance(now_s)
            if self.stopping or now_s >= reaction.stop_s:
                return False
            if now_s >= due_s:
                return True
            self._wake.wait(min(due_s, reaction.wake_s()) - now_s)

    def _limiter_lets(
        self, limiter: ClientLimiter, pacing: Pacing, started_s: float, first_id: int, ends_s: float
    ) -> float:
        """Wait until the head of the queue may leave; return the moment it was due, ``inf`` where the time is up."""
        offered_s = started_s + (self._next_call_id - first_id) / pacing.offered_per_s
        due_s = math.inf
        while True:
            self._raise_if_over()
            self._wake.clear()
            now_s = self._now_s()
            allowed_s = limiter.next_moment_s(max(now_s, offered_s), self.launched)
            due_s = min(due_s, allowed_s)
            if self.stopping or now_s >= ends_s:
                return math.inf
            if allowed_s <= now_s:
                return due_s
            self._wake.wait(min(allowed_s, ends_s) - now_s)

    def _drain(self, open_calls: Callable[[], int]) -> None:
        """Wait until these calls have ended; each ends by its own timeout."""
        while open_calls() and not self.stopping:
            self._wake.clear()
            self._raise_if_hopeless()
            self._wake.wait(1.0)
        self._raise_if_hopeless()

    def _let_out(self) -> None:
        """Wait until every call that was handed out is on its way: a report must not overtake its own sends."""
        while self.launched > self._out and not self.stopping:
            gevent.sleep(LET_OUT_S)

    def _raise_if_over(self) -> None:
        """Raise where no further call may be sent."""
        self._raise_if_hopeless()
        if self._health.day_over:
            self.drain()
            raise BudgetEndedError(self._health.day_over)

    def _raise_if_hopeless(self) -> None:
        if self._health.fatal:
            raise TargetError(self._health.fatal)

    # ------------------------------------------------------------------------------------------- calling

    def _launch(self, order: Probe | Pacing, planned_s: float, reaction: Reaction | None) -> None:
        """Hand one arrival to a greenlet, unless it is dropped. Raises BudgetEndedError before the send."""
        sent = self._admit(order, planned_s)
        if sent:
            if reaction:
                reaction.sent(sent.call_id, self._now_s())
            gevent.spawn(self._call, sent, order, reaction)

    def _admit(self, order: Probe | Pacing, planned_s: float) -> Sent | None:
        """Reserve what an arrival may cost and give it a number; None where it was dropped.

        Raises BudgetEndedError where it may not be sent.
        """
        exceeded = self._health.day_over or self._spending.exceeded(
            self._now_s(), order.prompt_tokens, order.output_tokens
        )
        if exceeded:
            self.drain()  # what was sent is paid for: its answers are worth the wait
            raise BudgetEndedError(exceeded)
        call_id = self._next_call_id
        self._next_call_id += 1
        model = getattr(order, "model", "") or self._model
        if self.launched >= self._most_open:
            self._ledger.write(Dropped(call_id, order.phase, planned_s, worker=self._worker, model=model))
            return None
        self.launched += 1
        self._spending.sent(call_id, order.prompt_tokens, order.output_tokens)
        return Sent(
            call_id,
            order.phase,
            planned_s,
            math.nan,
            order.prompt_tokens,
            0,
            worker=self._worker,
            model=model,
            key_slot=getattr(order, "key_slot", 0),
        )

    def _caller(self, order: Probe, ends_s: float) -> BudgetEndedError | None:
        """Call again and again until the time is up; return what ended it before."""
        while not self.stopping and (now_s := self._now_s()) < ends_s and not self._health.fatal:
            try:
                sent = self._admit(order, now_s)
            except BudgetEndedError as error:
                return error
            if sent is None or not self._call(sent, order, None):
                gevent.sleep(CALLER_REST_S)
        return None

    def _call(self, sent: Sent, order: Probe | Pacing, reaction: Reaction | None) -> bool:
        """Make the call and record it; whether it was answered well."""
        prompt = self._prompts.make(sent.prompt_tokens)
        wanted = Order(sent.model, prompt, order.output_tokens, sent.key_slot, order.timeout_s)
        tried_s = self._now_s()
        try:
            outcome = self._transport.call(wanted, lambda moment_s: self._went_out(sent, moment_s))
        except Exception as error:  # noqa: BLE001 - a defect of a transport must not lose the call's record
            outcome = Outcome(Answer(0, "connection", f"{type(error).__name__}: {error}"), self._now_s())
        if math.isnan(sent.sent_s):
            self._went_out(sent, tried_s)  # no connection: the attempt was made then
        self._ended(sent, outcome, reaction)
        return not outcome.answer.error

    def _went_out(self, sent: Sent, moment_s: float) -> None:
        self._out += 1
        sent.sent_s = moment_s
        sent.in_flight = self._out
        self._ledger.write(sent)

    def _ended(self, sent: Sent, outcome: Outcome, reaction: Reaction | None) -> None:
        self._out -= 1
        self.launched -= 1
        answer = outcome.answer
        throttled = answer.status == 429  # noqa: PLR2004 - HTTP's own number
        self._spending.ended(sent.call_id, answer.prompt_tokens, answer.output_tokens, throttled=throttled)
        self._health.ended(outcome)
        self._ledger.write(_done(sent, outcome))
        if reaction:
            outcome_word = REFUSED if throttled else ADMITTED if answer.status == 200 else OTHER  # noqa: PLR2004
            reaction.ended(sent.call_id, outcome_word, outcome.done_s)
        self._observe(sent, outcome)
        self._wake.set()


def _burst_size(probe: Probe) -> int:
    """Most arrivals within 50 ms: as many connections must stand ready."""
    offsets = probe.offsets_s
    largest = first = 0
    for last, offset_s in enumerate(offsets):
        while offset_s - offsets[first] > 0.05:  # noqa: PLR2004 - a connect and its handshake take about this long
            first += 1
        largest = max(largest, last - first + 1)
    return largest if probe.max_in_flight is None else min(largest, probe.max_in_flight)


def _done(sent: Sent, outcome: Outcome) -> Done:
    answer = outcome.answer
    return Done(
        sent.call_id,
        outcome.done_s,
        answer.status,
        attempt=sent.attempt,
        error=answer.error,
        quota_metric=answer.quota_metric,
        quota_id=answer.quota_id,
        quota_value=_or_none(answer.quota_value),
        retry_delay_s=_or_none(answer.retry_delay_s),
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        thought_tokens=answer.thought_tokens,
        cached=answer.cached,
        server_date=_or_none(answer.server_date),
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
