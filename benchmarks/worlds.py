"""Hidden worlds for the benchmarks: seeded draws of targets with their truth, a family of draws per suite.

This file owns what is hidden and what counts as found; it knows nothing of how it is looked for. A world depends
on (seed, suite, index) alone, so a run can be repeated world by world and split over processes at will.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.virtual import Background, Faults, Network, ServerClock, Service, VirtualLimit, World
from mock_server.limits import (
    AnchoredWindow,
    Concurrency,
    FixedWindow,
    LeakyQueue,
    Random,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mock_server.limits import Spec

FAMILIES = ("fixed_window", "anchored_window", "sliding_log", "sliding_counter", "token_bucket")
BURST_REACH = 0.6  # a concurrency limit counts where it lies below this share of the burst
REACHED_SHARE = 0.7  # of the places in flight that a rate may take which is to be reached beside them
MAX_REQUESTS = 300_000  # the budget of calls; above any N that the suites draw


@dataclass(frozen=True, slots=True)
class RateTruth:
    """A rate limit as it is: rates per second of the client's clock; ``window_s`` None for a bucket."""

    metric: str
    family: str
    limit: float | None
    window_s: float | None
    burst: float
    rate_per_s: float
    count_refused: bool
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Case:
    """One world, the truth about it, and the seed of its noise. ``window_s``: the window that was drawn."""

    suite: str
    index: int
    world: World
    window_s: float
    rates: tuple[RateTruth, ...]
    concurrency: int | None
    concurrency_counts: bool
    seed: tuple[int, ...]
    background_share: float = 0.0
    change: tuple[float, RateTruth, RateTruth] | None = None  # the moment it starts, before, after
    random_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """The ingredients that a suite varies; `_case` cooks them."""

    family: str
    rpm: float
    window_s: float
    phase_s: float
    burst_share: float
    count_refused: bool
    concurrency: int | None
    network: Network
    service: Service
    faults: Faults
    clock: ServerClock

    @property
    def per_window(self) -> int:
        """N: calls in a window."""
        return max(1, round(self.rpm * self.window_s / 60.0))


def case(suite: str, index: int, seed: int) -> Case:
    """Draw a world. Raises `KeyError` for a suite that does not exist."""
    key = (seed, list(SUITES).index(suite), index)
    rng = np.random.default_rng(key)
    return SUITES[suite](index, rng, key)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw with equal chance for equal ratios."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def spec_of(family: str, limit: float, window_s: float, burst: float, draw: Draw) -> Spec:
    """Make the limiter of a family that lets ``limit`` calls (or tokens) pass in ``window_s``."""
    if family == "fixed_window":
        return FixedWindow(limit, window_s, draw.phase_s)
    if family == "anchored_window":
        return AnchoredWindow(limit, window_s)
    if family == "sliding_log":
        return SlidingLog(limit, window_s, draw.count_refused)
    if family == "sliding_counter":
        return SlidingCounter(limit, window_s, draw.phase_s, draw.count_refused)
    return TokenBucket(limit / window_s, burst)


def truth_of(metric: str, spec: Spec, *, counts: bool = True, copies: int = 1) -> RateTruth:
    """Describe a spec, ``copies`` of which count apart."""
    if isinstance(spec, TokenBucket | LeakyQueue):
        burst, rate = spec.burst * copies, spec.rate_per_s * copies
        return RateTruth(metric, spec.family, None, None, burst, rate, count_refused=False, counts=counts)
    assert isinstance(spec, FixedWindow | AnchoredWindow | SlidingLog | SlidingCounter)  # noqa: S101 - narrows a type
    limit = spec.limit * copies
    rate = limit / spec.window_s
    return RateTruth(metric, spec.family, limit, spec.window_s, limit, rate, spec.count_refused, counts)


