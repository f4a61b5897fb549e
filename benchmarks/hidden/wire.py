"""The bodies of Gemini's REST interface that the judge needs: read a request, write an answer or an error. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

CHARACTERS_PER_TOKEN = 4
DEFAULT_OUTPUT_TOKENS = 256

KEY_INVALID = "API key not valid. Please pass a valid API key."
KEY_MISSING = (
    "Method doesn't allow unregistered callers (callers without established identity). "
    "Please use API Key or other form of API consumer identity to call this API."
)


class BodyError(Exception):
    """The body cannot be read as the request that its path promises. The message is Gemini's."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a generateContent request costs and wants."""

    input_tokens: int
    max_output_tokens: int
    thinks: bool


def read_request(body: bytes) -> Asked:
    """Read a generateContent or countTokens body, in either spelling. Raises `BodyError`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise BodyError("Invalid JSON payload received. Unexpected token.") from None
    if not isinstance(document, dict):
        raise BodyError("Invalid JSON payload received. Root element must be a message.")
    document = document.get("generateContentRequest", document)
    texts = [part.get("text", "") for content in _contents(document) for part in content.get("parts") or []]
    characters = sum(len(text) for text in texts if isinstance(text, str))
    config = _either(document, "generationConfig", "generation_config") or {}
    wanted = _either(config, "maxOutputTokens", "max_output_tokens") or DEFAULT_OUTPUT_TOKENS
    if not isinstance(wanted, int) or wanted < 0:
        raise BodyError("Invalid value at 'generation_config.max_output_tokens' (TYPE_INT32)")
    thinking = _either(config, "thinkingConfig", "thinking_config") or {}
    budget = _either(thinking, "thinkingBudget", "thinking_budget")
    return Asked(max(1, -(-characters // CHARACTERS_PER_TOKEN)), wanted, thinks=budget != 0)


def _contents(document: dict[str, Any]) -> list[dict[str, Any]]:
    contents = document.get("contents")
    if not isinstance(contents, list) or not contents or not all(isinstance(item, dict) for item in contents):
        raise BodyError("* GenerateContentRequest.contents: contents is not specified\n")
    return contents


def _either(table: dict[str, Any], camel: str, snake: str) -> Any:  # noqa: ANN401 - whatever the caller sent
    return table.get(camel, table.get(snake))


def answer(model: str, asked: Asked, response_id: str) -> tuple[bytes, int]:
    """Write the answer; also return how many output tokens it took.

    A model that thinks spends a very short allowance on thoughts alone: the answer is then empty and ends with
    MAX_TOKENS, which is a success.
    """
    spent = min(asked.max_output_tokens, DEFAULT_OUTPUT_TOKENS)
    thoughts = spent if asked.thinks and asked.max_output_tokens < CHARACTERS_PER_TOKEN else 0
    words = spent - thoughts
    content: dict[str, Any] = {"role": "model"}
    if words:
        content["parts"] = [{"text": " ".join(["word"] * words)}]
    cut = spent >= asked.max_output_tokens
    usage = {
        "promptTokenCount": asked.input_tokens,
        "totalTokenCount": asked.input_tokens + spent,
        "promptTokensDetails": _modality(asked.input_tokens),
    }
    usage |= {"candidatesTokenCount": words} if words else {}
    usage |= {"thoughtsTokenCount": thoughts} if thoughts else {}
    body = {
        "candidates": [{"content": content, "finishReason": "MAX_TOKENS" if cut else "STOP", "index": 0}],
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": response_id,
    }
    return encode(body), spent


def token_count(asked: Asked) -> bytes:
    """Write a countTokens answer."""
    return encode({"totalTokens": asked.input_tokens, "promptTokensDetails": _modality(asked.input_tokens)})


def model_card(name: str) -> dict[str, Any]:
    """Describe a model as ``models.get`` does."""
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


def error(code: int, status: str, message: str, details: list[dict[str, Any]] | None = None) -> bytes:
    """Write an error as Google's services do; without details the list is left out."""
    body: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        body["details"] = details
    return encode({"error": body})


def refused() -> bytes:
    """Write the 429 that names no quota, no limit and no delay."""
    return error(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")


def overloaded() -> bytes:
    """Write the 503 of a busy model."""
    return error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")


def wrong_key() -> bytes:
    """Write the 400 that a key nobody issued gets."""
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": "generativelanguage.googleapis.com"},
    }
    return error(400, "INVALID_ARGUMENT", KEY_INVALID, [info])


def unknown_model(version: str, model: str, method: str) -> bytes:
    """Write the 404 of a model that does not exist."""
    text = (
        f"models/{model} is not found for API version {version}, or is not supported for {method}. "
        "Call ModelService.ListModels to see the list of available models and their supported methods."
    )
    return error(404, "NOT_FOUND", text)


def encode(body: dict[str, Any]) -> bytes:
    """Encode with two spaces and a final newline, as the service does."""
    return json.dumps(body, indent=2).encode() + b"\n"


def _modality(tokens: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": tokens}]
