"""A calibration that is stopped, at any moment and in any way, leaves what can be analysed, and no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hidden.running import environment, redline_command, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.acceptance

WITHIN_S = 180.0
CHILDREN_GONE_WITHIN_S = 20.0  # two seconds on a quiet machine
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
A_LIMIT = {"family": "sliding_log", "limit": 20, "window_s": 2.0}
HONEST_CODES = {0, 1, 4, 5, 130, 143}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Give the address of a server whose limit takes a while to find."""
    with serving({"limits": [A_LIMIT], "median_s": 0.05}) as address:
        yield address


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a function that starts a calibration in a process group of its own; whatever is left is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> subprocess.Popen[str]:
        command = [redline_command(), "calibrate", "--out", str(tmp_path), *options]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=environment(), start_new_session=True, **pipes)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ledger(out: Path) -> str:
    """Return what the ledger of the only run under ``out`` holds by now."""
    return "".join(file.read_text(encoding="utf-8") for file in out.glob("*/requests/*.jsonl"))


def wait_for(condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    """Wait until it is so; fail where it does not come about."""
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, "what was waited for did not come about"
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """List the processes below one, from /proc."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(child) for child in children.read_text().split()] if children.exists() else []
    return [*below, *(each for child in below for each in descendants(child))]


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended (one that nobody has reaped yet has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


def stop(process: subprocess.Popen[str], name: signal.Signals) -> tuple[int, str]:
    """Stop it as a terminal (Ctrl-C reaches the whole group) or a supervisor would; return exit code and stderr."""
    below = descendants(process.pid)
    if name is signal.SIGINT:
        os.killpg(process.pid, name)
    else:
        process.send_signal(name)
    _, said = process.communicate(timeout=WITHIN_S)
    wait_for(lambda: all(is_gone(pid) for pid in below), CHILDREN_GONE_WITHIN_S)
    return process.returncode, said


def redline(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run another command of redline."""
    command = [redline_command(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)


def assert_can_be_analysed(out: Path) -> None:
    """Hold ``analyze`` and ``report`` to a result that counts every call of the ledger, and to a page."""
    (run_dir,) = out.iterdir()
    for product in (run_dir / "result.json", run_dir / "report.html"):
        product.unlink(missing_ok=True)
    analyzed = redline("analyze", str(run_dir), "--json")
    assert analyzed.returncode in HONEST_CODES, analyzed.stderr
    assert "Traceback" not in analyzed.stderr
    result = json.loads(analyzed.stdout)
    assert result["spent"]["requests"] == ledger(out).count('"record":"sent"')
    assert result["limits"]
    reported = redline("report", str(run_dir))
    assert reported.returncode == 0, reported.stderr
    assert json.loads((run_dir / "result.json").read_bytes()) == result
    assert "<html" in (run_dir / "report.html").read_text(encoding="utf-8")


MOMENTS = {
    "the first answer": lambda out: '"record":"done"' in ledger(out),
    "the middle of probing": lambda out: ledger(out).count('"record":"sent"') > 60,
    "the verification": lambda out: '"phase":"verify' in ledger(out),
}


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        (signal.SIGINT, "the middle of probing"),
        (signal.SIGINT, "the verification"),
        (signal.SIGTERM, "the first answer"),
        (signal.SIGTERM, "the middle of probing"),
        (signal.SIGKILL, "the first answer"),
        (signal.SIGKILL, "the middle of probing"),
        (signal.SIGKILL, "the verification"),
    ],
    ids=str,
)
def test_a_stopped_run_can_be_analysed(
    name: signal.Signals, moment: str, url: str, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Whatever stopped it and when: the right exit code, no traceback, no process left, and a result."""
    process = start("--target", url)
    wait_for(lambda: MOMENTS[moment](tmp_path) or process.poll() is not None)
    exit_code, said = stop(process, name)
    assert exit_code == CODES[name], said
    assert "Traceback" not in said
    assert_can_be_analysed(tmp_path)


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM], ids=lambda name: name.name)
def test_a_stopped_run_says_where_its_report_is(
    name: signal.Signals, url: str, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """What was recorded is analysed at once: result and report are there when the command has ended."""
    process = start("--target", url, "--json")
    wait_for(lambda: MOMENTS["the middle of probing"](tmp_path))
    _, said = stop(process, name)
    (run_dir,) = tmp_path.iterdir()
    assert json.loads((run_dir / "run.json").read_bytes())["ended"] == "interrupted"
    assert (run_dir / "report.html").exists()
    assert str(run_dir) in said


def test_stopped_before_the_first_call(url: str, start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Nothing was learnt, so nothing is claimed: exit code 130 and a line, no traceback."""
    process = start("--target", url)
    wait_for(lambda: bool(descendants(process.pid)))
    exit_code, said = stop(process, signal.SIGINT)
    assert exit_code == CODES[signal.SIGINT], said
    assert "Traceback" not in said
    assert ledger(tmp_path) == "" or any(tmp_path.iterdir())


def test_an_impatient_second_interrupt(url: str, start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Ctrl-C again while the first is being dealt with: still no traceback, and the ledger stays whole."""
    process = start("--target", url)
    wait_for(lambda: MOMENTS["the middle of probing"](tmp_path))
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    exit_code, said = stop(process, signal.SIGINT)
    assert exit_code == CODES[signal.SIGINT], said
    assert "Traceback" not in said
    assert_can_be_analysed(tmp_path)


@pytest.mark.parametrize("name", CODES, ids=lambda name: name.name)
def test_the_embedded_mock_ends_with_the_run(
    name: signal.Signals, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """With ``--target mock`` the server is a child too, and goes when the command goes."""
    process = start("--target", "mock")
    wait_for(lambda: MOMENTS["the first answer"](tmp_path))
    assert len(descendants(process.pid)) >= 2
    exit_code, said = stop(process, name)
    assert exit_code == CODES[name], said


def test_a_server_that_dies_under_the_run(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """The target goes away in mid-run: an exit code that says so, one line, and what was learnt is kept."""
    with serving({"limits": [A_LIMIT]}) as address:
        process = start("--target", address)
        wait_for(lambda: MOMENTS["the middle of probing"](tmp_path))
    _, said = process.communicate(timeout=WITHIN_S)
    assert process.returncode in {3, 5}, said
    assert "Traceback" not in said
    assert_can_be_analysed(tmp_path)
