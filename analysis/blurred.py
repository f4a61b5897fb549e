"""Limits whose memory is hardly longer than delays vary: told by how many calls they would let in, sent again.

The likelihood follows what was observed, and asks each decision at the delay that suits it best. Where delays vary by
a tenth of what a limit remembers, that costs next to nothing, and a wrong family explains about any record. So each
hypothesis pays for how far off it is when the calls are sent again past it (`analysis.again`). Pure; seconds and nats.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from analysis.again import surprises_of_rates

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from analysis.calls import Calls
    from analysis.search import Hypothesis

BLURRED: Final = 0.1  # of what a limit remembers, from which on delays that vary by so much blur it
SKEWED: Final = 0.03  # and from which on what a log gives back comes too early
STRONGLY: Final = 0.2  # and from which on the likelihood takes a wrong family for the right one
RIVALS: Final = 40.0  # nats behind the best that being sent again may make up for, between families,
MEMBERS: Final = 20.0  # and within one
ASKED: Final = 8  # rates of a family that are sent again; between them what they cost changes slowly,
NUMBERS: Final = 3  # and numbers of calls,
APART: Final = 0.25  # and boundaries of a round window that are so many spreads apart,
BOUNDARIES: Final = 6  # the likeliest of them
TRUSTED: Final = 0.5  # of a likelihood that has each decision at the delay that suits it,
OPEN: Final = 60.0  # up to so many nats: what costs more is contradicted


def charged(calls: Calls, found: list[Hypothesis], spread_s: float) -> list[Hypothesis]:
    """Return the hypotheses, each with what it costs when the calls are sent again, where that matters.

    ``calls``: those that no other limit refused.
    """
    families: dict[tuple[str, bool], list[Hypothesis]] = {}
    for h in found:
        if h.limit > 0.0:
            families.setdefault((h.family, h.counts_refused), []).append(h)
    tops = {family: max(h.score for h in own) for family, own in families.items()}
    best = max(tops.values(), default=0.0)
    rivals = {
        family: [h for h in own if h.score > tops[family] - MEMBERS]
        for family, own in families.items()
        if tops[family] > best - RIVALS
    }
    if not any(relief(max(own, key=_score), spread_s) for own in rivals.values()):
        return _straight(calls, found, spread_s)
    asked = [_sample(own, spread_s) for own in rivals.values()]
    costs = iter(surprises_of_rates(calls, [h for some in asked for h in some], spread_s))
    both = zip(rivals.values(), asked, strict=True)
    return [h for own, some in both for h in _paid(own, some, [next(costs) for _ in some])]


def _straight(calls: Calls, found: list[Hypothesis], spread_s: float) -> list[Hypothesis]:
    """Return the hypotheses, those of a log that leads in the order of what they cost when sent again.

    What it gives back first came first of many, sooner than usual: its likelihood prefers windows that are too short.
    The family is as likely as it was.
    """
    best = max(found, key=_score)
    if best.family != "sliding_log" or spread_s * best.rate_per_s < SKEWED * best.limit:
        return found
    its = [(h.family, h.counts_refused) == (best.family, best.counts_refused) for h in found]
    near = [h for h, own in zip(found, its, strict=True) if own and h.score > best.score - MEMBERS]
    asked = _sample(near, spread_s)
    paid = _paid(near, asked, surprises_of_rates(calls, asked, spread_s))
    level = best.score - max(h.score for h in paid)
    straight = [msgspec.structs.replace(h, log_prior=h.log_prior + level) for h in paid]
    return [*straight, *(h for h, own in zip(found, its, strict=True) if not own)]


def relief(h: Hypothesis, spread_s: float) -> float:
    """Return the nats that a hypothesis may be forgiven: none unless delays vary by much of what it remembers."""
    return (1.0 - TRUSTED) * OPEN if spread_s * h.rate_per_s > BLURRED * h.limit else 0.0


def strongly(h: Hypothesis, spread_s: float) -> bool:
    """Return whether delays vary by so much of what a hypothesis remembers that likelihoods tell no families apart."""
    return spread_s * h.rate_per_s > STRONGLY * h.limit


def _score(h: Hypothesis) -> float:
    return h.score


def _sample(own: list[Hypothesis], spread_s: float) -> list[Hypothesis]:
    """Return some of a family: the best of each part of its rates, of round windows, and of the likeliest numbers.

    Of round windows also those with other boundaries: the likeliest may lie at the edge of what is possible.
    """
    rate = np.log([h.rate_per_s for h in own])
    part = np.floor(ASKED * (rate - rate.min()) / (np.ptp(rate) + 1e-9)).astype(int)
    parts = _best_of(own, part.tolist()) + _best_of(own, [h.roundness for h in own])
    numbers = sorted(_best_of(own, [h.limit for h in own]), key=_score)[-NUMBERS:]
    chosen = [h for h in own if h.roundness and h.phase_s is not None]
    boundaries = [(h.window_s, round((h.phase_s or 0.0) / (APART * spread_s))) for h in chosen]
    others = sorted(_best_of(chosen, boundaries), key=_score)[-BOUNDARIES:]
    return list({id(h): h for h in (*parts, *numbers, *others)}.values())


def _best_of(own: list[Hypothesis], keys: Sequence[Hashable]) -> list[Hypothesis]:
    best: dict[Hashable, Hypothesis] = {}
    for key, h in zip(keys, own, strict=True):
        if key not in best or h.score > best[key].score:
            best[key] = h
    return list(best.values())


def _paid(own: list[Hypothesis], asked: list[Hypothesis], costs: list[float]) -> list[Hypothesis]:
    """Return a family with what each costs, by its rate alone: of each number too few are asked to tell more.

    Of those with one rate it is the least.
    """
    least: dict[float, float] = {}
    for h, each in zip(asked, costs, strict=True):
        least[h.rate_per_s] = min(each, least.get(h.rate_per_s, math.inf))
    at, cost = np.array(sorted(least.items())).T
    paid = np.interp([h.rate_per_s for h in own], at, cost).tolist()
    return [
        msgspec.structs.replace(h, log_prior=h.log_prior - each - forgiven(h))
        for h, each in zip(own, paid, strict=True)
    ]


def forgiven(h: Hypothesis) -> float:
    """Return the part of a likelihood that is not trusted, in nats of which it has (at most 0)."""
    return (1.0 - TRUSTED) * max(h.log_likelihood, -OPEN)
