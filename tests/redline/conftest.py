"""A Gemini look-alike for tests that send over a real socket: a process of its own, for one module at a time."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STUB = Path(__file__).with_name("gemini_stub.py")


@contextlib.contextmanager
def running_stub(*options: str) -> Iterator[str]:
    """Serve the stub; give its URL."""
    process = subprocess.Popen([sys.executable, str(STUB), *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with process.stdout:
            yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def stub() -> Iterator[Callable[..., str]]:
    """Give a function that serves a stub with some options until the module's tests are done, and tells its URL."""
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(running_stub(*options))
