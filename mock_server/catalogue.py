"""The models that the mock knows unless a profile names its own: data, and the wire form of one.

Names and token limits as published in November 2026. `gemini-2.0-flash` was shut down on 2026-06-01 and is absent.
"""

from __future__ import annotations

from typing import Any

INPUT_TOKEN_LIMIT = 1_048_576
OUTPUT_TOKEN_LIMIT = 65_536
DEFAULT_MODELS = (
    "gemini-4-argon",
    "gemini-3.8-flash",
    "gemini-3.7-flash",
    "gemini-3.6-flash",
    "gemini-3.5-flash",
    "gemini-3.5-flash-lite",
    "gemini-3.1-flash-lite",
    "gemini-3.1-pro-preview",
    "gemini-3-flash-preview",
    "gemini-2.5-pro",
    "gemini-2.5-flash",
    "gemini-2.5-flash-lite",
    "gemini-2.5-flash-image",
    "gemini-embedding-2",
    "gemini-embedding-001",
)
_GENERATES = ["generateContent", "countTokens", "createCachedContent", "batchGenerateContent"]
_EMBEDS = ["embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent"]


def embeds(model: str) -> bool:
    """Return whether a model makes vectors instead of text."""
    return "embedding" in model


def paints(model: str) -> bool:
    """Return whether a model makes images."""
    return "image" in model


def describe(model: str) -> dict[str, Any]:
    """Return the resource that ``models.get`` answers with."""
    words = model.split("-")
    return {
        "name": f"models/{model}",
        "version": words[1] if len(words) > 1 else "001",
        "displayName": " ".join(word.capitalize() for word in words),
        "description": "A model of the mock server",
        "inputTokenLimit": INPUT_TOKEN_LIMIT,
        "outputTokenLimit": OUTPUT_TOKEN_LIMIT,
        "supportedGenerationMethods": _EMBEDS if embeds(model) else _GENERATES,
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
        "maxTemperature": 2,
        "thinking": not embeds(model),
    }
