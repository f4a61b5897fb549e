"""The run directory: its name, `run.json` that is never half written, and a ledger whose columns are the schema's."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from analysis import schema
from redline.record import Done, Dropped, Ledger, RunFile, Sent, make_run_dir, read_run_file

if TYPE_CHECKING:
    from pathlib import Path

    import msgspec


def names(record: type[msgspec.Struct]) -> set[str]:
    """List a record's columns."""
    return set(record.__struct_fields__)


def test_records_hold_the_columns_of_the_schema() -> None:
    """Sent and done together are all columns; what is sent is what the schema says."""
    assert names(Sent) == set(schema.SENT_COLUMNS)
    assert names(Sent) | names(Done) == set(schema.COLUMNS)
    assert names(Dropped) <= set(schema.COLUMNS)
    assert Dropped(1, "p", 0.0).error in schema.ERROR_CLASSES


def test_run_directory_is_named_by_moment_and_scenario(tmp_path: Path) -> None:
    """Two of the same second do not meet."""
    moment = datetime(2026, 11, 23, 18, 15, tzinfo=UTC)
    made = {make_run_dir(tmp_path / "out", "ramp", moment) for _ in range(8)}
    assert len(made) == 8
    assert all(re.fullmatch(r"20261123-181500-ramp-[0-9a-f]{4}", path.name) for path in made)


def test_ledger_reaches_the_disk_when_flushed_and_only_grows(tmp_path: Path) -> None:
    """Lines are queued, flushed in order, and appended to what was there."""
    path = tmp_path / "requests" / "0.jsonl"
    heard: list[bytes] = []
    ledger = Ledger(path, tee=heard.append)
    ledger.write(Sent(7, "fill", 0.5, 0.51, 1, 3, model="m"))
    assert path.read_bytes() == b""
    ledger.flush()
    first = path.read_bytes()
    assert first == b"".join(heard)
    ledger.write(Done(7, 0.6, 429, error="throttled", retry_delay_s=1.5))
    ledger.write(Dropped(8, "fill", 0.7))
    ledger.close()
    ledger.close()
    Ledger(path).close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert path.read_bytes().startswith(first)
    assert [record["record"] for record in records] == ["sent", "done", "dropped"]
    assert records[1] == {
        "record": "done",
        "call_id": 7,
        "done_s": 0.6,
        "status": 429,
        "error": "throttled",
        "retry_delay_s": 1.5,
    }


def test_run_file_is_whole_from_the_start_and_after_each_change(tmp_path: Path) -> None:
    """Every key is there at once, so a run that is killed can still be read."""
    run_file = RunFile(tmp_path, scenario="ramp", model="m")
    begun = read_run_file(tmp_path)
    assert (begun["schema"], begun["scenario"], begun["ended"]) == (schema.RUN_SCHEMA, "ramp", None)
    run_file.phase("ramp", 0.0, 5.0, "done")
    run_file.update(ended="completed", wall_s=5.0)
    ended = read_run_file(tmp_path)
    assert ended.keys() == begun.keys()
    assert ended["phases"] == [{"name": "ramp", "start_s": 0.0, "end_s": 5.0, "reason": "done"}]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
