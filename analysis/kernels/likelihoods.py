"""Thresholds of a statistic, and how well decisions agree with them: see `analysis.likelihood`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from analysis.kernels.compiling import compiled
from analysis.kernels.selection import selected

if TYPE_CHECKING:
    from analysis.calls import Bools, Floats, Ints


@compiled
def thresholds(need: Floats, admitted: Bools) -> Floats:
    """Return integers near where admissions end and refusals begin, rising; 0 in the place of a repeated one.

    ``need``: (shapes, decisions), what each decision brings the count to.
    """
    let_in, kept_out = np.flatnonzero(admitted), np.flatnonzero(~admitted)
    marks = 2 * (len(let_in) > 0) + 2 * (len(kept_out) > 0)
    out = np.empty((len(need), 2 * marks))
    refused = np.empty(len(kept_out))
    middle, low = (len(refused) - 1) // 2, (len(refused) - 1) // 10
    base = np.empty(marks)
    for s in range(len(need)):
        row = need[s]
        if len(kept_out):
            for k in range(len(kept_out)):
                refused[k] = row[kept_out[k]]
            base[0] = selected(refused, middle) - 1.0
            base[1] = selected(refused[: middle + 1], low) - 1.0
        if len(let_in):
            highest = _highest(row, let_in)
            base[marks - 2], base[marks - 1] = highest[0], highest[min(len(let_in), 3) - 1]
        for k in range(marks):
            whole = math.floor(base[k] + 1e-9)
            _insert(out[s], 2 * k, max(whole, 1.0))
            _insert(out[s], 2 * k + 1, max(whole + 1.0, 1.0))
        for k in range(2 * marks - 1, 0, -1):
            if out[s, k] == out[s, k - 1]:
                out[s, k] = 0.0
    return out


@compiled
def _highest(row: Floats, which: Ints) -> tuple[float, float, float]:
    """Return the three highest of these values, minus infinity where there are fewer."""
    most = second = third = -np.inf
    for d in which:
        value = row[d]
        if value > most:
            most, second, third = value, most, second
        elif value > second:
            second, third = value, second
        elif value > third:
            third = value
    return most, second, third


@compiled
def _insert(row: Floats, many: int, value: float) -> None:
    """Put a value into its place among the first so ``many``, which rise."""
    while many > 0 and row[many - 1] > value:
        row[many] = row[many - 1]
        many -= 1
    row[many] = value


@compiled
def misfits(need: Floats, admitted: Bools, limits: Floats) -> Floats:
    """Return how many decisions each limit, (shapes, candidates), misses; ``need``: (shapes, decisions)."""
    out = np.empty(limits.shape)
    for s in range(limits.shape[0]):
        for k in range(limits.shape[1]):
            limit, missed = limits[s, k] + 1e-9, 0
            for d in range(len(admitted)):
                missed += (need[s, d] <= limit) != admitted[d]
            out[s, k] = missed
    return out


@compiled
def overlap(need: Floats, side: Floats, limits: Floats, edge: float, most: float, at_all: float) -> Floats:
    """Return the sum of how far decisions lie on the wrong side of limits, (shapes, candidates), relative to these.

    ``need``: (shapes, decisions); ``side``: 1 where it should lie below, -1 where above. Each counts ``at_all`` and at
    most ``most`` beyond.
    """
    shapes, candidates = limits.shape
    out = np.empty((shapes, candidates))
    bounds, scales = np.empty(candidates), np.empty(candidates)
    far, missed = np.empty(candidates), np.empty(candidates)
    for s in range(shapes):
        for k in range(candidates):
            bounds[k], scales[k], far[k], missed[k] = limits[s, k] + edge, 1.0 / (limits[s, k] + 1.0), 0.0, 0.0
        for d in range(len(side)):
            needed, sign = need[s, d], side[d]
            for k in range(candidates):  # without a branch, so that it is vectorised
                wrong = (needed - bounds[k]) * sign
                share = wrong * scales[k]
                share = share if share < most else most  # noqa: FURB136 - with min it is not
                far[k] += share if wrong > 0.0 else 0.0
                missed[k] += 1.0 if wrong > 0.0 else 0.0
        for k in range(candidates):
            out[s, k] = far[k] + at_all * missed[k]
    return out


@compiled
def log_likelihood(
    statistic: Floats, cost: Floats, admitted: Bools, episodes: Ints, limits: Floats, log_share: Floats, least_ll: float
) -> Floats:
    """Return the log likelihood of the decisions for limits, (shapes, candidates): `analysis.likelihood` says how.

    ``log_share``: that of a decision, by how many of the offsets around one agree. ``least_ll``: what is less likely
    than that need not be known exactly.
    """
    shapes, offsets, decisions = statistic.shape
    worth = _worth(offsets, log_share)
    out = np.empty(limits.shape)
    total = np.empty(offsets)
    least, most = np.empty(decisions), np.empty(decisions)
    for s in range(shapes):
        _extremes(statistic[s], cost, least, most)
        for k in range(limits.shape[1]):
            limit, ll, episode, open_ = limits[s, k] + 1e-9, 0.0, 1, False
            total[:] = 0.0
            for d in range(decisions):
                while episode < len(episodes) and d >= episodes[episode]:
                    episode += 1
                    if open_:
                        ll += _log_mean_exp(total)
                        total[:], open_ = 0.0, False
                if ll < least_ll:
                    break  # each episode makes it less
                if (most[d] <= limit) if admitted[d] else (least[d] > limit):
                    continue  # where all offsets agree, nothing is added
                open_, agree = True, 0
                for o in range(offsets):
                    agree |= ((statistic[s, o, d] + cost[d] <= limit) == admitted[d]) << o
                for o in range(offsets):
                    total[o] += worth[agree, o]
            out[s, k] = ll + _log_mean_exp(total) if open_ else ll
    return out


@compiled
def _extremes(statistic: Floats, cost: Floats, least: Floats, most: Floats) -> None:
    """Write into ``least`` and ``most`` what each decision brings the count to, over the offsets."""
    least[:], most[:] = statistic[0], statistic[0]
    for o in range(1, len(statistic)):
        for d in range(len(cost)):
            value = statistic[o, d]
            least[d] = value if value < least[d] else least[d]  # noqa: FURB136 - unlike min, this is vectorised
            most[d] = value if value > most[d] else most[d]  # noqa: FURB136
    least += cost
    most += cost


@compiled
def _worth(offsets: int, log_share: Floats) -> Floats:
    """Return what a decision is worth at each offset: (sets of offsets that agree, as bits of a number; offsets).

    Its own delay may reach some offsets to either side, of which the first and last stand for those beyond.
    """
    own = (len(log_share) - 2) // 2
    out = np.empty((1 << offsets, offsets))
    for agree in range(1 << offsets):
        for o in range(offsets):
            near = 0
            for at in range(o - own, o + own + 1):
                near += agree >> min(max(at, 0), offsets - 1) & 1
            out[agree, o] = log_share[near]
    return out


@compiled
def _log_mean_exp(values: Floats) -> float:
    top = values.max()
    total = 0.0
    for value in values:
        total += math.exp(value - top)
    return float(math.log(total / len(values)) + top)
