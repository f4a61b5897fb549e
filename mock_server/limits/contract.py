"""What every limiter family promises: the verdict, the state's four hooks, the spec.

Standard library only, no clock, no randomness of its own. The families live beside this file, one idea each;
the registry is the package's ``__init__``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to ``check``.

    ``retry_at_s``: the first moment (same base as ``now_s``) at which the same check passes if nothing else
    happens; ``inf`` where the cost alone exceeds the limit, None where it cannot be known. ``delay_s``: how
    long an admitted call is held back before it is served (only ``leaky_queue``).
    """

    admitted: bool
    retry_at_s: float | None = None
    delay_s: float = 0.0


ADMITTED = Verdict(admitted=True)
UNKNOWABLE = Verdict(admitted=False, retry_at_s=None)
NEVER = Verdict(admitted=False, retry_at_s=math.inf)


class Limiter(Protocol):
    """The state of one limit. Times are seconds on any steady base; a step back is treated as no step."""

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        """Ask whether a call of this cost may pass now. Changes nothing."""

    def commit(self, now_s: float, cost: float = 1) -> None:
        """Record that a call was let in."""

    def refused(self, now_s: float, cost: float = 1) -> None:
        """Record that a call was turned away (by this limit or another one)."""

    def release(self, now_s: float, cost: float = 1) -> None:
        """Record that an admitted call ended."""

    def used(self, now_s: float) -> float:
        """Return how much of the limit is taken now, for whoever watches. Changes nothing."""


class Spec(Protocol):
    """Frozen parameters of one limit."""

    family: ClassVar[str]

    def limiter(self, seed: int = 0) -> Limiter:
        """Make fresh state; ``seed`` feeds the family's random stream where it has one."""


_KEPT_ELSEWHERE = {
    "last": "_last_s",
    "start": "_start_s",
    "end": "_end_s",
    "used": "_used",
    "prev": "_prev",
    "level_at": "_level_at_s",
}


class State:
    """The hooks that most families leave empty, and the clamp for clocks that step back."""

    __slots__ = ("_last_s",)

    def __init__(self) -> None:
        self._last_s = -math.inf

    def _at(self, now_s: float) -> float:
        return now_s if now_s > self._last_s else self._last_s  # noqa: FURB136 - max() costs more than all the rest

    def restore(self, fields: Mapping[str, float]) -> None:
        """Become the state that another process kept: ``last``, ``start``, ``end``, ``used``, ``prev``, ``level_at``.

        Only what the family has is taken. A log cannot be restored this way.
        """
        for name, slot in _KEPT_ELSEWHERE.items():
            if name in fields and hasattr(self, slot):
                setattr(self, slot, fields[name])

    def refused(self, now_s: float, cost: float = 1) -> None:
        """Most families do not count what they turn away."""
        del now_s, cost

    def release(self, now_s: float, cost: float = 1) -> None:
        """Most families do not care when a call ends."""
        del now_s, cost


def first_moment(candidate_s: float, passes: Callable[[float], bool]) -> float:
    """Correct a computed moment for rounding: return the earliest float at which ``passes`` holds.

    ``passes`` must be monotone in time (False, then True for good). A bracket doubles outwards from the
    candidate, then halves: a handful of questions where the candidate is off by a rounding error, and no more
    than about a hundred wherever it is.
    """
    step = math.ulp(candidate_s)
    early, late = candidate_s, candidate_s
    if passes(candidate_s):
        while passes(early := late - step):
            late, step = early, step * 2
    else:
        while not passes(late := early + step):
            early, step = late, step * 2
    while early < (middle := early + (late - early) / 2) < late:
        early, late = (early, middle) if passes(middle) else (middle, late)
    return late


def require(name: str, value: float, *, minimum: float, exclusive: bool = False) -> None:
    """Raise `ValueError` that names the parameter and what it takes, unless ``value`` is finite and large enough."""
    if not math.isfinite(value) or value < minimum or (exclusive and value == minimum):
        bound = f"greater than {minimum:g}" if exclusive else f"at least {minimum:g}"
        raise ValueError(f"{name} must be {bound}, not {value!r}")
