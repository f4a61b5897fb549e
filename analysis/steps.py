"""Steps from the shapes that a search has found: around them, to round windows, and outwards to where it breaks off.

Shapes are those of `analysis.proposals`. Pure; seconds on the record's clock.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis.proposals import ROUND_WINDOWS_S, clock_aligned, duration_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.calls import Floats
    from analysis.decisions import Record
    from analysis.proposals import Shape, Structure

NEAR: Final = 0.06  # relative distance within which a round window is tried
ABOUT: Final = 0.12  # and within which one is tried in
PHASES: Final = 24
FEWEST_BURSTS: Final = 3  # that tell the direction of a ridge,
FINE: Final = 0.002  # of the refill rate is a step that others are too coarse for,
ALONG: Final = np.array([2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 32, 40, 50, 60])  # bursts to either side,
FARTHEST: Final = 0.2  # relative distance of their refill rates, at most
STEPS: Final = 10.0 ** np.linspace(-4.0, -0.7, 12)


def first_scale(record: Record, family: str, seen: Structure) -> float:
    """Return the relative step of the first refinement: about the width of the sharpest bracket."""
    if family == "token_bucket" or len(seen.recoveries) == 0:
        return 0.06
    width = float(np.min(seen.recoveries[:, 1] - seen.recoveries[:, 0])) + record.spread_s
    return float(np.clip(width / duration_s(record) * 4, 0.005, 0.08))


def perturbed(best: Sequence[Shape], scale: float, seen: Structure, rng: np.random.Generator) -> list[Shape]:
    """Return shapes around these, about ``scale`` away relative to the window; a boundary also moves by itself."""
    shapes: list[Shape] = []
    for shape in best:
        for first, second in rng.standard_normal((5, 2)) * scale:
            value = shape[0] * math.exp(first)
            if len(shape) == 1:
                shapes.append((value,))
                continue
            boundary = shape[1] + second * shape[0]
            shapes += [(value, _carried(boundary, shape[0], seen)), (shape[0], boundary)]
    return shapes


def _carried(boundary: float, window_s: float, seen: Structure) -> float:
    """Return the boundary of this phase next to the middle recovery: changing the window moves few from there."""
    if len(seen.recoveries) == 0:
        return boundary
    anchor = float(seen.recoveries[len(seen.recoveries) // 2, 1])
    return boundary + math.floor((anchor - boundary) / window_s) * window_s


def rounded(family: str, shape: Shape, seen: Structure) -> list[Shape]:
    """Return the round windows close to the best one, at the boundaries that keep its recoveries in place."""
    if family == "token_bucket":
        return []
    whole = float(round(shape[0]))
    close = {w for w in (*ROUND_WINDOWS_S, whole, whole - 1, whole + 1) if w > 0 and abs(w / shape[0] - 1) < NEAR}
    if len(shape) == 1:
        return [(w,) for w in sorted(close)]
    shapes = clock_aligned(sorted(close), seen)
    for w in sorted(close):
        for _, first in seen.recoveries[-8:]:
            kept = shape[1] + math.floor((first - shape[1]) / shape[0] + 0.5) * shape[0]
            shapes += [(w, kept + d * w) for d in (-0.004, -0.001, 0.0, 0.001, 0.004)]
    return shapes


def in_phases(shape: Shape, spread_s: float) -> list[Shape]:
    """Return the round windows about as long as this one, with boundaries all over them.

    Over many windows a length that is a little off moves the boundary anywhere: none of the phases found says much.
    Only of windows that delays blur so much that one of these boundaries is as good as the right one.
    """
    about = [w for w in ROUND_WINDOWS_S if abs(w / shape[0] - 1.0) < ABOUT and 2.0 * PHASES * spread_s > w]
    return [(w, shape[1] + w * k / PHASES) for w in about for k in range(PHASES)]


def along(rates: Floats, bursts: Floats) -> list[Shape]:
    """Step along the ridge of a bucket, where a larger burst makes up for a slower refill.

    Bursts are whole, so the likelihood has a peak for each of them, and the best may be far from the first one found.
    ``rates``, ``bursts``: points of the ridge, the best one first.
    """
    if len(np.unique(bursts)) < FEWEST_BURSTS:
        return []
    one_s = -float(np.polyfit(bursts, rates, 1)[0])  # by so much the refill is slower for one call more
    if not 0.0 < one_s < FINE * rates[0]:  # coarser ones are found without this
        return []
    many = np.concatenate([-ALONG, np.linspace(-1.5, 1.5, 13), ALONG])
    near = rates[0] + one_s * many
    return [(rate,) for rate in near[np.abs(near / rates[0] - 1.0) < FARTHEST].tolist()]


def outwards(shape: Shape, seen: Structure) -> list[Shape]:
    """Step outwards to both sides: a likelihood with steps is flat, and its edges are the interval.

    A window is changed around each recovery that may hold a boundary still, and a phase is moved by itself.
    """
    steps = np.concatenate([-STEPS, STEPS])
    if len(shape) == 1:
        return [(shape[0] * math.exp(d),) for d in steps]
    anchors = (
        [shape[1], *seen.recoveries[[0, len(seen.recoveries) // 2, -1], 1]] if len(seen.recoveries) else [shape[1]]
    )
    window = shape[0]
    kept = [shape[1] + math.floor((a - shape[1]) / window + 0.5) * window for a in anchors]
    turned = [(window * math.exp(d), at) for at in dict.fromkeys(kept) for d in steps]
    return [*turned, *((window, shape[1] + d * window) for d in steps)]
