"""The record of a run that goes on: each attempt is read once, when it has its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Sequence


class RunningCalls:
    """Reads a growing list of attempts, which are changed in place until their ``status`` is no longer None."""

    def __init__(self, attempts: Sequence[Any], first: int = 0) -> None:
        """Begin with what is in the list from ``first`` on; more may be appended to it."""
        self._attempts = attempts
        self._settled = Calls.from_attempts([])
        self._read = first

    def calls(self, now_s: float, answer_s: float) -> Calls:
        """Return all calls so far, as `Calls.from_attempts` would."""
        end = self._read
        while end < len(self._attempts) and self._attempts[end].status is not None:
            end += 1
        if end > self._read:
            self._settled = self._settled.joined(Calls.from_attempts(self._attempts[self._read : end]))
            self._read = end
        open_ = Calls.from_attempts(self._attempts[end:], now_s=now_s, answer_s=answer_s)
        return self._settled.joined(open_).in_order()
