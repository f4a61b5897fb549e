"""HTTP/1.1 with keep-alive on asyncio's transports: bytes in, `Request` out; a handler's `Reply` back, when due.

It knows no Gemini and no limit. Requests of one connection are answered one after the other, in order. A reply
that is due later does not depend on its connection: work that has begun goes on when the caller hangs up, as it
does on a real service.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 20 * 1024 * 1024
SEPARATOR = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived. Header names are lower case; ``query`` keeps the first value of each name."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer and when. ``done`` is called at that moment, whether or not anybody still listens."""

    status: int
    body: bytes
    delay_s: float = 0.0
    done: Callable[[], None] | None = None


class BadRequestError(Exception):
    """The bytes are no HTTP request that this server takes; ``status`` says why."""

    def __init__(self, status: int) -> None:
        super().__init__(HTTPStatus(status).phrase)
        self.status = status


def take_request(buffer: bytearray) -> Request | None:
    """Cut one whole request off the front of ``buffer``, or return None and wait for more bytes."""
    end = buffer.find(SEPARATOR)
    if end > MAX_HEAD_BYTES or (end < 0 and len(buffer) > MAX_HEAD_BYTES):
        raise BadRequestError(431)
    if end < 0:
        return None
    method, target, headers = _parse_head(bytes(buffer[:end]))
    start = end + len(SEPARATOR)
    stop = start + _body_length(headers)
    if len(buffer) < stop:
        return None
    body = bytes(buffer[start:stop])
    del buffer[:stop]
    parts = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return Request(method, parts.path, query, headers, body)


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] not in {"HTTP/1.1", "HTTP/1.0"}:  # noqa: PLR2004 - method, target, version
        raise BadRequestError(400)
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequestError(400)
        headers[name.strip().lower()] = value.strip()
    return words[0], words[1], headers


def _body_length(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequestError(411)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequestError(400)
    if int(length) > MAX_BODY_BYTES:
        raise BadRequestError(413)
    return int(length)


def response_head(status: int, length: int, epoch_s: float, *, keep: bool) -> bytes:
    """Write the status line and the headers that every answer carries."""
    lines = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json; charset=UTF-8",
        f"Date: {formatdate(epoch_s, usegmt=True)}",
        "Server: scaffolding on HTTPServer2",
        f"Content-Length: {length}",
        f"Connection: {'keep-alive' if keep else 'close'}",
    )
    return "\r\n".join(lines).encode("ascii") + SEPARATOR


class Connection(asyncio.Protocol):
    """One client. ``handle`` decides at the moment of arrival; ``epoch_s`` is the server's clock."""

    def __init__(self, handle: Callable[[Request], Reply], epoch_s: Callable[[], float]) -> None:
        self._handle = handle
        self._epoch_s = epoch_s
        self._buffer = bytearray()
        self._busy = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Answer no more here."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take up the next request, unless the one before is still at work."""
        self._buffer += data
        if not self._busy:
            self._take_next()

    def _take_next(self) -> None:
        try:
            request = take_request(self._buffer)
        except BadRequestError as error:
            self._write(Reply(error.status, b""), keep=False)
            return
        if request is None:
            return
        self._busy = True
        keep = request.headers.get("connection", "keep-alive").lower() != "close"
        reply = self._handle(request)
        if reply.delay_s > 0:
            asyncio.get_running_loop().call_later(reply.delay_s, self._finish, reply, keep)
        else:
            self._finish(reply, keep)

    def _finish(self, reply: Reply, keep: bool) -> None:  # noqa: FBT001 - call_later passes no keywords
        if reply.done is not None:
            reply.done()
        self._busy = False
        self._write(reply, keep=keep)
        if self._transport is not None:
            self._take_next()

    def _write(self, reply: Reply, *, keep: bool) -> None:
        if self._transport is None:
            return
        head = response_head(reply.status, len(reply.body), self._epoch_s(), keep=keep)
        self._transport.write(head + reply.body)
        if not keep:
            self._transport.close()
            self._transport = None


async def listen(handle: Callable[[Request], Reply], epoch_s: Callable[[], float], port: int) -> asyncio.Server:
    """Accept connections on the loopback address; port 0 picks a free one."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(handle, epoch_s), "127.0.0.1", port, backlog=1024)
