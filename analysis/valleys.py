"""All the valleys of a sliding counter's misfit around one of its shapes, by a grid as fine as the record can tell.

Boundaries drift apart as a window is counted on through a record, so windows are told apart in steps of their
frequency, ``1 / W``, that are a part of ``1 / duration``, as lines of a spectrum are (Lomb 1976; VanderPlas 2018). The
misfit is periodic in the boundary and has a local minimum for every few windows that nearly suit the record; the right
one is among the deepest, but often not the deepest of a coarse grid, and no step downhill leads from one to the next.
Pure; seconds on the record's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions
from analysis.descent import NEARLY, SAME_VALLEY, distinct, feasible, go_down, overlaps
from analysis.proposals import LEAST_WINDOW_S

if TYPE_CHECKING:
    from analysis.calls import Bools, Floats
    from analysis.decisions import Record
    from analysis.descent import Pool
    from analysis.proposals import Shape, Structure

REACH: Final = 2.0  # times the window, and parts of it, between which windows are looked at
STEP: Final = 0.1  # windows by which the boundaries at the ends of a record drift apart from one to the next
BOUNDARIES: Final = 24  # of each window
LOOKED_AT: Final = 2_000_000  # decisions of all shapes together: windows reach less far where that is too few
MANY: Final = 150  # admissions, and refusals, by which shapes are ranked
CLOSELY: Final = 60  # minima that are ranked by all decisions
DEEPEST: Final = 10  # valleys that are gone down
SAME: Final = 0.001  # windows by which shapes are apart that are judged,
MOST: Final = 30  # of so many


def deepest(pool: Pool, seen: Structure, rng: np.random.Generator) -> list[Shape]:
    """Return the best of the deepest valleys around a pool's nearest shape, and of what is feasible there.

    The pool gets what is looked at.
    """
    minima = _minima(decisions.fewer_of_each(pool.quick, MANY), pool.nearest(1)[0][0], seen)
    pool.add(minima)
    for valley in distinct(sorted(minima, key=pool.far.__getitem__), SAME_VALLEY, DEEPEST):
        go_down(pool, valley, rng)
    for shape in distinct(pool.ranked, SAME_VALLEY, DEEPEST):
        if pool.far[shape] < NEARLY:
            pool.add(feasible(pool.quick, shape, seen))
    return distinct(pool.ranked, SAME, MOST)


def _minima(some: Record, window_s: float, seen: Structure) -> list[Shape]:
    """Return the deepest local minima of the misfit, `CLOSELY` at most, on a grid around a window."""
    windows_s, boundaries_s = _grid(some, window_s)
    shapes = list(zip(np.repeat(windows_s, BOUNDARIES).tolist(), boundaries_s.ravel().tolist(), strict=True))
    far = np.array(overlaps(some, "sliding_counter", shapes, seen))
    lowest = np.flatnonzero(_lowest(far.reshape(boundaries_s.shape)))
    return [shapes[k] for k in lowest[np.argsort(far[lowest], kind="stable")[:CLOSELY]].tolist()]


def _grid(some: Record, window_s: float) -> tuple[Floats, Floats]:
    """Return windows and boundaries of each, (windows,) and (windows, boundaries): amid the record, in its seconds."""
    first_s, last_s = float(some.sent_s[0]), float(some.sent_s[-1])
    step = STEP / max(last_s - first_s, window_s)
    reach = 0.5 * step * LOOKED_AT / (BOUNDARIES * some.n)
    per_s = 1.0 / window_s
    most = min(per_s * REACH, per_s + reach, 1.0 / LEAST_WINDOW_S)
    windows_s = 1.0 / np.arange(max(per_s / REACH, per_s - reach), most, step)
    return windows_s, 0.5 * (first_s + last_s) + windows_s[:, None] * np.arange(BOUNDARIES) / BOUNDARIES


def _lowest(far: Floats) -> Bools:
    """Return where none of the eight neighbours is lower; the second axis goes round."""
    padded = np.pad(far, ((1, 1), (0, 0)), constant_values=np.inf)
    around = [np.roll(padded[1 + d : 1 + d + len(far)], e, axis=1) for d in (-1, 0, 1) for e in (-1, 0, 1) if d or e]
    return np.asarray(far <= np.min(around, axis=0))
