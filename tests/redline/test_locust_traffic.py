"""Probes through a real Locust process over a real socket: what was sent is what is known, nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from redline.budget import Budget
from redline.locust_traffic import LocustTraffic, SenderLostError
from redline.record import RunFile, make_run_dir, read_run_file
from redline.traffic import ADMITTED, PENDING, REFUSED, BudgetEndedError, Pacing, Probe, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "AIza-a-key-that-must-appear-nowhere"  # noqa: S105 - not a real one


def environment() -> dict[str, str]:
    """Return this process's environment with a key in it."""
    return {**os.environ, "GEMINI_API_KEY": SECRET, "GOOGLE_API_KEY": ""}


def ledger(run_dir: Path) -> list[dict[str, Any]]:
    """Read a ledger; a torn last line is left out, as any reader does."""
    lines = (run_dir / "requests" / "0.jsonl").read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def traffic(stub: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocustTraffic]:
    """Give one sender for the module, on a server that answers after 50 ms and refuses beyond 40 calls a second."""
    run_file = RunFile(make_run_dir(tmp_path_factory.mktemp("runs"), "calibrate"))
    url = stub("--latency-s", "0.05", "--refuse-above", "40")
    with LocustTraffic(url, run_file, model="m", environment=environment()) as sender:
        yield sender


def test_a_probe_comes_back_whole(traffic: LocustTraffic) -> None:
    """All its attempts, in the order of sending, each ended, with the server's words."""
    report = traffic.run(Probe("burst", [0.0] * 100))
    attempts = traffic.attempts[report.first : report.last]
    outcomes = [attempt.outcome for attempt in attempts]
    assert (report.reason, len(attempts)) == ("done", 100)
    assert set(outcomes) == {ADMITTED, REFUSED}
    assert all(attempt.planned_s <= attempt.sent_s <= attempt.done_s for attempt in attempts)
    assert [attempt.sent_s for attempt in attempts] == sorted(attempt.sent_s for attempt in attempts)
    refused = next(attempt for attempt in attempts if attempt.outcome == REFUSED)
    assert (refused.error, refused.retry_delay_s) == ("throttled", 1.5)
    assert report.started_s <= attempts[0].sent_s <= report.ended_s <= traffic.now_s()


def test_a_probe_starts_when_it_was_told_and_stops_when_it_saw_enough(traffic: LocustTraffic) -> None:
    """Its zero is a moment on the run's clock, which both processes share."""
    start_s = traffic.now_s() + 0.3
    report = traffic.run(Probe("fill", [0.01 * k for k in range(500)], start_s=start_s, stop_admitted=3))
    attempts = traffic.attempts[report.first : report.last]
    assert (report.reason, report.started_s) == ("admitted", start_s)
    assert attempts[0].planned_s == start_s
    assert 3 <= len(attempts) < 500


def test_late_answers_still_arrive(traffic: LocustTraffic) -> None:
    """Without ``drain`` the probe ends first; its attempt is completed afterwards, in place."""
    traffic.sleep_until(traffic.now_s() + 1.0)
    report = traffic.run(Probe("single", [0.0], drain=False))
    attempt = traffic.attempts[report.first]
    deadline = time.monotonic() + 30
    while attempt.outcome == PENDING and time.monotonic() < deadline:
        time.sleep(0.01)
    assert attempt.outcome == ADMITTED


def test_pacing_reports_what_it_sent(traffic: LocustTraffic) -> None:
    """Behind the limiter, all answered."""
    report = traffic.pace(Pacing(20.0, 1, 4, duration_s=0.5, offered_per_s=100.0))
    attempts = traffic.attempts[report.first : report.last]
    assert 2 <= len(attempts) <= 12
    assert {attempt.phase for attempt in attempts} == {"verify"}
    assert all(attempt.outcome != PENDING for attempt in attempts)


def test_the_run_directory_tells_the_same_story_and_no_secret(traffic: LocustTraffic) -> None:
    """Sent is ended and censored; the phases are named; the key is in no file."""
    traffic.warm(3)
    run_dir = traffic._run_file.path.parent
    deadline = time.monotonic() + 30
    while len(records := ledger(run_dir)) < 2 * len(traffic.attempts) and time.monotonic() < deadline:
        time.sleep(0.05)
    kinds = [record["record"] for record in records]
    assert kinds.count("sent") == kinds.count("done") == len(traffic.attempts)
    run = read_run_file(run_dir)
    assert {phase["name"] for phase in run["phases"]} >= {"burst", "fill", "single", "verify"}
    assert run["clocks"]["0"].keys() == {"wall_s", "monotonic_s"}
    for path in run_dir.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def run_once(url: str, folder: Path, budget: Budget | None = None, key: str = "k") -> None:
    """Open a sender of its own and carry out one probe."""
    settings = {**os.environ, "GOOGLE_API_KEY": key}
    run_file = RunFile(make_run_dir(folder, "calibrate"))
    with LocustTraffic(url, run_file, model="m", budget=budget, environment=settings) as sender:
        sender.run(Probe("p", [0.01 * k for k in range(200)]))


def test_a_budget_ends_the_probe(stub: Callable[..., str], tmp_path: Path) -> None:
    """With the option's name, and a run directory that says so."""
    with pytest.raises(BudgetEndedError, match="--max-requests 5 is used up"):
        run_once(stub(), tmp_path, Budget(max_requests=5))
    [run_dir] = tmp_path.iterdir()
    assert sum(record["record"] == "sent" for record in ledger(run_dir)) == 5
    assert read_run_file(run_dir)["phases"][0]["reason"] == "budget"


@pytest.mark.parametrize(
    ("options", "key", "said"),
    [
        (("--status", "404"), "k", "has no model 'm'"),
        (("--status", "402"), "k", "asks for payment"),
        ((), "wrong", "refused the key"),
        (("--text", "hello"), "k", "does not speak Gemini's wire format"),
    ],
)
def test_a_target_of_no_use_is_told_in_one_line(
    stub: Callable[..., str], tmp_path: Path, options: tuple[str, ...], key: str, said: str
) -> None:
    """And the sending ends at once."""
    with pytest.raises(TargetError, match=said) as raised:
        run_once(stub(*options), tmp_path, key=key)
    assert "\n" not in str(raised.value)


def test_nobody_listening_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    """The port of nobody."""
    with pytest.raises(TargetError, match=r"nothing answers at http://127\.0\.0\.1:1: Connection refused"):
        run_once("http://127.0.0.1:1", tmp_path)


def test_a_sender_that_was_killed_is_noticed(stub: Callable[..., str], tmp_path: Path) -> None:
    """The waiting parent does not wait for ever."""
    run_file = RunFile(make_run_dir(tmp_path, "calibrate"))
    with LocustTraffic(stub("--latency-s", "30"), run_file, model="m") as sender:
        assert sender._process is not None
        sender._process.kill()
        with pytest.raises(SenderLostError, match="the sending process ended"):
            sender.run(Probe("p", [0.0]))


PARENT = """
import sys
from pathlib import Path
from redline.locust_traffic import LocustTraffic
from redline.record import RunFile
from redline.traffic import Probe
with LocustTraffic(sys.argv[1], RunFile(Path(sys.argv[2])), model="m") as sender:
    print(sender._process.pid, flush=True)
    sender.run(Probe("p", [0.01 * k for k in range(10000)]))
"""


@pytest.mark.acceptance
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_sender_ends_with_its_parent_and_the_ledger_can_be_read(
    stub: Callable[..., str], tmp_path: Path, number: signal.Signals
) -> None:
    """However the parent ends; calls that were out are in the ledger as sent."""
    command = [sys.executable, "-c", PARENT, stub("--latency-s", "30"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(1.0)
        parent.send_signal(number)
        parent.wait()
        died = time.monotonic()
        while alive(child) and time.monotonic() - died < 20:
            time.sleep(0.02)
        assert not alive(child)
    kinds = [record["record"] for record in ledger(tmp_path)]
    assert kinds.count("sent") > 10
    assert kinds.count("done") == 0


def alive(pid: int) -> bool:
    """Whether a process still runs; one that ended and was not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
