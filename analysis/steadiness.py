"""Whether what a record tells was told already before its last third: a limit that moves bends what explains it.

No exact limiter is contradicted by a limit that moves a little: a bucket is told with a rate between those before and
after, or a window with a length that nobody chose. Both take the whole record for granted. Its beginning alone is an
explanation that knows nothing of the change yet. Pure; rates per second, seconds on the record's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.fit import fit
from analysis.rates import rate_interval
from analysis.remembered import asked_once

if TYPE_CHECKING:
    from analysis.fit import Fit

BEGINNING: Final = 2.0 / 3.0  # of the time that the record takes
NARROW: Final = 0.1  # relative width of an interval that would contradict another rate,
SAME: Final = 0.001  # with a relative tolerance for what both round
FEW_MISSED: Final = 1  # answers that the explanation of the beginning may leave over
REACH: Final = 0.0125  # of the rate, by which its interval is widened at most


@asked_once
def beginning_of(fitted: Fit) -> Fit:
    """Explain the record's beginning alone."""
    sent_s = fitted.calls.sent_s
    until_s = sent_s[0] + BEGINNING * (sent_s[-1] - sent_s[0])
    return fit(fitted.calls.where(sent_s <= until_s))


def moved(fitted: Fit) -> bool:
    """Return whether the record's beginning tells a rate, and surely another one than the whole does."""
    whole, first = fitted.best, beginning_of(fitted)
    if whole is None or first.best is None or first.missed > FEW_MISSED:
        return False
    low, high = rate_interval(first)
    if high - low > NARROW * first.best.rate_per_s:
        return False
    return not low * (1.0 - SAME) <= whole.rate_per_s <= high * (1.0 + SAME)


def with_beginning(fitted: Fit, rates: tuple[float, float]) -> tuple[float, float]:
    """Return an interval of the rate without what it owes to the record's last third: a limit may be moving there."""
    whole, first = fitted.best, beginning_of(fitted)
    if whole is None or first.best is None:
        return rates
    low, high = rate_interval(first)
    lowest, highest = whole.rate_per_s * (1.0 - REACH), whole.rate_per_s * (1.0 + REACH)
    return min(rates[0], max(low, lowest)), max(rates[1], min(high, highest))
