"""Start the mock server as a child process and learn its address.

Standard library only; the mock is a program here, nothing of it is imported. The child ends with this process:
it is stopped on the way out, and ends by itself within a second where this process was killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from redline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STOP_S = 5.0


@contextmanager
def running_mock(profile: str, *, seed: int = 0, extra: Sequence[str] = ()) -> Iterator[str]:
    """Serve ``profile`` (a name or a TOML file) on a free loopback port; yield the URL; stop it afterwards.

    ``extra`` are further options of ``python -m mock_server``. Raises `UsageError` with the server's own line
    where it would not start. Needs `subprocess` as the system has it: start it before Locust patches anything.
    """
    command = [sys.executable, "-m", "mock_server", "--profile", profile, "--port", "0", "--seed", str(seed)]
    command += ["--parent", str(os.getpid()), *extra]
    # A session of its own: Ctrl-C in the terminal must reach the caller alone, which then stops the mock last.
    with tempfile.TemporaryFile("w+") as complaints:  # a file never fills up and stops the child, as a pipe would
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            command, stdout=subprocess.PIPE, stderr=complaints, text=True, start_new_session=True
        )
        try:
            yield _address(child, complaints)
        finally:
            _stop(child)


def _address(child: subprocess.Popen[str], complaints: IO[str]) -> str:
    assert child.stdout is not None  # noqa: S101 - Popen was given a pipe
    line = child.stdout.readline()
    if not line:
        child.wait()
        complaints.seek(0)
        last = complaints.read().strip().rpartition("\n")[2].removeprefix("error: ")
        raise UsageError(last or "the mock server ended before it listened")
    return line.split()[-1]


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.communicate(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
