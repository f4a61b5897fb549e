"""Start hidden servers and calibrations as a user would: each a process of its own, ended when the block ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = Path(__file__).with_name("server.py")
KEY = "hidden-key"
END_WITHIN_S = 10.0


@contextmanager
def serving(config: dict[str, Any], log_file: Path | None = None) -> Iterator[str]:
    """Run a hidden server for the length of the block and give its address. Raises `OSError` where it won't start."""
    command = [sys.executable, str(SERVER), "--config", json.dumps(config), "--port", "0"]
    command += [] if log_file is None else ["--log", str(log_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own script
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            if not address:
                raise OSError(f"the hidden server ended with exit code {process.wait(END_WITHIN_S)}")
            yield address
        finally:
            process.terminate()
            process.wait(END_WITHIN_S)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a calibration ended. ``result`` is what it printed, None where that was no result."""

    exit_code: int
    result: dict[str, Any] | None
    last_line: str


def redline_command() -> str:
    """Return the path of the command that belongs to this interpreter."""
    return str(Path(sys.executable).with_name("redline"))


def environment(key: str = KEY) -> dict[str, str]:
    """Return this process's environment with ``key`` as the only key."""
    kept = {name: value for name, value in os.environ.items() if name not in {"GOOGLE_API_KEY", "GEMINI_API_KEY"}}
    return kept | {"GEMINI_API_KEY": key}


def calibrate(url: str, out: Path, *options: str, timeout_s: float) -> Ended:
    """Calibrate ``url`` with the command line, keep the run directory under ``out``, and read what it printed."""
    command = [redline_command(), "calibrate", "--target", url, "--json", "--yes", "--out", str(out), *options]
    try:
        ended = subprocess.run(  # noqa: S603 - our own command
            command, capture_output=True, text=True, timeout=timeout_s, env=environment(), check=False
        )
    except subprocess.TimeoutExpired:
        return Ended(-1, None, f"no end within {timeout_s:.0f} s")
    last_line = (ended.stderr.strip().splitlines() or [""])[-1]
    try:
        result = json.loads(ended.stdout)
    except ValueError:
        return Ended(ended.returncode, None, last_line or f"no JSON on stdout: {ended.stdout[:80]!r}")
    return Ended(ended.returncode, result, last_line)
