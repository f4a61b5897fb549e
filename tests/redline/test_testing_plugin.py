"""The pytest plugin: its documented example is run as a user would run it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from redline import testing

if TYPE_CHECKING:
    from pathlib import Path

    from redline.testing import StartMock


def test_the_documented_example_is_true(tmp_path: Path) -> None:
    """The example in the module's head, in a file of its own, in a fresh pytest."""
    assert testing.__doc__ is not None
    example = textwrap.dedent(testing.__doc__[testing.__doc__.index("    from google") :])
    (tmp_path / "test_example.py").write_text(example)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:locust", "-p", "no:asyncio", "test_example.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_it_is_registered() -> None:
    """Installing redline is all that a user does."""
    assert [entry.value for entry in entry_points(group="pytest11") if entry.value == "redline.testing"]


def test_several_mocks_run_side_by_side(gemini_mock: StartMock) -> None:
    """Each call is a server of its own."""
    assert gemini_mock("demo") != gemini_mock("guide-basic", seed=3)
