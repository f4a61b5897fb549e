"""A look at whether others use a limit of a few calls: bursts from long rests, which should find all of it free.

Who uses a tenth of four calls a minute comes by every few minutes, and while the limit is kept busy finds no room: what
probing saw may well be as if they were not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from analysis.misfit import MANY
from redline.traffic import ADMITTED, OTHER, PENDING

if TYPE_CHECKING:
    from redline.prober import Prober

FEW: Final = 24  # calls, up to which probing may have missed others
COMES_BY: Final = 50.0  # times what passes one by one: in so long a rest, who uses a tenth in pairs came by twice
LONGEST_S: Final = 300.0  # so long is looked at most, as far as nothing was seen,
SEEN: Final = 2.4  # and times as long once something was
MOST: Final = 90  # bursts
THERE: Final = frozenset({ADMITTED, PENDING, OTHER})  # what took a place, or may have


def look(prober: Prober) -> None:
    """Send bursts from rests until it is clear whether others are there, or too long to be waited for."""
    best = prober.fit.best
    if best is None or best.limit > FEW:
        return
    began_s, watched_s, before = prober.traffic.now_s(), 0.0, prober.fit.misfit.total
    for _ in range(MOST):
        seen = max(0, prober.fit.misfit.total - before)
        longest_s = LONGEST_S * (SEEN if seen else 1.0)
        lasts_s = prober.traffic.now_s() - began_s + prober.rest_s()
        if seen >= MANY or lasts_s > longest_s or (not seen and watched_s * best.rate_per_s > COMES_BY):
            return
        prober.note("whether others use it")
        watched_s += _burst(prober)


def _burst(prober: Prober) -> float:
    """Send one from a rest, and explain it where too few passed; returns for how long others could have come by."""
    rested_s = prober.rest()
    report = prober.burst_of_all()
    passed = sum(a.outcome in THERE for a in prober.traffic.attempts[report.first :])
    if passed < prober.fit.hypotheses[0].limit:
        prober.explain()
    return rested_s
