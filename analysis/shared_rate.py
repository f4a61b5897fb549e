"""What is said of a limit that others use, too, once its rate was measured by keeping it full."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from analysis.conclude import SHARED
from analysis.doubt import COMMON_WINDOWS_S
from analysis.result import Finding, Limit
from analysis.saturation import OTHERS
from mock_server.limits import SlidingCounter

if TYPE_CHECKING:
    from analysis.estimate import Identified, Inference
    from analysis.saturation import Saturation

HIDING: Final = frozenset({"token_bucket", "leaky_queue", "sliding_counter"})  # families behind which others hide
NEARLY: Final = 0.2  # relative distance from a common window
SEEN: Final = 0.01  # weight of an explanation that is allowed for
SLACK: Final = 0.02  # by which two rates may differ
ENOUGH: Final = 1.5  # calls in a row, for each server that counts apart: then none of its room is lost
TOGETHER: Final = 0.75  # of the calls that passed together before are about as many
SMALL: Final = 8.0  # calls, up to which one is a large part
MANY: Final = 2.0  # roots of their mean, by which there may be more
REASON: Final = (
    "what passed while more was sent than it lets in tells its rate; how it counts is hidden by what else uses it"
)


def suspicious(said: Inference) -> bool:
    """Return whether others on the quota may hide behind what is told, though no answer contradicts it.

    What they use steadily makes a bucket refill the more slowly, and two of its refills look like a counter whose
    window nobody would choose; those who come or go look like a limit that moved, or like two. Other windows are
    contradicted soon; but one that is nearly a common one may be that, of a limit that moved.
    """
    requests, kinds = _requests(said), {finding.kind for finding in said.findings}
    if not requests or any(x.state != "measured" for x in requests) or kinds & {*SHARED, "random"}:
        return False
    odd = [x for x in requests if x.window_s not in COMMON_WINDOWS_S]
    if len(requests) == 1:
        odd = [x for x in odd if x.family in HIDING or _nearly_common(x.window_s)]
    return bool(odd) or "drift" in kinds


def _nearly_common(window_s: float | None) -> bool:
    """Return whether somebody would choose a window not far from this one."""
    return window_s is not None and any(abs(window_s / common - 1.0) < NEARLY for common in COMMON_WINDOWS_S)


def beside_others(said: Inference, found: Saturation) -> Inference:
    """Return what is said with the rate that was ``found``, where others or servers that count apart use the limit.

    They do where they were told, or where what passed contradicts what is told. Two limits that it contradicts are one.
    A limit that has moved lets in what it was told to let in since, unless it still moves.
    """
    requests = _requests(said)
    if not requests or any(x.state not in {"measured", "unresolved"} for x in requests):
        return said
    lowest, findings = min(requests, key=lambda x: x.rate_per_min or 0.0), said.findings
    shared = any(f.kind in SHARED for f in findings)
    moved = lowest.state == "measured" and any(f.kind == "drift" for f in findings[:1])
    if len(requests) > 1 if shared else not suspicious(said):
        return said
    if (moved or not shared) and _agrees(lowest, found):
        if not moved or (findings[0].value or 0.0) > 0.0:  # others who left have left all of it, too
            return said
        return replace(said, findings=tuple(f for f in findings if f.kind != "background"))
    if moved or not shared:
        findings = (_hidden(lowest, found), *(_or_moved(f) for f in findings if f.kind != "background"))
    found = replace(found, high=found.high * _kept_back(said, found.at_once) * _kept_waiting(said, found))
    theirs = OTHERS * found.rate_per_s * (said.latency.mean_s if said.latency else 0.0)
    kept = [x for x in said.identified if x.limit.metric != "requests" or x.limit is lowest]
    identified = tuple(_beside(each, found, theirs, alone=len(requests) == 1) for each in kept)
    return replace(said, identified=identified, findings=findings)


def _or_moved(told: Finding) -> Finding:
    """Return what was told of a limit that has moved, as the other possibility: it may still be moving."""
    return msgspec.structs.replace(told, text=f"or it still changes: {told.text}") if told.kind == "drift" else told


def _requests(said: Inference) -> list[Limit]:
    """Return the limits on requests."""
    return [each.limit for each in said.identified if each.limit.metric == "requests"]


def _kept_back(said: Inference, at_once: int) -> float:
    """Return how many times as much may be allowed as passes: a counter of k calls lets in k - 1 when it is kept full.

    What fades of its last window leaves no room for a whole call until the next one begins. Where nothing is known of
    the family, or more passed together before than it says, it may be one of so many calls, unless about as many pass
    together again; on servers that count apart as many may, one on each.
    """
    places = max([1.0, *(f.value or 1.0 for f in said.findings if f.kind == "replicas")])
    requests = [each for each in said.identified if each.limit.metric == "requests"]
    particles = [pair for each in requests for pair in each.particles]
    sizes = [spec.limit / places for weight, spec in particles if weight > SEEN and isinstance(spec, SlidingCounter)]
    before = max((x.limit.limit or 0.0 for x in said.identified if x.limit.metric == "concurrency"), default=0.0)
    known = all(x.limit.state == "measured" and before <= (x.limit.limit or before) for x in requests)
    if not known and 0.0 < before <= SMALL and (at_once < TOGETHER * before or places >= max(2.0, TOGETHER * before)):
        sizes.append(before / places)
    return max((k / max(k - 1.0, 0.5 * k) for k in sizes), default=1.0)


def _kept_waiting(said: Inference, found: Saturation) -> float:
    """Return how many times as much may be allowed where servers count apart.

    Room on one of them waits for a call that comes there; only where each lets in several at once is none of it lost.
    """
    either = any(finding.kind == "background" for finding in said.findings)
    told = (f.ci95[0] if either and f.ci95 else f.value or 1.0 for f in said.findings if f.kind == "replicas")
    places = max(told, default=1.0)
    several = found.ever_at_once >= ENOUGH * places and found.ever_at_once > SMALL
    return 1.0 if several or places <= 1.0 else 1.0 / (1.0 - found.waited)


def _agrees(limit: Limit, found: Saturation) -> bool:
    """Return whether so much would pass. A counter of few calls that is kept full lets in up to one a window less."""
    per_min, less = limit.rate_per_min or 0.0, 60.0 / limit.window_s if limit.window_s else 0.0
    return 60.0 * found.low <= (1.0 + SLACK) * per_min and per_min <= (1.0 + SLACK) * 60.0 * found.high + less


def _hidden(limit: Limit, found: Saturation) -> Finding:
    """Tell of others. No share to set apart: settings that were verified beside them leave it to them already."""
    share = 1.0 - (limit.rate_per_min or 0.0) / (60.0 * found.rate_per_s)
    text = f"{60.0 * found.rate_per_s:.4g} calls a minute pass while more is sent than the limit lets in"
    cause = f"others use about {share:.0%} of it" if share > 0.0 else "something else uses it at times"
    return Finding(kind="background", value=None, text=f"{text}: {cause}")


def _beside(said: Identified, found: Saturation, theirs: float, *, alone: bool) -> Identified:
    """Return what is said of one limit. ``theirs``: calls of others in flight; ``alone``: it was told so."""
    if said.limit.metric == "requests":
        ci95 = (60.0 * found.low, 60.0 * found.high)
        limit = _at_rate(said.limit, 60.0 * found.rate_per_s, ci95) if alone else None
        return replace(said, limit=limit or _with_rate(_plain(said.limit), 60.0 * found.rate_per_s, ci95))
    if said.limit.metric != "concurrency" or said.limit.state != "measured" or said.limit.limit_ci95 is None:
        return said
    low, high = said.limit.limit_ci95
    ci95 = (low, high + math.ceil(theirs + MANY * math.sqrt(theirs)))
    return replace(said, limit=msgspec.structs.replace(said.limit, limit_ci95=ci95))


def _at_rate(limit: Limit, per_min: float, ci95: tuple[float, float]) -> Limit | None:
    """Return a limit that the rate which was found leaves as it is, or almost; None where it does not."""
    if limit.state != "measured" or not limit.rate_per_min:
        return None
    if limit.family == "token_bucket":
        return _with_rate(limit, per_min, ci95)  # steady others only slow down its refill
    return _with_rate(limit, limit.rate_per_min, ci95) if ci95[0] <= limit.rate_per_min <= ci95[1] else None


def _plain(limit: Limit) -> Limit:
    """Return a measured limit of which nothing is known but its rate."""
    return Limit(metric=limit.metric, state="measured", declared_limit=limit.declared_limit, reason=REASON)


def _with_rate(limit: Limit, per_min: float, ci95: tuple[float, float]) -> Limit:
    if limit.window_s is None:
        return msgspec.structs.replace(limit, rate_per_min=per_min, rate_per_min_ci95=ci95)
    calls = tuple(max(1.0, round(each * limit.window_s / 60.0)) for each in ci95)
    many = (min(calls[0], (limit.limit or calls[0]) - 1.0), max(calls[1], (limit.limit or 0.0) + 1.0))
    return msgspec.structs.replace(
        limit, rate_per_min=per_min, rate_per_min_ci95=ci95, limit_ci95=many, burst_ci95=many
    )
