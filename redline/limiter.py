"""The client-side limiter that the settings describe: it says when the next call may leave.

Pure: the caller passes the time and the number of calls in flight. It sleeps nowhere, sends nothing and knows
no server. The Locust sender, the simulator and the verification all drive this one class, so what was verified
is what is recommended.

The promise: in any interval of length x (both ends included) at most ``floor(burst + rate_per_s * x)`` calls
leave, and calls with at most ``token_burst + tokens_per_s * x`` input tokens; never more than
``max_concurrency`` are in flight. Nothing is held back beyond that. The bucket is kept in GCRA's form (ITU-T
I.371, virtual scheduling): one moment in time instead of a level, so nothing accumulates while it idles.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redline.traffic import Pacing


class ClientLimiter:
    """A token bucket for calls, one for input tokens and a semaphore, made from a `Pacing`; starts rested.

    Ask `next_moment_s`, wait until then, send, and say so with `sent`. A clock that steps back is treated as
    standing still. Raises `ValueError` where a burst is too small to ever let a call pass.
    """

    __slots__ = ("_buckets", "_max_concurrency")

    def __init__(self, pacing: Pacing) -> None:
        self._max_concurrency = pacing.max_concurrency
        self._buckets: list[tuple[_Bucket, float]] = []
        if pacing.rate_per_s is not None:
            self._buckets.append((_Bucket("burst", pacing.rate_per_s, pacing.burst, cost=1.0), 1.0))
        if pacing.tokens_per_s is not None:
            cost = float(pacing.prompt_tokens)
            burst = cost if pacing.token_burst is None else pacing.token_burst
            self._buckets.append((_Bucket("token_burst", pacing.tokens_per_s, burst, cost=cost), cost))

    def next_moment_s(self, now_s: float, in_flight: int) -> float:
        """Return the earliest moment, not before ``now_s``, at which the next call may leave.

        ``inf`` while the semaphore is full (ask again when a call ends) and where a rate is zero. Changes
        nothing: asking twice gives the same answer.
        """
        if self._max_concurrency is not None and in_flight >= self._max_concurrency:
            return math.inf
        return max((now_s, *(bucket.earliest_s(cost) for bucket, cost in self._buckets)))

    def sent(self, now_s: float) -> None:
        """Record that a call left at ``now_s``. One that left too early is charged all the same."""
        for bucket, cost in self._buckets:
            bucket.take(now_s, cost)


class _Bucket:
    """GCRA: ``_full_at_s`` is when the bucket would be full again if nothing more were taken."""

    __slots__ = ("_burst", "_full_at_s", "_rate_per_s")

    def __init__(self, name: str, rate_per_s: float, burst: float, *, cost: float) -> None:
        if not rate_per_s >= 0:
            raise ValueError(f"the limiter's rate must be at least 0, not {rate_per_s!r}")
        if not burst >= cost:
            raise ValueError(f"{name} must be at least {cost:g}, the cost of one call, not {burst!r}")
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._full_at_s = -math.inf

    def earliest_s(self, cost: float) -> float:
        """Return when ``cost`` will be there; may lie in the past."""
        if self._rate_per_s == 0.0:
            return math.inf
        return self._full_at_s - (self._burst - cost) / self._rate_per_s

    def take(self, now_s: float, cost: float) -> None:
        """Take ``cost`` at ``now_s``."""
        if self._rate_per_s > 0.0:
            self._full_at_s = max(now_s, self._full_at_s) + cost / self._rate_per_s
