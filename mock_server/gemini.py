"""Wire shapes of the native Gemini API: bytes to values, values to bytes. No sockets, no clock, no limits.

Requests are taken in camelCase and in snake_case, as protobuf's JSON form allows. Shapes as recorded from the
service in September 2026: answers indented by two spaces, stream events on one line each, CRLF ends.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import msgspec

from mock_server import errors, fields
from mock_server.quota import STANDARD
from mock_server.tokens import count_part, make_text

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

CHUNK_TOKENS = 8
MAX_INT32 = 2**31 - 1
TIERS = (STANDARD, "flex", "priority")
_ID_SLOT = "@response-id@"
_CACHED_TOKENS = 512  # answers up to this long are kept rendered


class Ask(msgspec.Struct, frozen=True):
    """What of a request matters here. ``cached_content``: the name of a cache, or empty."""

    prompt_tokens: int
    max_output_tokens: int | None
    thinks: bool = True
    tier: str = STANDARD
    cached_content: str = ""


class Answer(msgspec.Struct, frozen=True):
    """An answer to be written down. ``traffic`` is Vertex's word for the tier; empty on the Gemini API."""

    model: str
    response_id: str
    prompt_tokens: int
    output_tokens: int
    cut: bool
    thought_tokens: int = 0
    cached_tokens: int = 0
    tier: str = STANDARD
    traffic: str = ""

    @property
    def finish_reason(self) -> str:
        """Why the text ends."""
        return "MAX_TOKENS" if self.cut else "STOP"


