"""The ``interactions`` resource: create (whole or streamed), get, delete, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from mock_server import errors, gemini, interactions
from mock_server.endpoints import native
from mock_server.replies import SSE, headers, json_reply

if TYPE_CHECKING:
    from mock_server.core import Caller, Core
    from mock_server.service import Course

_MAX_STORED = 10_000


class Store:
    """The interactions that may be asked for again; the oldest make room."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, project: str, body: dict[str, Any]) -> None:
        """Keep one."""
        self._kept[project, body["id"]] = body
        if len(self._kept) > _MAX_STORED:
            del self._kept[next(iter(self._kept))]

    def get(self, project: str, name: str) -> dict[str, Any]:
        """Return one. Raises `ApiError` 404."""
        found = self._kept.get((project, name))
        if found is None:
            raise errors.unknown_path()
        return found

    def remove(self, project: str, name: str) -> None:
        """Forget one. Raises `ApiError` 404."""
        self.get(project, name)
        del self._kept[project, name]


async def create(core: Core, request: web.BaseRequest, caller: Caller, store: Store) -> web.StreamResponse:
    """Answer ``interactions.create``."""
    asked = interactions.parse(gemini.decode(await request.read()))
    core.check_generates(asked.model, caller.version, "createInteraction")
    now_s = core.clock()
    decision, cached = await native.admit(core, now_s, caller, asked.model, asked.ask)
    try:
        course, answer = native.begin(core, now_s, caller, asked.model, asked.ask, decision, cached)
        if course.fault:
            await native.fail(core, request, course)
        whole = interactions.resource(answer, now_s)
        if asked.store:
            store.add(caller.project, whole)
        if asked.stream:
            return await _stream(core, request, answer, course, now_s)
        await core.wait_until(course.done_at_s)
        return json_reply(request, whole)
    finally:
        core.release(decision)


async def item(
    request: web.BaseRequest, caller: Caller, store: Store, name: str, verb: str | None
) -> web.StreamResponse:
    """Answer on one interaction: GET, DELETE, and POST with ``/cancel``."""
    if verb == "cancel" and request.method == "POST":
        return json_reply(request, store.get(caller.project, name))
    if verb or request.method not in {"GET", "DELETE"}:
        raise errors.unknown_path()
    if request.method == "DELETE":
        store.remove(caller.project, name)
        return json_reply(request, {})
    return json_reply(request, store.get(caller.project, name))


async def _stream(
    core: Core, request: web.BaseRequest, answer: gemini.Answer, course: Course, now_s: float
) -> web.StreamResponse:
    await core.wait_until(course.first_token_at_s)
    response = web.StreamResponse(headers=headers(answer.tier, content_type=SSE))
    await response.prepare(request)
    per_token_s = core.profile.latency.per_token_s
    for tokens, event in interactions.events(answer, now_s):
        await core.wait_until(course.first_token_at_s + per_token_s * max(0, tokens - 1))
        await response.write(interactions.sse_event(event))
        if course.fault == "cut" and event["event_type"] == "step.delta":
            native.hang_up(request)
    await response.write_eof()
    return response
