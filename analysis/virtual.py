"""A target in virtual time: a server with limits, a service time and a network, on one event queue.

The file owns what happens between a call's sending and its answer: the way there, the decision in the order of
arrival, the work, the way back. It knows no probe and no client limiter (`redline.simulated` sends), reads no
clock and draws only from the generator that it is given. The limits are those of `mock_server.limits`: the same
state machines that the mock serves and the inference replays.

Time is the client's clock, seconds since the run's start. The server has a clock of its own (``ServerClock``),
on which its windows are aligned and from which the ``Date`` header is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from mock_server.limits import ADMITTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from mock_server.limits import Limiter, Spec, Verdict

_BLOCK = 1024  # draws made at once: numpy's cost per call is spread over them
_ARRIVAL, _ANSWER, _RELEASE, _BACKGROUND, _CHANGE = range(5)


@dataclass(frozen=True, slots=True)
class VirtualLimit:
    """One limit of the target, as the server holds it.

    ``metric``: requests, input_tokens or concurrency. ``replicas`` servers count apart, each by ``spec``; a call
    reaches one of them at random. ``used`` is spent before the run starts. ``changes``: (moment, new spec of the
    same family and window), applied to the state as it is then. A 429 names ``quota_id`` unless it is empty.
    """

    metric: str
    spec: Spec
    replicas: int = 1
    used: float = 0.0
    changes: tuple[tuple[float, Spec], ...] = ()
    quota_id: str = ""
    quota_value: float = math.nan


@dataclass(frozen=True, slots=True)
class Network:
    """One way: ``minimum_s`` plus ``spread_s`` times a Beta(``alpha``, ``beta``) draw, so never above the sum."""

    minimum_s: float = 0.01
    spread_s: float = 0.0
    alpha: float = 1.0
    beta: float = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """How long an admitted call takes: lognormal, then a pace for each output token."""

    median_s: float = 0.5
    sigma: float = 0.3
    per_token_s: float = 0.0

    @property
    def mean_s(self) -> float:
        """E[L] of a call with no output tokens."""
        return self.median_s * math.exp(self.sigma**2 / 2)


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities of a 503, and of no answer at all (the client times out while the server works on).

    A 503 comes after admission, so it has spent quota and took part of the service time; with
    ``before_admission`` it comes at once and spends nothing.
    """

    overloaded: float = 0.0
    hang: float = 0.0
    before_admission: bool = False


@dataclass(frozen=True, slots=True)
class Background:
    """Other clients of the same quota: groups of ``group`` calls at once, the groups a Poisson stream."""

    calls_per_s: float
    group: int = 1
    tokens: float = 1.0


@dataclass(frozen=True, slots=True)
class ServerClock:
    """The server reads ``epoch_s`` at the run's start and gains ``drift`` seconds a second."""

    epoch_s: float = 1_750_000_000.0
    drift: float = 0.0


@dataclass(frozen=True, slots=True)
class World:
    """Everything about a target that the client cannot see."""

    limits: tuple[VirtualLimit, ...]
    network: Network = field(default_factory=Network)
    service: Service = field(default_factory=Service)
    faults: Faults = field(default_factory=Faults)
    background: Background | None = None
    clock: ServerClock = field(default_factory=ServerClock)


class Call(NamedTuple):
    """What the client hands over. ``tag`` comes back with the answer; ``deadline_s``: it waits no longer."""

    tag: int
    deadline_s: float
    prompt_tokens: float = 1.0
    output_tokens: int = 1


class Answer(NamedTuple):
    """What the client sees at ``done_s``. ``status`` 0: no answer. ``limit``: the one that a 429 names."""

    done_s: float
    tag: int
    status: int
    error: str
    server_date: float = math.nan
    limit: VirtualLimit | None = None
    retry_delay_s: float = math.nan
    output_tokens: int = 0


class _Counter(NamedTuple):
    """A limiter's state with what the hot loop needs of it."""

    limit: VirtualLimit
    state: Limiter
    by_tokens: bool


