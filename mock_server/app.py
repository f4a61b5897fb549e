"""The door: which endpoint answers a path, and how an error is written on the way out.

It owns the table of paths and the check of keys. What an endpoint does is in ``endpoints/``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import istr

from mock_server import errors
from mock_server.core import VERTEX, Caller, Core
from mock_server.endpoints import batching, caching, interacting, live, native, observing, openai
from mock_server.errors import ApiError
from mock_server.interactions import error_body
from mock_server.openapi import document
from mock_server.replies import error_reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Method = Callable[[Core, web.BaseRequest, Caller, str], Awaitable[web.StreamResponse]]
    Route = Callable[["App", web.BaseRequest, re.Match[str]], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 100 * 1024 * 1024
_MAX_KNOWN = 1000
_API_KEY = istr("x-goog-api-key")
_VERSION = "/(v1|v1beta|v1alpha)"
_METHOD = re.compile(_VERSION + "/(?:models|tunedModels)/([^/:]+):([A-Za-z]+)")
_INTERACTIONS = re.compile(_VERSION + "/interactions(?:/([^/]+)(?:/([a-z]+))?)?")
_OPENAI = "/v1beta/openai/"
METHODS: dict[str, Method] = {
    "generateContent": native.generate,
    "streamGenerateContent": native.stream,
    "countTokens": native.count,
    "embedContent": native.embed,
    "batchEmbedContents": native.embed_batch,
    "batchGenerateContent": batching.create,
    "asyncBatchEmbedContent": batching.create_embeddings,
}


class App:
    """A core behind HTTP. Hand the object to `aiohttp.web.Server`: it is the handler.

    With an ``admin_token`` it answers under ``/__mock__/``, with ``metrics`` on ``/metrics``.
    """

    def __init__(self, core: Core, *, admin_token: str = "", metrics: bool = False) -> None:
        self.core = core
        self.admin_token = admin_token
        self.metrics = metrics
        self.interactions = interacting.Store()
        self._known: dict[str, tuple[Method, str, str]] = {}  # paths that were matched before

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, and keep the journal where there is one."""
        journal = self.core.journal
        if journal is None:
            return await self._reply(request)
        row, status = journal.began(self.core.clock()), 0
        try:
            response = await self._reply(request)
            status = response.status
            return response
        finally:
            journal.ended(row, self.core.clock(), status)

    async def _reply(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer; whatever goes wrong becomes one of Google's error bodies."""
        try:
            return await self._answer(request)
        except ApiError as error:
            return _refuse(request, error)
        except web.HTTPRequestEntityTooLarge:
            return _refuse(request, errors.too_large())
        except web.HTTPBadRequest:  # a door that takes a WebSocket alone was knocked on without one
            return _refuse(request, errors.invalid("Request contains an invalid argument."))
        except web.RequestPayloadError:
            return _refuse_unreadable(request)

    def caller(self, request: web.BaseRequest, version: str) -> Caller:
        """Return who calls the Gemini API. Raises `ApiError`."""
        return self.core.caller(request.headers.get(_API_KEY) or request.query.get("key", ""), version)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        known = self._known.get(request.raw_path)
        if known is None or request.method != "POST":
            return await self._answer_new(request)
        method, version, model = known
        return await method(self.core, request, self.caller(request, version), model)

    async def _answer_new(self, request: web.BaseRequest) -> web.StreamResponse:
        match = _METHOD.fullmatch(request.path)
        if match is None:
            return await self._answer_other(request)
        version, model, name = match.groups()
        caller = self.caller(request, version)
        method = _method(request, version, model, name)
        if len(self._known) < _MAX_KNOWN:
            self._known[request.raw_path] = method, version, model
        return await method(self.core, request, caller, model)

    async def _answer_other(self, request: web.BaseRequest) -> web.StreamResponse:
        for pattern, route in _ROUTES:
            if match := pattern.fullmatch(request.path):
                return await route(self, request, match)
        raise errors.unknown_path()


async def _models(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    caller = app.caller(request, match[1])
    if request.method != "GET":
        raise errors.unknown_path()
    if match[2] is None:
        return native.list_models(app.core, request)
    return native.get_model(app.core, request, caller, match[2])


async def _caches(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    caller = app.caller(request, match[1])
    if match[2] is None:
        return await caching.collection(app.core, request, caller)
    return await caching.item(app.core, request, caller, match[2])


async def _batches(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    caller = app.caller(request, match[1])
    if match[2] is None:
        return await batching.collection(app.core, request, caller)
    return await batching.item(app.core, request, caller, match[2], match[3] or "")


async def _interactions(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    caller = app.caller(request, match[1])
    if match[2] is not None:
        return await interacting.item(request, caller, app.interactions, match[2], match[3])
    if request.method != "POST":
        raise errors.unknown_path()
    return await interacting.create(app.core, request, caller, app.interactions)


async def _openai(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    key = openai.key(request)
    if not key:
        raise errors.invalid("Please pass a valid API key")
    return await openai.answer(app.core, request, app.core.caller(key, "v1beta"), match[1])


async def _admin(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    if not app.admin_token:
        raise errors.unknown_path()
    return await observing.admin(app.core, request, app.admin_token, match[1])


async def _metrics(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    del match
    if not app.metrics or request.method != "GET":
        raise errors.unknown_path()
    return observing.metrics(app.core)


async def _discovery(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    del app, match
    if request.method != "GET":
        raise errors.unknown_path()
    return json_reply(request, document())


async def _live(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    return await live.session(app.core, request, app.caller(request, match[1]))


async def _vertex(app: App, request: web.BaseRequest, match: re.Match[str]) -> web.StreamResponse:
    version, project, region, model, name = match.groups()
    method = _method(request, version, model, name)
    return await method(app.core, request, _vertex_caller(app, request, version, project, region), model)


def _vertex_caller(app: App, request: web.BaseRequest, version: str, project: str | None, region: str | None) -> Caller:
    """Return who calls Vertex: an API key in express mode, an access token of a project else."""
    if project is None:
        express = app.caller(request, version)
        return Caller(express.key, express.project, "global", version, VERTEX)
    token = openai.key(request)
    if not token:
        raise errors.no_token()
    return Caller(token, project, region or "global", version, VERTEX)


_ROUTES: tuple[tuple[re.Pattern[str], Route], ...] = (
    (re.compile(_VERSION + "/models(?:/([^/:]+))?"), _models),
    (re.compile(_VERSION + "/cachedContents(?:/([^/:]+))?"), _caches),
    (re.compile(_VERSION + "/batches(?:/([^/:]+)(?::([a-z]+))?)?"), _batches),
    (_INTERACTIONS, _interactions),
    (re.compile(re.escape(_OPENAI) + "(.+)"), _openai),
    (
        re.compile(r"/ws/google\.ai\.generativelanguage\.(v1|v1beta|v1alpha)\.GenerativeService\.BidiGenerateContent"),
        _live,
    ),
    (
        re.compile(
            r"/(v1|v1beta1)/(?:projects/([^/:]+)/locations/([^/:]+)/)?publishers/google/models/([^/:]+):([A-Za-z]+)"
        ),
        _vertex,
    ),
    (re.compile(r"/\$discovery/OPENAPI3_0"), _discovery),
    (re.compile("/__mock__/(.+)"), _admin),
    (re.compile("/metrics"), _metrics),
)


def _method(request: web.BaseRequest, version: str, model: str, name: str) -> Method:
    if request.method != "POST":
        raise errors.unknown_path()
    method = METHODS.get(name)
    if method is None:
        raise errors.unknown_model(model, version, name)
    return method


def _refuse_unreadable(request: web.BaseRequest) -> web.StreamResponse:
    """Refuse a body that is not packed or chunked as its head says; nothing after it on this connection is readable."""
    request.content.feed_eof()  # or aiohttp would go on reading what is broken, and log a traceback
    response = _refuse(request, errors.invalid("Request contains an invalid argument."))
    if request.transport is not None:
        request.protocol.close()
    return response


def _refuse(request: web.BaseRequest, error: ApiError) -> web.StreamResponse:
    """Write an error as the door that was knocked on writes it."""
    path = request.path
    if _INTERACTIONS.fullmatch(path):
        return json_reply(request, error_body(error), status=error.code)
    streams = path.endswith(":streamGenerateContent")
    sse = streams and request.query.get("alt") == "sse"
    return error_reply(request, error, array=(streams and not sse) or path.startswith(_OPENAI), event_stream=sse)
