"""When to send: arrivals as seconds since a phase began. Pure; nothing here waits or reads a clock.

A rate that changes in time is a line from ``a`` to ``b`` calls per second over ``D`` seconds. The arrivals expected
until ``t`` are its integral ``L(t) = a t + (b - a) t^2 / (2 D)``. An arrival process of any such rate is one of unit
rate, bent by the inverse of L: the points 0, 1, 2, ... give an evenly spaced schedule, the points of a unit Poisson
process give a Poisson process of that rate (time rescaling, Cinlar 1975). So shape and randomness are apart.

Of W workers the i-th takes each W-th even point, or its own Poisson stream of 1/W the rate: such streams add up to the
whole, provided that their seeds differ.
"""

from __future__ import annotations

import math
from itertools import count, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from random import Random


def even_points(worker: int = 0, workers: int = 1) -> Iterator[float]:
    """Yield 0, 1, 2, ...; of several workers each yields its own share of them."""
    return (float(n) for n in count(worker, workers))


def poisson_points(rng: Random, workers: int = 1) -> Iterator[float]:
    """Yield the points of a Poisson process of rate ``1 / workers``."""
    point = 0.0
    while True:
        point += rng.expovariate(1.0 / workers)
        yield point


def line(points: Iterable[float], from_per_s: float, to_per_s: float, duration_s: float) -> Iterator[float]:
    """Yield the arrivals of a rate that goes in a line from one value to another, up to ``duration_s`` (excluded).

    Raises ValueError where a rate is negative or not finite, or the duration is not a positive number.
    """
    _check(from_per_s, to_per_s, duration_s)
    slope = (to_per_s - from_per_s) / duration_s
    expected = (from_per_s + to_per_s) / 2.0 * duration_s
    bent = (_inverse(n, from_per_s, slope) for n in takewhile(lambda n: n < expected, points))
    return takewhile(lambda t: t < duration_s, bent)


def constant(points: Iterable[float], rate_per_s: float, duration_s: float) -> Iterator[float]:
    """Yield the arrivals of a steady rate."""
    return line(points, rate_per_s, rate_per_s, duration_s)


def steps(
    points: Iterable[float], from_per_s: float, to_per_s: float, duration_s: float, levels: int
) -> Iterator[float]:
    """Yield the arrivals of a stair: ``levels`` steady rates of equal length, the first and the last as given."""
    _check(from_per_s, to_per_s, duration_s)
    if levels < 1:
        raise ValueError(f"steps must be at least 1, not {levels}")
    each_s = duration_s / levels
    rises = max(1, levels - 1)
    rates = [from_per_s + (to_per_s - from_per_s) * k / rises for k in range(levels)]
    return _stair(iter(points), rates, each_s)


def bursts(size: int, every_s: float | None, duration_s: float, worker: int = 0, workers: int = 1) -> Iterator[float]:
    """Yield ``size`` arrivals at once, and again each ``every_s`` seconds (None: only once)."""
    if size < 1:
        raise ValueError(f"a burst takes at least 1 call, not {size}")
    if every_s is not None and not every_s > 0:
        raise ValueError(f"bursts need a positive time between them, not {every_s!r}")
    own = len(range(worker, size, workers))
    moments = (0.0,) if every_s is None else takewhile(lambda t: t < duration_s, (k * every_s for k in count()))
    return (moment for moment in moments for _ in range(own))


def replay(trace_s: Sequence[float], duration_s: float | None, worker: int = 0, workers: int = 1) -> Iterator[float]:
    """Yield recorded moments of sending, moved so that the first is 0. Raises ValueError."""
    if any(not math.isfinite(moment) for moment in trace_s):
        raise ValueError("a trace takes finite numbers of seconds")
    ordered = sorted(trace_s)
    end_s = math.inf if duration_s is None else duration_s
    return takewhile(lambda t: t < end_s, (moment - ordered[0] for moment in ordered[worker::workers]))


def _check(from_per_s: float, to_per_s: float, duration_s: float) -> None:
    for rate in (from_per_s, to_per_s):
        if not (math.isfinite(rate) and rate >= 0):
            raise ValueError(f"a rate takes a number that is not negative, not {rate!r}")
    if not (math.isfinite(duration_s) and duration_s > 0):
        raise ValueError(f"a duration takes a positive number of seconds, not {duration_s!r}")


def _inverse(expected: float, rate_per_s: float, slope: float) -> float:
    """Solve ``L(t) = expected`` for t; the form that loses no digits when the slope is small."""
    if expected == 0:
        return 0.0
    root = math.sqrt(max(0.0, rate_per_s * rate_per_s + 2.0 * slope * expected))
    return 2.0 * expected / (rate_per_s + root)


def _stair(points: Iterator[float], rates: Sequence[float], each_s: float) -> Iterator[float]:
    """Walk the levels with one stream of points, so that a level begins where the one before left off."""
    point = next(points, math.inf)
    before = 0.0
    for level, rate in enumerate(rates):
        until = before + rate * each_s
        while point < until:
            yield level * each_s + (point - before) / rate
            point = next(points, math.inf)
        before = until
