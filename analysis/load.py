"""From a run directory to one validated table: a row an attempt, the columns of `analysis.schema`.

Owns the ledger's reading side: joining ``sent`` and ``done``, what a killed run leaves behind, and the Parquet copy.
It knows no limiter and draws nothing. Logs that redline did not write are `analysis.foreign`'s business.

Each error names the file, the row and the key, in one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd

from analysis.schema import COLUMNS, RUN_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_DEFAULTS: dict[str, object] = {"attempt": 1, "worker": "0", "phase": "", "strategy": "", "model": "", "error": ""}
_TEXT_DEFAULTS = {"quota_metric": "", "quota_id": ""}
_PYTHON_TYPES: dict[str, object] = {"int64": int, "Int64": int | None, "float64": float | None, "string": str | None}


class LogError(ValueError):
    """A run or a log cannot be read. One line for the person who named it: file, row, key, and what it takes."""


_Line: type[msgspec.Struct] = msgspec.defstruct(
    "_Line",
    [
        ("record", str | None, None),
        *((name, _PYTHON_TYPES[kind] | msgspec.UnsetType, msgspec.UNSET) for name, kind in COLUMNS.items()),
    ],
)
_LINES = msgspec.json.Decoder(_Line)


def load_run(run_dir: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Read a run directory; return (`run.json`, table), the table in the order of sending.

    Writes ``requests.parquet`` where it is missing, broken or older than a ledger. Raises `LogError`.
    """
    about = read_about(run_dir)
    ledgers = sorted((run_dir / "requests").glob("*.jsonl"))
    parquet = run_dir / "requests.parquet"
    newest_ns = max((ledger.stat().st_mtime_ns for ledger in ledgers), default=0)
    if parquet.is_file() and parquet.stat().st_mtime_ns >= newest_ns:
        try:
            return about, read_parquet(parquet)
        except LogError:
            if not ledgers:  # a log that was saved as a run: the copy is all there is
                raise
    table = to_table(row for ledger in ledgers for row in read_ledger(ledger))
    with contextlib.suppress(OSError):  # a copy that cannot be written costs time, nothing else
        write_parquet(table, parquet)
        os.utime(parquet, ns=(newest_ns, newest_ns))  # so that a line added while we read makes the copy old
    return about, table


def chosen_run(arguments: Sequence[str], environment: Mapping[str, str]) -> Path:
    """Return the run directory that a study is about: its first argument, else ``REDLINE_RUN``, else the sample.

    A notebook's kernel has arguments of its own (options and a ``.json`` file), which are none.
    """
    named = [text for text in arguments if not text.startswith("-") and not text.endswith(".json")]
    return Path(named[0] if named else environment.get("REDLINE_RUN") or "reports/sample")


def load_chosen(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """Read the run that a study is about; one that cannot be read ends the study with one line and code 2."""
    try:
        return load_run(chosen_run(arguments, environment))
    except LogError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


def read_about(run_dir: Path) -> dict[str, Any]:
    """Read `run.json`. Raises `LogError` where it is missing, torn or of another schema."""
    path = run_dir / "run.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        reason = "has no run.json; a run directory holds run.json and requests/"
        raise LogError(f"{run_dir} {reason}" if run_dir.is_dir() else f"{run_dir} does not exist") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise LogError(f"{path} is no JSON: {error}") from None
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(about, dict):
        raise LogError(f"{path} must hold a JSON object")
    if about.get("schema") != RUN_SCHEMA:
        raise LogError(f"{path}: schema must be {RUN_SCHEMA!r}, not {about.get('schema')!r}")
    return about


def read_ledger(path: Path) -> list[dict[str, object]]:
    """Join the ``sent`` and ``done`` lines of one worker; an attempt without ``done`` keeps no status.

    A last line that a kill tore off is skipped. Raises `LogError` for any other line that does not fit.
    """
    rows: dict[tuple[int, int], dict[str, object]] = {}
    for number, line in _decoded(path):
        call_id, attempt = getattr(line, "call_id", msgspec.UNSET), getattr(line, "attempt", msgspec.UNSET)
        if call_id is msgspec.UNSET:
            raise LogError(f"{path}, line {number}: key `call_id` is missing")
        row = rows.setdefault((call_id, 1 if attempt is msgspec.UNSET else attempt), {})
        row.update((name, value) for name in COLUMNS if (value := getattr(line, name)) is not msgspec.UNSET)
    return list(rows.values())


def _decoded(path: Path) -> Iterator[tuple[int, msgspec.Struct]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, _LINES.decode(line)
        except msgspec.ValidationError as error:
            raise LogError(f"{path}, line {number}: {_plain(error)}") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            if number == len(lines):  # no newline after it: the process was killed while it wrote
                return
            raise LogError(f"{path}, line {number} is no JSON") from None


def _plain(error: msgspec.ValidationError) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.status`" into a line that begins with the key."""
    what, _, where = str(error).partition(" - at `$.")
    return f"key `{where.rstrip('`')}`: {what[0].lower()}{what[1:]}" if where else what


def to_table(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Make the table from rows that hold any of the schema's columns; what a row lacks is missing or its default."""
    listed = list(rows)
    columns = {name: [row.get(name, _DEFAULTS.get(name)) for row in listed] for name in COLUMNS}
    table = pd.DataFrame({name: pd.Series(values, dtype=COLUMNS[name]) for name, values in columns.items()})
    return in_order(table)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Fill the text columns that mean nothing when missing, and sort by the moment of sending (dropped: planned)."""
    filled = table.fillna({**{n: v for n, v in _DEFAULTS.items() if isinstance(v, str)}, **_TEXT_DEFAULTS})
    order = filled["sent_s"].fillna(filled["planned_s"]).argsort(kind="stable")
    return filled.iloc[order].reset_index(drop=True)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write the table in one step; a reader sees the whole file or none."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    table.to_parquet(beside, index=False)
    beside.replace(path)


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a table that `write_parquet` wrote. Raises `LogError` where it is broken or lacks a column."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow.ArrowInvalid is a ValueError
        raise LogError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise LogError(f"{path}: column `{missing[0]}` is missing")
    return table[list(COLUMNS)].astype(COLUMNS)
