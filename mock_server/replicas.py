"""Several servers that count apart: each holds a share of the limit, and a call reaches one of them by chance.

The sum is right on average and wrong at any moment, as with any quota that is kept in more than one place.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from mock_server.limits import LeakyQueue, TokenBucket

if TYPE_CHECKING:
    from mock_server.limits import Limiter, Spec, Verdict


def scaled(spec: Spec, factor: float) -> Spec:
    """Return the spec of a limit ``factor`` times as large; windows stay as long as they are."""
    if isinstance(spec, TokenBucket | LeakyQueue):
        return replace(spec, rate_per_s=spec.rate_per_s * factor, burst=spec.burst * factor)
    return replace(spec, limit=spec.limit * factor)  # type: ignore[type-var, attr-defined]  # windows have a limit


class Replicas:
    """A limiter made of ``count`` limiters. Which one the next call reaches is drawn ahead, so asking is free."""

    def __init__(self, spec: Spec, count: int, seed: int = 0) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - a simulation, not a secret
        self._spec = spec
        self._parts: list[Limiter] = [scaled(spec, 1 / count).limiter(seed) for _ in range(count)]
        self._next = self._rng.randrange(count)

    @property
    def spec(self) -> Spec:
        """The limit as a whole."""
        return self._spec

    @spec.setter
    def spec(self, spec: Spec) -> None:
        self._spec = spec
        for part in self._parts:
            part.spec = scaled(spec, 1 / len(self._parts))  # type: ignore[attr-defined]  # every state keeps its spec so

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        """Ask the server that the call would reach."""
        return self._parts[self._next].check(now_s, cost)

    def commit(self, now_s: float, cost: float = 1) -> None:
        """Count where the call went."""
        self._parts[self._next].commit(now_s, cost)
        self._next = self._rng.randrange(len(self._parts))

    def refused(self, now_s: float, cost: float = 1) -> None:
        """Tell the server that turned the call away."""
        self._parts[self._next].refused(now_s, cost)
        self._next = self._rng.randrange(len(self._parts))

    def used(self, now_s: float) -> float:
        """Return what all servers together have counted."""
        return sum(part.used(now_s) for part in self._parts)

    def release(self, now_s: float, cost: float = 1) -> None:
        """Nothing is held by what counts apart: calls in flight are counted in one place."""
        del now_s, cost
