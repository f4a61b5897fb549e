"""Wire shapes: bodies in, bodies out, as recorded from the service."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server import errors, gemini, tokens
from mock_server.errors import ApiError
from mock_server.limits import Concurrency, FixedWindow
from mock_server.names import quota_names
from mock_server.quota import Call, Decision, Limit, Violation
from mock_server.refusals import refusal, spelled

RPM = Limit(
    "requests",
    FixedWindow(20, 60),
    quota_id="GenerateRequestsPerMinutePerProjectPerModel",
    quota_metric="generativelanguage.googleapis.com/generate_requests_per_model",
    value=20,
)
CALL = Call(model="gemini-2.5-flash", costs={"requests": 1})


def body(**fields: object) -> dict[str, object]:
    """Make a request of two tokens with further fields."""
    return {"contents": [{"parts": [{"text": "two bits"}]}], **fields}


@given(st.integers(0, 300), st.integers(0, 30))
def test_text_of_an_exact_count_can_be_made(count: int, start: int) -> None:
    """What is made counts as asked."""
    assert tokens.count_text(tokens.make_text(count, start)) == count


@pytest.mark.parametrize(("text", "count"), [("", 0), ("word", 1), ("words", 2), ("a  b\nc", 3), ("x" * 9, 3)])
def test_four_characters_of_a_word_are_a_token(text: str, count: int) -> None:
    """The rule of the module's head."""
    assert tokens.count_text(text) == count


@pytest.mark.parametrize(
    "fields",
    [
        {"generationConfig": {"maxOutputTokens": 7}},
        {"generation_config": {"max_output_tokens": 7}},
        {"generationConfig": {"max_output_tokens": "7"}},
    ],
)
def test_both_spellings_are_understood(fields: dict[str, object]) -> None:
    """Protobuf's JSON takes camelCase, snake_case, and numbers in quotes."""
    assert gemini.parse_generate(body(**fields)) == gemini.Ask(2, 7)


def test_the_system_instruction_counts() -> None:
    """Its words are input tokens too."""
    assert gemini.parse_generate(body(systemInstruction={"parts": {"text": "be good"}})).prompt_tokens == 4


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "Invalid JSON payload received."),
        (b"\xff", "Invalid JSON payload received."),
        (b"[]", "Root element must be a message."),
        (b"{}", "contents is not specified"),
        (b'{"contents": 3}', "Invalid JSON payload received."),
        (b'{"contents": [{"parts": [3]}]}', "Invalid JSON payload received."),
        (b'{"contents": [{"parts": [{"text": "a"}]}], "colour": 1}', 'Unknown name "colour": Cannot find field.'),
        (b'{"contents": [{"parts": []}], "generationConfig": 3}', "Invalid JSON payload received."),
        (b'{"contents": [{"parts": []}], "generationConfig": {"maxOutputTokens": true}}', "TYPE_INT32"),
        (b'{"contents": [{"parts": []}], "generationConfig": {"maxOutputTokens": 0}}', "must be positive"),
        (b"[" * 100_000, "Invalid JSON payload received."),
    ],
)
def test_a_malformed_request_is_a_400(raw: bytes, words: str) -> None:
    """Whatever comes in, the answer is Google's INVALID_ARGUMENT."""
    with pytest.raises(ApiError) as caught:
        gemini.parse_generate(gemini.decode(raw))
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")
    assert words in caught.value.message


def test_a_stream_adds_up_to_the_whole_answer() -> None:
    """The chunks' texts are the answer's, the counts grow, and only the last chunk tells why it ends."""
    answer = gemini.Answer("m", "id", 5, 19, cut=True)
    pieces = list(gemini.chunks(answer))
    whole = gemini.answer_body(answer)
    text = "".join(chunk["candidates"][0]["content"]["parts"][0]["text"] for _, chunk in pieces)
    assert text == whole["candidates"][0]["content"]["parts"][0]["text"]
    assert tokens.count_text(text) == 19
    assert [so_far for so_far, _ in pieces] == [8, 16, 19]
    assert [chunk["candidates"][0].get("finishReason") for _, chunk in pieces] == [None, None, "MAX_TOKENS"]
    assert pieces[-1][1]["usageMetadata"] == whole["usageMetadata"]


def test_an_event_is_one_line_and_a_blank_one() -> None:
    """CRLF, a space after the colon, none after a comma; as recorded."""
    assert gemini.sse_event({"a": [1, 2]}) == b'data: {"a": [1,2]}\r\n\r\n'
    assert gemini.pretty({"a": 1}) == b'{\n  "a": 1\n}\n'


