"""How many calls may be in flight at once: the concurrency that was measured, seen or is needed.

Pure. A client's place becomes free when it has the answer, a little later than on the server: the safe side. After
a timeout or a cancel the server may still be at work, so such a place is to be held until the deadline.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from analysis.recommend_shared import Others, left_for_us
from mock_server.limits import Concurrency

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from analysis.estimate import Identified, Inference
    from mock_server.limits import Spec

Table = list[tuple[float, float]]


def known_specs(found: Identified) -> tuple[tuple[float, Spec], ...]:
    """Return the weighted specs of a limit that was met; a measured concurrency may come as a number alone."""
    limit = found.limit
    if found.particles or limit.metric != "concurrency" or limit.state != "measured" or limit.limit is None:
        return found.particles
    return ((1.0, Concurrency(limit.limit)),)


def is_measured(inference: Inference) -> bool:
    """Tell whether a concurrency limit was met."""
    return any(f.limit.metric == "concurrency" and f.limit.state == "measured" for f in inference.identified)


def seen_to_pass(inference: Inference) -> int | None:
    """Return how many calls in flight were seen to pass where the limit itself was never met; None otherwise."""
    seen = [
        f.limit.limit for f in inference.identified if f.limit.metric == "concurrency" and f.limit.state == "at_least"
    ]
    least = min((value for value in seen if value is not None), default=None)
    return None if least is None else math.floor(least)


def measured_places(
    inference: Inference, refused_share: float, confident: Callable[[Sequence[Table]], float]
) -> float | None:
    """Return the places of a limit that was met or declared, at the caller's confidence; None where there is none."""
    others = Others(replicas=Others.among(inference.findings).replicas)
    tables: list[Table] = []
    for found in inference.identified:
        if found.limit.metric != "concurrency" or found.limit.state == "at_least":
            continue
        left = [
            (weight, left_for_us(spec, others, spread_s=0.0, refused_share=refused_share))
            for weight, spec in known_specs(found)
        ]
        table = [(weight, spec.limit) for weight, spec in left if isinstance(spec, Concurrency)]
        declared = found.limit.declared_limit if found.limit.state == "declared" else None
        if not table and declared is not None:
            table = [(1.0, declared)]
        if table:
            tables.append(table)
    return confident(tables) if tables else None


def needed_places(inference: Inference, rate_per_s: float | None, burst: float | None) -> int:
    """Return how many calls a client at this rate has in flight at most: a burst, and all of the slowest's time."""
    if not rate_per_s or inference.latency is None:
        return 0
    return math.ceil(rate_per_s * inference.latency.p999_s + (burst or 1.0))
