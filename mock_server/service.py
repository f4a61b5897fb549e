"""How long an answer takes, how long it is, and what goes wrong on the way: values out, nothing waits here.

Randomness comes in as a generator; time comes in as an argument. The server waits for what this file says, the
simulator puts it on its event queue. It knows no quota and no HTTP.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lognormal time to the first token, then a steady pace.

    ``first_token_s`` is the median and ``sigma`` the standard deviation of its logarithm. ``slots`` above 0:
    calls queue for that many servers, first come first served, so that latency grows with load.
    """

    first_token_s: float = 0.35
    sigma: float = 0.4
    per_token_s: float = 0.004
    slots: int = 0

    def __post_init__(self) -> None:
        for name in ("first_token_s", "sigma", "per_token_s", "slots"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be at least 0, not {value!r}")


class Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The share of admitted calls that end badly, by kind; together at most 1.

    Those with a number answer with that status (``overloaded_503_old`` in the text of early 2026). ``reset`` closes
    the connection without an answer, ``hang`` never answers. ``malformed`` answers 200 with half a JSON document,
    ``cut`` breaks off in the middle (a stream after its first event), ``blocked`` answers 200 without candidates.
    A faulty call has used up its quota all the same (billing FAQ: 400 and 500 count).
    """

    overloaded_503: float = 0.0
    internal_500: float = 0.0
    deadline_504: float = 0.0
    reset: float = 0.0
    hang: float = 0.0
    malformed: float = 0.0
    cut: float = 0.0
    overloaded_503_old: float = 0.0
    cancelled_499: float = 0.0
    blocked: float = 0.0

    def __post_init__(self) -> None:
        for name, share in self.shares():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must be a probability from 0 to 1, not {share!r}")
        if sum(share for _, share in self.shares()) > 1.0:
            raise ValueError("the faults' probabilities must not add up to more than 1")

    def shares(self) -> list[tuple[str, float]]:
        """Return (kind, probability) in the order of the fields."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__]


class Outage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fault on a schedule: a ``share`` of the calls from ``after_s`` on, for ``for_s`` seconds.

    It comes again every ``every_s`` seconds where that is above 0. The start of the server is moment 0.
    """

    fault: str
    after_s: float = 0.0
    for_s: float = math.inf
    every_s: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.fault not in Faults.__struct_fields__:
            raise ValueError(f"fault must be one of {', '.join(Faults.__struct_fields__)}, not {self.fault!r}")
        for name in ("after_s", "for_s", "every_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)!r}")
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share must be a probability from 0 to 1, not {self.share!r}")

    def covers(self, since_start_s: float) -> bool:
        """Return whether the outage is on at this moment."""
        into_s = since_start_s - self.after_s
        if self.every_s and into_s >= 0:
            into_s %= self.every_s
        return 0 <= into_s < self.for_s


class Length(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long an answer is when nobody cuts it short: lognormal in tokens, ``tokens`` the median.

    ``thought_tokens`` is the median of what a thinking model spends first; it counts against the caller's maximum.
    """

    tokens: float = 24.0
    sigma: float = 0.5
    thought_tokens: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tokens) and self.tokens >= 1):
            raise ValueError(f"tokens must be at least 1, not {self.tokens!r}")
        for name in ("sigma", "thought_tokens"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be at least 0, not {value!r}")


class Course(msgspec.Struct, frozen=True):
    """How one admitted call will go. Moments are on the caller's clock.

    ``output_tokens`` come out after ``thought_tokens``; ``cut`` says that the caller's maximum ended the answer
    early. ``fault`` is a kind of `Faults` or empty; a faulty call ends at ``first_token_at_s``.
    """

    first_token_at_s: float
    done_at_s: float
    output_tokens: int
    cut: bool
    fault: str = ""
    thought_tokens: int = 0


class Service:
    """The machines behind the limits. One draw order for each call, so a seed replays the same course."""

    def __init__(
        self,
        latency: Latency,
        faults: Faults,
        length: Length,
        rng: random.Random,
        *,
        outages: Sequence[Outage] = (),
        start_s: float = 0.0,
    ) -> None:
        self.latency = latency
        self.length = length
        self._shares = tuple((kind, share) for kind, share in faults.shares() if share)
        self._outages = tuple(outages)
        self._start_s = start_s
        self._rng = rng
        self._free_at_s = [-math.inf] * latency.slots

    def course(
        self, now_s: float, *, max_tokens: int | None = None, delay_s: float = 0.0, thinks: bool = True
    ) -> Course:
        """Draw what happens to a call admitted at ``now_s``, served ``delay_s`` later at the earliest."""
        latency, length = self.latency, self.length
        fault = self._fault(now_s)
        natural = max(1, round(self._lognormal(length.tokens, length.sigma)))
        first_s = self._lognormal(latency.first_token_s, latency.sigma)
        thoughts = (
            round(self._lognormal(length.thought_tokens, length.sigma)) if thinks and length.thought_tokens else 0
        )
        room = thoughts + natural if max_tokens is None else max_tokens
        thoughts = min(thoughts, room)
        tokens = min(natural, room - thoughts)
        rest_s = 0.0 if fault else latency.per_token_s * max(0, tokens - 1)
        busy_s = first_s + latency.per_token_s * thoughts
        start_s = self._queue(now_s + delay_s, busy_s + rest_s)
        first_at_s = start_s + busy_s
        return Course(first_at_s, first_at_s + rest_s, tokens, tokens < natural, fault, thoughts)

    def _fault(self, now_s: float) -> str:
        """Draw once whatever the shares are, so that changing one does not shift the other streams."""
        draw = self._rng.random()
        for outage in self._outages:
            if outage.covers(now_s - self._start_s):
                if draw < outage.share:
                    return outage.fault
                draw -= outage.share
        for kind, share in self._shares:
            if draw < share:
                return kind
            draw -= share
        return ""

    def _lognormal(self, median: float, sigma: float) -> float:
        """Draw; where nothing varies, nothing is drawn."""
        return median * math.exp(sigma * self._rng.gauss(0.0, 1.0)) if sigma else median

    def _queue(self, ready_s: float, busy_s: float) -> float:
        """Return when service starts, and occupy the slot that is free first."""
        if not self._free_at_s:
            return ready_s
        start_s = max(ready_s, self._free_at_s[0])
        heapq.heapreplace(self._free_at_s, start_s + busy_s)
        return start_s
