"""What was worked out before: the same record is fitted, and asked about, several times while it is concluded from.

Records are told apart by all of them that an explanation depends on; very long ones are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from analysis.decisions import PAIRED

if TYPE_CHECKING:
    from collections.abc import Callable

    from analysis.calls import Calls
    from analysis.fit import Fit
    from analysis.search import Hypothesis

ANSWERS: Final = 8  # that are kept of what was asked of explanations
MOST_REMEMBERED: Final = 20_000  # calls of a record that is kept for it

T = TypeVar("T")


def asked_once(ask: Callable[[Fit], T]) -> Callable[[Fit], T]:
    """Let something be asked of the same explanation only once: what concludes from a record does so several times."""

    @lru_cache(maxsize=ANSWERS)
    def answer(asked: _Asked) -> T:
        return ask(asked.fitted)

    @wraps(ask)
    def asked(fitted: Fit) -> T:
        return ask(fitted) if len(fitted.calls) > MOST_REMEMBERED else answer(_Asked(fitted))

    return asked


def _shown(calls: Calls) -> tuple[bytes | None, ...]:
    """Return all of a record that an explanation depends on."""
    paired = None
    if PAIRED in calls.phase:
        paired = np.array([phase == PAIRED for phase in calls.phase])
    which = (calls.asked, calls.telling, paired)
    shown = (calls.sent_s, calls.done_s, calls.outcome, calls.tokens, calls.server_date, *which)
    return tuple(None if a is None else a.tobytes() for a in shown)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """An explanation that something is asked of."""

    fitted: Fit

    @property
    def _key(self) -> tuple[object, ...]:
        found = self.fitted
        return (*_shown(found.calls), found.offsets_s.tobytes(), found.hypotheses, found.concurrency)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._key == other._key


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """All that a fit depends on. ``warm``, ``tokens``, ``thorough``: see `analysis.fit.fit`."""

    calls: Calls
    warm: tuple[Hypothesis, ...]
    tokens: bool
    thorough: bool

    @property
    def _key(self) -> tuple[object, ...]:
        return (*_shown(self.calls), self.warm, self.tokens, self.thorough)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Question) and self._key == other._key