def _stream(draw: Callable[[int], np.ndarray]) -> Iterator[float]:
    while True:
        yield from draw(_BLOCK).tolist()


class VirtualTarget:
    """Takes calls in the order of sending and gives answers in the order in which they reach the client."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        """Set the scene; all randomness comes from ``rng``."""
        self.world = world
        self._events: list[tuple[float, int, int, object]] = []
        self._seq = 0
        network, service = world.network, world.service
        self._minimum_s, self._spread_s = network.minimum_s, network.spread_s
        self._jitter = _stream(lambda n: rng.beta(network.alpha, network.beta, n))
        self._work = _stream(lambda n: service.median_s * rng.lognormal(0.0, service.sigma, n))
        self._uniform = _stream(rng.random)
        self._gaps = _stream(rng.standard_exponential)
        self._epoch_s, self._pace = world.clock.epoch_s, 1.0 + world.clock.drift
        self._faulty = world.faults.overloaded > 0.0 or world.faults.hang > 0.0
        self._replicas = _counters(world.limits, self._epoch_s, rng)
        self._holding = [c for c in self._replicas[0] if c.limit.metric == "concurrency"]
        for limit in world.limits:
            for moment_s, spec in limit.changes:
                self._push(moment_s, _CHANGE, (limit, spec))
        if world.background:
            self._push(self._next_background_s(0.0), _BACKGROUND, world.background)

    def send(self, call: Call, sent_s: float) -> None:
        """Put a call on its way. ``sent_s`` must not lie before a moment that `step` has passed."""
        arrival_s = sent_s + self._minimum_s + self._spread_s * next(self._jitter)
        self._seq += 1
        heappush(self._events, (arrival_s, self._seq, _ARRIVAL, call))

    def step(self, until_s: float) -> Answer | None:
        """Let time pass up to ``until_s``, but stop at the next answer and return it; None if there is none."""
        events = self._events
        while events and events[0][0] <= until_s:
            when_s, _, kind, payload = heappop(events)
            if kind == _ANSWER:
                return payload  # type: ignore[return-value]
            if kind == _ARRIVAL:
                self._arrive(when_s, payload)  # type: ignore[arg-type]
            elif kind == _RELEASE:
                for counter in self._holding:
                    counter.state.release(self._server_s(when_s))
            elif kind == _BACKGROUND:
                self._background(when_s, payload)  # type: ignore[arg-type]
            else:
                self._change(when_s, *payload)  # type: ignore[misc]
        return None

    def _push(self, when_s: float, kind: int, payload: object) -> None:
        self._seq += 1
        heappush(self._events, (when_s, self._seq, kind, payload))

    def _server_s(self, when_s: float) -> float:
        return self._epoch_s + when_s * self._pace

    def _arrive(self, when_s: float, call: Call) -> None:
        faults = self.world.faults
        failed = self._faulty and next(self._uniform) < faults.overloaded
        if failed and faults.before_admission:
            self._answer(when_s, call, 503, "overloaded")
            return
        server_s = self._epoch_s + when_s * self._pace
        counter, verdict = self._decide(server_s, call.prompt_tokens)
        if counter is not None:
            self._refuse(when_s, call, counter, verdict)
            return
        work_s = next(self._work) + self.world.service.per_token_s * call.output_tokens
        if failed:
            work_s *= next(self._uniform)
        end_s = when_s + verdict.delay_s + work_s
        if self._holding:
            self._push(end_s, _RELEASE, None)
        if failed:
            self._answer(end_s, call, 503, "overloaded")
        elif self._faulty and next(self._uniform) < faults.hang:
            self._push(max(call.deadline_s, when_s), _ANSWER, Answer(call.deadline_s, call.tag, 0, "timeout"))
        else:
            self._answer(end_s, call, 200, "")

    def _decide(self, server_s: float, tokens: float) -> tuple[_Counter | None, Verdict]:
        """Ask all limits and tell them: all commit, or all hear of the refusal. Returns the one that refused."""
        replicas = self._replicas
        counters = replicas[0] if len(replicas) == 1 else replicas[int(next(self._uniform) * len(replicas))]
        delayed = ADMITTED
        for counter in counters:
            verdict = counter.state.check(server_s, tokens if counter.by_tokens else 1.0)
            if not verdict.admitted:
                for other in counters:
                    other.state.refused(server_s, tokens if other.by_tokens else 1.0)
                return counter, verdict
            if verdict.delay_s >= delayed.delay_s:
                delayed = verdict
        for counter in counters:
            counter.state.commit(server_s, tokens if counter.by_tokens else 1.0)
        return None, delayed

    def _refuse(self, when_s: float, call: Call, counter: _Counter, verdict: Verdict) -> None:
        limit = counter.limit
        if not limit.quota_id:
            self._answer(when_s, call, 429, "throttled")
            return
        known = verdict.retry_at_s is not None and math.isfinite(verdict.retry_at_s)
        delay_s = float(math.floor((verdict.retry_at_s or 0.0) - self._server_s(when_s))) if known else math.nan
        error = "daily_quota" if "PerDay" in limit.quota_id else "throttled"
        self._answer(when_s, call, 429, error, limit, delay_s)

    def _answer(
        self,
        end_s: float,
        call: Call,
        status: int,
        error: str,
        limit: VirtualLimit | None = None,
        retry_delay_s: float = math.nan,
    ) -> None:
        """Send the answer back; the client stops waiting at its deadline."""
        done_s = end_s + self._minimum_s + self._spread_s * next(self._jitter)
        if done_s > call.deadline_s:
            answer = Answer(call.deadline_s, call.tag, 0, "timeout")
            done_s = max(call.deadline_s, min(end_s, done_s))
        else:
            date = float(math.floor(self._epoch_s + end_s * self._pace))
            tokens = call.output_tokens if status == 200 else 0  # noqa: PLR2004 - HTTP's own number
            answer = Answer(done_s, call.tag, status, error, date, limit, retry_delay_s, tokens)
        self._seq += 1
        heappush(self._events, (done_s, self._seq, _ANSWER, answer))

    def _background(self, when_s: float, background: Background) -> None:
        server_s = self._server_s(when_s)
        for _ in range(background.group):
            counter, _verdict = self._decide(server_s, background.tokens)
            if counter is None and self._holding:
                self._push(when_s + next(self._work), _RELEASE, None)
        self._push(self._next_background_s(when_s), _BACKGROUND, background)

    def _next_background_s(self, when_s: float) -> float:
        background = self.world.background
        if background is None or background.calls_per_s <= 0.0:
            return math.inf
        return when_s + next(self._gaps) * background.group / background.calls_per_s

    def _change(self, when_s: float, limit: VirtualLimit, spec: Spec) -> None:
        for counters in self._replicas:
            for counter in counters:
                if counter.limit is limit:
                    _swap(counter.state, spec, self._server_s(when_s))


def _counters(limits: tuple[VirtualLimit, ...], epoch_s: float, rng: np.random.Generator) -> list[list[_Counter]]:
    """Make the state: one list of counters a replica; limits that do not count apart share theirs."""
    count = max((limit.replicas for limit in limits), default=1)
    replicas: list[list[_Counter]] = [[] for _ in range(count)]
    for limit in limits:
        shared: _Counter | None = None
        for counters in replicas:
            if shared is None or limit.replicas > 1:
                state = limit.spec.limiter(seed=int(rng.integers(2**31)))
                if limit.used:
                    state.commit(epoch_s, limit.used)
                shared = _Counter(limit, state, limit.metric == "input_tokens")
            counters.append(shared)
    return replicas


def _swap(state: Limiter, spec: Spec, server_s: float) -> None:
    """Give a running limiter new parameters: what was spent stays spent."""
    if spec.family in {"token_bucket", "leaky_queue"}:
        state.commit(server_s, 0.0)  # drain at the old rate up to now
    state.spec = spec  # type: ignore[attr-defined]  # every state keeps its parameters under this name
