"""What a run will do: phases, frozen, printable and costed before the first call. Reads plan files (TOML).

A phase says when calls leave (its shape), how large they are, and nothing of how they are sent. Rates are per minute
here, where people write them. Pure but for `read_plan`, which reads one file.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from redline import pacer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Shape = Literal["constant", "ramp", "step", "burst", "idle", "closed"]
_MINUTE_S = 60.0
_TRACE_COLUMNS = ("sent_s", "planned_s", "offset_s")


class Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stretch of a run.

    ``shape``: `constant` at ``rpm``; `ramp` from ``from_rpm`` to ``rpm``; `step` likewise, in ``steps`` levels;
    `burst` of ``in_flight`` calls at once, repeated so that they average ``rpm`` (None: once); `idle` sends nothing;
    `closed` keeps ``in_flight`` callers busy, each waiting for its answer before it calls again. ``arrivals`` is
    `constant`, `poisson` or the path of a trace: a CSV file with a column ``sent_s`` (seconds), which replaces the
    shape's own moments. ``duration`` is in seconds, or a text such as ``90s``, ``10m``, ``1h30m``.
    """

    shape: Shape
    duration: float | str
    name: str = ""
    rpm: float | None = None
    from_rpm: float = 0.0
    steps: int = 5
    in_flight: int | None = None
    arrivals: str = "constant"
    prompt_tokens: int = 1
    output_tokens: int = 1
    model: str = ""

    def __post_init__(self) -> None:
        if not self.duration_s > 0:
            raise ValueError(f"duration takes seconds or a text such as 90s, 10m, 1h30m, not {self.duration!r}")
        if self.shape in {"constant", "ramp", "step"} and self.rpm is None and not self.traces:
            raise ValueError(f"a {self.shape} phase needs rpm, calls per minute")
        if self.shape in {"burst", "closed"} and self.in_flight is None:
            raise ValueError(f"a {self.shape} phase needs in_flight, a number of calls")
        for key, least in (("rpm", 0), ("from_rpm", 0), ("steps", 1), ("in_flight", 1)):
            self._require(key, least)
        for key in ("prompt_tokens", "output_tokens"):
            self._require(key, 1)

    def _require(self, key: str, least: int) -> None:
        value = getattr(self, key)
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ValueError(f"{key} takes a number of at least {least}, not {value!r}")

    @property
    def traces(self) -> bool:
        """Whether the moments come from a file."""
        return self.arrivals not in {"constant", "poisson"}

    @property
    def duration_s(self) -> float:
        """The length in seconds; NaN where it cannot be read."""
        return seconds(self.duration)

    @property
    def label(self) -> str:
        """What the ledger calls the phase."""
        return self.name or self.shape

    def offsets_s(self, seed: str | int = 0, worker: int = 0, workers: int = 1) -> Iterator[float]:
        """Yield the moments of this worker's arrivals, in seconds since the phase began; nothing for `closed`.

        Different workers draw from different streams, whatever the seed. Raises ValueError or OSError for a trace
        that cannot be read.
        """
        if self.shape in {"idle", "closed"}:
            return iter(())
        if self.traces:
            return pacer.replay(read_trace(Path(self.arrivals)), self.duration_s, worker, workers)
        rate = (self.rpm or 0.0) / _MINUTE_S
        if self.shape == "burst":
            size = self.in_flight or 1
            return pacer.bursts(size, size / rate if rate else None, self.duration_s, worker, workers)
        rng = Random(f"{seed}/{worker}")  # noqa: S311 - a schedule, not a secret
        points = (
            pacer.poisson_points(rng, workers) if self.arrivals == "poisson" else pacer.even_points(worker, workers)
        )
        if self.shape == "constant":
            return pacer.constant(points, rate, self.duration_s)
        if self.shape == "ramp":
            return pacer.line(points, self.from_rpm / _MINUTE_S, rate, self.duration_s)
        return pacer.steps(points, self.from_rpm / _MINUTE_S, rate, self.duration_s, self.steps)

    @property
    def expected_calls(self) -> float | None:
        """How many calls the phase will make, on average; None where the answers decide (`closed`)."""
        if self.shape == "closed":
            return None
        if self.shape == "burst" or self.traces:
            return float(sum(1 for _ in self.offsets_s()))
        if self.shape == "idle":
            return 0.0
        average = self.rpm or 0.0
        if self.shape in {"ramp", "step"} and not (self.shape == "step" and self.steps == 1):
            average = (average + self.from_rpm) / 2
        return average * self.duration_s / _MINUTE_S


class PlanFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan file: ``[[phases]]``."""

    phases: tuple[Phase, ...]


def seconds(text: float | str) -> float:
    """Read a number of seconds, or ``90s``, ``10m``, ``1h30m``, ``500ms``; NaN for anything else."""
    if not isinstance(text, str):
        return float(text)
    from redline.wire import duration_s  # noqa: PLC0415 - one reader of such texts

    read = duration_s(text)
    if not math.isnan(read):
        return read
    try:
        return float(text)
    except ValueError:
        return math.nan


def read_plan(path: Path) -> tuple[Phase, ...]:
    """Read a plan file. Raises OSError, or ValueError naming file and key."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=PlanFile).phases
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        takes = f"; a shape is one of {', '.join(get_args(Shape))}" if "enum value" in str(error) else ""
        raise ValueError(f"{path}: {error}{takes}") from None


def read_trace(path: Path) -> list[float]:
    """Read the moments of a trace. Raises ValueError in one line, OSError where there is no such file."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        try:
            column = next((c for c in _TRACE_COLUMNS if c in (rows.fieldnames or ())), None)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is no CSV file: {error}") from None
        if column is None:
            raise ValueError(f"{path}: a trace takes a CSV file with a column sent_s")
        try:
            return [float(row[column]) for row in rows if row[column]]
        except ValueError as error:
            raise ValueError(f"{path}, line {rows.line_num}: {error}") from None


def describe(phases: Sequence[Phase]) -> str:
    """Tell in a few lines what the phases will send and how long they take."""
    lines = []
    for phase in phases:
        calls = phase.expected_calls
        many = "as many calls as are answered" if calls is None else f"about {calls:.0f} calls"
        lines.append(f"{phase.label}: {phase.shape}, {phase.duration_s:g} s, {many}")
    counted = [phase.expected_calls or 0.0 for phase in phases]
    tokens = [(calls * p.prompt_tokens, calls * p.output_tokens) for calls, p in zip(counted, phases, strict=True)]
    lines.append(
        f"in all: {sum(p.duration_s for p in phases):g} s, about {sum(counted):.0f} calls, "
        f"{sum(t[0] for t in tokens):.0f} input tokens, at most {sum(t[1] for t in tokens):.0f} output tokens"
    )
    return "\n".join(lines)
