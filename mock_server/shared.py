"""Counters shared by several processes: Redis holds them, one Lua script decides about all limits of a call.

The same questions as `mock_server.quota.Quota`, asked across a socket. The script says yes or no and hands back the
states it saw; when a refused call may come again is then computed here, by the families' own definitions. Draws
(random refusals, which replica a call reaches) are made in the process that asks.
"""

from __future__ import annotations

import random
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from mock_server.limits import FixedWindow, LeakyQueue, Random, SlidingCounter, SlidingLog, TokenBucket
from mock_server.limits.contract import NEVER, UNKNOWABLE, Verdict
from mock_server.quota import HELD_METRICS, STANDARD, Decision, Limit, Violation, applies, with_value
from mock_server.replicas import scaled
from mock_server.store import StoreLostError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mock_server.limits import Spec
    from mock_server.quota import Call

_TIMEOUT_S = 1.0
_KEY_LIFE_S = 2 * 86_400
_STATE = ("last", "start", "end", "used", "prev", "level_at")


class SharedQuota:
    """The counters of all limits in Redis, under ``prefix``; ``worker`` names this process among its siblings."""

    def __init__(
        self, redis: Redis, limits: Sequence[Limit], *, prefix: str, worker: str, seed: int = 0, start_s: float = 0.0
    ) -> None:
        self.limits = tuple(limits)
        self._redis = redis
        self._prefix = prefix
        self._worker = worker
        self._rng = random.Random(f"{seed} {worker}")  # noqa: S311 - a simulation, not a secret
        self._script = redis.register_script(lua_source())
        self._changes = sorted(
            (start_s + after_s, place, value)
            for place, limit in enumerate(self.limits)
            for after_s, value in limit.changes
        )

    async def decide(self, now_s: float, call: Call) -> Decision:
        """Ask every limit that applies, all in one round trip. Raises `StoreLostError`."""
        while self._changes and self._changes[0][0] <= now_s:
            _, place, value = self._changes.pop(0)
            self.change(place, value)
        asked = self._asked(call)
        by_chance = [limit for _, limit in asked if isinstance(limit.spec, Random) and self._refuses(limit.spec)]
        counted = [(key, limit) for key, limit in asked if not isinstance(limit.spec, Random)]
        admitted, told = await self._run(now_s, counted, call.costs, forced=bool(by_chance))
        violations = [Violation(limit, None) for limit in by_chance]
        delay_s = 0.0
        for (_, limit), (passes, *state) in zip(counted, told, strict=True):
            verdict = verdict_of(limit.spec, now_s, call.costs[limit.metric], bool(passes), state)
            if not verdict.admitted:
                violations.append(Violation(limit, verdict.retry_at_s))
            delay_s = max(delay_s, verdict.delay_s)
        if not admitted:
            if call.tier != STANDARD and all(violation.limit.tier for violation in violations):
                return await self.decide(now_s, msgspec.structs.replace(call, tier=STANDARD))
            return Decision(tuple(violations))
        held = tuple((key, call.costs[limit.metric]) for key, limit in counted if limit.metric in HELD_METRICS)
        return Decision((), delay_s, call.tier, held)

    async def release(self, decision: Decision) -> None:
        """Give back what an admitted call held. Raises `StoreLostError`."""
        for key, cost in decision.held:
            await self._ask(self._redis.hincrbyfloat(key, self._worker, -cost))

    async def charge(self, now_s: float, call: Call, metric: str, cost: float) -> None:
        """Count a cost that is known only after the call: nobody is asked. Raises `StoreLostError`."""
        due = msgspec.structs.replace(call, costs={metric: cost})
        await self._run(now_s, self._asked(due), due.costs, forced=False, asks=False)

    def change(self, place: int, value: float) -> None:
        """Give a limit another number in this process; each sibling does the same. Raises `ValueError`."""
        limit = self.limits[place]
        changed = replace(limit, spec=with_value(limit, value), value=value)
        self.limits = (*self.limits[:place], changed, *self.limits[place + 1 :])

    async def forget(self) -> None:
        """Delete every counter. Raises `StoreLostError`."""
        keys = await self._ask(self._redis.keys(f"{self._prefix}:*"))
        if keys:
            await self._ask(self._redis.delete(*keys))

    async def close(self) -> None:
        """Let the connections go."""
        await self._redis.aclose()

    def _asked(self, call: Call) -> list[tuple[str, Limit]]:
        """Return (key, limit) of each counter that the call meets; of replicas, the one that it reaches."""
        found = []
        for place, limit in enumerate(self.limits):
            if limit.metric not in call.costs or not applies(limit, call):
                continue
            key = ":".join([self._prefix, str(place), *(getattr(call, name) for name in limit.scope)])
            if limit.replicas > 1:
                key = f"{key}:{self._rng.randrange(limit.replicas)}"
                found.append((key, replace(limit, spec=scaled(limit.spec, 1 / limit.replicas))))
            else:
                found.append((key, limit))
        return found

    def _refuses(self, spec: Random) -> bool:
        return self._rng.random() < spec.probability

    async def _run(
        self,
        now_s: float,
        asked: list[tuple[str, Limit]],
        costs: Mapping[str, float],
        *,
        forced: bool,
        asks: bool = True,
    ) -> tuple[bool, list[list[Any]]]:
        if not asked:
            return not forced, []
        words: list[str] = [repr(now_s), str(int(forced)), str(_KEY_LIFE_S), self._worker]
        for _, limit in asked:
            words += arguments(limit.spec, now_s, costs[limit.metric], asks=asks)
        admitted, *told = await self._ask(self._script(keys=[key for key, _ in asked], args=words))
        return bool(admitted), told

    async def _ask(self, answer: Any) -> Any:  # noqa: ANN401 - whatever redis-py promises
        try:
            return await answer
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreLostError(str(error)) from None


