"""The command as a user meets it: what a wrong word is answered with, and what loading costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from redline import cli
from redline.errors import InterruptedRunError, UsageError
from redline.traffic import BudgetEndedError, TargetError

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("locust", "gevent", "pandas", "numpy", "scipy", "matplotlib", "google.genai", "aiohttp", "rich")

WRONG = {
    "no such command": (["calibrat"], "calibrat"),
    "no such option": (["calibrate", "--max-rpn", "5"], "--max-rpn"),
    "no value": (["calibrate", "--max-requests"], "--max-requests"),
    "no number": (["calibrate", "--max-requests", "many"], "--max-requests"),
    "zero": (["calibrate", "--max-requests", "0"], "--max-requests"),
    "negative rate": (["calibrate", "--max-rpm", "-5"], "--max-rpm"),
    "rate that is no number": (["calibrate", "--need-rpm", "nan"], "--need-rpm"),
    "duration": (["calibrate", "--max-duration", "3x"], "--max-duration"),
    "share": (["calibrate", "--max-throttled", "100%"], "--max-throttled"),
    "transport": (["calibrate", "--transport", "pigeon"], "--transport"),
    "a URL without a scheme": (["calibrate", "--target", "localhost:8000"], "--target"),
    "a URL without a host": (["calibrate", "--target", "http://"], "--target"),
    "a URL with a strange port": (["calibrate", "--target", "http://127.0.0.1:x"], "--target"),
    "unknown profile": (["calibrate", "--target", "sim", "--profile", "nope"], "nope"),
    "unknown profile of the mock": (["calibrate", "--profile", "nope"], "nope"),
    "money for a model without a price": (["calibrate", "--model", "x", "--max-usd", "1"], "--max-usd"),
    "another machine": (["calibrate", "--target", "http://192.0.2.1:8000"], "--allow-host"),
    "no key": (["calibrate", "--target", "gemini"], "GEMINI_API_KEY"),
    "an output folder that is a file": (["calibrate", "--target", "sim", "--out", os.devnull], "--out"),
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Run in an empty folder, without keys or settings from outside."""
    for name in list(os.environ):
        if name.startswith("REDLINE_") or name in {"GEMINI_API_KEY", "GOOGLE_API_KEY"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "named"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_in_one_line(words: list[str], named: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A user's mistake is one line on stderr that names it, code 2, and nothing is left behind."""
    assert cli.run(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert named in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("profile", "named"),
    [
        ('[[limits]]\nmetric = "requests"\nfamily = "fixed_window"\nlimit = -1\nwindow_s = 8', "limit"),
        ('[[limits]]\nmetric = "requests"\nfamily = "fixed_window"\nlimt = 1\nwindow_s = 8', "limt"),
        ("[[limits]", "TOML"),
    ],
)
@pytest.mark.parametrize("target", ["mock", "sim"])
def test_a_wrong_profile_names_its_key(
    target: str, profile: str, named: str, alone: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A misspelt key or a negative limit ends in one line that names file and key."""
    (alone / "mine.toml").write_text(profile)
    assert cli.run(["calibrate", "--target", target, "--profile", "mine.toml"]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert named in err
    assert "mine" in err
    assert not list(alone.glob("reports/*"))


def test_nobody_listening_is_the_targets_fault(alone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Code 3, one line beside the warning about shared quota, and no empty run directory."""
    assert cli.run(["calibrate", "--target", "http://127.0.0.1:9"]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert "127.0.0.1:9" in err.splitlines()[-1]
    assert not list((alone / "reports").iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (TargetError("x"), 3),
        (BudgetEndedError("x"), 4),
        (InterruptedRunError(signal.SIGINT), 130),
        (InterruptedRunError(signal.SIGTERM), 143),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file", "x"), 2),
    ],
)
def test_each_error_has_its_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dispatcher alone turns exceptions into codes, with one line each."""

    def fail(_arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.run([]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is nobody's input stays an exception, with its traceback."""

    def fail(_arguments: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        cli.run([])


@pytest.mark.parametrize("words", [[], ["--help"], ["help"]])
def test_help_lists_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help names each command, and exits with 0."""
    assert cli.run(words) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_can_be_asked_for_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each entry of the table leads to a function with help of its own."""
    assert cli.run([name, "--help"]) == 0
    assert f"redline {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is one line."""
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("redline 0.")


@pytest.mark.parametrize("words", [["--help"], ["calibrate", "--help"], ["calibrate", "--dry-run"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    """What makes a command slow to start is loaded only once there is something to do."""
    heavy = set(HEAVY) - ({"rich"} if words != ["--help"] else set())
    program = f"import sys; from redline import cli; cli.run({words!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stderr.split())


def test_dry_run_sends_nothing(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run tells the bounds and makes no run directory; another machine has bounds by default."""
    assert cli.run(["calibrate", "--target", "http://192.0.2.1", "--dry-run", "--max-rpm", "300"]) == 0
    out = capsys.readouterr().out
    assert "at most 300 calls a minute" in out
    assert "at most 20000" in out
    assert "large prompts at most 250000 (US$ " in out
    assert not list(alone.iterdir())


def test_flag_wins_over_environment_and_environment_over_file(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three places of a value, in their order."""

    def told(*words: str) -> str:
        assert cli.run(["calibrate", "--dry-run", *words]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("rate"))

    (alone / "redline.toml").write_text("max_rpm = 100\n[calibrate]\nmax_rpm = 200\n")
    assert "200 calls" in told()
    monkeypatch.setenv("REDLINE_MAX_RPM", "300")
    assert "300 calls" in told()
    assert "400 calls" in told("--max-rpm", "400")


def test_flags_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A switch and an option of two words, both as variables."""
    monkeypatch.setenv("REDLINE_DRY_RUN", "1")
    monkeypatch.setenv("REDLINE_TARGET", "sim")
    assert cli.run(["calibrate"]) == 0
    assert "target        sim" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("[calibrate]\nmax_rpn = 5", "max_rpm"),
        ("[calibrat]\nmax_rpm = 5", "calibrat"),
        ("max_rpm = ", "redline.toml"),
        ('[calibrate]\nmax_rpm = "fast"', "[calibrate] max_rpm"),
        ("max_rmp = 5", "did you mean max_rpm?"),
        ("colour = 5", "colour"),
        ("calibrate = 7", "[calibrate]"),
        ("max_rpm = [1]", "max_rpm takes one value"),
        ("max_rpm = true", "max_rpm takes one value"),
        ("[calibrate]\nseed = 2026-11-24", "[calibrate] seed takes one value"),
        ("allow_host = 7", "allow_host takes a list"),
    ],
)
def test_a_wrong_file_names_its_key(file: str, named: str, alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in redline.toml is one line that says where it is."""
    (alone / "redline.toml").write_text(file)
    assert cli.run(["calibrate", "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert named in err


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The line says which variable holds the value that cannot be read."""
    monkeypatch.setenv("REDLINE_MAX_RPM", "fast")
    assert cli.run(["calibrate", "--dry-run"]) == 2
    assert "REDLINE_MAX_RPM" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["REDLINE_MAX_RMP", "REDLINE_MAX_REQUEST", "REDLINE_ALOW_HOST"])
def test_a_misspelt_variable_is_no_silent_ceiling(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that is nearly an option's is a slip, and the line says which was meant."""
    monkeypatch.setenv(name, "5")
    assert cli.run(["calibrate", "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{name} is no option; did you mean REDLINE_" in err


def test_what_belongs_to_others_is_left_alone(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another command's option, a study's run and another program's variable are no slips."""
    (alone / "redline.toml").write_text('instances = 3\ntransport = "fast"\n[run]\nrpm = 60\n')
    for name in ("REDLINE_RUN", "REDLINE_STEPS", "REDLINE_RUN_DIR", "REDLINE_LIFELINE", "REDLINE_PS1"):
        monkeypatch.setenv(name, "5")
    assert cli.run(["calibrate", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("variable", "file"),
    [
        ("192.0.2.1, 192.0.2.2", ""),
        (None, "allow_host = ['192.0.2.1', '192.0.2.2']"),
        (None, "allow_host = '192.0.2.2'"),
    ],
)
def test_hosts_can_be_allowed_from_outside(
    variable: str | None, file: str, alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that may be given several times: a list in the file, commas in a text."""
    (alone / "redline.toml").write_text(file)
    if variable:
        monkeypatch.setenv("REDLINE_ALLOW_HOST", variable)
    seen: list[object] = []
    monkeypatch.setattr("redline.targets.require_consent", lambda _, allowed, **__: seen.extend(allowed))
    monkeypatch.setattr("redline.commands.calibrate.carry_out", lambda *_, **__: 0)
    assert cli.run(["calibrate", "--target", "http://192.0.2.2"]) == 0
    assert "192.0.2.2" in seen
    assert "uses up quota" in capsys.readouterr().err


def test_an_interrupted_simulation_keeps_what_it_has(alone: Path) -> None:
    """SIGTERM ends a run with 143, and its ledger and run.json are there."""
    program = (
        "import os, signal, sys\n"
        "from redline import cli, simulation\n"
        "whole = simulation.Simulation.run\n"
        "def run(self, probe):\n"
        "    if len(self.attempts) > 20: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return whole(self, probe)\n"
        "simulation.Simulation.run = run\n"
        "sys.exit(cli.run(['calibrate', '--target', 'sim', '--out', '.']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=alone)
    assert done.returncode == 143, done.stderr
    (about,) = alone.glob("*-calibrate-*/run.json")
    assert json.loads(about.read_text())["ended"] == "interrupted"
    assert (about.parent / "requests" / "0.jsonl").stat().st_size > 0
    assert "interrupted" in done.stderr


@pytest.mark.acceptance
@pytest.mark.parametrize("after_s", [0.0, 0.7, 2.0])  # numba or LLVM may be at anything then
def test_an_interrupt_while_the_inference_is_compiled_leaves_nothing_and_says_so(alone: Path, after_s: float) -> None:
    """Nothing was sent by then: no directory is named that is not there, and the next run is as good as the first."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(alone / "compiled")}  # as on a new machine
    command = [sys.executable, "-m", "redline", "calibrate", "--target", "sim", "--out", "runs"]
    running = subprocess.Popen(
        command, env=environment, cwd=alone, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    said = running.stderr.readline()  # the line of the phase before any other
    time.sleep(after_s)
    running.send_signal(signal.SIGINT)
    _, rest = running.communicate(timeout=60)
    assert running.returncode == 130, rest
    assert "compiles it once" in said
    assert "interrupted before a call was sent" in rest
    assert "Traceback" not in rest
    assert not list((alone / "runs").glob("*"))


@pytest.mark.parametrize(("error", "told"), [("KeyboardInterrupt", False), ("ValueError", True)])
def test_an_interrupt_at_an_objects_end_says_nothing(error: str, told: bool) -> None:  # noqa: FBT001 - a table's column
    """Python prints what is raised where nothing can be; an impatient user need not read that."""
    lines = [
        "from redline import cli",
        f"cli.run = lambda _: setattr(type('End', (), {{'__del__': lambda _: exec('raise {error}')}})(), 'x', 1) or 0",
        "cli.main()",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert (error in done.stderr) is told
