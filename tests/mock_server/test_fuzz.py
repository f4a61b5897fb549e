"""Whatever comes in, Google's own error goes out: no 500 that was not asked for, no traceback, and it still serves."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from mock_server.openapi import document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from schemathesis.schemas import APIOperation

    Serve = Callable[..., AbstractContextManager[str]]

MODEL = "gemini-3.8-flash"
PATHS = (
    f"/v1/models/{MODEL}:generateContent",
    f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse",
    f"/v1beta/models/{MODEL}:countTokens",
    "/v1beta/models/gemini-embedding-001:embedContent",
    "/v1beta/models/gemini-embedding-001:batchEmbedContents",
    f"/v1beta/models/{MODEL}:batchGenerateContent",
    "/v1beta/models/gemini-embedding-001:asyncBatchEmbedContent",
    "/v1beta/cachedContents",
    "/v1beta/interactions",
    "/v1beta/openai/chat/completions",
    "/v1beta/openai/embeddings",
    f"/v1beta1/publishers/google/models/{MODEL}:generateContent",
)
KEYS = {"x-goog-api-key": "k", "authorization": "Bearer k"}
# Values where the API expects others, under names that it knows.
names = st.sampled_from(
    [
        "contents",
        "parts",
        "text",
        "role",
        "systemInstruction",
        "generationConfig",
        "maxOutputTokens",
        "max_output_tokens",
        "thinkingConfig",
        "thinkingBudget",
        "serviceTier",
        "cachedContent",
        "model",
        "content",
        "requests",
        "batch",
        "inputConfig",
        "displayName",
        "fileName",
        "metadata",
        "request",
        "ttl",
        "expireTime",
        "input",
        "stream",
        "store",
        "messages",
        "max_tokens",
        "stream_options",
        "dimensions",
        "outputDimensionality",
        "inlineData",
        "generateContentRequest",
        "embedContentConfig",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def url(serve: Serve) -> Iterator[str]:
    """Serve without limits; jobs and answers take no time."""
    with serve("[batch]\npending_s = 0\nper_request_s = 0\n") as found:
        yield found


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail where the server logged an error."""
    with caplog.at_level(logging.ERROR):
        yield
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx2.Client]:
    """Give one client for all calls: making one costs more than a call."""
    with httpx2.Client(base_url=url, headers=KEYS, timeout=60) as found:
        yield found


OPERATIONS = [
    pytest.param(found.ok(), id=found.ok().label)
    for found in schemathesis.openapi.from_dict(document()).get_all_operations()
]


@pytest.mark.acceptance
@pytest.mark.parametrize("operation", OPERATIONS)
def test_its_own_description_is_true(url: str, operation: APIOperation) -> None:
    """What the document allows is answered, and what it forbids is refused with a documented code."""
    strategy = operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    @given(case=strategy)
    def attack(case: schemathesis.Case) -> None:
        answer = case.call(base_url=url, headers=KEYS)
        case.validate_response(answer, checks=[not_a_server_error])
        assert answer.status_code in {200, 400, 403, 404, 413}

    attack()


def test_the_description_is_served(client: httpx2.Client) -> None:
    """Where the real service has its own."""
    assert client.get("/$discovery/OPENAPI3_0").json() == json.loads(json.dumps(document()))


