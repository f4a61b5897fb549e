"""The server's own description of itself, where the real one has it: ``/$discovery/OPENAPI3_0``. Pure.

It says what is served, for people and for fuzzers. Fields that mean nothing here are accepted and not described.
"""

from __future__ import annotations

from typing import Any

from mock_server.catalogue import DEFAULT_MODELS

_STRING = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_OBJECT = {"type": "object"}
_CODES = ("400", "401", "402", "403", "404", "413", "429", "500", "503", "504")
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"enum": ["v1", "v1beta", "v1alpha"]}}
_MODEL = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"enum": list(DEFAULT_MODELS)},
}
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[a-z0-9]{1,40}$"}}
_PAGING = [
    {"name": "pageSize", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 1000}},
    {"name": "pageToken", "in": "query", "schema": {"type": "string", "pattern": "^[0-9]{0,6}$"}},
]


def _fields(required: tuple[str, ...] = (), **properties: object) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | {"required": list(required)} if required else found


def _list(items: object, *, at_least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": at_least, "maxItems": 20}


_PART = _fields(("text",), text=_STRING)
_CONTENT = _fields(("parts",), parts=_list(_PART), role={"enum": ["user", "model"]})
_THINKING = _fields(thinkingBudget={"type": "integer"}, includeThoughts={"type": "boolean"})
_CONFIG = _fields(maxOutputTokens=_COUNT, temperature={"type": "number"}, thinkingConfig=_THINKING)
_GENERATE = _fields(
    ("contents",),
    contents=_list(_CONTENT, at_least=1),
    systemInstruction=_CONTENT,
    generationConfig=_CONFIG,
    serviceTier={"enum": ["standard", "flex", "priority"]},
)
_EMBED = _fields(("content",), content=_CONTENT, outputDimensionality={"type": "integer", "minimum": 1, "maximum": 64})
_LINE = _fields(("request",), request=_GENERATE, metadata=_OBJECT)
_JOB = _fields(
    ("batch",),
    batch=_fields(
        ("inputConfig",),
        displayName=_STRING,
        inputConfig=_fields(("requests",), requests=_fields(("requests",), requests=_list(_LINE, at_least=1))),
    ),
)
_CACHE = _fields(
    ("model", "contents"),
    model=_STRING,
    contents=_list(_CONTENT),
    ttl={"type": "string", "pattern": "^[0-9]{1,5}s$"},
    displayName=_STRING,
)
_INTERACTION = _fields(("model", "input"), model=_STRING, input=_STRING, stream={"type": "boolean"})
_MESSAGE = _fields(("role", "content"), role={"enum": ["user", "assistant", "system"]}, content=_STRING)
_CHAT = _fields(
    ("model", "messages"),
    model=_STRING,
    messages=_list(_MESSAGE, at_least=1),
    max_tokens=_COUNT,
    stream={"type": "boolean"},
)
_VECTORS = _fields(("model", "input"), model=_STRING, input=_list(_STRING, at_least=1))


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    model = "/{version}/models/{model}"
    paths = {
        "/{version}/models": {"get": _operation(_VERSION, *_PAGING)},
        model: {"get": _operation(_VERSION, _MODEL)},
        f"{model}:generateContent": {"post": _operation(_VERSION, _MODEL, body=_GENERATE)},
        f"{model}:streamGenerateContent": {"post": _operation(_VERSION, _MODEL, body=_GENERATE)},
        f"{model}:countTokens": {"post": _operation(_VERSION, _MODEL, body=_fields(contents=_list(_CONTENT)))},
        f"{model}:embedContent": {"post": _operation(_VERSION, _MODEL, body=_EMBED)},
        f"{model}:batchEmbedContents": {
            "post": _operation(_VERSION, _MODEL, body=_fields(("requests",), requests=_list(_EMBED, at_least=1)))
        },
        f"{model}:batchGenerateContent": {"post": _operation(_VERSION, _MODEL, body=_JOB)},
        "/{version}/cachedContents": {
            "get": _operation(_VERSION, *_PAGING),
            "post": _operation(_VERSION, body=_CACHE),
        },
        "/{version}/cachedContents/{id}": {
            "get": _operation(_VERSION, _ID),
            "patch": _operation(_VERSION, _ID, body=_fields(ttl={"type": "string", "pattern": "^[0-9]{1,5}s$"})),
            "delete": _operation(_VERSION, _ID),
        },
        "/{version}/batches": {"get": _operation(_VERSION, *_PAGING)},
        "/{version}/batches/{id}": {"get": _operation(_VERSION, _ID), "delete": _operation(_VERSION, _ID)},
        "/{version}/batches/{id}:cancel": {"post": _operation(_VERSION, _ID)},
        "/{version}/interactions": {"post": _operation(_VERSION, body=_INTERACTION)},
        "/{version}/interactions/{id}": {"get": _operation(_VERSION, _ID), "delete": _operation(_VERSION, _ID)},
        "/v1beta/openai/chat/completions": {"post": _operation(body=_CHAT)},
        "/v1beta/openai/embeddings": {"post": _operation(body=_VECTORS)},
        "/v1beta/openai/models": {"get": _operation()},
    }
    return {
        "openapi": "3.0.3",
        "info": {"title": "A Gemini look-alike", "version": "1"},
        "paths": paths,
    }


def _operation(*parameters: dict[str, Any], body: dict[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {}}}
    responses = {code: {"description": "an error in Google's form", "content": content} for code in _CODES}
    operation: dict[str, Any] = {
        "parameters": list(parameters),
        "responses": {"200": {"description": "the answer"}} | responses,
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation
