"""The server over a real socket: the official client, and what a plain HTTP client sees."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from google import genai
from google.genai import errors, types

from mock_server import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Serve = Callable[[str], AbstractContextManager[str]]

MODEL = "gemini-3.8-flash"
THREE_AN_HOUR = '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 3\nwindow_s = 3600\n'
GENERATE = f"/v1beta/models/{MODEL}:generateContent"
STREAM = f"/v1beta/models/{MODEL}:streamGenerateContent"
IMPATIENT = httpx2.Timeout(60, read=1.0)
HELLO = {"contents": [{"parts": [{"text": "say it"}]}]}


def client(url: str, version: str = "v1beta") -> genai.Client:
    """Make the official client, unmodified but for the address."""
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=url, api_version=version))


def call(url: str, path: str, body: object = None, *, key: str = "k", method: str = "") -> tuple[int, Any, bytes]:
    """Send one plain request; return (status, headers, body)."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    headers = {"x-goog-api-key": key, "content-type": "application/json"} if key else {}
    request = urllib.request.Request(url + path, data, headers, method=method or None)  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own server
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.fixture(scope="module")
def free(serve: Serve) -> Iterator[str]:
    """Serve without any limit."""
    with serve("") as url:
        yield url


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
def test_the_official_client_works(free: str, version: str) -> None:
    """Generate, stream, count, list and get, on each version of the API."""
    gemini = client(free, version)
    answer = gemini.models.generate_content(model=MODEL, contents="one two", config={"max_output_tokens": 5})
    assert answer.text is not None
    assert answer.usage_metadata is not None
    assert (answer.usage_metadata.prompt_token_count, answer.usage_metadata.candidates_token_count) == (2, 5)
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    chunks = list(gemini.models.generate_content_stream(model=MODEL, contents="hi", config={"max_output_tokens": 9}))
    assert len(chunks) == 2
    assert len("".join(chunk.text or "" for chunk in chunks).split()) == 9
    assert gemini.models.count_tokens(model=MODEL, contents="one two three").total_tokens == 4
    assert [model.name for model in gemini.models.list(config={"page_size": 5})] == [
        f"models/{name}" for name in catalogue.DEFAULT_MODELS
    ]
    assert gemini.models.get(model=MODEL).input_token_limit == catalogue.INPUT_TOKEN_LIMIT


@pytest.mark.parametrize("shape", ["full", "bare"])
def test_the_official_client_raises_429(serve: Serve, shape: str) -> None:
    """The fourth call of three is a ClientError whose details are parsed, in a stream too."""
    with serve(THREE_AN_HOUR + f'[refusal]\nshape = "{shape}"') as url:
        gemini = client(url)
        for _ in range(3):
            gemini.models.generate_content(model=MODEL, contents="hi")
        with pytest.raises(errors.ClientError) as caught:
            gemini.models.generate_content(model=MODEL, contents="hi")
        with pytest.raises(errors.ClientError) as streamed:
            list(gemini.models.generate_content_stream(model=MODEL, contents="hi"))
    assert streamed.value.code == caught.value.code == 429
    assert caught.value.status == "RESOURCE_EXHAUSTED"
    details = caught.value.details["error"].get("details", [])
    assert [entry["@type"].rpartition(".")[2] for entry in details] == (
        ["Help", "QuotaFailure", "RetryInfo"] if shape == "full" else []
    )
    if shape == "full":
        assert details[1]["violations"][0]["quotaValue"] == "3"
        assert details[2]["retryDelay"] in {"3599s", "3600s"}


def test_counting_and_listing_take_no_quota(serve: Serve) -> None:
    """Only generating does."""
    with serve(THREE_AN_HOUR) as url:
        gemini = client(url)
        for _ in range(5):
            gemini.models.count_tokens(model=MODEL, contents="hi")
        assert gemini.models.generate_content(model=MODEL, contents="hi").text