def _draw(rng: np.random.Generator, windows: tuple[float, ...] = (1.0, 10.0, 60.0)) -> Draw:
    family = FAMILIES[int(rng.integers(len(FAMILIES)))]
    skewed = bool(rng.random() < 0.5)  # noqa: PLR2004 - half of the networks have a tail
    window_s = windows[int(rng.integers(len(windows)))]
    return Draw(
        family=family,
        rpm=log_uniform(rng, 10.0, 10_000.0),
        window_s=window_s,
        phase_s=0.0,
        burst_share=float(rng.uniform(0.05, 1.0)),
        count_refused=family.startswith("sliding") and bool(rng.random() < 0.25),  # noqa: PLR2004 - a quarter
        concurrency=round(log_uniform(rng, 1.0, 200.0)) if rng.random() < 0.5 else None,  # noqa: PLR2004 - half
        network=Network(
            float(rng.uniform(0.005, 0.06)),
            float(rng.uniform(0.002, 0.07)),
            *((1.5, 6.0) if skewed else (1.0, 1.0)),
        ),
        service=Service(log_uniform(rng, 0.2, 5.0), float(rng.uniform(0.1, 0.5))),
        faults=Faults(overloaded=float(rng.uniform(0.0, 0.02))),
        clock=ServerClock(1.75e9 + float(rng.uniform(0.0, 86_400.0)), float(rng.uniform(-2e-5, 2e-5))),
    )


def _rate_spec(draw: Draw, share: float = 1.0) -> Spec:
    """Make the drawn rate limiter, or the one that has a ``share`` of its limit."""
    limit = max(1, round(draw.per_window * share))
    return spec_of(draw.family, limit, draw.window_s, max(1, round(draw.burst_share * limit)), draw)


def latency_s(world: World) -> float:
    """E[L] as the client sees it: the work and the way there and back."""
    network = world.network
    way_s = network.minimum_s + network.spread_s * network.alpha / (network.alpha + network.beta)
    return world.service.mean_s + 2 * way_s


def _reachable(truth: RateTruth, world: World, concurrency: int | None) -> bool:
    """Return whether a client can reach this limit: within the budget, below what concurrency lets through."""
    if truth.burst > MAX_REQUESTS:
        return False
    return concurrency is None or truth.rate_per_s < concurrency / latency_s(world)


def _case(draw: Draw, key: tuple[int, ...], suite: str, **special: object) -> Case:
    """Make the plain world of a draw: one rate limit, perhaps a concurrency limit."""
    spec = _rate_spec(draw)
    limits = [VirtualLimit("requests", spec)]
    if draw.concurrency is not None:
        limits.append(VirtualLimit("concurrency", Concurrency(draw.concurrency)))
    world = World(tuple(limits), draw.network, draw.service, draw.faults, None, draw.clock)
    truth = truth_of("requests", spec)
    truth = replace(truth, counts=_reachable(truth, world, draw.concurrency))
    made = Case(
        suite=suite,
        index=key[-1],
        world=world,
        window_s=draw.window_s,
        rates=(truth,),
        concurrency=draw.concurrency,
        concurrency_counts=draw.concurrency is not None and draw.concurrency < BURST_REACH * truth.burst,
        seed=(*key, 1),
    )
    return replace(made, **special)  # type: ignore[arg-type]


def _standard(_index: int, rng: np.random.Generator, key: tuple[int, ...]) -> Case:
    return _case(_draw(rng), key, "standard")


def _odd(_index: int, rng: np.random.Generator, key: tuple[int, ...]) -> Case:
    draw = _draw(rng)
    window_s = log_uniform(rng, 1.0, 600.0)
    return _case(replace(draw, window_s=window_s, phase_s=float(rng.uniform(0.0, window_s))), key, "odd")


def _noisy(_index: int, rng: np.random.Generator, key: tuple[int, ...]) -> Case:
    draw = _draw(rng)
    network = replace(draw.network, minimum_s=0.15, spread_s=0.35)
    clock = replace(draw.clock, drift=float(rng.uniform(-2e-4, 2e-4)))
    return _case(replace(draw, network=network, faults=Faults(0.05), clock=clock), key, "noisy")


def _background(_index: int, rng: np.random.Generator, key: tuple[int, ...]) -> Case:
    draw = _draw(rng)
    share = (0.1, 0.3)[int(rng.integers(2))]
    calls_per_s = share * draw.per_window / draw.window_s
    bursty = bool(rng.random() < 0.5)  # noqa: PLR2004 - half of them
    group = max(2, round(share * draw.per_window * float(rng.uniform(0.1, 0.5)))) if bursty else 1
    if draw.concurrency is not None and calls_per_s * draw.service.mean_s > 0.3 * draw.concurrency:
        draw = replace(draw, concurrency=None)  # the others alone would fill it
    made = _case(draw, key, "background", background_share=share)
    return replace(made, world=replace(made.world, background=Background(calls_per_s, group)))


