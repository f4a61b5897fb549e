"""The limits of a profile applied together: all let a call in, or none counts it.

This file owns who shares a counter (the scope) and what a call costs each limit. It knows no family's insides,
no HTTP and no clock. The counters are kept in this process; `mock_server.shared` keeps them in Redis and answers
the same questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mock_server.limits import LeakyQueue, Random, TokenBucket
from mock_server.replicas import Replicas, scaled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mock_server.limits import Limiter, Spec

SCOPES = ("project", "model", "key", "region")
# What a limit can count. The held ones are given back when the call, session, job or cache ends.
HELD_METRICS = ("concurrency", "live_sessions", "batch_jobs", "enqueued_tokens", "cached_tokens")
METRICS = ("requests", "input_tokens", "images", "spend", *HELD_METRICS)
STANDARD = "standard"
_MAX_CALLERS = 10_000


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a profile: what it counts, how, and whose calls share the counter.

    ``value`` is the number that a refusal names (``quotaValue``); None where no number says it. ``models``: those
    that it applies to, all where empty. ``tier``: it applies to calls of that service tier alone. ``replicas``
    servers count apart, a share of the limit each. ``changes``: (seconds after the start, limit from then on).
    """

    metric: str
    spec: Spec
    scope: tuple[str, ...] = ("project", "model")
    quota_id: str = ""
    quota_metric: str = ""
    value: float | None = None
    models: tuple[str, ...] = ()
    tier: str = ""
    replicas: int = 1
    changes: tuple[tuple[float, float], ...] = ()


class Call(msgspec.Struct, frozen=True):
    """Who calls, and what it costs by metric. A limit whose metric is not among the costs does not apply."""

    model: str
    costs: Mapping[str, float]
    project: str = "default"
    key: str = ""
    region: str = "global"
    tier: str = STANDARD


class Violation(msgspec.Struct, frozen=True):
    """A limit that refused, and the first moment at which it would not (see `Verdict.retry_at_s`)."""

    limit: Limit
    retry_at_s: float | None


class Decision(msgspec.Struct, frozen=True):
    """What became of a call. ``violations`` is empty exactly when it was let in.

    ``delay_s``: how long an admitted call is held back. ``tier``: the one that serves it. ``held`` is for
    `Quota.release`: what the call gives back when it ends.
    """

    violations: tuple[Violation, ...] = ()
    delay_s: float = 0.0
    tier: str = STANDARD
    held: tuple[Any, ...] = ()

    @property
    def admitted(self) -> bool:
        """True where every limit let the call in."""
        return not self.violations

    @property
    def retry_at_s(self) -> float | None:
        """The moment at which all that is known to stand in the way is gone; None where nothing is known."""
        known = [v.retry_at_s for v in self.violations if v.retry_at_s is not None]
        return max(known) if known else None


class Counter(NamedTuple):
    """A limit and the state that counts for it."""

    limit: Limit
    state: Limiter
    metric: str
    held: bool


