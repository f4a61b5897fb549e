"""Gemini's bodies as a client reads them: the recorded shapes of a 429, the classes of errors, and rubbish."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.schema import ERROR_CLASSES
from redline import wire

PER_MINUTE = {
    "quotaMetric": "generativelanguage.googleapis.com/generate_content_paid_tier_input_token_count",
    "quotaId": "GenerateContentPaidTierInputTokensPerModelPerMinute",
    "quotaDimensions": {"model": "gemini-3.1-pro", "location": "global"},
    "quotaValue": "1000000",
}
PER_DAY = {
    "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
    "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
    "quotaValue": "20",
}
HELP = {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"description": "Learn more", "url": "https://x"}]}
EXCEEDED = "You exceeded your current quota, please check your plan and billing details."


def refusal(message: str, *details: dict[str, object], code: int = 429) -> bytes:
    """Build a body as the service writes it."""
    error = {"code": code, "message": message, "status": "RESOURCE_EXHAUSTED"}
    return json.dumps({"error": error | ({"details": list(details)} if details else {})}).encode()


def violated(*violations: dict[str, object]) -> dict[str, object]:
    """Build a QuotaFailure."""
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": list(violations)}


def retry(delay: str) -> dict[str, object]:
    """Build a RetryInfo."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def test_full_body_names_the_quota_and_keeps_the_longer_of_both_delays() -> None:
    """RetryInfo is the message's delay rounded down; waiting only that long is too early."""
    body = refusal(f"{EXCEEDED}\nPlease retry in 45.811974541s.", HELP, violated(PER_MINUTE), retry("45s"))
    answer = wire.read_answer(429, body, "Mon, 23 Nov 2026 10:00:00 GMT")
    assert (answer.error, answer.quota_id, answer.quota_value) == ("throttled", PER_MINUTE["quotaId"], 1_000_000)
    assert answer.retry_delay_s == pytest.approx(45.811974541)
    assert answer.server_date == 1795428000.0


@pytest.mark.parametrize(
    ("body", "error", "delay_s"),
    [
        (refusal(f"{EXCEEDED}\nPlease retry in 15.06s.", violated(PER_DAY), retry("15s")), "daily_quota", 15.06),
        (refusal(f"{EXCEEDED} Please retry in 1h52m56.4s.", retry("6776s")), "throttled", 6776.4),
        (refusal(EXCEEDED, HELP), "throttled", math.nan),
        (refusal("Resource has been exhausted (e.g. check quota)."), "throttled", math.nan),
        (refusal("Resource exhausted. Please try again later."), "throttled", math.nan),
        (refusal("Your prepayment credits are depleted. Please go to AI Studio."), "billing", math.nan),
        (refusal("Your project has exceeded its monthly spending cap."), "billing", math.nan),
        (
            refusal("* Quota exceeded for metric: g.com/x, limit: 0, model: m\nPlease retry in 57.2s."),
            "daily_quota",
            57.2,
        ),
        (b"[" + refusal("Please retry in 500ms.") + b"]", "throttled", 0.5),
        (refusal("x", retry("11.769242877s")), "throttled", 11.769242877),
        (b'{"error":{"message":"Please retry in 23.3s.","code":"too_many_requests"}}', "throttled", 23.3),
        (b"<html>Too many requests</html>", "throttled", math.nan),
        (b"", "throttled", math.nan),
    ],
)
def test_every_shape_of_a_429_is_understood(body: bytes, error: str, delay_s: float) -> None:
    """Bodies with all details, with some, and with none."""
    answer = wire.read_answer(429, body)
    assert answer.error == error
    assert answer.retry_delay_s == pytest.approx(delay_s, nan_ok=True)


def test_violation_that_lasts_is_told_first() -> None:
    """Of a quota per minute and one per day, the day's decides."""
    answer = wire.read_answer(429, refusal(EXCEEDED, violated(PER_MINUTE, PER_DAY)))
    assert (answer.quota_id, answer.quota_value, answer.error) == (PER_DAY["quotaId"], 20, "daily_quota")


