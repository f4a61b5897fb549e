"""What people get wrong: each ends in one clear line that names it, with the right exit code and no traceback."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from hidden.running import environment, redline_command, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.acceptance

ENDS_WITHIN_S = 180.0
USAGE, TARGET = 2, 3
A_LIMIT = '[[limits]]\nmetric = "requests"\nfamily = "fixed_window"\nlimit = 60\nwindow_s = 60\n'
# Lines that may come before the error: warnings, each of which ends with its hint in brackets.
WARNINGS = ("uses up quota", "is not known here")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Give the address of a server without limits."""
    with serving({"limits": [], "median_s": 0.001}) as address:
        yield address


def error_line(exit_code: int, *arguments: str, key: str = "hidden-key") -> str:
    """Run the command, hold it to ``exit_code`` and to one line of error, and return that line."""
    ended = subprocess.run(
        [redline_command(), *arguments],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        env=environment(key),
        check=False,
    )
    lines = [line for line in ended.stderr.splitlines() if not any(each in line for each in WARNINGS)]
    assert ended.returncode == exit_code, ended.stderr
    assert ended.stdout == ""
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("redline: ")
    return lines[0]


def calibrate(exit_code: int, *arguments: str, out: Path, key: str = "hidden-key") -> str:
    """Do the same with ``redline calibrate``, its run directory out of the way."""
    return error_line(exit_code, "calibrate", "--out", str(out), *arguments, key=key)


def test_no_server_listening(tmp_path: Path) -> None:
    """The address is named; nothing is left behind."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and never listening: nobody else can take the port meanwhile
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert address in calibrate(TARGET, "--target", address, out=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_a_wrong_key(url: str, tmp_path: Path) -> None:
    """The key is said to be wrong, and never shown."""
    line = calibrate(TARGET, "--target", url, out=tmp_path, key="sk-not-a-key")
    assert "key" in line
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert "sk-not-a-key" not in line
    assert not any(b"sk-not-a-key" in content for content in kept)


def test_an_unknown_model(url: str, tmp_path: Path) -> None:
    """The model and the option are named."""
    line = calibrate(TARGET, "--target", url, "--model", "gemini-none", out=tmp_path)
    assert "gemini-none" in line
    assert "--model" in line


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_both_transports_tell_a_wrong_key_alike(transport: str, url: str, tmp_path: Path) -> None:
    """The official SDK's exception becomes the same line."""
    line = calibrate(TARGET, "--target", url, "--transport", transport, out=tmp_path, key="wrong")
    assert "refused the key" in line


@pytest.mark.parametrize("target", ["mock", "sim"])
def test_an_unknown_profile(target: str, tmp_path: Path) -> None:
    """The name is repeated, and those that exist are listed."""
    line = calibrate(USAGE, "--target", target, "--profile", "demmo", out=tmp_path)
    assert "demmo" in line
    assert "guide-basic" in line


@pytest.mark.parametrize("command", [("calibrate", "--target", "mock"), ("mock", "--port", "0")], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("text", "named"),
    [
        (A_LIMIT.replace("limit =", "limt ="), "limt"),
        (A_LIMIT.replace("60\nwindow_s", "-60\nwindow_s"), "-60"),
        (A_LIMIT.replace("fixed_window", "fixd_window"), "fixd_window"),
        (A_LIMIT.replace("window_s = 60", "window_s = 0"), "window_s"),
        (A_LIMIT.replace("limit = 60", "limit = 'many'"), "limit"),
        (A_LIMIT + "[latency]\nfirst_tokn_s = 1\n", "first_tokn_s"),
        ("[[limits]\n", "profile"),
    ],
)
def test_a_wrong_profile(command: tuple[str, ...], text: str, named: str, tmp_path: Path) -> None:
    """The key or the value that is wrong is named, wherever the profile is used."""
    profile = tmp_path / "mine.toml"
    profile.write_text(text, encoding="utf-8")
    out = ("--out", str(tmp_path)) if command[0] == "calibrate" else ()
    assert named in error_line(USAGE, *command, *out, "--profile", str(profile))


@pytest.mark.parametrize("target", ["127.0.0.1:8080", "http://", "http://:8080", "ftp://127.0.0.1", "moc", ""])
def test_a_target_that_is_none(target: str, tmp_path: Path) -> None:
    """The option is named with what it takes."""
    line = calibrate(USAGE, "--target", target, out=tmp_path)
    assert "--target" in line
    assert "http://" in line


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-rpm", "-5"),
        ("--max-requests", "0"),
        ("--max-throttled", "150%"),
        ("--max-duration", "soon"),
        ("--verify-for", "-3m"),
        ("--seed", "x"),
        ("--transport", "pigeon"),
        ("--colour", "red"),
    ],
)
def test_an_option_that_takes_no_such_value(option: str, value: str, tmp_path: Path) -> None:
    """The option is named."""
    assert option in calibrate(USAGE, option, value, out=tmp_path)


def test_an_unknown_command() -> None:
    """Those that exist are listed."""
    line = error_line(USAGE, "calibrat")
    assert "calibrat" in line
    assert "calibrate" in line


def test_another_machine_is_not_loaded_unasked(tmp_path: Path) -> None:
    """A host that is not this machine needs --yes; the line says so."""
    assert "--yes" in calibrate(USAGE, "--target", "http://192.0.2.1:8080", out=tmp_path)