class Quota:
    """The counters of all limits, made when first needed, one for each scope that calls.

    ``seed`` feeds the families that draw; each counter gets a stream of its own. ``start_s`` is the moment from
    which scheduled changes count.
    """

    def __init__(self, limits: Sequence[Limit], seed: int = 0, start_s: float = 0.0) -> None:
        self.limits = tuple(limits)
        self._seed = seed
        self._counters: dict[tuple[object, ...], Counter] = {}
        self._callers: dict[tuple[str, ...], tuple[Counter, ...]] = {}
        self._changes = sorted(
            (start_s + after_s, place, value)
            for place, limit in enumerate(self.limits)
            for after_s, value in limit.changes
        )

    def decide(self, now_s: float, call: Call) -> Decision:
        """Ask every limit that applies; let the call in where all agree, else tell each that it was refused.

        A call of the priority tier that only priority's own limits stand against is served as standard.
        """
        while self._changes and self._changes[0][0] <= now_s:
            _, place, value = self._changes.pop(0)
            self.change(now_s, place, value)
        asked: list[tuple[Limiter, float, bool]] = []
        violations: list[Violation] = []
        delay_s = 0.0
        for limit, state, metric, held in self._for(call):
            cost = call.costs.get(metric)
            if cost is None:
                continue
            asked.append((state, cost, held))
            verdict = state.check(now_s, cost)
            if not verdict.admitted:
                violations.append(Violation(limit, verdict.retry_at_s))
            elif verdict.delay_s > delay_s:
                delay_s = verdict.delay_s
        if violations:
            return self._refuse(now_s, call, asked, violations)
        for state, cost, _ in asked:
            state.commit(now_s, cost)
        return Decision((), delay_s, call.tier, tuple([(state, cost) for state, cost, held in asked if held]))

    def _refuse(
        self, now_s: float, call: Call, asked: list[tuple[Limiter, float, bool]], violations: list[Violation]
    ) -> Decision:
        if call.tier != STANDARD and all(violation.limit.tier for violation in violations):
            return self.decide(now_s, msgspec.structs.replace(call, tier=STANDARD))
        for state, cost, _ in asked:
            state.refused(now_s, cost)
        return Decision(tuple(violations))

    def release(self, now_s: float, decision: Decision) -> None:
        """Give back what an admitted call held; call it once, when the call has ended."""
        for state, cost in decision.held:
            state.release(now_s, cost)

    def charge(self, now_s: float, call: Call, metric: str, cost: float) -> None:
        """Count a cost that is known only after the call: nobody is asked."""
        for counter in self._for(call):
            if counter.metric == metric:
                counter.state.commit(now_s, cost)

    def change(self, now_s: float, place: int, value: float) -> None:
        """Give a running limit another number; what was spent stays spent. Raises `ValueError` where it cannot."""
        limit = self.limits[place]
        changed = replace(limit, spec=with_value(limit, value), value=value)
        self.limits = (*self.limits[:place], changed, *self.limits[place + 1 :])
        self._callers.clear()
        for key, counter in self._counters.items():
            if key[0] == place:
                if isinstance(limit.spec, TokenBucket | LeakyQueue):
                    counter.state.commit(now_s, 0)  # it drains at the old rate up to now
                counter.state.spec = changed.spec  # type: ignore[attr-defined]  # every state keeps its spec so
                self._counters[key] = counter._replace(limit=changed)

    def reset(self) -> None:
        """Forget everything that was counted; calls under way give nothing back."""
        self._callers.clear()
        self._counters.clear()

    def counters(self) -> Iterable[tuple[tuple[object, ...], Counter]]:
        """Return ((place of the limit, who by scope…), counter) for all that were needed so far."""
        return self._counters.items()

    def _for(self, call: Call) -> tuple[Counter, ...]:
        """Return the counters that a caller meets, whatever the call costs."""
        caller = (call.project, call.model, call.key, call.region, call.tier)
        found = self._callers.get(caller)
        if found is None:
            if len(self._callers) >= _MAX_CALLERS:
                self._callers.clear()  # a memory of look-ups, nothing is counted in it
            found = self._callers[caller] = tuple(
                self._counter(place, limit, call) for place, limit in enumerate(self.limits) if applies(limit, call)
            )
        return found

    def _counter(self, place: int, limit: Limit, call: Call) -> Counter:
        key = (place, *(getattr(call, name) for name in limit.scope))
        counter = self._counters.get(key)
        if counter is None:
            seed = self._seed + len(self._counters)
            counter = self._counters[key] = Counter(
                limit, _state(limit, seed), limit.metric, limit.metric in HELD_METRICS
            )
        return counter


def retry_after_s(now_s: float, decision: Decision) -> float | None:
    """Return how long a refused call should wait, in seconds; None where unknown or never."""
    moment = decision.retry_at_s
    return None if moment is None or math.isinf(moment) else max(0.0, moment - now_s)


def with_value(limit: Limit, value: float) -> Spec:
    """Return the limit's spec with another number; a bucket's rate and burst go up and down together."""
    spec = limit.spec
    if isinstance(spec, Random):
        return Random(value)
    if not isinstance(spec, TokenBucket | LeakyQueue):
        return replace(spec, limit=value)  # type: ignore[type-var]  # each spec is a frozen dataclass
    if not limit.value:
        raise ValueError("a bucket whose limit is 0 cannot be changed while it runs")
    return scaled(spec, value / limit.value)


def _state(limit: Limit, seed: int) -> Limiter:
    return limit.spec.limiter(seed) if limit.replicas == 1 else Replicas(limit.spec, limit.replicas, seed)


def applies(limit: Limit, call: Call) -> bool:
    """Return whether a limit is for calls like this one, whatever it costs."""
    return (not limit.models or call.model in limit.models) and (not limit.tier or limit.tier == call.tier)