def lua_source() -> str:
    """Return the script."""
    return (resources.files("mock_server") / "limits.lua").read_text(encoding="utf-8")


def connect(url: str) -> Redis:
    """Return a client that gives up on a call after a second. Raises `ValueError` for a URL that is none."""
    return Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)


def arguments(spec: Spec, now_s: float, cost: float, *, asks: bool = True) -> list[str]:
    """Return what the script takes for one limit."""
    start_s = end_s = 0.0
    if isinstance(spec, TokenBucket | LeakyQueue):
        first, second = spec.burst, spec.rate_per_s
    else:
        first, second = getattr(spec, "limit", 0.0), getattr(spec, "window_s", 0.0)
    if isinstance(spec, FixedWindow):
        start_s, end_s = spec.bounds_s(now_s)
    elif isinstance(spec, SlidingCounter):
        start_s, end_s = FixedWindow(spec.limit, spec.window_s, spec.phase_s).bounds_s(now_s)
    numbers = [repr(float(number)) for number in (cost, first, second, start_s, end_s)]
    counts = str(int(getattr(spec, "count_refused", False)))
    return [spec.family, *numbers, counts, str(int(asks))]


def verdict_of(spec: Spec, now_s: float, cost: float, passes: bool, told: Sequence[bytes]) -> Verdict:  # noqa: FBT001 - the script's word
    """Return the verdict that belongs to the state that the script saw."""
    *fields, leaves = (float(word) if word else None for word in told)
    if isinstance(spec, SlidingLog):
        return Verdict(passes) if passes else NEVER if leaves is None else Verdict(False, leaves)  # noqa: FBT003 - the field is its name
    if spec.family == "concurrency":
        return Verdict(passes) if passes else NEVER if cost > getattr(spec, "limit", 0) else UNKNOWABLE
    if passes and not isinstance(spec, LeakyQueue):
        return Verdict(admitted=True)
    state: Any = spec.limiter()
    state.restore({name: value for name, value in zip(_STATE, fields, strict=True) if value is not None})
    verdict: Verdict = state.check(now_s, cost)
    return verdict
