"""The ``cachedContents`` resource: create, get, list, patch, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mock_server import errors, gemini
from mock_server.caches import DEFAULT_TTL_S, Cache, expiry_s
from mock_server.endpoints.native import page
from mock_server.replies import json_reply

if TYPE_CHECKING:
    from aiohttp import web

    from mock_server.core import Caller, Core

MIN_TOKENS = 1024


async def collection(core: Core, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
    """Answer on ``cachedContents``: POST creates, GET lists."""
    if request.method == "POST":
        return await _create(core, request, caller)
    if request.method != "GET":
        raise errors.unknown_path()
    found, token = page(request, core.living_caches(caller.project))
    return json_reply(request, ({"cachedContents": [cache.body() for cache in found]} if found else {}) | token)


async def item(core: Core, request: web.BaseRequest, caller: Caller, name: str) -> web.StreamResponse:
    """Answer on one cache: GET, PATCH, DELETE."""
    now_s = core.clock()
    cache = core.caches.get(f"cachedContents/{name}", caller.project, now_s)
    if request.method == "DELETE":
        core.forget_cache(cache)
        return json_reply(request, {})
    if request.method == "PATCH":
        moment_s = expiry_s(gemini.decode(await request.read()), now_s)
        if moment_s is not None:
            cache.expires_s, cache.updated_s = moment_s, now_s
    elif request.method != "GET":
        raise errors.unknown_path()
    return json_reply(request, cache.body())


async def _create(core: Core, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
    body = gemini.decode(await request.read())
    model = gemini.text_field(body, "model").rpartition("/")[2]
    core.check_generates(model, caller.version, "createCachedContent")
    now_s = core.clock()
    expires_s = expiry_s(body, now_s)
    tokens = gemini.prompt_tokens(body)
    if tokens < MIN_TOKENS:
        message = f"Cached content is too small. total_token_count={tokens}, min_total_token_count={MIN_TOKENS}"
        raise errors.invalid(message)
    display_name = gemini.text_field(body, "displayName")
    held = await core.hold(now_s, core.call(caller, model, {"cached_tokens": tokens}, "standard"))
    cache = Cache(
        f"cachedContents/{core.new_id(12)}",
        caller.project,
        model,
        tokens,
        now_s,
        now_s,
        now_s + DEFAULT_TTL_S if expires_s is None else expires_s,
        held,
        display_name,
    )
    core.caches.add(cache)
    return json_reply(request, cache.body())
