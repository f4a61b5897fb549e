"""Settings for one of several clients that share a limit without talking to each other.

Each is paced by itself, so bursts add up and the formulas give every one less than its even part (see
`analysis.recommend_rates`): under a window of N, `I` clients get ``(N + 1 - I) / (W + J)`` together. More than N
cannot be served this way; they need a shared counter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from analysis.recommend import recommend, rounded_down

if TYPE_CHECKING:
    from analysis.estimate import Inference
    from analysis.result import Settings


def split(settings: Settings, inference: Inference, instances: int) -> Settings:
    """Return what one of ``instances`` equal clients is to be set to, given what a single client may do.

    Where a verification lowered ``settings`` below the formulas, each part is lowered alike. Raises `ValueError`
    where ``instances`` is below 1, or more than the limits have room for.
    """
    if instances < 1:
        raise ValueError(f"instances must be at least 1, not {instances}")
    if instances == 1:
        return settings
    alone = recommend(inference, max_throttled=settings.max_throttled)
    part = recommend(inference, max_throttled=settings.max_throttled, instances=instances)
    lowered = _lowered(settings.requests_per_minute, alone.requests_per_minute)
    rpm = None if part.requests_per_minute is None else rounded_down(part.requests_per_minute * lowered)
    places = part.max_concurrency
    if places is not None and settings.max_concurrency is not None:
        places = min(places, math.floor(settings.max_concurrency / instances))
        if places == 0:
            raise ValueError(f"{instances} instances are too many for this concurrency: let them share one counter")
    warmup = part.warmup
    if warmup is not None:
        warmup = msgspec.structs.replace(warmup, start_rpm=warmup.start_rpm * lowered)
    return msgspec.structs.replace(part, requests_per_minute=rpm, max_concurrency=places, warmup=warmup)


def _lowered(verified_rpm: float | None, recommended_rpm: float | None) -> float:
    """Return the part of the formulas' rate that a verification left, 1 where it left all."""
    if not verified_rpm or not recommended_rpm:
        return 1.0
    return min(1.0, verified_rpm / recommended_rpm)
