"""The ``batches`` resource and the two methods that create one. Jobs have quotas of their own, and tell no delay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mock_server import errors, gemini
from mock_server.batches import Job, Line, parse_job
from mock_server.endpoints.embedding import parse_one, vector
from mock_server.endpoints.native import page
from mock_server.quota import STANDARD, Decision
from mock_server.replies import json_reply

if TYPE_CHECKING:
    from aiohttp import web

    from mock_server.core import Caller, Core


async def create(core: Core, request: web.BaseRequest, caller: Caller, model: str) -> web.StreamResponse:
    """Answer ``batchGenerateContent``."""
    core.check_generates(model, caller.version, "batchGenerateContent")
    display_name, asked = parse_job(gemini.decode(await request.read()))
    lines = [_generated(core, model, body, metadata) for body, metadata in asked]
    return await _start(core, request, caller, model, "GenerateContentBatch", display_name, lines)


async def create_embeddings(core: Core, request: web.BaseRequest, caller: Caller, model: str) -> web.StreamResponse:
    """Answer ``asyncBatchEmbedContent``."""
    core.check_embeds(model, caller.version, "asyncBatchEmbedContent")
    display_name, asked = parse_job(gemini.decode(await request.read()))
    lines = [_embedded(body, metadata) for body, metadata in asked]
    return await _start(core, request, caller, model, "EmbedContentBatch", display_name, lines)


async def collection(core: Core, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
    """Answer ``batches.list``."""
    if request.method != "GET":
        raise errors.unknown_path()
    now_s = core.clock()
    found, token = page(request, core.jobs.listed(caller.project))
    return json_reply(request, ({"operations": [job.body(now_s) for job in found]} if found else {}) | token)


async def item(core: Core, request: web.BaseRequest, caller: Caller, name: str, verb: str) -> web.StreamResponse:
    """Answer on one job: GET, DELETE, and POST with ``:cancel``."""
    job = core.jobs.get(f"batches/{name}", caller.project)
    now_s = core.clock()
    if request.method == "POST" and verb == "cancel":
        job.cancel(now_s)
        core.settle_jobs(now_s)
        return json_reply(request, {})
    if verb or request.method not in {"GET", "DELETE"}:
        raise errors.unknown_path()
    if request.method == "DELETE":
        job.cancel(now_s)
        core.settle_jobs(now_s)
        core.jobs.remove(job)
        return json_reply(request, {})
    return json_reply(request, job.body(now_s))


async def _start(
    core: Core, request: web.BaseRequest, caller: Caller, model: str, kind: str, display_name: str, lines: list[Line]
) -> web.StreamResponse:
    now_s = core.clock()
    core.settle_jobs(now_s)
    costs = {"batch_jobs": 1, "enqueued_tokens": sum(line.tokens for line in lines)}
    held: Decision = await core.hold(now_s, core.call(caller, model, costs, STANDARD))
    name = f"batches/{core.new_id(32)}"
    job = Job(name, caller.project, model, kind, display_name, lines, now_s, core.profile.batch, held)
    core.jobs.add(job)
    return json_reply(request, job.body(now_s))


def _generated(core: Core, model: str, body: dict[str, Any], metadata: dict[str, Any]) -> Line:
    ask = gemini.parse_generate(body)
    length = max(1, round(core.profile.length.tokens))
    tokens = length if ask.max_output_tokens is None else min(length, ask.max_output_tokens)
    answer = gemini.Answer(model, core.new_id(), ask.prompt_tokens, tokens, tokens < length)
    return Line(metadata, gemini.answer_body(answer), ask.prompt_tokens)


def _embedded(body: dict[str, Any], metadata: dict[str, Any]) -> Line:
    one = parse_one(body)
    return Line(metadata, {"embedding": {"values": vector(one)}, "tokenCount": str(one.tokens)}, one.tokens)
