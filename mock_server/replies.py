"""Responses of aiohttp in the service's dress: the recorded headers, JSON, error bodies, gzip where it is taken."""

from __future__ import annotations

import time
import zlib
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion11, web
from multidict import istr

from mock_server import gemini
from mock_server.quota import STANDARD

if TYPE_CHECKING:
    from mock_server.errors import ApiError

JSON = "application/json; charset=UTF-8"
SSE = "text/event-stream"
# As recorded on 200, 429 and 500 alike. No Retry-After, no x-ratelimit-*.
_HEADERS = {
    "Server": "scaffolding on HTTPServer2",
    "Vary": "Origin, X-Origin, Referer",
    "Alt-Svc": 'h3=":443"; ma=2592000,h3-29=":443"; ma=2592000',
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "X-XSS-Protection": "0",
}
_FIXED_LINES = "".join(f"{name}: {value}\r\n" for name, value in _HEADERS.items())
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_STATUS_LINES[499] = "HTTP/1.1 499 Client Closed Request\r\n"
_ACCEPTS = istr("Accept-Encoding")
_GZIP_LINE = "Content-Encoding: gzip\r\n"
_GZIP_WINDOW = 31  # zlib's way to ask for a gzip header


class WholeReply(web.StreamResponse):
    """An answer that goes out as one piece of bytes, head and body.

    Most of the head never changes. aiohttp would put it together anew for each answer, header by header, which
    costs as much as everything else that the mock does for a call.
    """

    def __init__(self, request: web.BaseRequest, status: int, piece: bytes) -> None:
        super().__init__(status=status)
        self._transport = request.transport
        self._piece = piece

    @property
    def keep_alive(self) -> bool:
        """The connection goes on; `reply` takes another way where it must not."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing goes out before the whole does."""
        del request

    async def write_eof(self, data: bytes = b"") -> None:
        """Write the piece. Raises `ConnectionResetError` where the client has gone."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(self._piece + data)


class _Date:
    """The Date header, formatted once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def text(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


_date = _Date()


def headers(tier: str = STANDARD, *, content_type: str) -> dict[str, str]:
    """Return the service's headers for a stream; ``tier`` is the one that served the call."""
    return _HEADERS | {"X-Gemini-Service-Tier": tier, "Content-Type": content_type}


def reply(
    request: web.BaseRequest,
    body: bytes,
    *,
    status: int = 200,
    duration_s: float = 0.0,
    tier: str = STANDARD,
    content_type: str = JSON,
) -> web.StreamResponse:
    """Return bytes as a response."""
    timing = f"gfet4t7; dur={duration_s * 1000:.0f}"
    packs = "gzip" in request.headers.get(_ACCEPTS, "")
    if packs:
        packer = zlib.compressobj(1, wbits=_GZIP_WINDOW)
        body = packer.compress(body) + packer.flush()
    if request.version != HttpVersion11 or not request.keep_alive or request.method == "HEAD":
        found = headers(tier, content_type=content_type) | {"Server-Timing": timing}
        return web.Response(body=body, status=status, headers=found | ({"Content-Encoding": "gzip"} if packs else {}))
    head = (
        f"{_STATUS_LINES[status]}{_FIXED_LINES}Content-Type: {content_type}\r\nX-Gemini-Service-Tier: {tier}\r\n"
        f"Server-Timing: {timing}\r\n{_GZIP_LINE if packs else ''}"
        f"Content-Length: {len(body)}\r\nDate: {_date.text()}\r\n\r\n"
    )
    return WholeReply(request, status, head.encode() + body)


def json_reply(request: web.BaseRequest, body: object, *, status: int = 200) -> web.StreamResponse:
    """Return a value as the service's JSON."""
    return reply(request, gemini.pretty(body), status=status)


def error_reply(request: web.BaseRequest, error: ApiError, *, array: bool, event_stream: bool) -> web.StreamResponse:
    """Return an error body: in a one-element array where the door wants it, under a stream's type where asked."""
    body: Any = [error.body()] if array else error.body()
    content_type = SSE if event_stream else JSON
    return reply(request, gemini.pretty(body), status=error.code, content_type=content_type)