def test_vertex_message_names_the_metric() -> None:
    """A body without details still tells the metric in its text."""
    text = "Quota exceeded for aiplatform.googleapis.com/global_embed_content_requests with base model: e."
    answer = wire.read_answer(429, refusal(text))
    assert answer.quota_metric == "aiplatform.googleapis.com/global_embed_content_requests"


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (400, "API key not valid. Please pass a valid API key.", "auth"),
        (400, "The input token count exceeds the maximum number of tokens allowed (1048576).", "invalid"),
        (401, "Request had invalid authentication credentials.", "auth"),
        (402, "Your prepayment credits are depleted.", "billing"),
        (403, "Your API key was reported as leaked.", "auth"),
        (404, "models/X is not found for API version v1beta", "invalid"),
        (413, "Request payload size exceeds the limit", "invalid"),
        (499, "The operation was cancelled.", "timeout"),
        (500, "Internal error encountered.", "server_error"),
        (502, "Bad Gateway", "server_error"),
        (503, "The model is overloaded. Please try again later.", "overloaded"),
        (504, "Deadline expired before operation could complete.", "deadline"),
        (302, "", "malformed"),
    ],
)
def test_other_statuses_have_their_class(status: int, message: str, error: str) -> None:
    """A wrong key is a 400, not a 401: the message tells it from a bad request."""
    answer = wire.read_answer(status, refusal(message, code=status))
    assert (answer.status, answer.error, answer.message) == (status, error, message)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"candidates": [{"content": {"parts": [{"text": "OK"}]}, "finishReason": "STOP"}]}, ""),
        ({"candidates": [{"content": {}, "finishReason": "MAX_TOKENS"}]}, ""),
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "blocked"),
        ({"candidates": [{"finishReason": "SAFETY"}]}, "blocked"),
        ({"candidates": []}, "malformed"),
        ({}, "malformed"),
        ("text", "malformed"),
    ],
)
def test_a_200_is_an_answer_unless_it_is_blocked_or_broken(body: object, error: str) -> None:
    """An empty candidate that ended with MAX_TOKENS is what a cheap call asks for."""
    assert wire.read_answer(200, json.dumps(body).encode()).error == error


def test_usage_is_read() -> None:
    """Tokens that are not told are zero where the service leaves zeros out, and unknown for the prompt."""
    usage = {"promptTokenCount": 1879, "candidatesTokenCount": 4, "cachedContentTokenCount": 1665}
    body = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}
    answer = wire.read_answer(200, json.dumps(body).encode())
    counted = (answer.prompt_tokens, answer.output_tokens, answer.thought_tokens, answer.cached)
    assert counted == (1879, 4, 0, 1665)


@given(st.integers(100, 599), st.binary(max_size=200), st.none() | st.text(max_size=40))
def test_rubbish_bytes_never_raise(status: int, body: bytes, date: str | None) -> None:
    """Whatever arrives, an outcome of a known class comes out."""
    answer = wire.read_answer(status, body, date)
    assert answer.error in {"", *ERROR_CLASSES}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([200, 400, 429, 503]), json_values, json_values, json_values)
def test_rubbish_in_the_right_places_never_raises(status: int, one: object, two: object, three: object) -> None:
    """Known keys that hold anything at all are taken as not said."""
    detail = {"@type": "x/QuotaFailure", "violations": one, "retryDelay": two}
    nested = {"@type": "x/RetryInfo", "retryDelay": three}
    error = {"message": two, "details": [detail, nested, one], "code": three}
    body = {"error": error, "candidates": one, "usageMetadata": two, "promptFeedback": three}
    answer = wire.read_answer(status, json.dumps(body).encode())
    assert answer.error in {"", *ERROR_CLASSES}


@given(st.integers(0, 99), st.integers(0, 59), st.floats(0, 59.999))
def test_durations_are_read_back(hours: int, minutes: int, seconds: float) -> None:
    """Hours, minutes and seconds, with decimals."""
    assert wire.duration_s(f"{hours}h{minutes}m{seconds:.3f}s") == pytest.approx(
        hours * 3600 + minutes * 60 + seconds, abs=0.001
    )


@pytest.mark.parametrize("text", ["", "s", "5", "5x", "-3s", None, 7, [], "1m 2s"])
def test_what_is_no_duration_is_nan(text: object) -> None:
    """Nothing is guessed."""
    assert math.isnan(wire.duration_s(text))


def test_token_count_is_read() -> None:
    """And a body without one says nothing."""
    assert wire.read_token_count(b'{"totalTokens":31}') == 31
    assert wire.read_token_count(b"[]") is None
