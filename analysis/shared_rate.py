"""What is said of a limit that others use, too, once its rate was measured by keeping it full."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from analysis.conclude import SHARED
from analysis.saturation import OTHERS

if TYPE_CHECKING:
    from analysis.estimate import Identified, Inference
    from analysis.result import Limit
    from analysis.saturation import Saturation

MANY: Final = 2.0  # roots of their mean, by which there may be more
REASON: Final = (
    "what passed while more was sent than it lets in tells its rate; how it counts is hidden by what else uses it"
)


def beside_others(said: Inference, found: Saturation) -> Inference:
    """Return what is said with the rate that was ``found``, where others or servers that count apart were told."""
    requests = [each for each in said.identified if each.limit.metric == "requests"]
    if len(requests) != 1 or not any(finding.kind in SHARED for finding in said.findings):
        return said
    if said.findings[0].kind == "drift" or requests[0].limit.state not in {"measured", "unresolved"}:
        return said
    theirs = OTHERS * found.rate_per_s * (said.latency.mean_s if said.latency else 0.0)
    return replace(said, identified=tuple(_beside(each, found, theirs) for each in said.identified))


def _beside(said: Identified, found: Saturation, theirs: float) -> Identified:
    """Return what is said of one limit. ``theirs``: calls of others that may be in flight, on average."""
    if said.limit.metric == "requests":
        return replace(said, limit=_at_rate(said, found))
    if said.limit.metric != "concurrency" or said.limit.state != "measured" or said.limit.limit_ci95 is None:
        return said
    low, high = said.limit.limit_ci95
    ci95 = (low, high + math.ceil(theirs + MANY * math.sqrt(theirs)))
    return replace(said, limit=msgspec.structs.replace(said.limit, limit_ci95=ci95))


def _at_rate(said: Identified, found: Saturation) -> Limit:
    limit, ci95 = said.limit, (60.0 * found.low, 60.0 * found.high)
    if limit.state == "measured" and limit.rate_per_min and ci95[0] <= limit.rate_per_min <= ci95[1]:
        return _with_rate(limit, limit.rate_per_min, ci95)
    plain = msgspec.structs.replace(
        limit,
        state="measured",
        family=None,
        family_probability=None,
        also_possible=(),
        limit=None,
        limit_ci95=None,
        window_s=None,
        window_s_ci95=None,
        phase_s=None,
        burst=None,
        burst_ci95=None,
        counts_refused=None,
        reason=REASON,
    )
    return _with_rate(plain, 60.0 * found.rate_per_s, ci95)


def _with_rate(limit: Limit, per_min: float, ci95: tuple[float, float]) -> Limit:
    if limit.window_s is None:
        return msgspec.structs.replace(limit, rate_per_min=per_min, rate_per_min_ci95=ci95)
    calls = tuple(max(1.0, round(each * limit.window_s / 60.0)) for each in ci95)
    many = (min(calls[0], (limit.limit or calls[0]) - 1.0), max(calls[1], (limit.limit or 0.0) + 1.0))
    return msgspec.structs.replace(
        limit, rate_per_min=per_min, rate_per_min_ci95=ci95, limit_ci95=many, burst_ci95=many
    )
