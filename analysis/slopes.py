"""Limits that are no sharp edge from where we stand: counted in several places, or used by others too.

With s calls of ours in the limiter's memory the next one is refused with a chance that rises with s. On R counters
that count apart it is the chance to meet a full one. Beside other clients it
is the chance that they have taken what is left: groups of calls that come as a Poisson stream. So each family keeps
its statistic and only the threshold becomes a slope, whose parameters are fitted to how many were admitted and
refused at each value of the statistic. In a window that starts empty others have used the less, the less of it has
passed, so decisions are told apart by that, too. Pure; the unit is calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.kernels import gentle

if TYPE_CHECKING:
    from analysis.calls import Bools, Floats, Ints

PLACES: Final = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)  # numbers of counters that are tried
SHARES: Final = (0.03, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)  # parts of the limit that others may use
GROUPS: Final = (0.0, 0.05, 0.12)  # and the size of their groups, as parts of the limit; at least one call
BINS: Final = 100  # values of the statistic that are told apart
PARTS: Final = 8  # and of the part of the window that has passed
OUTLIER: Final = 0.003  # chance of an answer that has another cause
STEPS: Final = 14  # limits that are tried with each
FINE: Final = 0.05  # a second look goes so far to both sides of the best limit
_SIMULATED: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 28, 40)  # sizes of counters whose slopes are simulated
_WINDOWS: Final = 150
TABLES: Final = 1024  # sets of slopes that are kept: one record asks for the same ones again and again


@dataclass(frozen=True, slots=True)
class Slope:
    """``limit`` calls in all: on ``places`` counters, or beside others who use ``share`` of it by ``group`` calls."""

    limit: int
    places: int = 1
    share: float = 0.0
    group: int = 1


@dataclass(frozen=True, slots=True)
class Counts:
    """How many decisions were made at each value of the statistic, lowest first, and how they went.

    ``passed``: the part of the window that had passed by then.
    """

    held: Floats
    passed: Floats
    admitted: Floats
    refused: Floats

    @property
    def highest(self) -> int:
        """The most that was counted after an admission, about."""
        return round(float(self.held[np.flatnonzero(self.admitted)[-1]])) + 1

    def judged(self, tried: Tried) -> list[tuple[float, Slope]]:
        """Return (log likelihood in nats, slope): how well each explains the decisions."""
        return list(zip(self.told(tried).tolist(), tried.slopes, strict=True))

    def told(self, tried: Tried) -> Floats:
        """Return the log likelihoods alone, in nats."""
        if tried.apart is None:
            return gentle.beside(self.held, self.passed, self.admitted, self.refused, tried.about, OUTLIER)
        return gentle.apart(self.held, self.admitted, self.refused, *tried.apart, OUTLIER)


@dataclass(frozen=True, slots=True)
class Tried:
    """Slopes of one kind, and what the compiled loops take of them: (slopes, 3), or what `_steps` returns."""

    slopes: tuple[Slope, ...]
    about: Floats
    apart: tuple[Floats, Floats, Ints, Floats] | None

    @staticmethod
    def of(slopes: tuple[Slope, ...]) -> Tried:
        """Lay them out."""
        about = np.array([(s.limit, s.share, s.group) for s in slopes], float)
        return Tried(slopes, about, _steps(slopes) if slopes[0].places > 1 else None)


def counts(statistic: Floats, admitted: Bools, each: float = 1.0, passed: Floats | None = None) -> Counts:
    """Return the decisions of one shape, by the value of its ``statistic``. ``each``: how many one stands for.

    ``passed``: the part of the window that had passed at each, where that matters.
    """
    step = max(1.0, float(statistic.max()) / BINS)
    parts = 1 if passed is None else PARTS
    index = np.floor(np.maximum(statistic, 0.0) / step + 1e-9).astype(np.int64) * parts
    if passed is not None:
        index += np.clip(passed * PARTS, 0, PARTS - 1).astype(np.int64)
    size = (int(index.max()) // parts + 1) * parts
    held = (np.arange(size) // parts + (0.5 if step > 1.0 else 0.0)) * step
    part = np.ones(size) if passed is None else (np.arange(size) % PARTS + 0.5) / PARTS
    table = np.stack([held, part, *(np.bincount(index[k], minlength=size) * each for k in (admitted, ~admitted))])
    return Counts(*np.ascontiguousarray(table[:, table[2:].any(axis=0)]))


def rough(table: Counts) -> float:
    """Return about how well slopes explain a table: enough to choose the shapes that are looked at closely."""
    middling = (_on_places(table.highest, (2, 4, 8), 7), _beside(table.highest, (0.15,), (0.0,), 5))
    return max(float(table.told(kind).max()) for kind in middling)


def on_replicas(table: Counts) -> list[tuple[float, Slope]]:
    """Return (log likelihood, slope) for counters that count apart."""
    return _refined(table, _on_places(table.highest, PLACES, STEPS))


def beside_others(table: Counts) -> list[tuple[float, Slope]]:
    """Return (log likelihood, slope) for a quota that others use too."""
    return _refined(table, _beside(table.highest, SHARES, GROUPS, STEPS))


def _refined(table: Counts, tried: Tried) -> list[tuple[float, Slope]]:
    found = table.judged(tried)
    best = max(found, key=lambda pair: pair[0])[1]
    each = best.limit / best.places
    near = sorted({max(1, round(v)) for v in each * np.linspace(1.0 - FINE, 1.0 + FINE, 11)})
    fine = tuple(Slope(n * best.places, best.places, best.share, best.group) for n in near)
    return [*found, *table.judged(Tried.of(fine))]


@lru_cache(maxsize=TABLES)
def _on_places(highest: int, places: tuple[int, ...], steps: int) -> Tried:
    found: list[Slope] = []
    for r in places:
        least, most = max(1.0, 0.6 * highest / r), max(2.0, 1.6 * highest / r)
        found += (Slope(n * r, r) for n in sorted({round(v) for v in np.geomspace(least, most, steps).tolist()}))
    return Tried.of(tuple(found))


@lru_cache(maxsize=TABLES)
def _beside(highest: int, shares: tuple[float, ...], groups: tuple[float, ...], steps: int) -> Tried:
    slopes = (
        Slope(n, 1, share, group)
        for n in sorted({max(1, round(v)) for v in (np.linspace(0.9, 1.5, steps) * highest).tolist()})
        for share in shares
        for group in sorted({max(1, round(part * n)) for part in groups})
    )
    return Tried.of(tuple(slopes))


def _steps(slopes: tuple[Slope, ...]) -> tuple[Floats, Floats, Ints, Floats]:
    """Return what `gentle.apart` takes: limits, scales, starts, and the chances one slope after the other."""
    known = [_on_step(s.places, s.limit // s.places) for s in slopes]
    starts = np.cumsum([0, *(len(chance) for _, chance in known)])
    limits, scales = np.array([s.limit for s in slopes], float), np.array([scale for scale, _ in known])
    return limits, scales, starts, np.concatenate([chance for _, chance in known])


def _on_step(places: int, each: int) -> tuple[float, Floats]:
    """Return (calls that a step of room stands for, chance of a refusal at each step from empty to full).

    Large counters look like smaller ones, by the root of their size.
    """
    step = min((n for n in _SIMULATED if n >= each), default=_SIMULATED[-1])
    return math.sqrt(each / step), _filled(places, step)


@lru_cache(maxsize=512)
def _filled(places: int, each: int) -> Floats:
    """Return the chance of a refusal after 0, 1, 2 … calls, while counters fill up, from many simulated windows.

    Each admitted call went to one of the counters that were not full, all alike. Where f of R are full, R / (R - f)
    calls are decided on average until one passes: those that wait are refused the more often, so they weigh more.
    """
    rng = np.random.default_rng(each * 64 + places)
    counters = np.zeros((_WINDOWS, places), np.int64)
    chance = np.ones(places * each + 1)
    runs = np.arange(_WINDOWS)
    for held in range(places * each):
        full = counters == each
        some = full.sum(axis=1)
        chance[held] = np.mean(some / (places - some)) / np.mean(places / (places - some))
        counters[runs, np.argmax(np.where(full, -1.0, rng.random(full.shape)), axis=1)] += 1
    return chance
