"""The OpenAI-compatible door: chat completions with streaming, embeddings, models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from mock_server import errors, gemini, openai_wire
from mock_server.endpoints import native
from mock_server.endpoints.embedding import parse_one, vector
from mock_server.quota import STANDARD
from mock_server.replies import SSE, headers, json_reply

if TYPE_CHECKING:
    from mock_server.core import Caller, Core
    from mock_server.service import Course


def key(request: web.BaseRequest) -> str:
    """Return the key of a Bearer header; this door takes no other."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def answer(core: Core, request: web.BaseRequest, caller: Caller, path: str) -> web.StreamResponse:
    """Answer on a path below ``openai/``."""
    if path == "chat/completions" and request.method == "POST":
        return await _chat(core, request, caller)
    if path == "embeddings" and request.method == "POST":
        return await _embeddings(core, request, caller)
    if request.method == "GET" and path.startswith("models"):
        return _models(core, request, caller, path.partition("/")[2])
    raise errors.unknown_path()


async def _chat(core: Core, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
    chat = openai_wire.parse_chat(gemini.decode(await request.read()))
    core.check_generates(chat.model, caller.version, "generateContent")
    now_s = core.clock()
    decision, cached = await native.admit(core, now_s, caller, chat.model, chat.ask)
    try:
        course, found = native.begin(core, now_s, caller, chat.model, chat.ask, decision, cached)
        if course.fault:
            await native.fail(core, request, course)
        if chat.stream:
            return await _stream(core, request, chat, found, course, now_s)
        await core.wait_until(course.done_at_s)
        return json_reply(request, openai_wire.completion(found, now_s))
    finally:
        core.release(decision)


async def _stream(
    core: Core, request: web.BaseRequest, chat: openai_wire.Chat, found: gemini.Answer, course: Course, now_s: float
) -> web.StreamResponse:
    await core.wait_until(course.first_token_at_s)
    response = web.StreamResponse(headers=headers(found.tier, content_type=SSE))
    await response.prepare(request)
    per_token_s = core.profile.latency.per_token_s
    for tokens, chunk in openai_wire.chunks(found, now_s, include_usage=chat.include_usage):
        await core.wait_until(course.first_token_at_s + per_token_s * (tokens - 1))
        await response.write(openai_wire.sse_event(chunk))
        if course.fault == "cut":
            native.hang_up(request)
    await response.write_eof(b"data: [DONE]\n\n")
    return response


async def _embeddings(core: Core, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
    model, texts, dimensions = openai_wire.parse_embeddings(gemini.decode(await request.read()))
    core.check_embeds(model, caller.version, "embedContent")
    extra = {"outputDimensionality": dimensions} if dimensions else {}
    asked = [parse_one({"content": text or " "} | extra) for text in texts]
    tokens = sum(one.tokens for one in asked)
    now_s = core.clock()
    costs = {"requests": len(asked), "input_tokens": tokens, "spend": 0, "concurrency": 1}
    decision = await core.decide(now_s, core.call(caller, model, costs, STANDARD))
    try:
        await core.wait_until(core.course(now_s, decision, max_tokens=1, thinks=False).done_at_s)
    finally:
        core.release(decision)
    data = [{"embedding": vector(one), "index": place, "object": "embedding"} for place, one in enumerate(asked)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_reply(request, {"data": data, "model": model, "object": "list", "usage": usage})


def _models(core: Core, request: web.BaseRequest, caller: Caller, name: str) -> web.StreamResponse:
    def show(model: str) -> dict[str, Any]:
        return {"id": f"models/{model}", "object": "model", "owned_by": "google"}

    if name:
        model = name.removeprefix("models/")
        core.check_model(model, caller.version, "getModel")
        return json_reply(request, show(model))
    return json_reply(request, {"object": "list", "data": [show(model) for model in core.models]})
