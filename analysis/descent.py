"""The way downhill for families whose statistic changes smoothly with the shape: sliding counters and token buckets.

A measure of how far decisions lie on the wrong side is followed from the best of many shapes; for a counter that nearly
fits, window and boundary are then solved for (`analysis.counters`). Pure but for the random numbers that are given.
"""

from __future__ import annotations

import math
from copy import copy
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import counters, decisions, likelihood
from analysis.judging import statistic, thresholds_of
from analysis.proposals import LEAST_WINDOW_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from analysis.decisions import Record
    from analysis.proposals import Shape, Structure

STALLED: Final = 3  # steps of a smooth search in a row that gain less than a hundredth end it
SMOOTH_STEPS: Final = 14
ELITE: Final = 8  # shapes that a smooth search goes on from
SETTLED: Final = 12  # and those that it hands on
NEARLY: Final = 0.6  # of `likelihood.overlap` that may be left of what explains a record but for a little of its shape
VALLEYS: Final = 3  # shapes of a counter near which what is feasible is solved for
SAME_VALLEY: Final = 0.01  # windows by which these are further apart, in window or boundary,
ANOTHER_VALLEY: Final = 0.05  # and by which those are that are gone down by themselves,
ANOTHER_RATE: Final = 0.003  # relative distance of a bucket's rate from one that is looked at anyway
LOOKED_AT: Final = 60  # of so many shapes,
RANKED: Final = LOOKED_AT * VALLEYS  # and of so many when it is over,
HOPEFUL: Final = 3.0  # where so much of `likelihood.overlap` is left at most
VALLEY_STEPS: Final = 7
NUMBERS: Final = (-2.0, -1.0, 0.0, 1.0, 2.0)  # calls by which the number of one may be off,
FEW: Final = 4  # shapes that one goes on from there,
ASIDE: Final = 0.02  # windows apart at first
SOME: Final = 60  # admissions, and refusals, that tell which of the first shapes
CLOSELY: Final = 300  # are worth a closer look


class Pool:
    """Shapes of a family with a smooth statistic, and how far each is from what was decided."""

    def __init__(self, record: Record, family: str, seen: Structure) -> None:
        self.quick = decisions.at_middle(record)
        self.family = family
        self._seen = seen
        self._least = LEAST_WINDOW_S if family == "sliding_counter" else 0.0
        self.far: dict[Shape, float] = {}
        self.ranked: list[Shape] = []  # the nearest

    def add(self, shapes: Iterable[Shape]) -> None:
        """Look at more shapes."""
        fresh = [shape for shape in dict.fromkeys(shapes) if shape not in self.far and shape[0] > self._least]
        self.far.update(zip(fresh, overlaps(self.quick, self.family, fresh, self._seen), strict=True))
        self.ranked = sorted([*self.ranked, *fresh], key=self.far.__getitem__)[:RANKED]

    def begin(self, shapes: Iterable[Shape]) -> None:
        """Look at many shapes: at all of them by some of the decisions, and closely at those that are nearest then."""
        fresh = [shape for shape in dict.fromkeys(shapes) if shape[0] > self._least]
        if self.quick.n > 2 * SOME and len(fresh) > CLOSELY:
            some = decisions.fewer_of_each(self.quick, SOME)
            order = np.argsort(overlaps(some, self.family, fresh, self._seen), kind="stable")
            fresh = [fresh[k] for k in order[:CLOSELY].tolist()]
        self.add(fresh)

    def nearest(self, most: int) -> list[Shape]:
        """Return so many shapes, at most `RANKED`, nearest first."""
        return self.ranked[:most]

    @property
    def top(self) -> float:
        """How far the nearest is."""
        return self.far[self.ranked[0]] if self.ranked else math.inf

    def copy(self, without: Sequence[Shape] = ()) -> Pool:
        """Return another with the same shapes, or with fewer of them."""
        other = copy(self)
        other.far = {shape: far for shape, far in self.far.items() if shape not in without}
        other.ranked = sorted(other.far, key=other.far.__getitem__)[:RANKED]
        return other


