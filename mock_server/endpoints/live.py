"""The Live WebSocket: a setup, turns of text, and a limit on sessions that run at once.

A session that finds no room is accepted and closed with code 1011 and the quota's first sentence, as the service
does. Each turn of the client that is complete is answered with one turn of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import WSMsgType, web

from mock_server import gemini
from mock_server.errors import ApiError
from mock_server.quota import STANDARD
from mock_server.tokens import count_text, make_text

if TYPE_CHECKING:
    from mock_server.core import Caller, Core

_REASON_BYTES = 123  # what a close frame has room for
_INTERNAL, _INVALID = 1011, 1007


async def session(core: Core, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
    """Hold one session, from the handshake to its end."""
    socket = web.WebSocketResponse(max_msg_size=16 * 1024 * 1024)
    await socket.prepare(request)
    setup = await _message(socket)
    try:
        model = _model(setup)
        core.check_generates(model, caller.version, "bidiGenerateContent")
        now_s = core.clock()
        decision = await core.hold(now_s, core.call(caller, model, {"live_sessions": 1}, STANDARD))
    except ApiError as error:
        await socket.close(code=_INTERNAL, message=error.message.encode()[:_REASON_BYTES])
        return socket
    try:
        await socket.send_bytes(msgspec.json.encode({"setupComplete": {"sessionId": core.new_id(32)}}))
        await _talk(core, socket, caller, model)
    finally:
        core.release(decision)
    return socket


async def _talk(core: Core, socket: web.WebSocketResponse, caller: Caller, model: str) -> None:
    """Answer turns until the client leaves, or a turn is refused."""
    tokens = 0
    while (message := await _message(socket)) is not None:
        said, ends_turn = _said(message)
        tokens += said
        if not ends_turn:
            continue
        try:
            await _turn(core, socket, caller, model, tokens)
        except ApiError as error:
            await socket.close(code=_INTERNAL, message=error.message.encode()[:_REASON_BYTES])
            return
        tokens = 0


async def _turn(core: Core, socket: web.WebSocketResponse, caller: Caller, model: str, tokens: int) -> None:
    now_s = core.clock()
    decision = await core.decide(now_s, core.call(caller, model, {"input_tokens": tokens, "spend": 0}, STANDARD))
    course = core.course(now_s, decision, max_tokens=None, thinks=False)
    await core.wait_until(course.done_at_s)
    turn = {"parts": [{"text": make_text(course.output_tokens)}], "role": "model"}
    counts = {"promptTokenCount": tokens, "responseTokenCount": course.output_tokens}
    usage = counts | {"totalTokenCount": tokens + course.output_tokens}
    await _send(socket, {"serverContent": {"modelTurn": turn}})
    await _send(socket, {"serverContent": {"generationComplete": True}})
    await _send(socket, {"serverContent": {"turnComplete": True}, "usageMetadata": usage})


async def _send(socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
    await socket.send_bytes(msgspec.json.encode(message))


async def _message(socket: web.WebSocketResponse) -> dict[str, Any] | None:
    """Return the next message; None where the client has gone or sent what is no JSON object."""
    received = await socket.receive()
    if received.type not in {WSMsgType.TEXT, WSMsgType.BINARY}:
        return None
    data = received.data.encode() if isinstance(received.data, str) else received.data
    try:
        return gemini.decode(data)
    except ApiError as error:
        await socket.close(code=_INVALID, message=error.message.encode()[:_REASON_BYTES])
        return None


def _model(setup: dict[str, Any] | None) -> str:
    inner = (setup or {}).get("setup")
    return gemini.text_field(inner, "model").rpartition("/")[2] if isinstance(inner, dict) else ""


def _said(message: dict[str, Any]) -> tuple[int, bool]:
    """Return (tokens, whether the client's turn is complete)."""
    content = gemini.field(message, "clientContent")
    if isinstance(content, dict):
        turns = content.get("turns") or []
        tokens = gemini.prompt_tokens({"contents": turns})
        complete = gemini.field(content, "turnComplete")
        return tokens, complete is None or complete is True
    spoken = gemini.field(message, "realtimeInput")
    if isinstance(spoken, dict):
        text = spoken.get("text")
        return (count_text(text), True) if isinstance(text, str) else (0, False)
    return 0, False
