"""The process: says where it listens, stops when told, and does not outlive its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx2
import pytest

from redline.cli import exit_code
from redline.errors import ExitCode, UsageError
from redline.mock_process import running_mock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def start(*options: str) -> subprocess.Popen[str]:
    """Start the mock as a user would."""
    command = [sys.executable, "-m", "mock_server", "--port", "0", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """Run a mock of the demo profile; kill what is left of it."""
    with start() as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_stops_cleanly(server: subprocess.Popen[str], number: signal.Signals) -> None:
    """The last word of the first line is the address, on loopback; a signal ends it with code 0 and no traceback."""
    assert server.stdout is not None
    assert server.stderr is not None
    url = server.stdout.readline().split()[-1]
    assert url.startswith("http://127.0.0.1:")
    assert httpx2.get(f"{url}/v1/models?key=k").status_code == 200
    server.send_signal(number)
    assert server.wait(30) == 0
    assert server.stderr.read() == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--profile", "nope"], "profile must be one of demo"),
        (["--port", "70000"], "argument --port: must be a port from 0 to 65535, not '70000'"),
        (["--prot", "1"], "unrecognized arguments: --prot 1"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(options: list[str], words: str) -> None:
    """No usage text, no traceback."""
    with start(*options) as process:
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 2
    assert words in complaint
    assert complaint.count("\n") == 1


def test_an_address_in_use_is_one_line() -> None:
    """It names the options that chose the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with start("--port", port) as process:
            _, complaint = process.communicate(timeout=60)
    assert process.returncode == 2
    assert complaint.startswith(f"error: cannot listen on --host 127.0.0.1 --port {port}: ")
    assert complaint.count("\n") == 1


def test_the_child_is_stopped_on_the_way_out() -> None:
    """It answers inside the block and is gone after it."""
    with running_mock("demo") as url:
        assert httpx2.get(f"{url}/v1/models?key=k").status_code == 200
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/v1/models?key=k")


def test_the_child_passes_its_complaint_on(tmp_path: Path) -> None:
    """A profile that cannot be used is the caller's usage error."""
    path = tmp_path / "bad.toml"
    path.write_text("[latency]\nsigma = -1\n")
    with (
        pytest.raises(UsageError, match=r"profile bad: latency\.sigma must be at least 0") as caught,
        running_mock(str(path)),
    ):
        pass
    assert exit_code(caught.value) == ExitCode.USAGE


def test_the_child_dies_with_its_parent() -> None:
    """The parent is killed and says nothing; the child sees it and ends."""
    program = (
        "import sys, time\nfrom redline.mock_process import running_mock\n"
        "with running_mock('demo') as url:\n    print(url, flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        os.kill(parent.pid, signal.SIGKILL)
    refused_soon(url)


def refused_soon(url: str) -> None:
    """Ask until nobody listens; half a minute is ample for what takes half a second."""
    for _ in range(600):
        try:
            httpx2.get(f"{url}/v1/models?key=k")
        except httpx2.TransportError:
            return
        time.sleep(0.05)
    pytest.fail("the mock outlived its parent")


def test_a_client_that_half_closes_leaves_no_traceback(tmp_path: Path) -> None:
    """On the loop that the process uses: the answer finds a closing transport, which is nobody's fault but its own."""
    calm = tmp_path / "calm.toml"
    calm.write_text("[latency]\nfirst_token_s = 0\nsigma = 0\nper_token_s = 0\n", encoding="utf-8")
    asked = b'{"contents":[{"parts":[{"text":"hi"}]}]}'
    path = "/v1/models/gemini-3.8-flash:streamGenerateContent"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nx-goog-api-key: k\r\nContent-Length: {len(asked)}\r\n\r\n".encode()
    with start("--profile", str(calm)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split()[-1]
        host, port = url.removeprefix("http://").split(":")
        for _ in range(10):
            with socket.create_connection((host, int(port)), timeout=30) as line:
                line.sendall(head + asked)
                line.shutdown(socket.SHUT_WR)
                assert b"Traceback" not in b"".join(iter(lambda line=line: line.recv(65536), b""))  # type: ignore[misc]
        assert httpx2.get(f"{url}/v1/models?key=k").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
