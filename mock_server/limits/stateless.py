"""Limits that no window explains: calls in flight, and refusals by chance."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from mock_server.limits.contract import ADMITTED, NEVER, UNKNOWABLE, Limiter, State, Verdict, require


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most ``limit`` calls in flight at once."""

    family: ClassVar[str] = "concurrency"
    limit: float

    def __post_init__(self) -> None:
        require("limit", self.limit, minimum=0)

    def limiter(self, seed: int = 0) -> Limiter:
        """Make fresh state."""
        del seed
        return _ConcurrencyState(self)


class _ConcurrencyState(State):
    __slots__ = ("_in_flight", "spec")

    def __init__(self, spec: Concurrency) -> None:
        super().__init__()
        self.spec = spec
        self._in_flight = 0.0

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        del now_s
        if self._in_flight + cost <= self.spec.limit:
            return ADMITTED
        return NEVER if cost > self.spec.limit else UNKNOWABLE

    def commit(self, now_s: float, cost: float = 1) -> None:
        del now_s
        self._in_flight += cost

    def used(self, now_s: float) -> float:
        del now_s
        return self._in_flight

    def release(self, now_s: float, cost: float = 1) -> None:
        del now_s
        self._in_flight = max(0.0, self._in_flight - cost)


@dataclass(frozen=True, slots=True)
class Random:
    """Refuses with a fixed probability, whatever the traffic: capacity that depends on no quota of ours."""

    family: ClassVar[str] = "random"
    probability: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability must be from 0 to 1, not {self.probability!r}")

    def limiter(self, seed: int = 0) -> Limiter:
        """Make fresh state with its own random stream."""
        return _RandomState(self, random.Random(seed))  # noqa: S311 - a simulation, not a secret


class _RandomState(State):
    """Holds the next draw, so that asking twice gives the same answer."""

    __slots__ = ("_draw", "_rng", "spec")

    def __init__(self, spec: Random, rng: random.Random) -> None:
        super().__init__()
        self.spec = spec
        self._rng = rng
        self._draw = rng.random()

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        del now_s, cost
        return ADMITTED if self._draw >= self.spec.probability else UNKNOWABLE

    def commit(self, now_s: float, cost: float = 1) -> None:
        del now_s, cost
        self._draw = self._rng.random()

    def used(self, now_s: float) -> float:
        del now_s
        return 0.0

    def refused(self, now_s: float, cost: float = 1) -> None:
        self.commit(now_s, cost)
