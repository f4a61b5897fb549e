"""Shapes of a family held against a `Record`: the statistic of each, its thresholds, and how well they explain it.

A shape is all of a limit but its number (window and boundary, or rate); the numbers that are worth a look are read off
the statistic where admissions end and refusals begin. Pure; arrays have the form (shapes, offsets, decisions) or
(shapes, candidates).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import costed, decisions, likelihood, replay
from analysis.kernels import likelihoods

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analysis.calls import Floats
    from analysis.decisions import Record
    from analysis.proposals import Shape, Structure

CLOSEST: Final = 3  # thresholds a shape is judged with
SCREENED: Final = 60  # shapes that pass the quick look
HOPELESS: Final = 0.0  # a threshold that admits nothing, in the place of one that is not worth a look
REFILLED: Final = 0.5  # of a bucket may come back within the spread: it would hide one that is faster,
SMALL_BURST: Final = 1.2  # and so many calls of it


def statistic(record: Record, family: str, shapes: Sequence[Shape], limit: float) -> Floats:
    """Return the family's statistic, (shapes, offsets, decisions); ``limit`` matters to the anchored window alone."""
    first_s, *others = np.array(shapes, float).T.copy()
    match family:
        case "fixed_window":
            return replay.fixed_window(record, first_s, *others)
        case "anchored_window":
            return replay.anchored_window(record, first_s, limit)
        case "sliding_log":
            return replay.sliding_log(record, first_s)
        case "sliding_counter":
            return replay.sliding_counter(record, first_s, *others)
        case _:
            return replay.bucket_level(record, first_s)


def judged(
    record: Record, family: str, shapes: Sequence[Shape], seen: Structure, least: float = -np.inf, batch: int = 100_000
) -> Iterable[tuple[Sequence[Shape], Floats, Floats]]:
    """Yield (shapes, thresholds, log likelihoods), the latter two as (shapes, candidates), in digestible parts.

    Likelihoods below ``least`` are not told exactly.
    """
    size = max(1, batch // max(1, record.at_s.size))
    for first in range(0, len(shapes), size):
        part = shapes[first : first + size]
        s = statistic(record, family, part, seen.usual)
        thresholds = thresholds_of(record, family, part, s)
        if not costed.sized(record):
            best = np.argsort(likelihood.misfits(record, s, thresholds), axis=1, kind="stable")[:, :CLOSEST]
            thresholds = np.take_along_axis(thresholds, best, axis=1)
        ll = likelihood.log_likelihood(record, s, thresholds, least)
        yield part, thresholds, np.where(thresholds == HOPELESS, -np.inf, ll)


def screened(record: Record, family: str, shapes: Sequence[Shape], seen: Structure) -> list[Shape]:
    """Keep the shapes that miss the fewest decisions, by a quick look."""
    if len(shapes) <= SCREENED:
        return list(shapes)
    quick = decisions.at_middle(record)
    size = max(1, 200_000 // max(1, quick.at_s.size))
    missed = []
    for first in range(0, len(shapes), size):
        part = shapes[first : first + size]
        s = statistic(quick, family, part, seen.usual)
        missed.append(likelihood.misfits(quick, s, thresholds_of(quick, family, part, s)).min(axis=1))
    order = np.argsort(np.concatenate(missed), kind="stable")[:SCREENED]
    return [shapes[i] for i in order]


def thresholds_of(record: Record, family: str, shapes: Sequence[Shape], s: Floats) -> Floats:
    """Return integers near where admissions end and refusals begin, (shapes, candidates).

    A bucket so small and fast that the spread would hide it may explain anything: its number is `HOPELESS`.
    """
    if costed.sized(record):
        found = costed.thresholds(record, s[:, s.shape[1] // 2] + record.cost)
    else:
        found = likelihoods.thresholds(decisions.central(record, s) + record.cost, record.admitted)
    if family != "token_bucket":
        return found
    refilled = np.array(shapes, float) * record.spread_s
    return np.where(refilled > np.maximum(REFILLED * found, SMALL_BURST), HOPELESS, found)
