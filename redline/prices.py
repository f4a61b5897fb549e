"""What a token costs: a dated table of list prices, US dollars for a million tokens. Data and one look-up.

Source: ai.google.dev/gemini-api/docs/pricing as of 2026-11-23 (standard tier; promotions end on the dates given).
A model that is not listed has no price here, and none is guessed. Thinking tokens are billed as output.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million input and a million output tokens."""

    input_usd: float
    output_usd: float

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Money for this many tokens."""
        return (input_tokens * self.input_usd + output_tokens * self.output_usd) / _MILLION


_ALWAYS = date.min
_FLASH_PROMOTION_ENDS = date(2027, 1, 1)
_ARGON_PROMOTION_ENDS = date(2026, 12, 1)
_FLASH = ((_FLASH_PROMOTION_ENDS, Price(1.50, 7.50)), (_ALWAYS, Price(0.75, 3.75)))

# model -> (first day, price), newest first. Models with a dearer long context carry the dearer price.
_TABLE: dict[str, tuple[tuple[date, Price], ...]] = {
    "gemini-3.8-flash": _FLASH,
    "gemini-3.7-flash": _FLASH,
    "gemini-3.6-flash": _FLASH,
    "gemini-3.5-flash": ((_ALWAYS, Price(1.50, 9.00)),),
    "gemini-3.5-flash-lite": ((_ALWAYS, Price(0.30, 2.50)),),
    "gemini-3.1-flash-lite": ((_ALWAYS, Price(0.25, 1.50)),),
    "gemini-3-flash-preview": ((_ALWAYS, Price(0.50, 3.00)),),
    "gemini-3.1-pro-preview": ((_ALWAYS, Price(4.00, 18.00)),),
    "gemini-4-argon": ((_ARGON_PROMOTION_ENDS, Price(4.00, 20.00)), (_ALWAYS, Price(2.00, 10.00))),
    "gemini-2.5-pro": ((_ALWAYS, Price(2.50, 15.00)),),
    "gemini-2.5-flash": ((_ALWAYS, Price(0.30, 2.50)),),
    "gemini-2.5-flash-lite": ((_ALWAYS, Price(0.10, 0.40)),),
}


def price_of(model: str, day: date) -> Price | None:
    """Return the price of a model on a day, None where it is not known."""
    return next((price for first, price in _TABLE.get(model, ()) if day >= first), None)