def check_error(answer: httpx2.Response) -> None:
    """Assert that an answer is a success or an error body with its own code."""
    assert answer.status_code in {200, 400, 403, 404, 413}
    if answer.status_code != 200:
        body = json.loads(answer.content)
        body = body[0] if isinstance(body, list) else body
        assert body["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | st.dictionaries(names, values, max_size=6))
def test_any_body_gets_an_answer_or_a_400(client: httpx2.Client, path: str, body: bytes | dict[str, Any]) -> None:
    """Random bytes, and JSON with wrong types in the right places."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8", "surrogatepass")
    check_error(client.post(path, content=content))


BODIES = {
    "deep arrays": b"[" * 200_000,
    "deep objects": b'{"contents":' * 100_000,
    "deep and closed": b'{"contents":[' * 500 + b"]}" * 500,
    "broken utf-8": b'{"contents":[{"parts":[{"text":"\xff\xfe"}]}]}',
    "lone surrogate": b'{"contents":[{"parts":[{"text":"\\ud800"}]}]}',
    "huge number": b'{"contents":[{"parts":[]}],"generationConfig":{"maxOutputTokens":' + b"9" * 5000 + b"}}",
    "huge exponent": b'{"contents":[{"parts":[]}],"generationConfig":{"maxOutputTokens":1e999}}',
    "not a number": b'{"contents":[{"parts":[]}],"generationConfig":{"maxOutputTokens":NaN}}',
    "null bytes": b"\x00" * 100,
    "empty": b"",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", PATHS)
def test_known_horrors(client: httpx2.Client, path: str, name: str) -> None:
    """Each is an error of the client's or an answer, never the server's."""
    check_error(client.post(path, content=BODIES[name]))


@pytest.mark.acceptance
def test_a_body_that_is_too_large_is_a_413(client: httpx2.Client) -> None:
    """A hundred megabytes and a bit."""
    with contextlib.suppress(httpx2.WriteError):
        answer = client.post(PATHS[0], content=b" " * (100 * 1024 * 1024 + 10), timeout=300)
        assert answer.status_code == 413
    assert client.get("/v1/models").status_code == 200


def test_slow_and_half_closed_connections(url: str, client: httpx2.Client) -> None:
    """A client that stops in the middle keeps nobody else waiting."""
    host, port = url.removeprefix("http://").split(":")
    head = f"POST {PATHS[0]} HTTP/1.1\r\nHost: x\r\nx-goog-api-key: k\r\nContent-Length: 100\r\n\r\n".encode()
    pieces = (b"", b"POST", head[:40], head, head + b'{"contents"')
    lines = [socket.create_connection((host, int(port))) for _ in pieces]
    try:
        for line, piece in zip(lines, pieces, strict=True):
            line.sendall(piece)
            line.shutdown(socket.SHUT_WR)
        assert client.get("/v1/models").status_code == 200
    finally:
        for line in lines:
            line.close()


@pytest.mark.parametrize("path", [PATHS[0], PATHS[1], PATHS[2], f"/v1/models/{MODEL}:streamGenerateContent"])
def test_a_whole_request_and_then_a_half_closed_connection(serve: Serve, path: str) -> None:
    """It counts as gone, for a client that closes looks the same; what it held comes free and no error is logged."""
    limit = '[[limits]]\nmetric = "concurrency"\nfamily = "concurrency"\nlimit = 1\n'
    asked = b'{"contents":[{"parts":[{"text":"hi"}]}]}'
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nx-goog-api-key: k\r\nContent-Length: {len(asked)}\r\n\r\n"
    with serve(limit) as url:
        host, port = url.removeprefix("http://").split(":")
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=30) as line:
                line.sendall(head.encode() + asked)
                line.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda line=line: line.recv(65536), b""))  # type: ignore[misc]
            assert answer == b"" or answer.startswith(b"HTTP/1.1 200 ")
        whole = httpx2.post(url + path, content=asked, headers=KEYS)
        assert whole.status_code == 200


POST = f"POST {PATHS[0]} HTTP/1.1\r\nHost: x\r\nx-goog-api-key: k\r\n".encode()


@pytest.mark.parametrize("packing", ["gzip", "deflate", "br"])
def test_a_body_that_is_not_packed_as_it_says_is_a_400(url: str, client: httpx2.Client, packing: str) -> None:
    """In Google's form, and the connection ends: nobody can tell where the next request begins."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(POST + f"Content-Encoding: {packing}\r\nContent-Length: 50\r\n\r\n".encode() + b"\xff" * 50)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["status"] == "INVALID_ARGUMENT"
    assert client.get("/v1/models").status_code == 200


def test_a_live_session_needs_a_websocket(client: httpx2.Client) -> None:
    """A plain GET on its path gets Google's 400."""
    check_error(client.get("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"))


@pytest.mark.parametrize(
    "raw",
    [
        POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        POST + b"Content-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 50,
        b"GET " + b"a" * 20000,
    ],
)
def test_what_is_no_http_is_refused(url: str, client: httpx2.Client, raw: bytes) -> None:
    """Broken chunks and lengths, TLS to a plain port, versions of the future, endless lines."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(raw)
        line.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert b"Traceback" not in answer
    assert answer == b"" or answer.startswith(b"HTTP/1.")
    assert client.get("/v1/models").status_code == 200