def _replicas(_index: int, rng: np.random.Generator, key: tuple[int, ...]) -> Case:
    draw = _draw(rng)
    copies = int(rng.integers(2, 9))
    each = _rate_spec(draw, 1.0 / copies)
    made = _case(draw, key, "replicas")
    limits = (VirtualLimit("requests", each, replicas=copies), *made.world.limits[1:])
    world = replace(made.world, limits=limits)
    truth = truth_of("requests", each, copies=copies)
    truth = replace(truth, counts=_reachable(truth, world, draw.concurrency))
    return replace(made, world=world, rates=(truth,))


def _drift(_index: int, rng: np.random.Generator, key: tuple[int, ...]) -> Case:
    draw = replace(_draw(rng), rpm=log_uniform(rng, 10.0, 10_000.0))
    while draw.per_window < 10:  # noqa: PLR2004 - a change of 10 % must change an integer
        draw = replace(_draw(rng), concurrency=None)
    share = 1.0 + float(rng.uniform(0.1, 0.5)) * (1.0 if rng.random() < 0.5 else -1.0)  # noqa: PLR2004 - up or down
    slides = bool(rng.random() < 0.5)  # noqa: PLR2004 - half step, half slide
    starts_s = float(rng.uniform(0.3, 2.0)) * draw.window_s + 5.0
    steps = 20 if slides else 1
    lasts_s = 2.0 * draw.window_s if slides else 0.0
    base = _rate_spec(draw)
    changes = tuple(
        (starts_s + lasts_s * k / steps, _scaled(base, 1.0 + (share - 1.0) * k / steps)) for k in range(1, steps + 1)
    )
    made = _case(draw, key, "drift")
    limits = (VirtualLimit("requests", base, changes=changes), *made.world.limits[1:])
    change = (starts_s, truth_of("requests", base), truth_of("requests", changes[-1][1]))
    return replace(made, world=replace(made.world, limits=limits), change=change)


def _scaled(spec: Spec, share: float) -> Spec:
    """Scale a limit; the window and the shape of it stay. A bucket's burst stays too: its rate changes."""
    if isinstance(spec, TokenBucket):
        return replace(spec, rate_per_s=spec.rate_per_s * share)
    assert isinstance(spec, FixedWindow | AnchoredWindow | SlidingLog | SlidingCounter)  # noqa: S101 - narrows a type
    return replace(spec, limit=max(1, round(spec.limit * share)))


def _random(_index: int, rng: np.random.Generator, key: tuple[int, ...]) -> Case:
    draw = replace(_draw(rng), concurrency=None)
    probability = log_uniform(rng, 0.005, 0.3)
    made = _case(draw, key, "random", random_probability=probability, rates=())
    return replace(made, world=replace(made.world, limits=(VirtualLimit("requests", Random(probability)),)))


def _several(_index: int, rng: np.random.Generator, key: tuple[int, ...]) -> Case:
    """Two or three limits, each of which a client can be stopped by."""
    kind = ("rpm+tpm", "rpm+concurrency", "rpm+tpm+concurrency", "rps+rpm")[int(rng.integers(4))]
    draw = _roomy(rng)
    if "concurrency" in kind:
        while (concurrency := _binding_concurrency(rng, draw)) is None:
            draw = _roomy(rng)
        draw = replace(draw, concurrency=concurrency)
    limits = [VirtualLimit("requests", _rate_spec(draw))]
    if "tpm" in kind:
        tokens = round(draw.per_window * log_uniform(rng, 50.0, 500.0))
        burst = max(200, round(draw.burst_share * tokens))
        limits.append(VirtualLimit("input_tokens", spec_of(draw.family, tokens, draw.window_s, burst, draw)))
    if kind == "rps+rpm":
        limits.insert(0, VirtualLimit("requests", _second_limit(rng, draw)))
    if draw.concurrency is not None:
        limits.append(VirtualLimit("concurrency", Concurrency(draw.concurrency)))
    world = World(tuple(limits), draw.network, draw.service, draw.faults, None, draw.clock)
    rates = tuple(truth_of(limit.metric, limit.spec) for limit in limits if limit.metric != "concurrency")
    counts = draw.concurrency is not None
    return Case("several", key[-1], world, draw.window_s, rates, draw.concurrency, counts, (*key, 1))