def test_the_full_refusal_is_the_recorded_one() -> None:
    """Message with decimals, delay floored to whole seconds, the value a string."""
    error = refusal("full", 0.0, CALL, Decision(violations=(Violation(RPM, 45.5),)))
    assert error.message.endswith(
        "To monitor your current usage, head to: https://ai.dev/rate-limit. \n"
        "* Quota exceeded for metric: generativelanguage.googleapis.com/generate_requests_per_model, limit: 20, "
        "model: gemini-2.5-flash\nPlease retry in 45.5s."
    )
    details = error.body()["error"]["details"]
    assert [entry["@type"].rpartition(".")[2] for entry in details] == ["Help", "QuotaFailure", "RetryInfo"]
    assert details[1]["violations"] == [
        {
            "quotaMetric": "generativelanguage.googleapis.com/generate_requests_per_model",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel",
            "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
            "quotaValue": "20",
        }
    ]
    assert details[2]["retryDelay"] == "45s"


def test_a_limit_without_a_name_or_a_moment_is_not_made_up() -> None:
    """Concurrency has no quota id at Google and no moment to wait for."""
    violation = Violation(Limit("concurrency", Concurrency(5), value=5), None)
    error = refusal("full", 0.0, CALL, Decision(violations=(violation,)))
    assert [entry["@type"].rpartition(".")[2] for entry in error.details] == ["Help"]
    assert "retry in" not in error.message


def test_a_limit_of_zero_carries_no_value() -> None:
    """The recorded bodies leave quotaValue out."""
    none = Limit("requests", FixedWindow(0, 60), quota_id="Q", quota_metric="M", value=0)
    error = refusal("full", 0.0, CALL, Decision(violations=(Violation(none, float("inf")),)))
    assert "quotaValue" not in error.details[1]["violations"][0]
    assert "limit: 0, model" in error.message


def test_the_bare_refusal_says_nothing() -> None:
    """Code, message, status; no details."""
    error = refusal("bare", 0.0, CALL, Decision(violations=(Violation(RPM, 60.0),)))
    assert error.body() == {
        "error": {
            "code": 429,
            "message": "Resource has been exhausted (e.g. check quota).",
            "status": "RESOURCE_EXHAUSTED",
        }
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(57.219397761, "57.219397761s"), (15, "15s"), (6776.4, "1h52m56.4s"), (3600, "1h0m0s"), (61, "1m1s"), (0, "0s")],
)
def test_delays_are_spelled_as_the_service_does(seconds: float, text: str) -> None:
    """Hours and minutes only where there are any."""
    assert spelled(seconds) == text


def test_the_wrong_key_body_is_the_recorded_one() -> None:
    """A 400 that tells the reason in an ErrorInfo."""
    error = errors.wrong_key()
    assert (error.code, error.status) == (400, "INVALID_ARGUMENT")
    assert error.details[0]["reason"] == "API_KEY_INVALID"
    assert json.dumps(error.body())


DAILY = Limit(
    "requests",
    FixedWindow(20, calendar="pacific_day"),
    quota_id="GenerateRequestsPerDayPerProjectPerModel-FreeTier",
    quota_metric="generativelanguage.googleapis.com/generate_content_free_tier_requests",
    value=20,
)


@pytest.mark.parametrize(
    ("shape", "code", "words", "kinds"),
    [
        ("full", 429, "Please retry in 45.5s.", ["Help", "QuotaFailure", "RetryInfo"]),
        ("decimals", 429, "Please retry in 45.5s.", ["Help", "QuotaFailure", "RetryInfo"]),
        ("mismatched", 429, "Please retry in 45.5s.", ["QuotaFailure", "RetryInfo"]),
        ("help_only", 429, "You exceeded your current quota", ["Help"]),
        ("bare", 429, "Resource has been exhausted (e.g. check quota).", []),
        ("not_enough", 429, "You do not have enough quota to make this request.", []),
        ("vertex", 429, "Resource exhausted. Please try again later.", []),
        ("vertex_errors", 429, "Resource exhausted. Please try again later.", []),
        ("vertex_fixed", 429, "with base model: gemini-2.5-flash. Please submit a quota increase request.", []),
        ("spend_cap", 429, "has exceeded its monthly spending cap.", []),
        ("prepaid", 429, "Your prepayment credits are depleted.", []),
        ("prepaid_402", 402, "Your prepayment credits are depleted.", []),
    ],
)
def test_every_shape_of_a_refusal(shape: str, code: int, words: str, kinds: list[str]) -> None:
    """Code, text and details as recorded; the status is RESOURCE_EXHAUSTED, also under 402."""
    error = refusal(shape, 0.0, CALL, Decision(violations=(Violation(RPM, 45.5),))).body()["error"]
    assert (error["code"], error["status"]) == (code, "RESOURCE_EXHAUSTED")
    assert words in error["message"]
    assert [detail["@type"].rpartition(".")[2] for detail in error.get("details", [])] == kinds
    delays = [detail["retryDelay"] for detail in error.get("details", []) if "retryDelay" in detail]
    assert delays == {"full": ["45s"], "decimals": ["45.5s"], "mismatched": ["12s"]}.get(shape, [])
    assert ("errors" in error) == (shape == "vertex_errors")


