"""Starts Locust on one of our scenarios, so that nothing can shadow a module and no key shows in a process list.

Locust puts the current folder first on its module path. So it runs in the run directory, which is ours and holds no
module, on the scenario's absolute path. Imports neither Locust nor gevent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import redline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROOM = Path(redline.__file__).parents[1]  # the folder that holds the packages and the scenarios
RUN_DIR_VARIABLE = "REDLINE_RUN_DIR"  # set by `redline run`, which made the directory
DRY_RUN_VARIABLE = "REDLINE_DRY_RUN"  # set by `redline run --dry-run`: print the plan and end
LIFELINE_VARIABLE = "REDLINE_LIFELINE"  # the number of a pipe's reading end: it closes when the parent is gone
LOG = "locust.log"  # in the run directory: what Locust itself had to say


def scenarios() -> list[str]:
    """Return the names of the scenarios that there are."""
    return sorted(path.stem for path in (_ROOM / "locustfiles").glob("*.py") if not path.stem.startswith("_"))


def spawn(
    scenario: str,
    run_dir: Path,
    *,
    url: str,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str],
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a scenario headless. ``descriptors`` are inherited; its output goes to `LOG` in the run directory.

    Locust's own variables (``LOCUST_*``) are left out: they would change the run behind our back. The process has a
    session of its own, so that a Ctrl-C reaches the caller alone, which then ends it in good order.
    """
    command = [sys.executable, "-P", "-m", "locust", "-f", str(_ROOM / "locustfiles" / f"{scenario}.py")]
    command += ["--headless", "--host", url, "--loglevel", "WARNING", "--only-summary", *arguments]
    settings = {name: value for name, value in environment.items() if not name.startswith("LOCUST_")}
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOM), settings.get("PYTHONPATH"))))
    with (run_dir / LOG).open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter on our own file
            command,
            cwd=run_dir,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(descriptors),
            start_new_session=True,
        )


def log_lines(run_dir: Path) -> list[str]:
    """Return the lines that Locust wrote that are not empty; none where there is no log."""
    log = run_dir / LOG
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return [line for line in text.splitlines() if line.strip()]


def end(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    """Wait for a process that was told to stop, and insist where it does not; returns its exit code."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
