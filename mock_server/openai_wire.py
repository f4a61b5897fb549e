"""Shapes of the OpenAI-compatible door: requests to `Ask`, answers to chat completions. Pure.

Facts: keys come in alphabetical order; a stream ends with ``data: [DONE]``; usage is streamed only where
``stream_options.include_usage`` asks; a parameter that Gemini does not know is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mock_server import errors, gemini
from mock_server.tokens import count_text, make_text

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIELDS = frozenset(
    (
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "n",
        "stop",
        "tools",
        "tool_choice",
        "response_format",
        "reasoning_effort",
        "extra_body",
        "user",
        "modalities",
        "seed",
        "store",
        "parallel_tool_calls",
        "service_tier",
        "metadata",
    )
)
_FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}


class Chat(msgspec.Struct, frozen=True):
    """What of a chat completion matters here."""

    model: str
    ask: gemini.Ask
    stream: bool
    include_usage: bool


def parse_chat(body: dict[str, Any]) -> Chat:
    """Read a request for a chat completion. Raises `ApiError` 400."""
    for name in body:
        if name not in _FIELDS:
            raise errors.invalid_json(f'Unknown name "{name}": Cannot find field.')
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise errors.invalid("* GenerateContentRequest.contents: contents is not specified\n")
    tokens = sum(_content_tokens(message.get("content")) for message in messages)
    options = body.get("stream_options")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    return Chat(
        model_name(body),
        gemini.Ask(tokens, gemini.parse_max_tokens(limit), thinks=body.get("reasoning_effort") != "none"),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def parse_embeddings(body: dict[str, Any]) -> tuple[str, list[str], int | None]:
    """Read a request for embeddings: model, texts, dimensions. Raises `ApiError` 400."""
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise errors.invalid("* EmbedContentRequest.content: content is not specified\n")
    return model_name(body), texts, gemini.parse_max_tokens(body.get("dimensions"))


def model_name(body: dict[str, Any]) -> str:
    """Return the model that a body names, without its prefix. Raises `ApiError` 400."""
    name = gemini.text_field(body, "model")
    if not name:
        raise errors.invalid("model is not specified")
    return name.removeprefix("models/")


def completion(answer: gemini.Answer, created_s: float) -> dict[str, Any]:
    """Return a whole chat completion."""
    message = {"content": make_text(answer.output_tokens), "role": "assistant"}
    return _frame(answer, created_s, "chat.completion", {"message": message}, _FINISH[answer.finish_reason]) | {
        "usage": usage(answer)
    }


def chunks(answer: gemini.Answer, created_s: float, *, include_usage: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (tokens so far, chunk) of a stream."""
    for tokens, native in gemini.chunks(answer):
        candidate = native["candidates"][0]
        text = "".join(part["text"] for part in candidate["content"].get("parts", []))
        finish = _FINISH.get(candidate.get("finishReason", ""))
        delta = {"delta": {"content": text, "role": "assistant"}}
        chunk = _frame(answer, created_s, "chat.completion.chunk", delta, finish)
        yield tokens, chunk | {"usage": usage(answer)} if include_usage and finish else chunk


def usage(answer: gemini.Answer) -> dict[str, int]:
    """Return the token counts; thoughts are part of the total alone."""
    total = answer.prompt_tokens + answer.output_tokens + answer.thought_tokens
    return {"completion_tokens": answer.output_tokens, "prompt_tokens": answer.prompt_tokens, "total_tokens": total}


def sse_event(body: object) -> bytes:
    """Write one event of a stream."""
    return b"data: " + msgspec.json.encode(body, order="deterministic") + b"\n\n"


def _frame(
    answer: gemini.Answer, created_s: float, kind: str, inner: dict[str, Any], finish: str | None
) -> dict[str, Any]:
    choice = ({"finish_reason": finish} if finish else {}) | {"index": 0} | inner
    return {
        "choices": [choice],
        "created": int(created_s),
        "id": answer.response_id,
        "model": f"models/{answer.model}",
        "object": kind,
    }


def _content_tokens(content: object) -> int:
    if isinstance(content, str):
        return count_text(content)
    parts = content if isinstance(content, list) else []
    return gemini.content_tokens({"parts": [part for part in parts if isinstance(part, dict)]})
