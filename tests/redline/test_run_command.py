"""`redline run`: a plan before it starts, one clear line where it cannot, a report after it, and one exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redline.follow import Follower
from redline.record import Done, Ledger, Sent

GIVE_UP_S = 180


def redline(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command in a folder."""
    command = [sys.executable, "-m", "redline", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=GIVE_UP_S, check=False, cwd=folder)


def test_a_follower_reads_a_growing_ledger_and_leaves_a_torn_line_for_later(tmp_path: Path) -> None:
    """Each record once, over all workers; half a line is not read until it is whole."""
    follower = Follower(tmp_path, lambda: 3.0)
    assert follower.progress().phase == "starting"
    for worker in ("0", "1"):
        ledger = Ledger(tmp_path / "requests" / f"{worker}.jsonl")
        ledger.write(Sent(1, "ramp", 0.0, 0.1, 1, 1, worker=worker))
        ledger.close()
    assert (follower.progress().sent, follower.progress().admitted) == (2, 0)
    ledger = Ledger(tmp_path / "requests" / "1.jsonl")
    ledger.write(Done(1, 0.2, 429, error="throttled"))
    ledger.close()
    whole = (tmp_path / "requests" / "0.jsonl").read_bytes()
    (tmp_path / "requests" / "0.jsonl").write_bytes(whole + b'{"record":"done","call_id":1,"do')
    progress = follower.progress()
    assert (progress.phase, progress.sent, progress.throttled, progress.elapsed_s) == ("ramp", 2, 1, 3.0)
    (tmp_path / "requests" / "0.jsonl").write_bytes(whole + b'{"record":"done","call_id":1,"done_s":1,"status":200}\n')
    assert follower.progress().admitted == 1


def test_dry_run_prints_the_plan_and_sends_nothing(tmp_path: Path) -> None:
    """No run directory either."""
    done = redline(tmp_path, "run", "burst", "--dry-run", "--calls", "5", "--rpm", "60", "--duration", "10s")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "burst: burst, 10 s, about 10 calls"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nosuch",), 2, "SCENARIO takes burst, concurrency"),
        (("ramp", "--hold", "3s"), 2, "scenario ramp takes no --hold"),
        (("ramp", "--to-rpm", "fast"), 2, "--to-rpm"),
        (("ramp", "--duration", "soon"), 2, "--duration takes seconds"),
        (("phases", "--plan", "nothing.toml"), 2, "nothing.toml: No such file"),
        (("ramp", "--target", "sim"), 2, "--target sim"),
        (("ramp", "--profile", "nosuch"), 2, "profile must be one of demo"),
        (("ramp", "--target", "http://127.0.0.1:1"), 3, "nothing answers at http://127.0.0.1:1"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    """On stderr, named by the option."""
    done = redline(tmp_path, "run", *words)
    complaints = [line for line in done.stderr.splitlines() if line.startswith("redline: ")]
    assert done.returncode == code
    assert said in complaints[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("reports/*")) == []


@pytest.mark.acceptance
def test_a_run_ends_with_its_report(tmp_path: Path) -> None:
    """The last line on stdout names it; refusals leave the code 0."""
    done = redline(tmp_path, "run", "burst", "--calls", "30", "--rpm", "1800", "--duration", "3s", "--processes", "2")
    assert done.returncode == 0, done.stderr
    report = Path(done.stdout.splitlines()[-1].removeprefix("report: "))
    assert report.is_file()
    result = json.loads((report.parent / "result.json").read_text())
    assert (result["spent"]["requests"], result["spent"]["throttled"] > 0) == (90, True)
    assert len(list((report.parent / "requests").glob("*.jsonl"))) == 2


@pytest.mark.acceptance
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_an_interrupted_run_keeps_and_reports_what_it_has(tmp_path: Path, number: int, code: int) -> None:
    """Killed outright it cannot report, but its ledger can be analysed, and its children are gone."""
    command = [sys.executable, "-m", "redline", "run", "soak", "--rpm", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path) as run:
        deadline = time.monotonic() + GIVE_UP_S
        while not any(path.stat().st_size > 2000 for path in tmp_path.glob("reports/*/requests/0.jsonl")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        locust = [pid for pid in descendants(run.pid) if "locustfiles" in command_of(pid)]
        run.send_signal(number)
        out, _ = run.communicate(timeout=GIVE_UP_S)
    assert run.returncode == code
    assert locust
    while any(command_of(pid) for pid in locust):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [run_dir] = tmp_path.glob("reports/*")
    if code > 0:
        assert re.search(rf"report: {run_dir}/report.html", out)
        assert json.loads((run_dir / "run.json").read_text())["ended"] == "interrupted"
    else:
        assert redline(tmp_path, "report", str(run_dir)).returncode == 0


def descendants(pid: int) -> list[int]:
    """List a process's children, and theirs."""
    try:
        found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*found, *(deeper for child in found for deeper in descendants(child))]


def command_of(pid: int) -> str:
    """Return a process's command line; empty where it has ended."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return ""
