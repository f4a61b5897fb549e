"""The bodies of a 429, one function a shape. Pure: a decision in, an `ApiError` out.

Facts as recorded up to November 2026: the message gives the delay with decimals, ``retryDelay`` is its floor in
whole seconds; ``quotaValue`` is a string and absent where the limit is 0; an exhausted daily quota of the free tier
promises less than a minute, whatever the clock says; the service sends no ``Retry-After``.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

from mock_server.errors import ApiError
from mock_server.names import counted_as
from mock_server.quota import retry_after_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from mock_server.quota import Call, Decision, Violation

_TYPE = "type.googleapis.com/google.rpc."
_EXCEEDED = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this "
    "error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current usage, head to: "
    "https://ai.dev/rate-limit. "
)
_HELP = {
    "@type": f"{_TYPE}Help",
    "links": [
        {
            "description": "Learn more about Gemini API quotas",
            "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
        }
    ],
}


_VERTEX_EXHAUSTED = (
    "Resource exhausted. Please try again later. Please refer to "
    "https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details."
)
_VERTEX_METRIC = "aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model"
_DEPLETED = (
    "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your "
    "project and billing. Learn more at https://ai.google.dev/gemini-api/docs/billing#prepay."
)
_MINUTE_S = 60.0
# The capture of 2026-09-12 says 51.386 s in its message and 14 s in its RetryInfo. Nobody knows why; the same share.
_MISMATCH = 14 / 51


def refusal(shape: str, now_s: float, call: Call, decision: Decision) -> ApiError:
    """Return the 429 for a refused call in the given shape (a key of `SHAPES`)."""
    return SHAPES[shape](now_s, call, decision)


def full(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Name every violated quota that has a name, and the delay where one is known."""
    named = [violation for violation in decision.violations if violation.limit.quota_id]
    wait_s = _told_s(now_s, decision)
    message = _EXCEEDED + "".join(f"\n{line}" for line in dict.fromkeys(_metric_line(v, call) for v in named))
    details: list[dict[str, Any]] = [_HELP]
    if named:
        violations = [_violation(v, call, place) for place, v in enumerate(named)]
        details.append({"@type": f"{_TYPE}QuotaFailure", "violations": violations})
    if wait_s is not None:
        message += f"\nPlease retry in {spelled(wait_s)}."
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{math.floor(wait_s)}s"})
    return ApiError(429, message, details)


