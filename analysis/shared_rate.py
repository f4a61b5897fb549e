"""What is said of a limit that others use, too, once its rate was measured by keeping it full."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from analysis.conclude import SHARED
from analysis.doubt import COMMON_WINDOWS_S
from analysis.result import Finding
from analysis.saturation import OTHERS
from mock_server.limits import SlidingCounter

if TYPE_CHECKING:
    from analysis.estimate import Identified, Inference
    from analysis.result import Limit
    from analysis.saturation import Saturation

SEEN: Final = 0.01  # weight of an explanation that is allowed for
SLACK: Final = 0.02  # by which two rates may differ
MANY: Final = 2.0  # roots of their mean, by which there may be more
REASON: Final = (
    "what passed while more was sent than it lets in tells its rate; how it counts is hidden by what else uses it"
)


def suspicious(said: Inference) -> bool:
    """Return whether others on the quota may hide behind what is told, though no answer contradicts it.

    What they use steadily makes a bucket refill the more slowly, and two of its refills look like a counter whose
    window nobody would choose; those who come or go look like a limit that moved. Other windows are contradicted soon.
    """
    limit, kinds = _only(said), {finding.kind for finding in said.findings}
    if limit is None or limit.state != "measured" or kinds & {*SHARED, "random"}:
        return False
    odd = limit.family == "sliding_counter" and limit.window_s not in COMMON_WINDOWS_S
    return limit.window_s is None or odd or "drift" in kinds


def beside_others(said: Inference, found: Saturation) -> Inference:
    """Return what is said with the rate that was ``found``, where others or servers that count apart use the limit.

    They do where they were told, or where what passed contradicts what is told.
    """
    limit = _only(said)
    if limit is None or limit.state not in {"measured", "unresolved"}:
        return said
    findings = said.findings
    if not any(finding.kind in SHARED for finding in findings):
        if not suspicious(said) or _agrees(limit, found):
            return said
        findings = (*findings, _hidden(limit, found))
    elif findings[0].kind == "drift":  # the rate may have been another one before
        return said
    found = replace(found, high=found.high * _kept_back(said))
    theirs = OTHERS * found.rate_per_s * (said.latency.mean_s if said.latency else 0.0)
    identified = tuple(_beside(each, found, theirs) for each in said.identified)
    return replace(said, identified=identified, findings=findings)


def _kept_back(said: Inference) -> float:
    """Return how many times as much may be allowed as passes: a counter of k calls lets in k - 1 when it is kept full.

    What fades of its last window leaves no room for a whole call until the next one begins.
    """
    places = max([1.0, *(f.value or 1.0 for f in said.findings if f.kind == "replicas")])
    (particles,) = (each.particles for each in said.identified if each.limit.metric == "requests")
    each = [spec.limit / places for weight, spec in particles if weight > SEEN and isinstance(spec, SlidingCounter)]
    return max((k / max(k - 1.0, 0.5 * k) for k in each), default=1.0)


def _only(said: Inference) -> Limit | None:
    """Return the limit on requests; None where there are two."""
    requests = [each.limit for each in said.identified if each.limit.metric == "requests"]
    return requests[0] if len(requests) == 1 else None


def _agrees(limit: Limit, found: Saturation) -> bool:
    """Return whether so much would pass. A counter of few calls that is kept full lets in up to one a window less."""
    per_min, less = limit.rate_per_min or 0.0, 60.0 / limit.window_s if limit.window_s else 0.0
    return 60.0 * found.low <= (1.0 + SLACK) * per_min and per_min <= (1.0 + SLACK) * 60.0 * found.high + less


def _hidden(limit: Limit, found: Saturation) -> Finding:
    share = 1.0 - (limit.rate_per_min or 0.0) / (60.0 * found.rate_per_s)
    text = f"{60.0 * found.rate_per_s:.4g} calls a minute pass while more is sent than the limit lets in"
    if share <= 0.0:
        return Finding(kind="background", value=None, text=f"{text}: something else uses it at times")
    return Finding(kind="background", value=share, ci95=(0.0, min(1.5 * share, OTHERS)), text=f"{text}: others use it")


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
    if limit.state == "measured" and limit.family == "token_bucket":
        return _with_rate(limit, 60.0 * found.rate_per_s, ci95)  # steady others only slow down its refill
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
