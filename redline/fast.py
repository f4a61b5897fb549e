"""The fast transport: HTTP/1.1 over gevent sockets that are opened ahead of time, parsed by geventhttpclient.

It owns its sockets instead of a pool that blocks: a call takes an idle connection or opens one, and never queues.
The moment of sending is read just before the first byte is written, after any connect. TLS certificates are
verified. Nothing is ever sent twice: a call that is lost is an outcome, not a reason to try again.
"""

from __future__ import annotations

import errno
import select
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import gevent
import gevent.socket
from gevent.ssl import create_default_context
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse

from redline.client import Order, Outcome, base_and_version, thinking_off
from redline.wire import Answer, count_body, generate_body, read_answer, read_token_count

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_TIMEOUT_S = 10.0
COUNT_TIMEOUT_S = 30.0
_READ_BYTES = 16384
_BROKEN_OFF = ("closed", "Incomplete", "EOF")  # how the parser names an answer whose end never came


class FastTransport:
    """Implements `redline.client.Transport` with one socket a call in flight."""

    def __init__(self, url: str, keys: tuple[str, ...], now_s: Callable[[], float]) -> None:
        base, version = base_and_version(url)
        parts = urlsplit(base)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = create_default_context() if parts.scheme == "https" else None
        self._netloc = parts.netloc.rpartition("@")[2]
        self._path = f"{parts.path}/{version}"
        self._keys = keys
        self._now_s = now_s
        self._idle: list[gevent.socket.socket] = []
        self._address: tuple[int, Any] | None = None  # resolved once, so that no look-up delays a call

    def call(self, order: Order, on_sent: Callable[[float], None]) -> Outcome:
        """Make one call; see `Transport`."""
        body = generate_body(order.prompt, output_tokens=order.output_tokens, thinking_off=thinking_off(order.model))
        request = self._request(f"models/{quote(order.model)}:generateContent", body, order.key_slot)
        try:
            sock = self._take()
        except OSError as error:
            return self._lost(error)
        try:
            with gevent.Timeout(order.timeout_s):
                on_sent(self._now_s())
                status, date, content = self._exchange(sock, request)
        except gevent.Timeout:
            sock.close()
            return Outcome(Answer(0, "timeout", f"no answer within {order.timeout_s:g} s"), self._now_s())
        except HTTPParseError as error:
            sock.close()
            lost = any(word in str(error) for word in _BROKEN_OFF)
            return Outcome(Answer(0, "connection" if lost else "malformed", str(error)), self._now_s())
        except OSError as error:
            sock.close()
            return self._lost(error)
        except BaseException:  # a kill of this greenlet: the socket has an answer under way and must not be reused
            sock.close()
            raise
        return Outcome(read_answer(status, content, date), self._now_s())

    def warm(self, connections: int) -> None:
        """Open connections side by side until this many are idle."""
        self._idle = [sock for sock in self._idle if _alive(sock)]
        missing = connections - len(self._idle)
        openers = [gevent.spawn(self._open_one) for _ in range(missing)]
        gevent.joinall(openers)
        opened = [opener.value for opener in openers]
        self._idle.extend(sock for sock in opened if isinstance(sock, gevent.socket.socket))
        errors = [error for error in opened if isinstance(error, OSError)]
        if errors and not self._idle:
            raise errors[0]

    def count_tokens(self, model: str, prompt: str) -> int | None:
        """Ask countTokens; None on any failure."""
        request = self._request(f"models/{quote(model)}:countTokens", count_body(prompt), 0)
        try:
            sock = self._take()
        except OSError:
            return None
        try:
            with gevent.Timeout(COUNT_TIMEOUT_S):
                status, _, content = self._exchange(sock, request)
        except (gevent.Timeout, HTTPParseError, OSError):
            sock.close()
            return None
        return read_token_count(content) if status == HTTPStatus.OK else None

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _request(self, path: str, body: bytes, key_slot: int) -> bytes:
        head = (
            f"POST {self._path}/{path} HTTP/1.1\r\n"
            f"Host: {self._netloc}\r\n"
            f"x-goog-api-key: {self._keys[key_slot % len(self._keys)]}\r\n"
            "Content-Type: application/json\r\n"
            "Accept: application/json\r\n"
            "User-Agent: redline\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("latin-1", "replace") + body

    def _exchange(self, sock: gevent.socket.socket, request: bytes) -> tuple[int, object, bytes]:
        """Write a request and read its answer; the socket goes back to the idle ones if it can be used again."""
        sock.sendall(request)
        response = HTTPSocketResponse(sock, block_size=_READ_BYTES, method="POST")
        content = response.read()
        if response.should_close():
            sock.close()
        else:
            self._idle.append(sock)
        return response.status_code, response.get("date"), content

    def _take(self) -> gevent.socket.socket:
        """Return an idle connection that is still open, else a new one. Raises OSError."""
        while self._idle:
            sock = self._idle.pop()
            if _alive(sock):
                return sock
            sock.close()
        return self._connect()

    def _open_one(self) -> gevent.socket.socket | OSError:
        try:
            return self._connect()
        except OSError as error:
            return error

    def _connect(self) -> gevent.socket.socket:
        """Open a connection to the address that answered first, or find one that does. Raises OSError."""
        if self._address is not None:
            return self._connect_to(*self._address)
        trouble = OSError("the name has no address")
        for family, _, _, _, address in gevent.socket.getaddrinfo(self._host, self._port, 0, gevent.socket.SOCK_STREAM):
            try:
                sock = self._connect_to(int(family), address)
            except OSError as error:  # as where localhost is ::1 first and the server listens on 127.0.0.1
                trouble = error
                continue
            self._address = (int(family), address)
            return sock
        raise trouble

    def _connect_to(self, family: int, address: Any) -> gevent.socket.socket:  # noqa: ANN401 - as getaddrinfo gives it
        sock = gevent.socket.socket(family, gevent.socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_TIMEOUT_S)
            sock.connect(address)
            sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_hostname=self._host)
            sock.settimeout(None)
        except BaseException:
            sock.close()
            raise
        return sock

    def _lost(self, error: OSError) -> Outcome:
        words = str(error) or type(error).__name__
        return Outcome(Answer(0, "connection", words), self._now_s(), refused=error.errno == errno.ECONNREFUSED)


def _alive(sock: gevent.socket.socket) -> bool:
    """Whether an idle connection can be used: one that is readable was closed by the server."""
    if sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return not poll.poll(0)
