"""The scenarios as people start them: plain ``locust``, with and without web UI, alone and over workers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from redline.mock_process import running_mock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCENARIOS = Path(__file__).parents[2] / "locustfiles"
MAX_LINES = 60
GIVE_UP_S = 120


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the mock, which refuses beyond 40 calls in 8 s."""
    with running_mock("demo") as address:
        yield address


def command(scenario: str, folder: Path, *options: str) -> list[str]:
    """Build what a person types, but for the ``locust`` script's own path."""
    locust = [sys.executable, "-m", "locust", "-f", str(SCENARIOS / f"{scenario}.py"), "--loglevel", "ERROR"]
    return [*locust, "--only-summary", "--out", str(folder), *options]


def run(scenario: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a scenario headless, to its end."""
    words = command(scenario, folder, "--headless", *options)
    return subprocess.run(words, capture_output=True, text=True, timeout=GIVE_UP_S, check=False, cwd=folder)


def only_run(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the one run directory in a folder: `run.json`, and the records of all workers."""
    [run_dir] = [path for path in folder.iterdir() if path.is_dir()]
    ledgers = sorted((run_dir / "requests").glob("*.jsonl"))
    lines = [line for ledger in ledgers for line in ledger.read_text().splitlines()]
    return json.loads((run_dir / "run.json").read_text()), [json.loads(line) for line in lines]


def count(records: list[dict[str, Any]], kind: str) -> int:
    """Count records of a kind."""
    return sum(record["record"] == kind for record in records)


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.py")), ids=lambda path: path.stem)
def test_scenarios_are_thin(path: Path) -> None:
    """What is common to all lives below them."""
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_ramp_sends_its_schedule_and_refusals_are_no_failure(url: str, tmp_path: Path) -> None:
    """Scheduled is sent and dropped; sent is ended; the exit code is 0 with 429s among the answers."""
    done = run("ramp", tmp_path, "--host", url, "--from-rpm", "1200", "--to-rpm", "2400", "--duration", "3s")
    assert done.returncode == 0, done.stderr
    about, records = only_run(tmp_path)
    scheduled = 90  # more than twice the limit: a boundary of the window in their midst does not hide it
    statuses = {record["status"] for record in records if record["record"] == "done"}
    assert count(records, "sent") + count(records, "dropped") == scheduled
    assert count(records, "done") == count(records, "sent")
    assert statuses == {200, 429}
    assert (about["scenario"], about["ended"], about["target"]) == ("ramp", "completed", url)
    assert about["phases"][0]["reason"] == "done"
    table = (done.stdout + done.stderr).partition("Response time percentiles")[0]
    rows = re.findall(r"^POST +(\S+(?: \[429\])?) +\d+ +(\S+)", table, re.MULTILINE)
    assert rows == [("generateContent", "0(0.00%)"), ("generateContent [429]", "0(0.00%)")]


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "--host takes the target's URL"),
        (("--host", "foo"), 2, "--host takes a URL such as"),
        (("--host", "URL", "--duration", "soon"), 2, "--duration takes seconds"),
        (("--host", "URL", "--to-rpm", "-3"), 2, "--to-rpm takes a number from 0"),
        (("--host", "URL", "--to-rpm", "many"), 2, "argument --to-rpm"),
        (("--host", "URL", "--transport", "pigeon"), 2, "--transport takes fast or sdk"),
        (("--host", "URL", "--arrivals", "nothing.csv"), 2, "nothing.csv: No such file"),
        (("--host", "URL", "--max-usd", "1", "--model", "unpriced"), 2, "--max-usd"),
        (("--host", "http://127.0.0.1:1"), 3, "nothing answers at http://127.0.0.1:1"),
        (("--host", "URL", "--max-requests", "5"), 4, "--max-requests 5 is used up"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    url: str, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    """The same codes as the command's."""
    words = [url if word == "URL" else word for word in options]
    if "--duration" not in words:
        words += ["--duration", "3s"]
    done = run("ramp", tmp_path, *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.acceptance
def test_one_scenario_at_a_time(tmp_path: Path) -> None:
    """A folder of them is not a scenario."""
    words = [sys.executable, "-m", "locust", "-f", str(SCENARIOS), "--headless"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=GIVE_UP_S, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "-f takes one scenario at a time" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.acceptance
def test_options_are_shown_where_locust_can_show_them(tmp_path: Path) -> None:
    """Locust answers ``--help`` before it reads a scenario; the scenario as a script knows its options by then."""
    words = [sys.executable, str(SCENARIOS / "ramp.py"), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=GIVE_UP_S, check=True, cwd=tmp_path)
    for option in ("--from-rpm", "--to-rpm", "--duration", "--max-requests", "--headless"):
        assert option in done.stdout


@pytest.mark.acceptance
@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize(
    ("scenario", "options", "calls"),
    [
        ("warmup", ("--from-rpm", "60", "--to-rpm", "180", "--duration", "2s", "--hold", "2s"), 10),
        ("step", ("--from-rpm", "60", "--to-rpm", "120", "--steps", "2", "--duration", "4s"), 6),
        ("spike", ("--rpm", "60", "--spike-rpm", "600", "--spike", "1s", "--duration", "1s"), 12),
        ("burst", ("--calls", "4", "--rpm", "240", "--duration", "2s"), 8),
        ("soak", ("--rpm", "120", "--duration", "2s"), 4),
        ("tokens", ("--rpm", "60", "--steps", "2", "--to-tokens", "500", "--duration", "2s"), 4),
        ("replay", ("--trace", "trace.csv", "--duration", "9s"), 3),
        ("phases", ("--plan", "plan.toml"), 4),
    ],
)
def test_each_scenario_runs_with_either_transport(
    url: str, tmp_path: Path, scenario: str, options: tuple[str, ...], calls: int, transport: str
) -> None:
    """As many calls as its plan says."""
    (tmp_path / "trace.csv").write_text("sent_s\n5.0\n5.5\n6.0\n")
    (tmp_path / "plan.toml").write_text('[[phases]]\nshape = "constant"\nduration = "2s"\nrpm = 120\n')
    done = run(scenario, tmp_path, "--host", url, "--transport", transport, *options)
    assert done.returncode == 0, done.stderr
    _, records = only_run(tmp_path)
    assert count(records, "sent") == calls


@pytest.mark.acceptance
def test_concurrency_climbs_to_its_last_level(url: str, tmp_path: Path) -> None:
    """The levels double, and the last is as asked."""
    done = run("concurrency", tmp_path, "--host", url, "--max-in-flight", "3", "--duration", "1s")
    assert done.returncode == 0, done.stderr
    about, records = only_run(tmp_path)
    assert [phase["name"] for phase in about["phases"]] == ["callers-1", "callers-2", "callers-3"]
    assert max(record["in_flight"] for record in records if record["record"] == "sent") == 3


@pytest.mark.acceptance
def test_workers_share_one_schedule(url: str, tmp_path: Path) -> None:
    """Each with a ledger of its own and one common second 0; together they send the whole."""
    done = run("ramp", tmp_path, "--host", url, "--to-rpm", "1200", "--duration", "3s", "--processes", "2")
    assert done.returncode == 0, done.stderr
    about, records = only_run(tmp_path)
    sent = [record for record in records if record["record"] == "sent"]
    assert len(sent) == len({record["call_id"] for record in sent}) == 30
    assert {record.get("worker", "0") for record in sent} == {"0", "1"} == about["clocks"].keys()
    assert len({clock["wall_s"] for clock in about["clocks"].values()}) == 1


@pytest.mark.acceptance
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_scenario_keeps_what_it_has(url: str, tmp_path: Path, number: int, code: int) -> None:
    """The ledger is whole, `run.json` says how it ended, and so does the exit code."""
    words = command("soak", tmp_path, "--headless", "--host", url, "--rpm", "600")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.glob("*/requests/*.jsonl")))
        process.send_signal(number)
        assert process.wait(GIVE_UP_S) == code
    about, records = only_run(tmp_path)
    assert about["ended"] == "interrupted"
    assert count(records, "sent") >= 1


@pytest.mark.acceptance
def test_workers_end_with_a_master_that_was_killed(url: str, tmp_path: Path) -> None:
    """Locust's own would go on for a minute."""
    words = command("soak", tmp_path, "--headless", "--host", url, "--rpm", "600", "--processes", "2")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path) as master:
        wait_until(lambda: len(list(tmp_path.glob("*/requests/*.jsonl"))) == 2)
        workers = children(master.pid)
        master.kill()
        master.wait()
    assert len(workers) == 2
    wait_until(lambda: not any(map(alive, workers)), 20)


