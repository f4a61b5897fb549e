"""Levels that drain at a rate: the token bucket (refuses) and the leaky queue (answers late)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mock_server.limits.contract import ADMITTED, NEVER, Limiter, State, Verdict, first_moment, require


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """A bucket of ``burst`` that refills at ``rate_per_s`` (GCRA decides alike)."""

    family: ClassVar[str] = "token_bucket"
    rate_per_s: float
    burst: float
    count_refused: bool = False

    def __post_init__(self) -> None:
        require("rate_per_s", self.rate_per_s, minimum=0, exclusive=True)
        require("burst", self.burst, minimum=0)

    def limiter(self, seed: int = 0) -> Limiter:
        """Make fresh state."""
        del seed
        return _BucketState(self, delays=False)


@dataclass(frozen=True, slots=True)
class LeakyQueue:
    """Calls leave at ``rate_per_s``; up to ``burst`` may wait, each answered late; more are refused."""

    family: ClassVar[str] = "leaky_queue"
    rate_per_s: float
    burst: float
    count_refused: bool = False

    def __post_init__(self) -> None:
        require("rate_per_s", self.rate_per_s, minimum=0, exclusive=True)
        require("burst", self.burst, minimum=0)

    def limiter(self, seed: int = 0) -> Limiter:
        """Make fresh state."""
        del seed
        return _BucketState(self, delays=True)


class _BucketState(State):
    """The water level: it rises by each call's cost and drains at the rate."""

    __slots__ = ("_delays", "_level_at_s", "_used", "spec")

    def __init__(self, spec: TokenBucket | LeakyQueue, *, delays: bool) -> None:
        super().__init__()
        self.spec = spec
        self._delays = delays
        self._used = 0.0
        self._level_at_s = 0.0

    def _level_now(self, now_s: float) -> float:
        return max(0.0, self._used - self.spec.rate_per_s * (now_s - self._level_at_s)) if self._used else 0.0

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        now_s = self._at(now_s)
        spec = self.spec
        level = self._level_now(now_s)
        if level + cost <= spec.burst:
            return Verdict(admitted=True, delay_s=level / spec.rate_per_s) if self._delays else ADMITTED
        if cost > spec.burst:
            return NEVER
        moment = now_s + (level + cost - spec.burst) / spec.rate_per_s
        return Verdict(
            admitted=False,
            retry_at_s=first_moment(moment, lambda t: t > now_s and self._level_now(t) + cost <= spec.burst),
        )

    def commit(self, now_s: float, cost: float = 1) -> None:
        now_s = self._last_s = self._at(now_s)
        self._used = self._level_now(now_s) + cost
        self._level_at_s = now_s

    def used(self, now_s: float) -> float:
        return self._level_now(self._at(now_s))

    def refused(self, now_s: float, cost: float = 1) -> None:
        if self.spec.count_refused:
            self.commit(now_s, cost)