def test_input_tokens_are_limited(serve: Serve) -> None:
    """What counts is what countTokens says."""
    text = '[[limits]]\nmetric = "input_tokens"\nfamily = "sliding_log"\nlimit = 10\nwindow_s = 3600\n'
    with serve(text) as url:
        sizes = (6, 5, 4, 1)
        codes = [call(url, GENERATE, {"contents": [{"parts": [{"text": "word " * tokens}]}]})[0] for tokens in sizes]
    assert codes == [200, 429, 200, 429]


def test_concurrency_is_freed_when_a_call_ends_or_its_client_goes(serve: Serve) -> None:
    """Two at once of two; a third is refused; after a client hangs up there is room again."""
    text = '[[limits]]\nmetric = "concurrency"\nfamily = "concurrency"\nlimit = 2\n[faults]\nhang = 1.0\n'
    with serve(text) as url:
        held = [httpx2.Client(timeout=IMPATIENT) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            headers = {"x-goog-api-key": "k"}
            waits = [pool.submit(one.post, url + GENERATE, json=HELLO, headers=headers) for one in held]
            for wait in waits:
                with pytest.raises(httpx2.ReadTimeout):
                    wait.result()
        for one in held:
            one.close()
        # The places come free when the server sees the connections close, soon after: a call then hangs again.
        with pytest.raises(httpx2.ReadTimeout):
            refused_until_free(url, headers)
        assert call(url, "/v1/models")[0] == 200


def refused_until_free(url: str, headers: dict[str, str]) -> None:
    """Call a server that answers 429 or hangs, until it hangs."""
    for _ in range(1000):
        assert httpx2.post(url + GENERATE, json=HELLO, headers=headers, timeout=IMPATIENT).status_code == 429


def test_real_headers_and_no_retry_after(serve: Serve) -> None:
    """The same on an answer and on a refusal."""
    with serve(THREE_AN_HOUR.replace("= 3\n", "= 1\n")) as url:
        answers = [call(url, GENERATE, HELLO) for _ in range(2)]
    assert [status for status, _, _ in answers] == [200, 429]
    for _, headers, _ in answers:
        assert headers["server"] == "scaffolding on HTTPServer2"
        assert headers["content-type"] == "application/json; charset=UTF-8"
        assert headers["x-gemini-service-tier"] == "standard"
        assert headers["server-timing"].startswith("gfet4t7; dur=")
        assert headers["date"]
        assert "retry-after" not in headers
        assert not [name for name in headers if name.lower().startswith("x-ratelimit")]


def test_the_two_forms_of_a_stream(serve: Serve) -> None:
    """With alt=sse events, without it one JSON array; a refusal keeps the form's content type."""
    with serve(THREE_AN_HOUR.replace("= 3\n", "= 2\n")) as url:
        _, sse_headers, sse = call(url, STREAM + "?alt=sse", HELLO)
        _, array_headers, array = call(url, STREAM, HELLO)
        refused_sse = call(url, STREAM + "?alt=sse", HELLO)
        refused = call(url, STREAM, HELLO)
    assert sse_headers["content-type"] == refused_sse[1]["content-type"] == "text/event-stream"
    events = sse.decode().split("\r\n\r\n")
    assert events.pop() == ""
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    assert array_headers["content-type"].startswith("application/json")
    assert json.loads(array)[-1]["candidates"][0]["finishReason"] == "STOP"
    assert json.loads(refused_sse[2])["error"]["code"] == refused_sse[0] == 429
    assert json.loads(refused[2])[0]["error"]["code"] == refused[0] == 429


def test_keys(serve: Serve) -> None:
    """Any key passes unless a list is given; the key may come in the query; projects have quotas of their own."""
    text = THREE_AN_HOUR.replace("= 3\n", "= 1\n")
    text += '[keys]\nvalid = ["a", "b", "c"]\n[keys.projects]\nc = "another"\n'
    with serve(text) as url:
        wrong = call(url, GENERATE, HELLO, key="z")
        assert (wrong[0], json.loads(wrong[2])["error"]["details"][0]["reason"]) == (400, "API_KEY_INVALID")
        assert call(url, GENERATE, HELLO, key="")[0] == 403
        assert call(url, GENERATE + "?key=a", HELLO, key="")[0] == 200
        assert call(url, GENERATE, HELLO, key="b")[0] == 429
        assert call(url, GENERATE, HELLO, key="c")[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/models/nope:generateContent", HELLO, 404, "models/nope is not found for API version v1, or is not"),
        ("/v1beta/models/nope", None, 404, "models/nope is not found for API version v1beta"),
        (f"/v1/models/{MODEL}:paint", HELLO, 404, "is not supported for paint"),
        ("/v1/models/gemini-embedding-2:generateContent", HELLO, 404, "is not supported for generateContent"),
        ("/v9/models", None, 404, "Requested entity was not found."),
        ("/", None, 404, "Requested entity was not found."),
        (GENERATE, None, 404, "Requested entity was not found."),
        (GENERATE, b"{", 400, "Invalid JSON payload received."),
        (GENERATE, {}, 400, "contents is not specified"),
        ("/v1/models?pageSize=x", None, 400, "page_size or page_token is invalid."),
    ],
)
def test_what_makes_no_sense_gets_googles_error(free: str, path: str, body: object, status: int, words: str) -> None:
    """Never a traceback, always an error body with code, message and status."""
    code, _, raw = call(free, path, body)
    error = json.loads(raw)["error"]
    assert (code, error["code"]) == (status, status)
    assert words in error["message"]


