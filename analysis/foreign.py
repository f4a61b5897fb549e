"""Logs that redline did not write, read into the same table: access logs, Locust, k6, vegeta, aiperf.

A known format is nothing but a ready-made mapping from our column to theirs (`RECIPES`), found by the columns that
only it has; ``--map`` is the same mapping by hand, and wins. Owns times in other units and on other clocks. It knows
no limiter. Sources: locust/contrib/csv_request_logger.py 2.47; grafana.com/docs/k6 "JSON output";
`vegeta encode --help` v12.13; docs.nvidia.com/aiperf "Per-request records".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.load import LogError, in_order
from analysis.schema import COLUMNS, ERROR_CLASSES, RUN_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MOMENTS = ("planned_s", "sent_s", "first_token_s", "done_s")
# Beside the schema's columns, a mapping may name how long a call took, in one of these units.
LATENCIES = {"latency_s": 1.0, "latency_ms": 1e-3, "latency_us": 1e-6, "latency_ns": 1e-9}
_TAKES = f"one of {', '.join(COLUMNS)}, {', '.join(LATENCIES)}"
_EPOCH_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))  # a Unix time this large counts ns, us, ms


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one tool names things. ``unset_status``: what a row without a status means (None: no answer)."""

    name: str
    marks: frozenset[str]
    mapping: Mapping[str, str]
    unset_status: int | None = None


RECIPES = (
    Recipe(
        "locust",
        frozenset({"timestamp", "response_time_ms", "status_code"}),
        {"sent_s": "timestamp", "latency_ms": "response_time_ms", "status": "status_code"},
    ),
    Recipe(
        "k6",
        frozenset({"metric", "data.time", "data.value"}),
        {"done_s": "data.time", "latency_ms": "data.value", "status": "data.tags.status"},
    ),
    Recipe(
        "vegeta",
        frozenset({"code", "timestamp", "latency", "bytes_in"}),
        {"sent_s": "timestamp", "latency_ns": "latency", "status": "code"},
    ),
    Recipe(
        "aiperf",
        frozenset({"metadata.request_start_ns", "metadata.request_end_ns"}),
        {
            "sent_s": "metadata.request_start_ns",
            "done_s": "metadata.request_end_ns",
            "status": "error.code",
            "prompt_tokens": "metrics.input_sequence_length.value",
            "output_tokens": "metrics.output_sequence_length.value",
        },
        unset_status=200,
    ),
)


def parse_mapping(text: str) -> dict[str, str]:
    """Read ``status=code,sent_s=ts``. Raises `LogError` that names the part that is wrong."""
    mapping = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not equals or not theirs:
            raise LogError(f"--map takes COLUMN=THEIRS pairs such as status=code,sent_s=ts; {part!r} is none")
        if ours not in COLUMNS and ours not in LATENCIES:
            raise LogError(f"--map: {ours!r} is no column; it takes {_TAKES}")
        mapping[ours] = theirs
    return mapping


def load_log(path: Path, mapping: Mapping[str, str] | None = None) -> tuple[dict[str, Any], pd.DataFrame]:
    """Read a CSV, JSONL or Parquet log; return (what stands in for `run.json`, table). Raises `LogError`."""
    raw = _read(path)
    recipe = next((r for r in RECIPES if r.marks <= set(raw.columns)), None)
    known = recipe.mapping if recipe else {name: name for name in (*COLUMNS, *LATENCIES)}
    chosen = {ours: theirs for ours, theirs in known.items() if theirs in raw.columns} | dict(mapping or {})
    for ours, theirs in chosen.items():
        if theirs not in raw.columns:
            raise LogError(f"{path} has no column {theirs!r} (for {ours}); it has {', '.join(map(str, raw.columns))}")
    table, started_s = _convert(path, raw, chosen, recipe.unset_status if recipe else None)
    return _about(path, table, started_s), table


def _read(path: Path) -> pd.DataFrame:
    suffix = path.suffix.lower()
    if not path.exists():
        raise LogError(f"{path} does not exist; a log is a run directory or a .csv, .jsonl or .parquet file")
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix == ".csv":
            return pd.read_csv(path, low_memory=False)
        if suffix in {".jsonl", ".json", ".ndjson", ".log"}:
            return _read_lines(path)
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, LogError):
            raise
        kind = "Parquet" if suffix == ".parquet" else suffix[1:].upper()
        raise LogError(f"{path} is no {kind} file: {str(error).splitlines()[0]}") from None
    raise LogError(f"{path}: a log is a run directory or a .csv, .jsonl or .parquet file")


def _read_lines(path: Path) -> pd.DataFrame:
    """Flatten one JSON object a line; ``{"a": {"b": 1}}`` becomes column ``a.b``."""
    rows: list[dict[str, object]] = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(lines):  # torn by a kill
                break
            raise LogError(f"{path}, line {number} is no JSON") from None
        if not isinstance(row, dict):
            raise LogError(f"{path}, line {number} is no JSON object")
        # k6 writes a line for each of its metrics and for each definition; one of them is a call
        if "metric" not in row or (row.get("type") == "Point" and row["metric"] == "http_req_duration"):
            rows.append(row)
    return pd.json_normalize(rows)


