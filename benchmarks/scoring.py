"""What settings are worth on a world: an hour of saturated demand behind the recommended limiter.

This file owns the driving, not the judging. Two forms of the same drive: as long as nothing is refused all calls can be
laid out at once, and the limiters are asked only if some arrival could be refused at all; where refusals change what
follows, calls go through `analysis.virtual` one by one. A test holds the two together.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from analysis.virtual import Call, VirtualTarget
from mock_server.limits import AnchoredWindow, FixedWindow, SlidingCounter, SlidingLog, TokenBucket
from redline.limiter import ClientLimiter
from redline.traffic import Pacing

if TYPE_CHECKING:
    from collections.abc import Callable

    from analysis.result import Settings
    from analysis.virtual import World
    from mock_server.limits import Spec

HOUR_S = 3600.0
_TIMEOUT_S = 120.0
_THROTTLED = 429
_MOST_PER_S = 200.0  # what a client offers where no limit was found: the fastest of the worlds and a fifth
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Driven:
    """How an hour went."""

    sent: int
    throttled: int

    @property
    def passed(self) -> int:
        """Calls that the limits let in."""
        return self.sent - self.throttled

    @property
    def throttled_share(self) -> float:
        """Share of calls refused, 0 to 1; 0 where none was sent."""
        return self.throttled / self.sent if self.sent else 0.0


class Controller(Protocol):
    """A client that decides when its next call leaves. `ClientLimiter` does; so do the baselines."""

    def next_moment_s(self, now_s: float, in_flight: int) -> float:
        """Return the earliest moment from ``now_s`` on; inf: ask again when an answer came."""

    def sent(self, now_s: float) -> None:
        """Hear that a call left."""

    def answered(self, now_s: float, status: int) -> None:
        """Hear that an answer came."""


class Limited:
    """The recommended limiter as a `Controller`: it learns nothing from answers."""

    def __init__(self, pacing: Pacing) -> None:
        self._limiter = ClientLimiter(pacing)
        self.next_moment_s = self._limiter.next_moment_s
        self.sent = self._limiter.sent

    def answered(self, now_s: float, status: int) -> None:
        """Learn nothing: settings are fixed."""


def pacing_of(settings: Settings, duration_s: float = HOUR_S) -> Pacing:
    """Return the limiter that settings describe, fed with more calls than it lets go."""
    rpm = settings.requests_per_minute
    return Pacing(
        rate_per_s=_MOST_PER_S if rpm is None else rpm / 60.0,
        burst=1.0 if settings.burst is None else max(1.0, settings.burst),
        max_concurrency=settings.max_concurrency,
        duration_s=duration_s,
        offered_per_s=math.inf,
    )


def drive(world: World, pacing: Pacing, seed: tuple[int, ...]) -> Driven:
    """Run ``pacing.duration_s`` of saturated demand against a world from its rested state."""
    if _plain(world) and pacing.rate_per_s:
        laid_out = _laid_out(world, pacing, np.random.default_rng(seed))
        if laid_out is not None:
            return laid_out
    return drive_controller(world, Limited(pacing), pacing.duration_s, np.random.default_rng(seed))


def drive_controller(
    world: World, controller: Controller, duration_s: float, rng: np.random.Generator, tokens: float = 1.0
) -> Driven:
    """Let a controller send for a while; count what it sent and what was refused."""
    target = VirtualTarget(world, rng)
    now_s, in_flight, sent, throttled = 0.0, 0, 0, 0
    while now_s < duration_s:
        moment_s = controller.next_moment_s(now_s, in_flight)
        if moment_s <= now_s:
            target.send(Call(sent, now_s + _TIMEOUT_S, tokens), now_s)
            controller.sent(now_s)
            sent += 1
            in_flight += 1
            continue
        answer = target.step(min(moment_s, duration_s))
        if answer is None:
            now_s = min(moment_s, duration_s)
            continue
        now_s = answer.done_s
        in_flight -= 1
        throttled += answer.status == _THROTTLED
        controller.answered(now_s, answer.status)
    while (answer := target.step(duration_s + 2 * _TIMEOUT_S)) is not None:
        throttled += answer.status == _THROTTLED
    return Driven(sent, throttled)


def _plain(world: World) -> bool:
    """Return whether the limits of a world are such that all that happens can be laid out."""
    if world.background is not None or world.faults.hang:
        return False
    return all(
        limit.metric == "concurrency"
        or (limit.metric == "requests" and not limit.changes and not limit.used and type(limit.spec) in _ROOM)
        for limit in world.limits
    )


@dataclass(frozen=True, slots=True)
class _Delays:
    """Of each call that may be sent: on the way there, at the server and on the way back; seconds."""

    out_s: Floats
    work_s: Floats
    back_s: Floats
    counted: npt.NDArray[np.bool_]  # whether the limits see it


def _laid_out(world: World, pacing: Pacing, rng: np.random.Generator) -> Driven | None:
    """Lay out all calls as if none were refused, then count refusals; None where these would change what follows."""
    count = math.floor(pacing.burst + (pacing.rate_per_s or 0.0) * pacing.duration_s)
    delays = _delays(world, count, rng)
    sent_s = _sent(pacing, count, delays)
    sent_s = sent_s[sent_s < pacing.duration_s]
    seen = delays.counted[: len(sent_s)]
    reached_s = (sent_s + delays.out_s[: len(sent_s)])[seen]
    refused = 0
    for limit in world.limits:
        if limit.metric == "concurrency":
            if _most_inside(reached_s, reached_s + delays.work_s[: len(sent_s)][seen]) > limit.spec.limit:
                return None
            continue
        arrived_s = world.clock.epoch_s + np.sort(reached_s) * (1.0 + world.clock.drift)
        place = rng.integers(limit.replicas, size=len(arrived_s))
        refused += sum(refusals(limit.spec, arrived_s[place == k]) for k in range(limit.replicas))
    alone = len(world.limits) == 1 and pacing.max_concurrency is None
    return Driven(len(sent_s), refused) if alone or not refused else None


def _delays(world: World, count: int, rng: np.random.Generator) -> _Delays:
    network, service, faults = world.network, world.service, world.faults

    def one_way() -> Floats:
        return np.asarray(network.minimum_s + network.spread_s * rng.beta(network.alpha, network.beta, count))

    failed = rng.random(count) < faults.overloaded
    work_s = service.median_s * rng.lognormal(0.0, service.sigma, count) + service.per_token_s
    part = 0.0 if faults.before_admission else rng.random(count)
    counted = ~failed if faults.before_admission else np.ones(count, bool)
    return _Delays(one_way(), np.where(failed, part * work_s, work_s), one_way(), counted)


def _sent(pacing: Pacing, count: int, delays: _Delays) -> Floats:
    """Return when each call leaves: as soon as the limiter lets it, and a place is free where places are few."""
    rate_per_s, places = pacing.rate_per_s or 0.0, pacing.max_concurrency
    due_s = np.maximum(0.0, (np.arange(count) + 1.0 - pacing.burst) / rate_per_s)
    if places is None:
        return due_s
    took_s = np.minimum(delays.out_s + delays.work_s + delays.back_s, _TIMEOUT_S).tolist()
    moments: list[float] = []
    free_s, full_at_s, now_s, gap_s = [0.0] * places, -math.inf, 0.0, 1.0 / rate_per_s
    for took in took_s:  # the bucket in the form that `redline.limiter` has it
        now_s = max(now_s, full_at_s - (pacing.burst - 1.0) * gap_s, free_s[0])
        if now_s >= pacing.duration_s:
            break
        full_at_s = max(now_s, full_at_s) + gap_s
        moments.append(now_s)
        heapq.heapreplace(free_s, now_s + took)
    return np.array(moments)


def _most_inside(reached_s: Floats, left_s: Floats) -> int:
    """Return the most calls that are at the server at once."""
    reached_s = np.sort(reached_s)
    inside = np.arange(1, len(reached_s) + 1) - np.searchsorted(np.sort(left_s), reached_s, side="right")
    return int(inside.max(initial=0))


def refusals(spec: Spec, arrived_s: Floats) -> int:
    """Count what a limiter refuses of these arrivals (sorted, server time). Each costs 1."""
    if len(arrived_s) == 0 or _ROOM[type(spec)](spec, arrived_s):
        return 0
    state = spec.limiter()
    check, commit, refused = state.check, state.commit, state.refused
    count = 0
    for now_s in arrived_s.tolist():
        if check(now_s).admitted:
            commit(now_s)
        else:
            refused(now_s)
            count += 1
    return count


# Whether all arrivals surely pass. Where a moment is within a microsecond of the edge the limiter itself decides.
_EDGE_S = 1e-6


def _fixed_has_room(spec: FixedWindow, at_s: Floats) -> bool:
    if spec.calendar:
        return False
    starts = [np.floor((at_s - spec.phase_s + nudge) / spec.window_s) for nudge in (-_EDGE_S, _EDGE_S)]
    return all(int(np.unique(start, return_counts=True)[1].max()) <= spec.limit for start in starts)


def _anchored_has_room(spec: AnchoredWindow, at_s: Floats) -> bool:
    first = 0
    while first < len(at_s):
        end = int(np.searchsorted(at_s, at_s[first] + spec.window_s))
        if end - first > spec.limit:
            return False
        first = end
    return True


def _log_has_room(spec: SlidingLog, at_s: Floats) -> bool:
    many = int(spec.limit)
    return len(at_s) <= many or bool(np.min(at_s[many:] - at_s[:-many]) > spec.window_s + _EDGE_S)


def _counter_has_room(spec: SlidingCounter, at_s: Floats) -> bool:
    place = (at_s - spec.phase_s) / spec.window_s
    index = np.floor(place).astype(np.int64)
    index -= index[0]
    counts = np.bincount(index)
    starts = np.concatenate(([0], np.cumsum(counts)))
    current = np.arange(len(at_s)) - starts[index]
    before = np.where(index > 0, counts[np.maximum(index - 1, 0)], 0)
    level = current + before * (1.0 - (place - np.floor(place))) + 1.0
    return bool(level.max() <= spec.limit - _EDGE_S)


def _bucket_has_room(spec: TokenBucket, at_s: Floats) -> bool:
    drained = np.arange(len(at_s)) - spec.rate_per_s * (at_s - at_s[0])
    level = drained - np.minimum.accumulate(drained)
    return bool(level.max() + 1.0 <= spec.burst - _EDGE_S)


_ROOM: dict[type[Spec], Callable[[Any, Floats], bool]] = {
    FixedWindow: _fixed_has_room,
    AnchoredWindow: _anchored_has_room,
    SlidingLog: _log_has_room,
    SlidingCounter: _counter_has_room,
    TokenBucket: _bucket_has_room,
}
