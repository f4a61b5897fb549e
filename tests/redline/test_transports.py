"""Both transports, one contract: over a real socket, with answers, refusals, silence, rubbish and nobody there."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import gevent
import gevent.socket
import httpx
import pytest
import respx
from respx.mocks import HTTPCoreMocker

from redline.client import Order, base_and_version, check_target, keys_from, open_transport, thinking_off
from redline.fast import FastTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from redline.client import Outcome, Transport

TRANSPORTS = ("fast", "sdk")
CALL = Order("gemini-3.8-flash", "sun and moon", timeout_s=20)


class HTTPCore2Mocker(HTTPCoreMocker):
    """Lets respx answer for httpx2, which google-genai speaks through."""

    name = "httpcore2"
    targets = [target.replace("httpcore.", "httpcore2.") for target in HTTPCoreMocker.targets]  # noqa: RUF012 - respx's


def open_(name: str, url: str, key: str = "k") -> Transport:
    """Open a transport whose clock is the machine's."""
    return open_transport(name, url, time.monotonic, (key,))


def call(transport: Transport, order: Order = CALL) -> tuple[Outcome, list[float]]:
    """Make one call; give its outcome and the moments that it was said to leave."""
    sent: list[float] = []
    outcome = transport.call(order, sent.append)
    transport.close()
    return outcome, sent


@pytest.mark.parametrize("name", TRANSPORTS)
def test_an_answer_is_read_and_its_moments_are_in_order(name: str, stub: Callable[..., str]) -> None:
    """Sent once, before the end; tokens and the server's clock are told."""
    began = time.monotonic()
    outcome, sent = call(open_(name, stub()))
    answer = outcome.answer
    assert (answer.status, answer.error, answer.prompt_tokens, answer.output_tokens) == (200, "", 3, 1)
    assert began <= sent[0] <= outcome.done_s
    assert len(sent) == 1
    assert answer.server_date == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        (("--refuse-above", "0"), 429, "throttled"),
        (("--status", "503"), 503, "overloaded"),
        (("--status", "500"), 500, "server_error"),
        (("--status", "404"), 404, "invalid"),
        (("--text", "<html>"), 200, "malformed"),
        (("--cut",), 0, "connection"),
    ],
)
def test_failures_are_outcomes(
    name: str, options: tuple[str, ...], status: int, error: str, stub: Callable[..., str]
) -> None:
    """The SDK raises for most of these; here each is a status and a class, and nothing is tried twice."""
    outcome, sent = call(open_(name, stub(*options)))
    assert (outcome.answer.status, outcome.answer.error) == (status, error)
    assert len(sent) == 1


@pytest.mark.parametrize("name", TRANSPORTS)
def test_a_wrong_key_is_told_from_a_wrong_request(name: str, stub: Callable[..., str]) -> None:
    """Both are a 400."""
    assert call(open_(name, stub(), key="wrong"))[0].answer.error == "auth"


@pytest.mark.parametrize("name", TRANSPORTS)
def test_nobody_listening_is_a_refused_connection(name: str) -> None:
    """Nothing was sent then; and there is nothing to warm."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    outcome, sent = call(open_(name, url))
    assert (outcome.answer.error, outcome.refused, sent) == ("connection", True, [])
    with pytest.raises(OSError, match="refused"):
        open_(name, url).warm(2)


def test_silence_ends_by_the_calls_own_deadline(stub: Callable[..., str]) -> None:
    """The whole call is bounded, not each of its phases."""
    outcome, sent = call(open_("fast", stub("--latency-s", "30")), Order("m", "p", timeout_s=0.2))
    assert (outcome.answer.status, outcome.answer.error, len(sent)) == (0, "timeout", 1)


def test_warm_connections_carry_a_burst_without_opening_more(stub: Callable[..., str]) -> None:
    """Sixteen at once use the sixteen that stood ready, and leave them ready."""
    transport = FastTransport(stub("--latency-s", "0.1"), ("k",), time.monotonic)
    transport.warm(16)
    ready = {id(sock) for sock in transport._idle}
    calls = [gevent.spawn(transport.call, CALL, lambda _: None) for _ in range(16)]
    gevent.joinall(calls)
    assert {id(sock) for sock in transport._idle} == ready
    assert len(ready) == 16
    transport.close()


def test_a_name_with_several_addresses_is_tried_until_one_answers(
    stub: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where ``localhost`` is ``::1`` first, and the server listens on 127.0.0.1 alone."""
    stream = (gevent.socket.AF_INET, gevent.socket.SOCK_STREAM, 6, "")
    port = int(stub().rpartition(":")[2])
    found = [(*stream, ("127.0.0.1", 1)), (*stream, ("127.0.0.1", port))]
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *_: found)
    assert call(open_("fast", "http://several.test"))[0].answer.status == 200