def settled(pool: Pool, seen: Structure, rng: np.random.Generator, hopeful: float = HOPEFUL) -> list[Shape]:
    """Follow the smooth measure of misfit downhill from the best of these shapes; returns where that ends.

    ``hopeful``: how much of it may be left where single valleys are worth going down.
    """
    if not pool.far:
        return []
    tops: list[float] = []
    for step in range(SMOOTH_STEPS):
        elite = pool.nearest(ELITE)
        tops.append(pool.far[elite[0]])
        if step >= STALLED and tops[-1] >= 0.99 * tops[-1 - STALLED]:
            break
        pool.add(_moved(elite, 0.03 * 0.5**step, 6, rng))
    if pool.family != "sliding_counter":
        exact = [shape for shape in pool.nearest(RANKED) if pool.far[shape] < NEARLY]
        return [*pool.nearest(SETTLED), *other_rates(exact)]
    if 0.0 < pool.top < hopeful:
        for valley in distinct(pool.nearest(LOOKED_AT), ANOTHER_VALLEY):
            go_down(pool, valley, rng)
    if 0.0 < pool.top < NEARLY:
        for valley in distinct(pool.nearest(ELITE), SAME_VALLEY):
            pool.add(feasible(pool.quick, valley, seen))
            if pool.top == 0.0:
                break
    return [*pool.nearest(SETTLED), *distinct(pool.nearest(RANKED), ANOTHER_VALLEY)]


def other_rates(ranked: Sequence[Shape]) -> list[Shape]:
    """Return the best shapes of a bucket with clearly other rates than those before them.

    Whether it was full after a rest or just not yet makes two explanations, each of them exact, with nothing between.
    """
    kept: list[Shape] = []
    for shape in ranked:
        if len(kept) < VALLEYS and all(abs(shape[0] / k[0] - 1.0) > ANOTHER_RATE for k in kept):
            kept.append(shape)
    return kept


def _moved(elite: Sequence[Shape], least: float, times: int, rng: np.random.Generator) -> list[Shape]:
    """Return shapes as far from these as they are from each other, and ``least`` of a window at least.

    The measure is a narrow valley across window and boundary: the spread of the best tells its direction.
    """
    best = np.array(elite)
    place = np.column_stack([np.log(best[:, 0]), best[:, 1:]])
    many, apart = place.shape[1], place - place.mean(axis=0)
    around = apart.T @ apart / (len(place) - 1.0) if len(place) > 1 else np.eye(many)
    floor = np.diag([1.0, float(best[0, 0]) ** 2][:many]) * least**2
    moves = rng.standard_normal((len(place), times, many)) @ np.linalg.cholesky(1.5 * around + floor).T
    return [(math.exp(row[0]), *row[1:]) for row in (place[:, None] + moves).reshape(-1, many).tolist()]


def go_down(pool: Pool, valley: Shape, rng: np.random.Generator) -> None:
    """Go on from one valley alone: among shapes of several, their distance hides the direction of each."""
    own = [valley, *((valley[0] * (1.0 + d), valley[1]) for d in (-ASIDE, ASIDE))]
    pool.add(own)
    for step in range(VALLEY_STEPS):
        own = sorted((shape for shape in own if shape in pool.far), key=pool.far.__getitem__)[:FEW]
        moved = _moved(own, ASIDE * 0.6**step, 6, rng)
        pool.add(moved)
        own += moved


def distinct(ranked: Sequence[Shape], apart: float, most: int = VALLEYS) -> list[Shape]:
    """Return the best shapes of a counter, so many at most, that are no neighbours: one of those stands for all.

    ``apart``: windows by which these are further apart, in window or boundary.
    """
    kept: list[Shape] = []
    for shape in ranked:
        near = (max(abs(shape[0] - k[0]), abs(shape[1] - k[1]) % k[0]) < apart * k[0] for k in kept)
        if len(kept) < most and not any(near):
            kept.append(shape)
    return kept


def feasible(quick: Record, shape: Shape, seen: Structure) -> list[Shape]:
    """Return what is feasible near this shape of a counter, with the number that suits it and the next ones.

    A window longer by as much as its number is higher explains nearly the same: each number has its own window.
    """
    s = statistic(quick, "sliding_counter", [shape], seen.usual)
    thresholds = thresholds_of(quick, "sliding_counter", [shape], s)
    limit = float(thresholds[0, likelihood.overlap(quick, s, thresholds)[0].argmin()])
    middle_s = 0.5 * float(quick.sent_s[0] + quick.sent_s[-1])
    found: list[Shape] = []
    for number in (limit + d for d in NUMBERS if limit + d >= 1.0):
        longer = number / max(limit, 1.0)
        found += counters.feasible(quick, (shape[0] * longer, middle_s + (shape[1] - middle_s) * longer), number)
    return found


def overlaps(quick: Record, family: str, shapes: Sequence[Shape], seen: Structure) -> list[float]:
    """Return how far the decisions lie on the wrong side under each shape (`likelihood.overlap`); 0: none does."""
    size = max(1, 400_000 // max(1, quick.at_s.size))
    found: list[float] = []
    for first in range(0, len(shapes), size):
        part = shapes[first : first + size]
        s = statistic(quick, family, part, seen.usual)
        found += likelihood.overlap(quick, s, thresholds_of(quick, family, part, s)).min(axis=1).tolist()
    return found
