"""Gemini's wire format as a client sees it: bytes of a request, meaning of an answer. Pure.

No sockets, no clock. Whatever a server sends, `read_answer` returns an `Answer` and never raises: rubbish has a
class of its own. Shapes of the bodies: Gemini API docs and recorded 429s (RetryInfo is the floor, in whole seconds,
of the delay that the message gives; some bodies name no quota at all).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import msgspec

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d*)?|\.\d+)(ms|s))?")
_RETRY_IN = re.compile(r"retry in ((?:\d+h)?(?:\d+m(?!s))?(?:[\d.]+m?s)?)", re.IGNORECASE)
_METRIC = re.compile(r"Quota exceeded for (?:metric: )?'?([A-Za-z0-9_.-]+/[A-Za-z0-9_]+)")
_LIMIT = re.compile(r"\blimit\s*[:=]\s*(\d+)")
_BILLING = ("prepayment credits", "spending cap")
_KEY_REASONS = ("API_KEY_INVALID", "API_KEY_EXPIRED")
_KEY_TEXTS = ("api key not valid", "api key expired", "valid api key")
_BLOCKED = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT"}
    | {"IMAGE_RECITATION", "MODEL_ARMOR"}
)
_CLASS_OF_STATUS = {
    400: "invalid",
    401: "auth",
    402: "billing",
    403: "auth",
    408: "deadline",
    499: "timeout",
    503: "overloaded",
    504: "deadline",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an HTTP answer says. Tokens None and numbers NaN where it does not say.

    ``error``: a class of `analysis.schema.ERROR_CLASSES`, empty on success. ``retry_delay_s``: the longest delay
    that the body promises, as written; a whole number may be a floor. ``message``: the server's own words.
    """

    status: int
    error: str = ""
    message: str = ""
    quota_metric: str = ""
    quota_id: str = ""
    quota_value: float = math.nan
    retry_delay_s: float = math.nan
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    cached: int | None = None
    server_date: float = math.nan


def generate_body(prompt: str, *, output_tokens: int, thinking_off: bool = True) -> bytes:
    """Encode the JSON body of a generateContent call that asks for at most ``output_tokens``."""
    config: dict[str, Any] = {"maxOutputTokens": output_tokens}
    if thinking_off:
        config["thinkingConfig"] = {"thinkingBudget": 0}
    return msgspec.json.encode(
        {"contents": [{"role": "user", "parts": [{"text": prompt}]}], "generationConfig": config}
    )


def count_body(prompt: str) -> bytes:
    """Encode the JSON body of a countTokens call."""
    return msgspec.json.encode({"contents": [{"role": "user", "parts": [{"text": prompt}]}]})


def duration_s(text: object) -> float:
    """Read ``57s``, ``45.8s``, ``500ms`` or ``1h52m56.4s``; NaN for anything else."""
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match or not any(match.groups()):
        return math.nan
    hours, minutes, rest, unit = match.groups()
    seconds = float(rest or 0) * (0.001 if unit == "ms" else 1.0)
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds


def date_s(header: object) -> float:
    """Read an HTTP ``Date`` header as seconds since the Unix epoch; NaN where it is absent or unreadable."""
    if not isinstance(header, str):
        return math.nan
    try:
        return parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return math.nan


def read_answer(status: int, body: bytes, date: object = None) -> Answer:
    """Classify any answer. Never raises, whatever the body holds."""
    document = _decode(body)
    server_date = date_s(date)
    if status == HTTPStatus.OK:
        return _read_success(document, server_date)
    error = document.get("error") if isinstance(document, dict) else None
    error = error if isinstance(error, dict) else {}
    message = error.get("message")
    message = message if isinstance(message, str) else body[:200].decode("utf-8", "replace")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _read_throttled(error, message, server_date)
    return Answer(status, _error_class(status, error, message), message, server_date=server_date)


def read_token_count(body: bytes) -> int | None:
    """Read ``totalTokens`` of a countTokens answer; None where it is not there."""
    document = _decode(body)
    return _count(document.get("totalTokens")) if isinstance(document, dict) else None


