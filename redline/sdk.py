"""The SDK transport: calls go through google-genai, as production's do, with its retries off and its pool wide open.

What comes back is read by the same parser as the fast transport's: the raw HTTP answer is caught on its way through
the SDK's own client. The moment of sending is the one at which the request's head is about to be written.
"""

from __future__ import annotations

import errno
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gevent
import httpx2
from google import genai
from google.genai import types

from redline.client import Order, Outcome, base_and_version, thinking_off
from redline.wire import Answer, read_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ONE_CONNECTION = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=300.0)
_PHASE_TIMEOUT_S = 600.0  # the SDK's own, for each phase; a call's real deadline is `Order.timeout_s`
_HEAD_GOES_OUT = "send_request_headers.started"


@dataclass(slots=True)
class _Call:
    """What is caught while the SDK works, in this greenlet."""

    on_sent: Callable[[float], None]
    built_s: float = 0.0
    sent: bool = False
    response: httpx2.Response | None = None


_current: ContextVar[_Call] = ContextVar("redline_call")


class SdkTransport:
    """Implements `redline.client.Transport` with one google-genai client a key, all on one HTTP client."""

    def __init__(self, url: str, keys: tuple[str, ...], now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        base, version = base_and_version(url)
        self._look_at = f"{base}/{version}/models?pageSize=1"
        self._http = httpx2.Client(
            transport=_Lanes(),
            event_hooks={"request": [self._going], "response": [self._came]},
        )
        options = types.HttpOptions(
            base_url=base,
            api_version=version,
            timeout=int(_PHASE_TIMEOUT_S * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_client=self._http,
        )
        self._clients = [genai.Client(api_key=key, http_options=options) for key in keys]

    def call(self, order: Order, on_sent: Callable[[float], None]) -> Outcome:
        """Make one call; see `Transport`."""
        caught = _Call(on_sent)
        token = _current.set(caught)
        config = types.GenerateContentConfig(
            max_output_tokens=order.output_tokens,
            thinking_config=types.ThinkingConfig(thinking_budget=0) if thinking_off(order.model) else None,
        )
        models = self._clients[order.key_slot % len(self._clients)].models
        trouble: Exception | None = None
        try:
            with gevent.Timeout(order.timeout_s):
                models.generate_content(model=order.model, contents=order.prompt, config=config)
        except gevent.Timeout:
            return Outcome(Answer(0, "timeout", f"no answer within {order.timeout_s:g} s"), self._now_s())
        except Exception as error:  # noqa: BLE001 - the SDK raises its own, httpx2's and pydantic's; all are outcomes
            trouble = error
        finally:
            _current.reset(token)
        return self._outcome(caught, trouble)

    def warm(self, connections: int) -> None:
        """Open connections by listing a model on each: the pool opens none without a request, and this one is free."""
        probes = [gevent.spawn(self._look) for _ in range(connections)]
        gevent.joinall(probes)
        errors = [probe.value for probe in probes if probe.value is not None]
        if errors and len(errors) == len(probes):
            raise errors[0]

    def count_tokens(self, model: str, prompt: str) -> int | None:
        """Ask countTokens; None on any failure."""
        try:
            return self._clients[0].models.count_tokens(model=model, contents=prompt).total_tokens
        except Exception:  # noqa: BLE001 - sizing is a nicety; what is wrong shows with the first call
            return None

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _look(self) -> OSError | None:
        """Send a request that uses no quota; return the error where no connection could be had."""
        try:
            self._http.get(self._look_at, timeout=10.0)
        except httpx2.TransportError as error:
            return _as_os_error(error)
        return None

    def _going(self, request: httpx2.Request) -> None:
        """Take note that a request is built and about to ask for a connection."""
        caught = _current.get(None)
        if caught:
            caught.built_s = self._now_s()
            request.extensions["trace"] = self._trace

    def _trace(self, event: str, _info: dict[str, Any]) -> None:
        caught = _current.get(None)
        if caught and event.endswith(_HEAD_GOES_OUT) and not caught.sent:
            caught.sent = True
            caught.on_sent(self._now_s())

    def _came(self, response: httpx2.Response) -> None:
        caught = _current.get(None)
        if caught:
            caught.response = response

    def _outcome(self, caught: _Call, trouble: Exception | None) -> Outcome:
        response = caught.response
        if response is None:
            return self._without_answer(trouble)
        if not caught.sent:  # a transport that tells no events, as a mocked one
            caught.on_sent(caught.built_s)
        try:
            content = response.read()
        except (httpx2.TransportError, httpx2.StreamError) as error:  # the SDK met the same end before us
            return self._without_answer(trouble or error)
        return Outcome(read_answer(response.status_code, content, response.headers.get("date")), self._now_s())

    def _without_answer(self, trouble: Exception | None) -> Outcome:
        if isinstance(trouble, httpx2.TimeoutException):
            return Outcome(Answer(0, "timeout", str(trouble)), self._now_s())
        words = str(trouble) or type(trouble).__name__
        refused = isinstance(trouble, httpx2.ConnectError) and _as_os_error(trouble).errno == errno.ECONNREFUSED
        return Outcome(Answer(0, "connection", words), self._now_s(), refused=refused)


class _Lanes(httpx2.BaseTransport):
    """One connection a lane, idle lanes on a stack.

    The HTTP client's own pool looks at each of its connections for each request: with a thousand of them a call
    costs milliseconds. Here it costs the same however many are open, and none ever waits for another.
    """

    def __init__(self) -> None:
        self._tls = httpx2.create_ssl_context()
        self._idle: list[httpx2.HTTPTransport] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send on an idle lane or a new one, which is idle again once the answer is closed."""
        lane = self._idle.pop() if self._idle else httpx2.HTTPTransport(verify=self._tls, limits=_ONE_CONNECTION)
        try:
            response = lane.handle_request(request)
        except BaseException:
            lane.close()
            raise
        assert isinstance(response.stream, httpx2.SyncByteStream)  # noqa: S101 - it is a synchronous transport's
        response.stream = _LaneStream(response.stream, lambda: self._idle.append(lane))
        return response

    def close(self) -> None:
        """Close the idle lanes."""
        while self._idle:
            self._idle.pop().close()


class _LaneStream(httpx2.SyncByteStream):
    """The body of an answer; closing it frees its lane."""

    def __init__(self, body: httpx2.SyncByteStream, free: Callable[[], None]) -> None:
        self._body = body
        self._free = free

    def __iter__(self) -> Iterator[bytes]:
        yield from self._body

    def close(self) -> None:
        """Close the body, then free the lane."""
        self._body.close()
        self._free()


def _as_os_error(error: BaseException) -> OSError:
    """Find the operating system's error under the HTTP client's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return ConnectionError(str(error) or type(error).__name__)