def bare(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say nothing of quota or delay: what a paid project sees far below its limits."""
    del now_s, call, decision
    return ApiError(429, "Resource has been exhausted (e.g. check quota).")


def decimals(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say it like `full`, but ``retryDelay`` carries the decimals too, as some captures show."""
    error = full(now_s, call, decision)
    wait_s = _told_s(now_s, decision)
    for detail in error.details:
        if wait_s is not None and "retryDelay" in detail:
            detail["retryDelay"] = f"{math.ceil(wait_s * 1e9) / 1e9:.9f}".rstrip("0").rstrip(".") + "s"
    return error


def mismatched(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say it like `full` without the link, and let ``retryDelay`` promise far less than the message does."""
    error = full(now_s, call, decision)
    wait_s = _told_s(now_s, decision)
    error.details.remove(_HELP)
    for detail in error.details:
        if wait_s is not None and "retryDelay" in detail:
            detail["retryDelay"] = f"{math.floor(wait_s * _MISMATCH)}s"
    return error


def help_only(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say the first sentence and give a link (googleapis/python-genai#1427, batch creation)."""
    del now_s, call, decision
    return ApiError(429, _EXCEEDED, [_HELP])


def not_enough(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say it in one sentence that the Interactions API has been seen to use (2026-07-05)."""
    del now_s, call, decision
    return ApiError(429, "You do not have enough quota to make this request.")


def vertex(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say that shared capacity is short, as Vertex does and the Gemini API has been seen to."""
    del now_s, call, decision
    return ApiError(429, _VERTEX_EXHAUSTED)


def vertex_errors(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say the same with the older ``errors`` list beside the status."""
    error = vertex(now_s, call, decision)
    error.extra = {"errors": [{"message": error.message, "domain": "global", "reason": "rateLimitExceeded"}]}
    return error


def vertex_fixed(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say that a model on Vertex has a quota of its own and it is used up."""
    del now_s
    metric = decision.violations[0].limit.quota_metric or _VERTEX_METRIC
    return ApiError(
        429,
        f"Quota exceeded for {metric} with base model: {call.model}. Please submit a quota increase request. "
        "https://cloud.google.com/vertex-ai/docs/generative-ai/quotas-genai.",
    )


def spend_cap(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say that the project's monthly cap is reached."""
    del now_s, call, decision
    return ApiError(
        429,
        "Your project has exceeded its monthly spending cap. Please go to AI Studio at https://ai.studio/spend to "
        "manage your project spend cap.",
    )


def prepaid(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say that prepaid credit is used up, as it was told until mid-2026."""
    del now_s, call, decision
    return ApiError(429, _DEPLETED)


def prepaid_402(now_s: float, call: Call, decision: Decision) -> ApiError:
    """Say the same as since autumn 2026: another code, and still the status of a rate limit."""
    del now_s, call, decision
    return ApiError(402, _DEPLETED, status="RESOURCE_EXHAUSTED")


SHAPES: dict[str, Callable[[float, Call, Decision], ApiError]] = {
    "full": full,
    "decimals": decimals,
    "mismatched": mismatched,
    "help_only": help_only,
    "bare": bare,
    "not_enough": not_enough,
    "vertex": vertex,
    "vertex_errors": vertex_errors,
    "vertex_fixed": vertex_fixed,
    "spend_cap": spend_cap,
    "prepaid": prepaid,
    "prepaid_402": prepaid_402,
}


def held_refusal(call: Call, decision: Decision) -> ApiError:
    """Return the 429 for a cache or a batch that finds no room."""
    limit = decision.violations[0].limit
    if limit.metric == "cached_tokens":
        value = 0 if limit.value is None else limit.value
        return ApiError(
            429,
            f"TotalCachedContentStorageTokensPerModelFreeTier limit exceeded for model {call.model}: "
            f"limit={value:.0f}, requested={call.costs['cached_tokens']:.0f}",
        )
    return ApiError(429, _EXCEEDED, [_HELP])


def spelled(wait_s: float) -> str:
    """Write a delay as the service's message does: ``45.811974541s``, ``1h52m56.4s``; at most 9 decimals.

    Rounded up, so that a client that waits exactly this long is not too early.
    """
    nanos = math.ceil(wait_s * 1e9)
    minutes, rest = divmod(nanos, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest // 10**9}.{rest % 10**9:09d}".rstrip("0").rstrip(".") + "s"
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{seconds}"


def _told_s(now_s: float, decision: Decision) -> float | None:
    """Return the delay that the body promises; for a free daily quota it is the wrong one."""
    wait_s = retry_after_s(now_s, decision)
    free_day = any("PerDay" in v.limit.quota_id and "FreeTier" in v.limit.quota_id for v in decision.violations)
    return wait_s % _MINUTE_S if free_day and wait_s is not None else wait_s


def _metric_line(violation: Violation, call: Call) -> str:
    value, model = violation.limit.value or 0, counted_as(call.model)
    return f"* Quota exceeded for metric: {violation.limit.quota_metric}, limit: {value:.0f}, model: {model}"


def _violation(violation: Violation, call: Call, place: int) -> dict[str, Any]:
    """Return the entry of a violated quota. The order of the dimensions differs from one entry to the next."""
    dimensions = [("model", counted_as(call.model)), ("location", call.region)]
    # The service's order follows no known rule. This one repeats itself, and a lone entry may come either way too.
    if (zlib.crc32(violation.limit.quota_id.encode()) + place) % 2:
        dimensions.reverse()
    entry: dict[str, Any] = {
        "quotaMetric": violation.limit.quota_metric,
        "quotaId": violation.limit.quota_id,
        "quotaDimensions": dict(dimensions),
    }
    if violation.limit.value:
        entry["quotaValue"] = f"{violation.limit.value:.0f}"
    return entry
