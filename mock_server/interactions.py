"""Shapes of the Interactions API: requests, resources, events, and its own form of an error. Pure.

Facts: snake_case; the code of an error is a word and there are no details; the events come in a fixed order and a
stream ends with the last of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from mock_server import errors, gemini
from mock_server.caches import timestamp
from mock_server.tokens import count_text, make_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mock_server.errors import ApiError

_CODES = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    413: "invalid_request",
    429: "too_many_requests",
    499: "cancelled",
    500: "api_error",
    503: "service_unavailable",
    504: "deadline_exceeded",
}
_MAX_DEPTH = 20


class Request(msgspec.Struct, frozen=True):
    """What of a request matters here."""

    model: str
    ask: gemini.Ask
    stream: bool
    store: bool


def parse(body: dict[str, Any]) -> Request:
    """Read a request for an interaction. Raises `ApiError` 400."""
    model = gemini.text_field(body, "model").removeprefix("models/")
    if not model:
        raise errors.invalid("model is required.")
    if not body.get("input"):
        raise errors.invalid("input is required.")
    config = body.get("generation_config")
    limit = config.get("max_output_tokens") if isinstance(config, dict) else None
    tokens = _tokens(body["input"], 0) + _tokens(body.get("system_instruction"), 0)
    ask = gemini.Ask(tokens, gemini.parse_max_tokens(limit), tier=gemini.parse_tier(body))
    return Request(model, ask, body.get("stream") is True, body.get("store") is not False)


def resource(
    answer: gemini.Answer, created_s: float, *, whole: bool = True, status: str = "completed"
) -> dict[str, Any]:
    """Return an interaction; without its steps where a stream has told them."""
    body: dict[str, Any] = {
        "id": answer.response_id,
        "object": "interaction",
        "model": answer.model,
        "status": status,
        "created": timestamp(created_s),
        "updated": timestamp(created_s),
        "role": "model",
    }
    if whole:
        text = {"type": "text", "text": make_text(answer.output_tokens)}
        body["steps"] = [{"type": "model_output", "content": [text]}]
    return body | {"usage": _usage(answer)} if status == "completed" else body


def events(answer: gemini.Answer, created_s: float) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (tokens so far, event) in the order of the service."""
    begun = resource(answer, created_s, whole=False, status="in_progress")
    yield 0, {"interaction": begun, "event_type": "interaction.created"}
    update = {"interaction_id": answer.response_id, "status": "in_progress"}
    yield 0, update | {"event_type": "interaction.status_update"}
    yield 0, {"index": 0, "step": {"type": "model_output", "content": []}, "event_type": "step.start"}
    for tokens, native in gemini.chunks(answer):
        text = "".join(part["text"] for part in native["candidates"][0]["content"].get("parts", []))
        yield tokens, {"index": 0, "delta": {"type": "text", "text": text}, "event_type": "step.delta"}
    yield answer.output_tokens, {"index": 0, "event_type": "step.stop"}
    done = resource(answer, created_s, whole=False)
    yield answer.output_tokens, {"interaction": done, "event_type": "interaction.completed"}


def sse_event(event: dict[str, Any]) -> bytes:
    """Write one event with its name on a line of its own."""
    return f"event: {event['event_type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def error_body(error: ApiError) -> dict[str, Any]:
    """Return an error in this API's form: a word for a code, no status, no details."""
    return {"error": {"message": error.message, "code": _CODES.get(error.code, "api_error")}}


def _usage(answer: gemini.Answer) -> dict[str, Any]:
    total = answer.prompt_tokens + answer.output_tokens + answer.thought_tokens
    return {
        "total_input_tokens": answer.prompt_tokens,
        "total_output_tokens": answer.output_tokens,
        "total_tokens": total,
        "total_cached_tokens": answer.cached_tokens,
        "total_thought_tokens": answer.thought_tokens,
        "total_tool_use_tokens": 0,
        "input_tokens_by_modality": [{"modality": "text", "tokens": answer.prompt_tokens}],
    }


def _tokens(value: object, depth: int) -> int:
    """Count the tokens of whatever an input may be: a text, contents, turns."""
    if isinstance(value, str):
        return count_text(value)
    if depth > _MAX_DEPTH:
        raise errors.invalid("input is nested too deeply.")
    if isinstance(value, list):
        return sum(_tokens(one, depth + 1) for one in value)
    if isinstance(value, dict):
        return sum(
            _tokens(one, depth + 1) for name, one in value.items() if name in {"text", "content", "parts", "input"}
        )
    return 0
