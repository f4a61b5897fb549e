"""Requests for vectors, and vectors: deterministic, of length 1, the same for the same text. Pure."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

import msgspec

from mock_server import errors, gemini

_DEFAULT_DIMENSIONS, _MAX_DIMENSIONS = 3072, 3072
_MAX_BATCH = 100


class Text(msgspec.Struct, frozen=True):
    """What is to be embedded: its digest stands for it."""

    digest: bytes
    tokens: int
    dimensions: int


def parse_one(body: dict[str, Any]) -> Text:
    """Read an EmbedContentRequest. Raises `ApiError` 400."""
    content = body.get("content")
    if not content:
        raise errors.invalid("* EmbedContentRequest.content: content is not specified\n")
    config = gemini.field(body, "embedContentConfig")
    inner = gemini.field(config, "outputDimensionality") if isinstance(config, dict) else None
    dimensions = gemini.field(body, "outputDimensionality") or inner or _DEFAULT_DIMENSIONS
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise errors.invalid(f"output_dimensionality must be between 1 and {_MAX_DIMENSIONS}.")
    tokens = gemini.content_tokens(content)
    return Text(hashlib.sha256(msgspec.json.encode(content)).digest(), tokens, dimensions)


def parse_batch(body: dict[str, Any]) -> list[Text]:
    """Read a BatchEmbedContentsRequest. Raises `ApiError` 400."""
    asked = body.get("requests")
    if not isinstance(asked, list) or not asked:
        raise errors.invalid("* BatchEmbedContentsRequest.requests: requests is not specified\n")
    if len(asked) > _MAX_BATCH:
        raise errors.invalid(
            f"* BatchEmbedContentsRequest.requests: at most {_MAX_BATCH} requests can be in one batch\n"
        )
    if not all(isinstance(one, dict) for one in asked):
        raise errors.invalid_json("Unknown value at 'requests'", "requests")
    return [parse_one(one) for one in asked]


def vector(text: Text) -> list[float]:
    """Return the text's vector."""
    rng = random.Random(text.digest)  # noqa: S311 - numbers that look like a vector, no secret
    raw = [rng.gauss(0.0, 1.0) for _ in range(text.dimensions)]
    norm = math.sqrt(sum(value * value for value in raw))
    return [round(value / norm, 8) for value in raw]
