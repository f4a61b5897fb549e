"""What a run may spend, checked before a call is sent. Pure: the caller passes the time.

A call reserves what it may cost at most (its prompt, all the output tokens that it asks for); when it ends the
reservation becomes what the server counted. A refused call costs a request and no tokens. Prices: `redline.prices`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redline.prices import Price

LOOK_SHARE = 0.25  # of the tokens that the search for a limit on them may send: for the look; measuring takes the rest


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a run may use; None: no bound. Money in US dollars, time in seconds since the run's start."""

    max_requests: int | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_usd: float | None = None
    max_duration_s: float | None = None
    max_throttled_calls: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value >= 0:
                raise ValueError(f"{_OPTION[field.name]} takes a number that is not negative, not {value!r}")


_OPTION = {
    "max_requests": "--max-requests",
    "max_input_tokens": "--max-input-tokens",
    "max_output_tokens": "--max-output-tokens",
    "max_usd": "--max-usd",
    "max_duration_s": "--max-duration",
    "max_throttled_calls": "--max-throttled-calls",
}


@dataclass(frozen=True, slots=True)
class _Cost:
    input_tokens: int
    output_tokens: int


class Spending:
    """Adds up what was spent and what is reserved. ``price`` None: money is not bounded, and ``usd`` is None.

    Raises ValueError where money is bounded and the price is not known: a bound that cannot be kept is refused.
    """

    def __init__(self, budget: Budget, price: Price | None = None) -> None:
        if budget.max_usd is not None and price is None:
            raise ValueError("--max-usd needs a model whose price is known; bound --max-requests instead")
        self._budget = budget
        self._price = price
        self._reserved: dict[int, _Cost] = {}
        self.requests = 0
        self.throttled = 0
        self.input_tokens = 0
        self.output_tokens = 0

    @property
    def usd(self) -> float | None:
        """Money spent and reserved; None where the price is not known."""
        return self._price.usd(self.input_tokens, self.output_tokens) if self._price else None

    def exceeded(self, now_s: float, input_tokens: int, output_tokens: int) -> str | None:
        """Name the budget that a call of this size would exceed now; None where it may go."""
        after = {
            "max_requests": self.requests + 1,
            "max_input_tokens": self.input_tokens + input_tokens,
            "max_output_tokens": self.output_tokens + output_tokens,
            "max_duration_s": now_s,
            "max_throttled_calls": self.throttled + 1,
        }
        if self._price:
            after["max_usd"] = self._price.usd(self.input_tokens + input_tokens, self.output_tokens + output_tokens)
        for name, value in after.items():
            bound = getattr(self._budget, name)
            if bound is not None and value > bound:
                return f"{_OPTION[name]} {bound:.10g} is used up"
        return None

    def sent(self, call_id: int, input_tokens: int, output_tokens: int) -> None:
        """Reserve what a call may cost."""
        self.requests += 1
        self._add(_Cost(input_tokens, output_tokens), 1)
        self._reserved[call_id] = _Cost(input_tokens, output_tokens)

    def ended(self, call_id: int, input_tokens: int | None, output_tokens: int | None, *, throttled: bool) -> None:
        """Settle a call. None for tokens that the server did not tell: the reservation stands."""
        reserved = self._reserved.pop(call_id)
        self.throttled += throttled
        self._add(reserved, -1)
        if not throttled:
            self._add(
                _Cost(
                    reserved.input_tokens if input_tokens is None else input_tokens,
                    reserved.output_tokens if output_tokens is None else output_tokens,
                ),
                1,
            )

    def _add(self, cost: _Cost, sign: int) -> None:
        self.input_tokens += sign * cost.input_tokens
        self.output_tokens += sign * cost.output_tokens
