"""Limits whose memory is hardly longer than delays vary: told by how many calls they would let in, sent again.

The likelihood follows what was observed, and asks each decision at the delay that suits it best. Where delays vary by
a tenth of what a limit remembers, that costs next to nothing, and a wrong family explains about any record. So each
hypothesis pays for how far off it is when the calls are sent again past it (`analysis.again`). Pure; seconds and nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from analysis.again import surprises_of_rates

if TYPE_CHECKING:
    from analysis.calls import Calls
    from analysis.search import Hypothesis

BLURRED: Final = 0.1  # of what a limit remembers, from which on delays that vary by so much blur it
RIVALS: Final = 30.0  # nats behind the best that being sent again may make up for
ASKED: Final = 8  # rates of a family that are sent again; between them what they cost changes slowly
TRUSTED: Final = 0.5  # of a likelihood that has each decision at the delay that suits it,
OPEN: Final = 60.0  # up to so many nats: what costs more is contradicted


def charged(calls: Calls, found: list[Hypothesis], spread_s: float) -> list[Hypothesis]:
    """Return the hypotheses, each with what it costs when the calls are sent again, where that matters.

    ``calls``: those that no other limit refused.
    """
    top = max((h.score for h in found), default=0.0)
    families: dict[tuple[str, bool], list[Hypothesis]] = {}
    for h in found:
        families.setdefault((h.family, h.counts_refused), []).append(h)
    rivals = [own for own in families.values() if max(h.score for h in own) > top - RIVALS]
    if not any(_blurred(max(own, key=_score), spread_s) for own in rivals):
        return found
    asked = [_sample(own) for own in rivals]
    costs = iter(surprises_of_rates(calls, [h for some in asked for h in some], spread_s))
    return [h for own, some in zip(rivals, asked, strict=True) for h in _paid(own, some, [next(costs) for _ in some])]


def _score(h: Hypothesis) -> float:
    return h.score


def _blurred(h: Hypothesis, spread_s: float) -> bool:
    return spread_s > BLURRED * (h.window_s or h.limit / h.rate_per_s)


def _sample(own: list[Hypothesis]) -> list[Hypothesis]:
    """Return some of a family, from slow to fast: the best of each part of their range, and that of a round window."""
    rate = np.log([max(h.rate_per_s, 1e-9) for h in own])
    part = np.floor(ASKED * (rate - rate.min()) / max(np.ptp(rate), 1e-12)).astype(int)
    best: dict[float, Hypothesis] = {}
    for k, h in zip(part.tolist(), own, strict=True):
        for place in (k, -h.roundness):
            if place not in best or h.score > best[place].score:
                best[place] = h
    return sorted(best.values(), key=lambda h: h.rate_per_s)


def _paid(own: list[Hypothesis], asked: list[Hypothesis], costs: list[float]) -> list[Hypothesis]:
    """Return a family with what each costs: those that were not asked by their rate."""
    at = np.interp([h.rate_per_s for h in own], [h.rate_per_s for h in asked], costs)
    paid = [float(cost) + (1.0 - TRUSTED) * max(h.log_likelihood, -OPEN) for h, cost in zip(own, at, strict=True)]
    return [msgspec.structs.replace(h, log_prior=h.log_prior - cost) for h, cost in zip(own, paid, strict=True)]
