"""The judge over real sockets: the official SDK's view, the decisions in its log, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from google import genai
from google.genai import errors, types
from hidden.oracle import Past, used_by_brute_force
from hidden.running import KEY, SERVER, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "gemini-3.8-flash"
GONE_WITHIN_S = 15.0
PIPED: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.fixture(scope="module")
def roomy() -> Iterator[str]:
    """Give the address of a server that refuses the fourth call of a window of an hour."""
    limits = [{"family": "anchored_window", "limit": 3, "window_s": 3600.0}]
    with serving({"limits": limits, "median_s": 0.001, "sigma": 0.0}) as url:
        yield url


def sdk(url: str, key: str = KEY) -> genai.Client:
    """Make the official client, told nothing but the address."""
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url))


def test_the_official_client_reads_answers_and_refusals(roomy: str) -> None:
    """Three answers, then a 429 that names no quota."""
    with sdk(roomy) as client:
        long = client.models.generate_content(model=MODEL, contents="word " * 20)
        short = client.models.generate_content(
            model=MODEL, contents="hello", config=types.GenerateContentConfig(max_output_tokens=1)
        )
        client.models.generate_content(model=MODEL, contents="hello")
        with pytest.raises(errors.ClientError) as caught:
            client.models.generate_content(model=MODEL, contents="hello")
    assert long.usage_metadata is not None
    assert long.usage_metadata.prompt_token_count == 25
    assert long.text
    assert short.candidates is not None
    assert short.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert set(caught.value.details["error"]) == {"code", "message", "status"}


def test_the_official_client_counts_tokens_and_lists_models(roomy: str) -> None:
    """Neither needs quota."""
    with sdk(roomy) as client:
        assert client.models.count_tokens(model=MODEL, contents="x" * 40).total_tokens == 10
        assert [model.name for model in client.models.list()] == [f"models/{MODEL}"]
        assert client.models.get(model=MODEL).name == f"models/{MODEL}"


def test_the_official_client_is_told_what_is_wrong(roomy: str) -> None:
    """A wrong key is a 400 with its reason, an unknown model a 404."""
    with sdk(roomy, "wrong") as client, pytest.raises(errors.ClientError) as key:
        client.models.generate_content(model=MODEL, contents="hello")
    with sdk(roomy) as client, pytest.raises(errors.ClientError) as model:
        client.models.generate_content(model="gemini-none", contents="hello")
    assert key.value.code == 400
    assert key.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert (model.value.code, model.value.status) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", f"/v1beta/models/{MODEL}:generateContent", b"{", 400),
        ("POST", f"/v1beta/models/{MODEL}:generateContent", b"[]", 400),
        ("POST", f"/v1beta/models/{MODEL}:generateContent", b"{}", 400),
        ("POST", f"/v1beta/models/{MODEL}:generateContent", b"[" * 100_000, 400),
        ("POST", f"/v1beta/models/{MODEL}:fly", b"{}", 404),
        ("GET", "/v1alpha/models/gemini-none", b"", 404),
        ("GET", "/somewhere", b"", 404),
    ],
)
def test_wrong_calls_get_an_error_body(roomy: str, method: str, path: str, body: bytes, status: int) -> None:
    """Each answer is an error object whose code is the status."""
    answer = httpx2.request(method, roomy + path, content=body, headers={"x-goog-api-key": KEY})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)
    assert httpx2.request(method, roomy + path, content=body).status_code in {403, 404}


def test_the_date_header_is_the_clock_that_windows_follow(tmp_path: Path) -> None:
    """The moment in the server's log and the Date header of the answer are within two seconds."""
    log = tmp_path / "decisions.jsonl"
    with serving({"limits": [], "median_s": 0.001}, log) as url:
        answer = call(url)
    stamped_s = parsedate_to_datetime(answer.headers["date"]).timestamp()
    decided_s = json.loads(log.read_text())["at_s"]
    assert abs(stamped_s - decided_s) < 2.0


def call(url: str, client: httpx2.Client | None = None) -> httpx2.Response:
    """Send one cheap call."""
    body = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 1}}
    send = httpx2.post if client is None else client.post
    return send(f"{url}/v1/models/{MODEL}:generateContent", json=body, headers={"x-goog-api-key": KEY})