def test_a_connection_that_the_server_closed_is_not_used(stub: Callable[..., str]) -> None:
    """An idle connection that has ended is noticed before a call is entrusted to it."""
    transport = FastTransport(stub(), ("k",), time.monotonic)
    transport.warm(1)
    transport._idle[0].shutdown(socket.SHUT_RDWR)
    assert call(transport)[0].answer.status == 200


@pytest.mark.parametrize("name", TRANSPORTS)
def test_tokens_are_counted_by_the_server(name: str, stub: Callable[..., str]) -> None:
    """The stub counts two tokens a word."""
    transport = open_(name, stub())
    assert transport.count_tokens("m", "one two three") == 6
    transport.close()


def test_the_sdk_hands_on_a_recorded_refusal_and_does_not_retry() -> None:
    """The body of a 429 goes through google-genai and comes out whole, after one request."""
    body = {
        "error": {
            "code": 429,
            "message": "You exceeded your current quota.\nPlease retry in 45.811974541s.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [{"quotaMetric": "m", "quotaId": "PerMinute", "quotaValue": "1000000"}],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45s"},
            ],
        }
    }
    with respx.mock(using="httpcore2") as router:
        route = router.post(url__regex=r".*:generateContent").mock(return_value=httpx.Response(429, json=body))
        outcome, sent = call(open_("sdk", "https://generativelanguage.googleapis.com"))
    answer = outcome.answer
    assert (answer.status, answer.error, answer.quota_id, answer.quota_value) == (429, "throttled", "PerMinute", 1e6)
    assert answer.retry_delay_s == pytest.approx(45.811974541)
    assert (route.call_count, len(sent)) == (1, 1)


@pytest.mark.parametrize("url", ["", "foo", "127.0.0.1:80", "http://", "ftp://x", "http://x:99999", "http://x:zero"])
def test_what_is_no_url_is_refused_in_one_line(url: str) -> None:
    """With an example of what is."""
    with pytest.raises(ValueError, match=r"--target takes .* such as http://127.0.0.1:8080"):
        check_target(url)


@pytest.mark.parametrize("name", TRANSPORTS)
def test_a_target_may_name_the_version(name: str, stub: Callable[..., str]) -> None:
    """Both transports call the same address for a URL with the API's version at its end."""
    outcome, _ = call(open_(name, f"{stub()}/v1beta"))
    assert outcome.answer.status == 200


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", ("http://127.0.0.1:1", "v1beta")),
        ("http://127.0.0.1:1/v1", ("http://127.0.0.1:1", "v1")),
        ("https://gateway/gemini/v1alpha/", ("https://gateway/gemini", "v1alpha")),
        ("https://gateway/gemini", ("https://gateway/gemini", "v1beta")),
        ("http://v1", ("http://v1", "v1beta")),
    ],
)
def test_a_version_at_the_end_of_a_url_is_the_version(url: str, expected: tuple[str, str]) -> None:
    """A host of that name is none."""
    assert base_and_version(url) == expected


@pytest.mark.parametrize("url", ["http://me:hunter2@127.0.0.1", "https://x/?key=hunter2", "https://x/#hunter2"])
def test_a_url_that_holds_a_secret_is_refused_without_repeating_it(url: str) -> None:
    """A target's URL stands in every report, so it may hold no password and no key."""
    with pytest.raises(ValueError, match=r"without user, password, query or fragment") as error:
        check_target(url)
    assert "hunter2" not in str(error.value)


def test_keys_come_from_the_environment() -> None:
    """Google's variable wins, as in the SDK; a comma separates several."""
    assert keys_from({"GEMINI_API_KEY": "a, b", "GOOGLE_API_KEY": ""}) == ("a", "b")
    assert keys_from({"GEMINI_API_KEY": "a", "GOOGLE_API_KEY": "c"}) == ("c",)
    assert keys_from({}) == ()


def test_pro_models_think_whatever_we_ask() -> None:
    """They answer 400 to a call without thinking."""
    assert thinking_off("gemini-3.8-flash")
    assert not thinking_off("gemini-2.5-pro")
