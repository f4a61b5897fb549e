"""The native methods of a model: generate, stream, count, embed; and the list of models."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from mock_server import catalogue, errors, gemini
from mock_server.core import VERTEX
from mock_server.endpoints.embedding import parse_batch, parse_one, vector
from mock_server.journal import current
from mock_server.replies import JSON, SSE, headers, json_reply, reply

if TYPE_CHECKING:
    from mock_server.core import Caller, Core
    from mock_server.journal import Journal
    from mock_server.quota import Decision
    from mock_server.service import Course

HANG_S = 24 * 3600.0
_PAGE_SIZE, _MAX_PAGE_SIZE = 50, 1000
_TRAFFIC = {"standard": "ON_DEMAND", "priority": "ON_DEMAND_PRIORITY", "flex": "ON_DEMAND_FLEX"}
_FAULTS = {
    "overloaded_503": errors.overloaded,
    "internal_500": errors.internal,
    "deadline_504": errors.deadline,
    "overloaded_503_old": errors.overloaded_old,
    "cancelled_499": errors.cancelled,
}


async def generate(core: Core, request: web.BaseRequest, caller: Caller, model: str) -> web.StreamResponse:
    """Answer ``generateContent``."""
    core.check_generates(model, caller.version, "generateContent")
    ask = gemini.parse_generate(gemini.decode(await request.read()))
    now_s = core.clock()
    decision, cached = await admit(core, now_s, caller, model, ask)
    try:
        course, answer = begin(core, now_s, caller, model, ask, decision, cached)
        if course.fault:
            await fail(core, request, course)
        if course.done_at_s > now_s:
            await core.wait_until(course.done_at_s)
        if course.fault == "cut":
            return await _cut(request, gemini.answer_bytes(answer))
        body = _spoiled(answer, course.fault) if course.fault else gemini.answer_bytes(answer)
        return reply(request, body, duration_s=course.done_at_s - now_s, tier=decision.tier)
    finally:
        core.release(decision)


async def stream(core: Core, request: web.BaseRequest, caller: Caller, model: str) -> web.StreamResponse:
    """Answer ``streamGenerateContent``: events with ``alt=sse``, else one JSON array in pieces."""
    core.check_generates(model, caller.version, "streamGenerateContent")
    ask = gemini.parse_generate(gemini.decode(await request.read()))
    now_s = core.clock()
    decision, cached = await admit(core, now_s, caller, model, ask)
    try:
        course, answer = begin(core, now_s, caller, model, ask, decision, cached)
        if course.fault:
            await fail(core, request, course)
        return await _stream(core, request, answer, course)
    finally:
        core.release(decision)


async def count(core: Core, request: web.BaseRequest, caller: Caller, model: str) -> web.StreamResponse:
    """Answer ``countTokens``; it takes no quota."""
    core.check_model(model, caller.version, "countTokens")
    return json_reply(request, gemini.count_body(gemini.parse_count(gemini.decode(await request.read()))))


async def embed(core: Core, request: web.BaseRequest, caller: Caller, model: str) -> web.StreamResponse:
    """Answer ``embedContent``."""
    core.check_embeds(model, caller.version, "embedContent")
    one = parse_one(gemini.decode(await request.read()))
    await _embed(core, request, caller, model, texts=1, tokens=one.tokens)
    return json_reply(request, {"embedding": {"values": vector(one)}})


async def embed_batch(core: Core, request: web.BaseRequest, caller: Caller, model: str) -> web.StreamResponse:
    """Answer ``batchEmbedContents``: each text counts as one request."""
    core.check_embeds(model, caller.version, "batchEmbedContents")
    asked = parse_batch(gemini.decode(await request.read()))
    await _embed(core, request, caller, model, texts=len(asked), tokens=sum(one.tokens for one in asked))
    return json_reply(request, {"embeddings": [{"values": vector(one)} for one in asked]})


def list_models(core: Core, request: web.BaseRequest) -> web.StreamResponse:
    """Answer ``models.list``, by pages."""
    found, token = page(request, core.models)
    body: dict[str, Any] = {"models": [catalogue.describe(model) for model in found]}
    return json_reply(request, body | token)


def get_model(core: Core, request: web.BaseRequest, caller: Caller, model: str) -> web.StreamResponse:
    """Answer ``models.get``."""
    core.check_model(model, caller.version, "getModel")
    return json_reply(request, catalogue.describe(model))


def page(request: web.BaseRequest, things: tuple[Any, ...] | list[Any]) -> tuple[Any, dict[str, str]]:
    """Return the page that a list request asks for, and the token of the next one. Raises `ApiError` 400."""
    query = request.query
    try:
        size = int(query.get("pageSize") or _PAGE_SIZE)
        start = int(query.get("pageToken") or 0)
    except ValueError:
        raise errors.invalid("page_size or page_token is invalid.") from None
    if size < 0 or start < 0:
        raise errors.invalid("page_size or page_token is invalid.")
    end = start + min(size or _PAGE_SIZE, _MAX_PAGE_SIZE)
    return things[start:end], {"nextPageToken": str(end)} if end < len(things) else {}


async def admit(core: Core, now_s: float, caller: Caller, model: str, ask: gemini.Ask) -> tuple[Decision, int]:
    """Let a generation in and return with it the tokens that a cache contributes. Raises `ApiError`."""
    cached = core.cached_tokens(caller, ask.cached_content) if ask.cached_content else 0
    tokens = ask.prompt_tokens + cached
    if tokens > catalogue.INPUT_TOKEN_LIMIT:
        raise errors.too_many_tokens(catalogue.INPUT_TOKEN_LIMIT, vertex=caller.surface == VERTEX)
    costs = {"requests": 1, "input_tokens": tokens, "spend": 0, "concurrency": 1}
    if catalogue.paints(model):
        costs["images"] = 1
    return await core.decide(now_s, core.call(caller, model, costs, ask.tier)), cached


def begin(
    core: Core, now_s: float, caller: Caller, model: str, ask: gemini.Ask, decision: Decision, cached: int
) -> tuple[Course, gemini.Answer]:
    """Draw how an admitted generation goes, what it says, and what it costs."""
    course = core.course(now_s, decision, max_tokens=ask.max_output_tokens, thinks=ask.thinks)
    answer = gemini.Answer(
        model,
        core.new_id(),
        ask.prompt_tokens + cached,
        course.output_tokens,
        course.cut,
        course.thought_tokens,
        cached,
        decision.tier,
        _TRAFFIC[decision.tier] if caller.surface == VERTEX else "",
    )
    core.charge(now_s, caller, model, answer)
    if core.journal:
        _note(core.journal, course, answer)
    return course, answer


def _note(journal: Journal, course: Course, answer: gemini.Answer) -> None:
    """Add to the call's record what is known of its answer."""
    row = current.get()
    if row is not None:
        row.first_token_s = course.first_token_at_s - journal.start_s
        row.output_tokens, row.thought_tokens = answer.output_tokens, answer.thought_tokens
        row.cached = answer.cached_tokens


