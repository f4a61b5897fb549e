"""The largest rate at which a paced client is never refused, for one known limit.

The client is a token bucket (rate rho, burst b): in any closed interval of length y at most ``floor(b + rho y)``
calls leave it. Between leaving and arriving lies a delay that varies by at most J, so what arrives within x left
within x + J. Each family is then one inequality, worked out beside its function. `I` clients that each obey
their own bucket add up to one with I times the burst and I times the rate.

Owns these inequalities and nothing else: neither how sure we are of the limit nor which burst is wanted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mock_server.limits import (
    AnchoredWindow,
    Concurrency,
    FixedWindow,
    LeakyQueue,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)

if TYPE_CHECKING:
    from mock_server.limits import Spec

# The inequalities hold with equality in the worst case, where rounding decides: stay a part per million below.
SPARE = 1e-6


def largest_rate_per_s(
    spec: Spec, burst: float, *, spread_s: float, instances: int = 1, whole_calls: bool = True
) -> float:
    """Return the largest rate (per s, of each instance) at which no call is refused, whatever the phase.

    ``spread_s`` is J. ``whole_calls``: each call costs 1; otherwise costs are of any size up to ``burst`` and the
    rate is in the limit's own unit (tokens). Returns 0 where the bursts alone are too much, and ``inf`` where the
    family does not limit a rate (concurrency, random) or is a quota per civil day.
    """
    match spec:
        case FixedWindow(calendar=str()):
            return math.inf
        case FixedWindow() | AnchoredWindow() | SlidingLog():
            room = _first_too_many(spec.limit, whole_calls=whole_calls) - instances * burst
            rate_per_s = _in_window(room, spec.window_s + spread_s)
        case SlidingCounter():
            rate_per_s = _under_counter(spec, instances * burst, spread_s, whole_calls=whole_calls)
        case TokenBucket() | LeakyQueue():
            rate_per_s = _under_bucket(spec, instances * burst, spread_s, whole_calls=whole_calls)
        case _:
            return math.inf
    return rate_per_s * (1.0 - SPARE) / instances


def sustained_rate_per_s(spec: Spec) -> float:
    """Return what the limit admits per second in the long run (N / W, or r); ``inf`` where it limits no rate."""
    match spec:
        case FixedWindow(calendar=str()):
            return math.inf
        case FixedWindow() | AnchoredWindow() | SlidingLog() | SlidingCounter():
            return spec.limit / spec.window_s
        case TokenBucket() | LeakyQueue():
            return spec.rate_per_s if spec.burst >= 1.0 else 0.0
        case _:
            return math.inf


def memory_s(spec: Spec) -> float:
    """Return for how long the limit remembers a call: its window, or the time in which a full bucket drains."""
    match spec:
        case FixedWindow(calendar=str()):
            return 0.0
        case FixedWindow() | AnchoredWindow() | SlidingLog() | SlidingCounter():
            return spec.window_s
        case TokenBucket() | LeakyQueue():
            return spec.burst / spec.rate_per_s
        case _:
            return 0.0


def capacity(spec: Spec) -> float:
    """Return what passes at once from a rested state: N, B or C; ``inf`` where the family has no such number."""
    match spec:
        case TokenBucket() | LeakyQueue():
            return spec.burst
        case FixedWindow() | AnchoredWindow() | SlidingLog() | SlidingCounter() | Concurrency():
            return spec.limit
        case _:
            return math.inf


def _first_too_many(limit: float, *, whole_calls: bool) -> float:
    """Return the least amount that does not fit: the next whole call, or anything above the limit."""
    return math.floor(limit) + 1.0 if whole_calls else limit


def _in_window(room: float, length_s: float) -> float:
    return max(0.0, room) / length_s


def _under_counter(spec: SlidingCounter, bursts: float, spread_s: float, *, whole_calls: bool) -> float:
    """Return the rate under a sliding counter.

    A call at the part u of its window sees ``c + p (1 - u)``, itself included, which is
    ``u c + (1 - u) (c + p)``: c arrived within u W and c + p within (1 + u) W. Putting in the bucket's bounds
    gives at most ``b + rho J + rho W (u^2 + 1 - u^2) = b + rho (W + J)``, which must not exceed N.

    For very small limits another sufficient condition is better: the sum never counts more than what two whole
    windows hold, so it is enough that fewer than N + 1 arrive within 2 W. It is what leaves a rate at N = 1.
    """
    one = _in_window(spec.limit - bursts, spec.window_s + spread_s)
    room = _first_too_many(spec.limit, whole_calls=whole_calls) - bursts
    return max(one, _in_window(room, 2.0 * spec.window_s + spread_s))


def _under_bucket(spec: TokenBucket | LeakyQueue, bursts: float, spread_s: float, *, whole_calls: bool) -> float:
    """Return the rate under a bucket that drains at r and holds B.

    n calls need at least ``(n - b) / rho`` to leave, so they may arrive within J less; the level after the last
    is at least n less what drained meanwhile. That stays within B for every n if and only if it does for the
    smallest n above B (larger ones are kinder as long as rho <= r):
    ``(n - b) / rho >= (n - B) / r + J``. With ``b + r J <= B`` this asks nothing beyond rho <= r; for b = 1 and
    a whole B it is the gap ``max(1 / r, (1 / r + J) / B)``.
    """
    n = _first_too_many(spec.burst, whole_calls=whole_calls)
    if n <= bursts:
        return 0.0
    least_s = (n - spec.burst) / spec.rate_per_s + spread_s
    return min(spec.rate_per_s, (n - bursts) / least_s) if least_s > 0.0 else spec.rate_per_s
