"""Which limit on calls in flight a record suggests, beside what explains the rate.

Which refusals are its own, whether it need have been met at all, and which number lets in as many as were let in. The
counts that it goes by are `analysis.flight`'s. Pure; times in seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import flight
from analysis.again import surprise_of_places
from analysis.agreement import explained_by
from analysis.calls import REFUSED

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls, Floats
    from analysis.flight import Flight
    from analysis.search import Hypothesis

TRIED: Final = 4  # limits to either side that are tried at a time
CLEARLY: Final = 4.0  # nats that a lower one must gain


def own_refusals(calls: Calls, offsets: Floats, around: Flight, limit: int, found: list[Hypothesis]) -> Bools:
    """Return which refusals only the limit on calls in flight explains: one that both do is evidence on neither."""
    own = flight.excused(calls, around, limit)
    if found and own.any():
        asked, explained = explained_by(found[0], calls, offsets, excused=(calls.outcome == REFUSED) & ~own)
        own[asked[explained]] = False
    return own


def least_unexplained(calls: Calls, offsets: Floats, around: Flight, limit: int, found: list[Hypothesis]) -> int | None:
    """Return the least height of the refusals that the rate does not explain: those are the concurrency limit's.

    A refusal of the rate may have stood as high by chance. None where the rate explains all of them.
    """
    high = flight.excused(calls, around, limit)
    if not found or not high.any():
        return None
    asked, explained = explained_by(found[0], calls, offsets, excused=~high)
    missed = asked[~explained]
    return int(around.maybe[missed].min()) if len(missed) else None


def unsure(calls: Calls, around: Flight, limit: int, own: Bools) -> bool:
    """Return whether so many calls in flight need not have been met where only this limit explains a refusal."""
    return bool(np.any(own & (around.surely < limit) & np.isfinite(calls.done_s)))


def likeliest(calls: Calls, offsets: Floats, around: Flight, limit: int, found: list[Hypothesis]) -> tuple[int, float]:
    """Return the limit on calls in flight, of those that may be, by the numbers let in, and the nats that it gains.

    No refusal stood below ``limit``; but what may have been in flight is counted too high, where delays vary by much.
    """
    own = own_refusals(calls, offsets, around, limit, found)
    least = flight.span(calls, around, limit)[0]
    if least == limit or not unsure(calls, around, limit, own):
        return limit, 0.0
    cost: dict[int, float] = {}

    def of(places: int) -> float:
        if places not in cost:
            cost[places] = surprise(calls, places, offsets, own)
        return cost[places]

    best, step = 0.5 * (least + limit), 0.5 * (limit - least)
    for _ in range(2):  # all of a short range, and every few of a long one
        tried = np.linspace(best - step, best + step, 2 * TRIED + 1).round().astype(int)
        best, step = min(np.unique(np.clip(tried, least, limit)).tolist(), key=of), step / TRIED
    gain = of(limit) - of(int(best))
    return (int(best), gain) if gain > CLEARLY else (limit, 0.0)


def surprise(calls: Calls, limit: int, offsets: Floats, own: Bools) -> float:
    """Return the nats that a limit costs for the numbers let in; ``own``: the refusals that only it explains."""
    return surprise_of_places(calls, limit, float(offsets[-1] - offsets[0]), own | ~calls.throttled)