async def fail(core: Core, request: web.BaseRequest, course: Course) -> None:
    """End a call in the way that its course says: raises, but for the faults that spoil the answer's body."""
    if course.fault == "hang":
        await asyncio.sleep(HANG_S)
    await core.wait_until(course.first_token_at_s)
    if course.fault == "reset":
        hang_up(request)
    if course.fault in _FAULTS:
        failure = _FAULTS[course.fault]()
        raise failure


def hang_up(request: web.BaseRequest) -> None:
    """Close the connection at once, with nothing more said; always raises."""
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("the profile asked for a broken connection")


async def _embed(core: Core, request: web.BaseRequest, caller: Caller, model: str, *, texts: int, tokens: int) -> None:
    now_s = core.clock()
    costs = {"requests": texts, "input_tokens": tokens, "spend": 0, "concurrency": 1}
    decision = await core.decide(now_s, core.call(caller, model, costs, "standard"))
    try:
        course = core.course(now_s, decision, max_tokens=1, thinks=False)
        if course.fault:
            await fail(core, request, course)
        await core.wait_until(course.done_at_s)
    finally:
        core.release(decision)


async def _stream(core: Core, request: web.BaseRequest, answer: gemini.Answer, course: Course) -> web.StreamResponse:
    sse = request.query.get("alt") == "sse"
    await core.wait_until(course.first_token_at_s)
    response = web.StreamResponse(headers=headers(answer.tier, content_type=SSE if sse else JSON))
    await response.prepare(request)
    per_token_s = core.profile.latency.per_token_s
    opening = b"["
    pieces = [(0, gemini.blocked_body(answer))] if course.fault == "blocked" else gemini.chunks(answer)
    for tokens, chunk in pieces:
        await core.wait_until(course.first_token_at_s + per_token_s * (tokens - 1))
        piece = gemini.sse_event(chunk) if sse else opening + gemini.pretty(chunk)
        if course.fault == "malformed":
            piece = piece[: len(piece) // 2] + b"\r\n\r\n"
        await response.write(piece)
        if course.fault == "cut":
            hang_up(request)
        opening = b",\r\n"
    await response.write_eof(b"" if sse else b"]")
    return response


def _spoiled(answer: gemini.Answer, fault: str) -> bytes:
    """Return the body of a 200 that is none: half of it, or no candidates."""
    if fault == "blocked":
        return gemini.pretty(gemini.blocked_body(answer))
    body = gemini.answer_bytes(answer)
    return body[: len(body) // 2]


async def _cut(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """Announce a whole answer, send half of it and hang up."""
    response = web.StreamResponse(headers=headers(content_type=JSON))
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    hang_up(request)
    return response