def _roomy(rng: np.random.Generator) -> Draw:
    """Draw what has room for a second limit below the first."""
    draw = replace(_draw(rng, (10.0, 60.0)), concurrency=None)
    while draw.per_window < 20:  # noqa: PLR2004 - fewer have no room
        draw = replace(_draw(rng, (10.0, 60.0)), concurrency=None)
    return draw


def _second_limit(rng: np.random.Generator, draw: Draw) -> Spec:
    """Make a limit on a shorter window: it stops a burst, the longer one stops what lasts."""
    odd = rng.random() < 0.5  # noqa: PLR2004 - half of them
    short_s = max(1.0, draw.window_s / float(rng.uniform(5.0, 30.0))) if odd else 1.0
    fair = draw.per_window * short_s / draw.window_s
    most = max(2.0, 0.5 * draw.per_window)
    limit = min(max(2, round(fair * float(rng.uniform(1.5, 4.0)))), math.floor(most))
    return spec_of(FAMILIES[int(rng.integers(4))], limit, short_s, limit, draw)


def _binding_concurrency(rng: np.random.Generator, draw: Draw) -> int | None:
    """Draw a concurrency limit; None where either that or the rate could not be reached beside the other."""
    burst = draw.per_window if draw.family != "token_bucket" else round(draw.burst_share * draw.per_window)
    most = max(1, math.ceil(BURST_REACH * max(2, burst)) - 1)
    concurrency = min(most, round(log_uniform(rng, 1.0, 200.0)))
    taken = draw.per_window / draw.window_s * latency_s(World((), draw.network, draw.service))
    return concurrency if taken < REACHED_SHARE * concurrency else None


def _hard(index: int, rng: np.random.Generator, key: tuple[int, ...]) -> Case:
    """Draw what else may go wrong, one kind a world. No number is promised here, but none may be narrow and wrong."""
    draw = _draw(rng)
    kind = ("slow", "hang", "early faults", "daily", "leaky", "clock")[index % 6]
    if kind == "slow":
        draw = replace(draw, service=Service(30.0, 0.3))
    elif kind == "hang":
        draw = replace(draw, faults=Faults(0.01, hang=float(rng.uniform(0.005, 0.03))))
    elif kind == "early faults":
        draw = replace(draw, faults=Faults(0.05, before_admission=True))
    elif kind == "clock":
        draw = replace(draw, clock=replace(draw.clock, drift=1e-3))
    made = _case(draw, key, "hard")
    limits = made.world.limits
    if kind == "daily":
        left = max(1, round(draw.per_window * float(rng.uniform(0.5, 4.0))))
        named = "RequestsPerDayPerProjectPerModel" if rng.random() < 0.5 else ""  # noqa: PLR2004 - half name it
        day = VirtualLimit("requests", FixedWindow(1_000_000, 86_400.0), used=1_000_000 - left, quota_id=named)
        limits = (*limits, day)
    if kind == "leaky":
        queue = LeakyQueue(draw.rpm / 60.0, max(2, round(draw.burst_share * draw.per_window)))
        limits = (VirtualLimit("requests", queue), *limits[1:])
        made = replace(made, rates=(replace(truth_of("requests", queue), counts=made.rates[0].counts),))
    return replace(made, world=replace(made.world, limits=limits))


SUITES: dict[str, Callable[[int, np.random.Generator, tuple[int, ...]], Case]] = {
    "standard": _standard,
    "odd": _odd,
    "noisy": _noisy,
    "background": _background,
    "replicas": _replicas,
    "several": _several,
    "random": _random,
    "drift": _drift,
    "hard": _hard,
}
EXTRA = frozenset({"hard"})  # suites that have no promised figure: run by name, not with `all`