@pytest.mark.parametrize(
    "table",
    [
        {"family": "fixed_window", "limit": 20, "window_s": 0.5, "phase_s": 0.2},
        {"family": "anchored_window", "limit": 20, "window_s": 0.5},
        {"family": "sliding_log", "limit": 20, "window_s": 0.5},
        {"family": "sliding_counter", "limit": 20, "window_s": 0.5, "phase_s": 0.2},
    ],
    ids=lambda table: table["family"],
)
def test_over_sockets_every_decision_is_the_definitions(table: dict[str, Any], tmp_path: Path) -> None:
    """Saturated from several connections, the log agrees with the recount call by call, and with the answers."""
    log = tmp_path / "decisions.jsonl"
    with serving({"limits": [table], "median_s": 0.001, "error_share": 0.05}, log) as url:
        seen = saturate(url, connections=6, calls=60)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    past = Past()
    for row in rows:
        expected = used_by_brute_force(table, past, row["at_s"]) + 1 <= table["limit"]
        admitted = row["outcome"] != "refused"
        assert admitted == expected
        past.append((row["at_s"], admitted))
    names = {"admitted": 200, "refused": 429, "failed": 503}
    assert seen == Counter(names[row["outcome"]] for row in rows)
    assert len(seen) == 3


def saturate(url: str, connections: int, calls: int) -> Counter[int]:
    """Send from several keep-alive connections at once, and count the statuses."""

    def one(_: int) -> Counter[int]:
        with httpx2.Client() as client:
            return Counter(call(url, client).status_code for _ in range(calls))

    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(one, range(connections)), Counter())


def test_errors_before_the_limits_cost_no_quota(tmp_path: Path) -> None:
    """With every call failing early, a limit of one never refuses."""
    limits = [{"family": "anchored_window", "limit": 1, "window_s": 3600.0}]
    config = {"limits": limits, "median_s": 0.001, "error_share": 1.0, "errors_before": True}
    with serving(config, tmp_path / "log") as url:
        assert [call(url).status_code for _ in range(4)] == [503] * 4


def test_three_hundred_calls_can_be_in_flight() -> None:
    """A limit of 300 places is filled to the last one from as many connections, and not beyond."""
    config = {"limits": [{"family": "concurrency", "limit": 300}], "median_s": 3.0, "sigma": 0.0}
    body = b'{"contents": [{"parts": [{"text": "hi"}]}]}'
    head = f"POST /v1/models/{MODEL}:generateContent?key={KEY} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(config) as url, ExitStack() as stack:
        port = int(url.rpartition(":")[2])
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(310)]
        for connection in connections:
            connection.sendall(head.encode() + body)
        statuses = Counter(connection.recv(12)[-3:] for connection in connections)
    assert statuses == {b"200": 300, b"429": 10}


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(name: signal.Signals) -> None:
    """Exit code 0, nothing on stderr, and the port is free."""
    command = [sys.executable, str(SERVER), "--config", '{"limits": []}']
    with subprocess.Popen(command, **PIPED) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        process.send_signal(name)
        _, said = process.communicate(timeout=GONE_WITHIN_S)
    assert (process.returncode, said) == (0, "")
    with pytest.raises(httpx2.ConnectError):
        call(url)


def test_it_ends_when_its_parent_is_killed() -> None:
    """No server outlives the test, or the person, that started it."""
    command = f"[sys.executable, {str(SERVER)!r}, '--config', '{{\"limits\": []}}']"
    start = f"import subprocess, sys; p = subprocess.Popen({command}, stdout=subprocess.PIPE, text=True); "
    script = start + "print(p.pid, p.stdout.readline(), flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", script], **PIPED) as parent:
        assert parent.stdout is not None
        server_pid = int(parent.stdout.readline().split()[0])
        parent.kill()
    until = time.monotonic() + GONE_WITHIN_S
    while is_running(server_pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_running(server_pid)


def is_running(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("no-such-file.json", "--config"),
        ('{"limits": [], "colour": 1}', "colour"),
        ('{"limits": [{"family": "magic"}]}', "magic"),
        ('{"limits": [{"family": "sliding_log", "limit": 1}]}', "window_s"),
        ('{"limits": [{"family": "concurrency", "metric": "joy", "limit": 1}]}', "joy"),
        ("{", "JSON"),
    ],
)
def test_a_wrong_configuration_is_named_in_one_line(config: str, named: str) -> None:
    """Exit code 2 and the word that is wrong, without a traceback."""
    command = [sys.executable, str(SERVER), "--config", config]
    with subprocess.Popen(command, **PIPED) as ended:
        _, said = ended.communicate(timeout=60)
    assert ended.returncode == 2
    assert named in said
    assert len(said.strip().splitlines()) == 1