def _convert(
    path: Path, raw: pd.DataFrame, chosen: Mapping[str, str], unset_status: int | None
) -> tuple[pd.DataFrame, float]:
    columns: dict[str, pd.Series[Any]] = {}
    for ours, theirs in chosen.items():
        if ours in MOMENTS:
            columns[ours] = _moments(path, raw[theirs])
        elif COLUMNS.get(ours) == "string":
            columns[ours] = raw[theirs].astype("string")
        else:
            columns[ours] = _numbers(path, raw[theirs])
    _derive(path, columns)
    status = columns["status"].astype("Int64")
    columns["status"] = status if unset_status is None else status.fillna(unset_status)
    told = columns.get("error", pd.Series("", index=raw.index, dtype="string"))
    columns["error"] = told.where(told.isin(ERROR_CLASSES), columns["status"].map(error_class).astype("string"))
    started_s = float(columns["sent_s"].min()) if len(raw) else 0.0
    for name in MOMENTS:
        if name in columns:
            columns[name] = columns[name] - started_s
    columns.setdefault("call_id", pd.Series(range(len(raw)), index=raw.index))
    columns.setdefault("attempt", pd.Series(1, index=raw.index))
    columns.setdefault("worker", pd.Series("0", index=raw.index))
    for name, kind in COLUMNS.items():
        if kind == "Int64" and name in columns:
            columns[name] = columns[name].round()
    table = pd.DataFrame(columns, index=raw.index).reindex(columns=list(COLUMNS)).astype(COLUMNS)
    return in_order(table), started_s


def _derive(path: Path, columns: dict[str, pd.Series[Any]]) -> None:
    """Fill in what follows from the rest: an end from a start and a latency, and the other way round."""
    latency = next((columns.pop(name) * unit for name, unit in LATENCIES.items() if name in columns), None)
    if latency is not None and "sent_s" in columns:
        columns.setdefault("done_s", columns["sent_s"] + latency)
    elif latency is not None and "done_s" in columns:
        columns["sent_s"] = columns["done_s"] - latency
    for needed in ("sent_s", "status", "done_s"):
        if needed not in columns:
            took = ", or how long calls took with latency_s=THEIR_NAME" if needed == "done_s" else ""
            raise LogError(f"{path}: which column is {needed}? Say it with --map {needed}=THEIR_NAME{took}")


def _moments(path: Path, theirs: pd.Series[Any]) -> pd.Series[float]:
    """Read times as seconds: numbers (a Unix time may count s, ms, us or ns) or ISO 8601."""
    if pd.api.types.is_datetime64_any_dtype(theirs):
        return _since_epoch_s(theirs)
    if not pd.api.types.is_numeric_dtype(theirs):
        as_dates = pd.to_datetime(theirs, errors="coerce", utc=True, format="ISO8601")
        wrong = theirs.notna() & as_dates.isna()
        if not wrong.any():
            return _since_epoch_s(as_dates)
        theirs = _numbers(path, theirs)
    largest = theirs.abs().max()
    unit = next((unit for bound, unit in _EPOCH_UNITS if largest >= bound), 1.0)
    # The origin goes first: nanoseconds since 1970 do not fit a float64.
    seconds: pd.Series[float] = (theirs - theirs.min()).astype("float64") * unit + float(theirs.min()) * unit
    return seconds


def _since_epoch_s(moments: pd.Series[Any]) -> pd.Series[float]:
    aware = pd.to_datetime(moments, utc=True)
    seconds: pd.Series[float] = (aware - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return seconds


def _numbers(path: Path, theirs: pd.Series[Any]) -> pd.Series[Any]:
    numbers = pd.to_numeric(theirs, errors="coerce")
    wrong = theirs.notna() & numbers.isna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise LogError(f"{path}, row {row + 1}: column {theirs.name!r} must be a number, not {theirs.iloc[row]!r}")
    return numbers


def error_class(status: object) -> str:
    """Return the class of `analysis.schema.ERROR_CLASSES` that an HTTP status stands for; empty for success."""
    if status is None or pd.isna(status):  # type: ignore[call-overload]
        return ""
    known = {0: "connection", 401: "auth", 402: "billing", 403: "auth", 429: "throttled", 503: "overloaded"}
    code = int(status)  # type: ignore[call-overload]
    if code in known or code == 504:  # noqa: PLR2004 - HTTP's own number
        return known.get(code, "deadline")
    return "server_error" if code >= 500 else "invalid" if code >= 400 else ""  # noqa: PLR2004 - HTTP's own classes


def _about(path: Path, table: pd.DataFrame, started_s: float) -> dict[str, Any]:
    """Stand in for `run.json`: what a log can say about the run that made it."""
    names = [name for name in table["model"].unique() if name]
    ends = table[["sent_s", "done_s"]].max().max()
    return {
        "schema": RUN_SCHEMA,
        "run": path.stem,
        "scenario": "log",
        "target": path.name,
        "model": names[0] if len(names) == 1 else "",
        "started": datetime.fromtimestamp(started_s, tz=UTC).isoformat(timespec="milliseconds"),
        "clocks": {"0": {"wall_s": started_s, "monotonic_s": 0.0}},
        "phases": [],
        "settings_tried": [],
        "ended": "completed",
        "wall_s": 0.0 if pd.isna(ends) else float(ends),
    }