def _decode(body: bytes) -> object:
    """Decode JSON; a one-element list is unwrapped (the OpenAI-compatible and non-SSE forms wrap errors so)."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document[0] if isinstance(document, list) and document else document


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _read_success(document: object, server_date: float) -> Answer:
    status = int(HTTPStatus.OK)
    if not isinstance(document, dict):
        return Answer(status, "malformed", "the answer is not a JSON object", server_date=server_date)
    usage = document.get("usageMetadata")
    usage = usage if isinstance(usage, dict) else {}
    return Answer(
        status,
        _content_class(document),
        prompt_tokens=_count(usage.get("promptTokenCount")),
        output_tokens=_count(usage.get("candidatesTokenCount", 0)),
        thought_tokens=_count(usage.get("thoughtsTokenCount", 0)),
        cached=_count(usage.get("cachedContentTokenCount", 0)),
        server_date=server_date,
    )


def _content_class(document: dict[str, Any]) -> str:
    """Tell an answer from a blocked one. An empty candidate that ended with MAX_TOKENS is an answer."""
    feedback = document.get("promptFeedback")
    if isinstance(feedback, dict) and feedback.get("blockReason"):
        return "blocked"
    candidates = document.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    if not isinstance(first, dict):
        return "malformed"
    reason = first.get("finishReason")
    return "blocked" if isinstance(reason, str) and reason in _BLOCKED else ""


def _details(error: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    details = error.get("details")
    items = details if isinstance(details, list) else []
    return [d for d in items if isinstance(d, dict) and str(d.get("@type", "")).endswith(kind)]


def _read_throttled(error: dict[str, Any], message: str, server_date: float) -> Answer:
    metric, quota_id, value = _quota(error, message)
    named = _METRIC.search(message)
    limit = _LIMIT.search(message)
    if not metric and named:
        metric = named.group(1)
    if math.isnan(value) and limit:
        value = float(limit.group(1))
    return Answer(
        int(HTTPStatus.TOO_MANY_REQUESTS),
        _throttled_class(quota_id, value, message),
        message,
        metric,
        quota_id,
        value,
        _promised_delay_s(error, message),
        server_date=server_date,
    )


def _quota(error: dict[str, Any], message: str) -> tuple[str, str, float]:
    """Pick the violation that matters: one per day if there is one (it lasts), else the first.

    A violation without ``quotaValue`` in a body whose message says ``limit: 0`` is a limit of 0 (recorded).
    """
    listed = [
        v for d in _details(error, "QuotaFailure") if isinstance(d.get("violations"), list) for v in d["violations"]
    ]
    violations = [v for v in listed if isinstance(v, dict)]
    if not violations:
        return "", "", math.nan
    daily = [v for v in violations if "PerDay" in str(v.get("quotaId", ""))]
    chosen = (daily or violations)[0]
    value = _number(chosen.get("quotaValue"))
    if math.isnan(value) and "limit: 0" in message:
        value = 0.0
    return str(chosen.get("quotaMetric") or ""), str(chosen.get("quotaId") or ""), value


def _number(value: object) -> float:
    """Read a number or a string that holds one (protobuf JSON writes int64 as a string)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _throttled_class(quota_id: str, value: float, message: str) -> str:
    if any(text in message for text in _BILLING):
        return "billing"
    return "daily_quota" if "PerDay" in quota_id or value == 0 else "throttled"


def _promised_delay_s(error: dict[str, Any], message: str) -> float:
    """Return the longer of the two promises: ``retryDelay`` is usually the message's delay, rounded down."""
    promises = [duration_s(d.get("retryDelay")) for d in _details(error, "RetryInfo")]
    in_message = _RETRY_IN.search(message)
    if in_message:
        promises.append(duration_s(in_message.group(1).rstrip(".")))
    return max((p for p in promises if not math.isnan(p)), default=math.nan)


def _error_class(status: int, error: dict[str, Any], message: str) -> str:
    if status == HTTPStatus.BAD_REQUEST and _names_key(error, message):
        return "auth"
    if status in _CLASS_OF_STATUS:
        return _CLASS_OF_STATUS[status]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return "invalid" if status >= HTTPStatus.BAD_REQUEST else "malformed"


def _names_key(error: dict[str, Any], message: str) -> bool:
    reasons = [d.get("reason") for d in _details(error, "ErrorInfo")]
    return any(r in _KEY_REASONS for r in reasons) or any(text in message.lower() for text in _KEY_TEXTS)