@pytest.mark.acceptance
def test_the_web_form_offers_the_options_and_starts_the_run(url: str, tmp_path: Path) -> None:
    """As often as one likes: two runs from one process, the second stopped by hand."""
    port = free_port()
    words = command("ramp", tmp_path, "--host", url, "--web-host", "127.0.0.1", "--web-port", str(port))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path) as process:
        try:
            wait_until(lambda: page(port) != "")
            form = page(port)
            for name in ("from_rpm", "to_rpm", "duration", "max_requests", "transport"):
                assert f'"{name}"' in form
            swarm(port, to_rpm="600", duration="2s", max_requests="")
            wait_until(lambda: ended(tmp_path) == ["completed"])
            swarm(port, to_rpm="600", duration="60s")
            wait_until(lambda: len(ended(tmp_path)) == 2)
            page(port, "stop")
            wait_until(lambda: ended(tmp_path) == ["completed", "completed"])
        finally:
            process.terminate()
            process.wait(GIVE_UP_S)


@pytest.mark.acceptance
def test_calibrate_under_plain_locust_reaches_its_verdict(url: str, tmp_path: Path) -> None:
    """It starts the process that thinks, and ends with that one's code."""
    done = run("calibrate", tmp_path, "--host", url, "--max-requests", "60")
    assert done.returncode == 4, done.stderr
    [run_dir] = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert (run_dir / "report.html").is_file()
    assert f"report: {run_dir}" in done.stdout