def decode(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in a body. Raises `ApiError` 400."""
    try:
        body = msgspec.json.decode(raw) if raw else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise errors.invalid_json("Expected a value.") from None
    if not isinstance(body, dict):
        raise errors.invalid_json("Root element must be a message.")
    return body


def field(message: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - JSON, any value
    """Return a field by its camelCase name, in either spelling; None where absent."""
    value = message.get(name)
    return message.get(_snake(name)) if value is None else value


def text_field(message: dict[str, Any], name: str) -> str:
    """Return a field that must be a string where it is there; empty where it is not. Raises `ApiError` 400."""
    value = field(message, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise errors.invalid_json(f"Invalid value at '{_snake(name)}' (TYPE_STRING)", _snake(name))
    return value


def parse_generate(body: dict[str, Any]) -> Ask:
    """Read a GenerateContentRequest. Raises `ApiError` 400."""
    rare = body.keys() - fields.COMMON
    if rare:
        _check_names(rare, fields.REQUEST)
    if not body.get("contents"):
        raise errors.invalid("* GenerateContentRequest.contents: contents is not specified\n")
    config = body.get("generationConfig") or body.get("generation_config")
    max_tokens, thinks = _config(config) if config else (None, True)
    tier, cached = (parse_tier(body), text_field(body, "cachedContent")) if rare else (STANDARD, "")
    return Ask(prompt_tokens(body), max_tokens, thinks, tier, cached)


def parse_max_tokens(value: object) -> int | None:
    """Read a maximum of output tokens; None where there is none. Raises `ApiError` 400."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_INT32:
        where = "generation_config.max_output_tokens"
        raise errors.invalid_json(f"Invalid value at '{where}' (TYPE_INT32), {str(value)[:80]}", where)
    if value <= 0:
        raise errors.invalid("max_output_tokens must be positive.")
    return value


def prompt_tokens(body: dict[str, Any]) -> int:
    """Count the tokens of contents and system instruction. Raises `ApiError` 400 where they are malformed."""
    contents = body.get("contents") or []
    total = 0
    for content in contents if isinstance(contents, list) else [contents]:
        total += content_tokens(content)
    system = field(body, "systemInstruction")
    return total + content_tokens(system) if system else total


def content_tokens(content: object) -> int:
    """Count the tokens of one content, or of a bare string. Raises `ApiError` 400."""
    if isinstance(content, str):
        content = {"parts": [{"text": content}]}
    parts = content.get("parts", []) if isinstance(content, dict) else None
    parts = [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list):
        raise errors.invalid_json("Unknown value at 'contents'", "contents")
    total = 0
    for part in parts:
        if not isinstance(part, dict):
            raise errors.invalid_json("Unknown value at 'contents.parts'", "contents.parts")
        total += count_part(part)
    return total


def parse_count(body: dict[str, Any]) -> int:
    """Read a CountTokensRequest and return the count. Raises `ApiError` 400."""
    inner = field(body, "generateContentRequest")
    return prompt_tokens(inner if isinstance(inner, dict) else body)


def usage(answer: Answer, output_tokens: int) -> dict[str, Any]:
    """Return ``usageMetadata`` after so many tokens have come out. The cached tokens are part of the prompt's."""
    counts: dict[str, Any] = {"promptTokenCount": answer.prompt_tokens}
    if answer.cached_tokens:
        counts["cachedContentTokenCount"] = answer.cached_tokens
    if output_tokens:
        counts["candidatesTokenCount"] = output_tokens
    counts["totalTokenCount"] = answer.prompt_tokens + output_tokens + answer.thought_tokens
    counts["promptTokensDetails"] = _text_tokens(answer.prompt_tokens)
    if answer.cached_tokens:
        counts["cacheTokensDetails"] = _text_tokens(answer.cached_tokens)
    if answer.thought_tokens:
        counts["thoughtsTokenCount"] = answer.thought_tokens
    if answer.traffic:
        counts["trafficType"] = answer.traffic
    else:
        counts["serviceTier"] = answer.tier
    return counts


def answer_body(answer: Answer) -> dict[str, Any]:
    """Return a whole GenerateContentResponse."""
    return _response(answer, make_text(answer.output_tokens), answer.output_tokens, answer.finish_reason)


def answer_bytes(answer: Answer) -> bytes:
    """Return the same as the service writes it. What repeats is rendered once: only the id differs."""
    blank = msgspec.structs.astuple(answer)[2:]
    parts = _rendered(answer.model, *blank) if answer.output_tokens <= _CACHED_TOKENS else _render(answer.model, *blank)
    return answer.response_id.encode().join(parts)


def chunks(answer: Answer) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (tokens so far, response) for each event of a stream; the last one tells why it ends."""
    for start in range(0, max(1, answer.output_tokens), CHUNK_TOKENS):
        end = min(start + CHUNK_TOKENS, answer.output_tokens)
        text = make_text(end - start, start)
        last = end == answer.output_tokens
        yield end, _response(answer, text if start == 0 else f" {text}", end, answer.finish_reason if last else "")


def blocked_body(answer: Answer) -> dict[str, Any]:
    """Return the 200 of a prompt that was not answered for what it says: no candidates."""
    counts = {"promptTokenCount": answer.prompt_tokens, "totalTokenCount": answer.prompt_tokens}
    return {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": counts | {"promptTokensDetails": _text_tokens(answer.prompt_tokens)},
        "modelVersion": answer.model,
        "responseId": answer.response_id,
    }


def count_body(tokens: int) -> dict[str, Any]:
    """Return a CountTokensResponse."""
    return {"totalTokens": tokens, "promptTokensDetails": _text_tokens(tokens)}


def pretty(body: object) -> bytes:
    """Write JSON as the service does."""
    return msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"


def sse_event(body: object) -> bytes:
    """Write one event of a stream with ``alt=sse``."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ": ")).encode() + b"\r\n\r\n"


def _render(model: str, *rest: Any) -> list[bytes]:  # noqa: ANN401 - the fields of an Answer after its id
    return pretty(answer_body(Answer(model, _ID_SLOT, *rest))).split(_ID_SLOT.encode())


_rendered = functools.lru_cache(maxsize=1024)(_render)


def _response(answer: Answer, text: str, output_tokens: int, finish: str) -> dict[str, Any]:
    content: dict[str, Any] = {"parts": [{"text": text}], "role": "model"} if text else {"role": "model"}
    candidate: dict[str, Any] = {"content": content}
    if finish:
        candidate["finishReason"] = finish
    candidate["index"] = 0
    return {
        "candidates": [candidate],
        "usageMetadata": usage(answer, output_tokens),
        "modelVersion": answer.model,
        "responseId": answer.response_id,
    }


def _text_tokens(count: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": count}]


def _config(config: object) -> tuple[int | None, bool]:
    """Return (maximum of output tokens, whether the model thinks). Raises `ApiError` 400."""
    if not isinstance(config, dict):
        raise errors.invalid_json("Unknown value at 'generation_config'", "generation_config")
    thinks = True
    if config.keys() != {"maxOutputTokens"}:
        _check_names(config, fields.GENERATION_CONFIG, "generation_config")
        thinking = field(config, "thinkingConfig")
        thinks = not (isinstance(thinking, dict) and field(thinking, "thinkingBudget") == 0)
    return parse_max_tokens(field(config, "maxOutputTokens")), thinks


def _check_names(names: Iterable[str], known: Container[str], where: str = "") -> None:
    """Raise `ApiError` 400 for the first name that the message does not have, in either spelling."""
    for name in names:
        if name not in known and _camel(name) not in known:
            at = f" at '{where}'" if where else ""
            raise errors.invalid_json(f'Unknown name "{name[:80]}"{at}: Cannot find field.', where)


def parse_tier(body: dict[str, Any]) -> str:
    """Read the service tier that a request asks for. Raises `ApiError` 400."""
    tier = text_field(body, "serviceTier").lower().removeprefix("service_tier_") or STANDARD
    if tier not in TIERS:
        raise errors.invalid_json(f"Invalid value at 'service_tier', \"{tier[:40]}\"", "service_tier")
    return tier


@functools.lru_cache(maxsize=1024)
def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest)
