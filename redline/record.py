"""The run directory: its name, `run.json`, and the send-and-done ledger. The only file here that writes to disk.

A ledger is ``requests/<worker>.jsonl``, append-only, one JSON object a line, of three kinds named by ``record``:

    sent      an attempt went out; the columns of `analysis.schema.SENT_COLUMNS`
    done      it ended; every other column. ``prompt_tokens`` is there where the server told it, and then counts
              instead of what ``sent`` had asked for
    dropped   an arrival that the generator could not send: ``planned_s`` and ``error = "dropped"``, no ``sent_s``

``sent`` and ``done`` are joined by ``call_id`` and ``attempt``. A ``sent`` without a ``done`` is censored: it was in
flight when the run ended. A key that is missing from a line has its default (0, "", or no value). A process that is
killed may leave a torn last line; whatever reads a ledger skips it.

It knows no HTTP, no schedule and no secret: keys appear as their place in the list (``key_slot``).
"""

from __future__ import annotations

import json
import os
import secrets
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import TYPE_CHECKING, Any

import msgspec

from analysis.schema import RUN_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_VERSIONED = ("redline", "locust", "geventhttpclient", "google-genai", "numpy")


class Sent(msgspec.Struct, tag_field="record", tag="sent", omit_defaults=True):
    """An attempt as it leaves. Times in seconds since the run's start; ``in_flight`` counts this one."""

    call_id: int
    phase: str
    planned_s: float
    sent_s: float
    prompt_tokens: int
    in_flight: int
    attempt: int = 1
    worker: str = "0"
    model: str = ""
    strategy: str = ""
    instance: int | None = None
    project: str | None = None
    region: str | None = None
    key_slot: int = 0


class Done(msgspec.Struct, tag_field="record", tag="done", omit_defaults=True):
    """How an attempt ended. ``status`` 0 where no answer came; ``error`` empty on success."""

    call_id: int
    done_s: float
    status: int
    attempt: int = 1
    error: str = ""
    first_token_s: float | None = None
    quota_metric: str = ""
    quota_id: str = ""
    quota_value: float | None = None
    retry_delay_s: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    cached: int | None = None
    server_date: float | None = None


class Dropped(msgspec.Struct, tag_field="record", tag="dropped", omit_defaults=True):
    """An arrival that was due and could not be sent."""

    call_id: int
    phase: str
    planned_s: float
    attempt: int = 1
    worker: str = "0"
    model: str = ""
    error: str = "dropped"


Record = Sent | Done | Dropped


class Ledger:
    """Appends records to one worker's file; ``tee`` gets the same lines, for whoever watches the run.

    `write` only queues: the caller flushes at least every 100 ms, so that a send never waits for a disk.
    """

    def __init__(self, path: Path, tee: Callable[[bytes], None] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._encoder = msgspec.json.Encoder()
        self._lines: list[bytes] = []
        self._tee = tee

    def write(self, record: Record) -> None:
        """Queue one record and hand its line on."""
        line = self._encoder.encode(record) + b"\n"
        self._lines.append(line)
        if self._tee:
            self._tee(line)

    def flush(self) -> None:
        """Hand all queued lines to the operating system, which keeps them even if this process is killed."""
        if self._lines and not self._file.closed:
            lines, self._lines = self._lines, []
            self._file.write(b"".join(lines))

    def close(self) -> None:
        """Flush and close; safe to call twice."""
        if not self._file.closed:
            self.flush()
            self._file.close()


def make_run_dir(out: Path, scenario: str, moment: datetime | None = None) -> Path:
    """Create ``<YYYYmmdd-HHMMSS>-<scenario>-<4 hex>`` (UTC) in ``out`` and return its absolute path.

    Raises OSError where the directory cannot be made.
    """
    stamp = (moment or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")
    while True:
        path = out.resolve() / f"{stamp}-{scenario}-{secrets.token_hex(2)}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path


class RunFile:
    """`run.json`: what the run is and how it went. Each change replaces the file in one step.

    Keys: ``schema, run, scenario, target, model, transport, options, seed, versions, started`` (UTC), ``clocks``
    (a worker's ``wall_s`` and ``monotonic_s`` at its second 0), ``plan``, ``phases`` (as executed: ``name, start_s,
    end_s, reason``), ``settings_tried``, ``ended`` (None while it runs, else ``completed``, ``interrupted``,
    ``budget`` or ``failed``) and ``wall_s``.
    """

    def __init__(self, run_dir: Path, **about: Any) -> None:  # noqa: ANN401 - values of run.json, any JSON
        self.path = run_dir / "run.json"
        self.about: dict[str, Any] = {
            "schema": RUN_SCHEMA,
            "run": run_dir.name,
            "scenario": "",
            "target": "",
            "model": "",
            "transport": "",
            "options": {},
            "seed": None,
            "versions": versions(),
            "started": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "clocks": {},
            "plan": [],
            "phases": [],
            "settings_tried": [],
            "ended": None,
            "wall_s": None,
        } | about
        self.write()

    def update(self, **changes: Any) -> None:  # noqa: ANN401 - values of run.json, any JSON
        """Change keys and write."""
        self.about.update(changes)
        self.write()

    def phase(self, name: str, start_s: float, end_s: float, reason: str) -> None:
        """Add a phase as it was executed; written with the next `update`."""
        self.about["phases"].append({"name": name, "start_s": start_s, "end_s": end_s, "reason": reason})

    def write(self) -> None:
        """Replace the file; a reader sees the old one or the new one, never half."""
        replace_file(self.path, json.dumps(self.about, indent=1, default=str) + "\n")


def read_run_file(run_dir: Path) -> Mapping[str, Any]:
    """Read `run.json`. Raises OSError or ValueError where there is none that can be read."""
    about = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    if not isinstance(about, dict):
        raise ValueError(f"{run_dir / 'run.json'} must hold a JSON object")  # noqa: TRY004 - the file's fault
    return about


def replace_file(path: Path, text: str) -> None:
    """Write ``text`` beside ``path``, then rename it over."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def versions() -> dict[str, str]:
    """Versions of what shapes a measurement; a package that is not installed is left out."""
    found = {"python": python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