@pytest.mark.acceptance
def test_locusts_run_time_is_a_budget_of_a_calibration(url: str, tmp_path: Path) -> None:
    """``-t 15s`` ends it as ``--max-duration 15s`` does, with that code: nobody interrupted it."""
    done = run("calibrate", tmp_path, "--host", url, "-t", "15s")
    assert done.returncode == 4, done.stderr
    assert ended(tmp_path) == ["budget"]
    assert "report: " in done.stdout


def wait_until(true: Callable[[], bool], timeout_s: float = GIVE_UP_S) -> None:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def page(port: int, path: str = "") -> str:
    """Get a page of the web UI; empty while nobody serves it."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", method="GET")
    try:
        with urllib.request.urlopen(request, timeout=GIVE_UP_S) as answer:  # noqa: S310 - our own loopback
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def swarm(port: int, **fields: str) -> None:
    """Press Start."""
    form = urllib.parse.urlencode({"user_count": "1", "spawn_rate": "1"} | fields).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/swarm", data=form, timeout=GIVE_UP_S) as answer:
        assert json.load(answer)["success"]


def ended(folder: Path) -> list[str | None]:
    """List how the runs in a folder ended, the oldest first."""
    files = sorted(folder.glob("*/run.json"), key=lambda path: path.parent.stat().st_ctime)
    return [json.loads(path.read_text())["ended"] for path in files]


def children(pid: int) -> list[int]:
    """List a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process still runs; one that ended and was not yet collected does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