def test_a_free_daily_quota_promises_too_little() -> None:
    """It is back at midnight; the body says less than a minute. A paid one says hours."""
    free = refusal("full", 0.0, CALL, Decision(violations=(Violation(DAILY, 36_015.5),)))
    assert free.message.endswith("Please retry in 15.5s.")
    assert free.details[2]["retryDelay"] == "15s"
    paid = refusal("full", 0.0, CALL, Decision(violations=(Violation(RPM, 6776.4),)))
    assert paid.message.endswith("Please retry in 1h52m56.4s.")
    assert paid.details[2]["retryDelay"] == "6776s"


TOKENS_2 = Limit(
    "input_tokens",
    FixedWindow(3_000_000, 60),
    quota_id="GenerateContentPaidTierInputTokensPerModelPerMinute-PaidTier2",
    quota_metric="generativelanguage.googleapis.com/generate_content_paid_tier_2_input_token_count",
    value=3_000_000,
)


def test_the_capture_whose_two_delays_disagree() -> None:
    """As recorded on 2026-09-12: 51.386 s in the message, 14 s in RetryInfo, no Help."""
    assert quota_names("input_tokens", 60.0, day=False, tier="2") == (TOKENS_2.quota_id, TOKENS_2.quota_metric)
    error = refusal("mismatched", 0.0, CALL, Decision(violations=(Violation(TOKENS_2, 51.386),)))
    assert error.message.endswith("\nPlease retry in 51.386s.")
    failure, info = error.details
    assert info == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "14s"}
    assert failure["violations"] == [
        {
            "quotaMetric": TOKENS_2.quota_metric,
            "quotaId": TOKENS_2.quota_id,
            "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
            "quotaValue": "3000000",
        }
    ]
    told_nothing = refusal("mismatched", 0.0, CALL, Decision(violations=(Violation(TOKENS_2, None),)))
    assert [detail["@type"].rpartition(".")[2] for detail in told_nothing.details] == ["QuotaFailure"]


def test_the_order_of_the_dimensions_varies_inside_one_body() -> None:
    """Equal calls get equal bodies, to the byte; a client that compares text of two entries is caught."""
    decision = Decision(violations=(Violation(RPM, 1.0), Violation(replace(RPM, value=7), 1.0)))
    violations = refusal("full", 0.0, CALL, decision).details[1]["violations"]
    assert {tuple(entry["quotaDimensions"]) for entry in violations} == {("location", "model"), ("model", "location")}
    assert violations[0]["quotaDimensions"] == violations[1]["quotaDimensions"]
    assert json.dumps(violations) == json.dumps(refusal("full", 0.0, CALL, decision).details[1]["violations"])
    lone = [
        refusal("full", 0.0, CALL, Decision(violations=(Violation(limit, 1.0),))).details[1]["violations"][0]
        for limit in (RPM, DAILY, TOKENS_2)
    ]
    assert {next(iter(entry["quotaDimensions"])) for entry in lone} == {"location", "model"}


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("gemini-3.1-pro-preview-customtools", "gemini-3.1-pro"),
        ("gemini-2.5-flash-image", "gemini-2.5-flash-preview-image"),
        ("gemini-2.5-flash", "gemini-2.5-flash"),
    ],
)
def test_a_quota_may_be_kept_under_another_models_name(asked: str, named: str) -> None:
    """The refusal names the model that Google counts, not always the one that was asked."""
    call = Call(model=asked, costs={"requests": 1})
    error = refusal("full", 0.0, call, Decision(violations=(Violation(RPM, 1.0),)))
    assert error.details[1]["violations"][0]["quotaDimensions"]["model"] == named
    assert f"model: {named}\n" in error.message