@pytest.mark.parametrize(("fault", "code"), [("overloaded_503", 503), ("internal_500", 500), ("deadline_504", 504)])
def test_faults_answer_with_their_status(serve: Serve, fault: str, code: int) -> None:
    """The official client raises ServerError."""
    with serve(f"[faults]\n{fault} = 1.0") as url:
        gemini = client(url)
        with pytest.raises(errors.ServerError) as caught:
            gemini.models.generate_content(model=MODEL, contents="hi")
    assert caught.value.code == code


def test_a_reset_closes_the_connection(serve: Serve) -> None:
    """No answer at all, and the server goes on."""
    with serve("[faults]\nreset = 1.0") as url:
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            httpx2.post(url + GENERATE, json=HELLO, headers={"x-goog-api-key": "k"})
        assert call(url, "/v1/models")[0] == 200


def test_latency_is_what_was_asked_for(serve: Serve) -> None:
    """The answer does not come before its time; how much later depends on the machine."""
    text = "[latency]\nfirst_token_s = 0.2\nsigma = 0\nper_token_s = 0.02\n[length]\ntokens = 6\nsigma = 0"
    with serve(text) as url:
        answer = httpx2.post(url + GENERATE, json=HELLO, headers={"x-goog-api-key": "k"})
    assert answer.elapsed.total_seconds() >= 0.295
    assert answer.headers["server-timing"] == "gfet4t7; dur=300"


@pytest.mark.parametrize(
    "head",
    [
        "GET /v1/models HTTP/1.0",
        "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close",
        "HEAD /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close",
        "POST /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3",
    ],
)
def test_connections_that_end_are_ended(free: str, head: str) -> None:
    """Old versions, closing connections and HEAD get what HTTP says they get, and the announced length is true."""
    host, port = free.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        body = b"abc" if head.startswith("POST") else b""
        line.sendall(f"{head}\r\nx-goog-api-key: k\r\n\r\n".encode() + body)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    top, _, rest = answer.partition(b"\r\n\r\n")
    length = int(
        next(text for text in top.lower().split(b"\r\n") if text.startswith(b"content-length:")).split(b":")[1]
    )
    assert len(rest) == (0 if head.startswith("HEAD") else length)


def test_an_answer_is_packed_where_the_client_takes_it(free: str) -> None:
    """With gzip as on the service; without where nobody asked."""
    packed = httpx2.get(f"{free}/v1/models?key=k", headers={"accept-encoding": "gzip"})
    plain = httpx2.get(f"{free}/v1/models?key=k", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()
