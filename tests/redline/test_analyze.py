"""`redline analyze` and `redline report`: codes, lines and files, from runs and from logs; never a traceback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from analysis.result import from_json
from analysis.schema import RUN_SCHEMA
from mock_server.limits import FixedWindow
from redline.commands.analyze import analyze
from redline.commands.report import report
from redline.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def calls(n: int = 160, limit: int = 30) -> list[dict[str, object]]:
    """Make the log of an overload on ``limit`` calls per 10 s."""
    limiter = FixedWindow(limit, 10.0).limiter()
    rows: list[dict[str, object]] = []
    for i in range(n):
        sent_s = 0.3 + 0.13 * i + 0.02 * (i % 3)
        admitted = limiter.check(sent_s).admitted
        if admitted:
            limiter.commit(sent_s)
        rows.append(
            {"sent_s": sent_s, "done_s": sent_s + (0.2 if admitted else 0.01), "status": 200 if admitted else 429}
        )
    return rows


def make_run(directory: Path, ended: str | None, rows: list[dict[str, object]], scenario: str = "run") -> Path:
    """Write a run directory with one worker's ledger."""
    (directory / "requests").mkdir(parents=True)
    about = {"schema": RUN_SCHEMA, "run": "r", "scenario": scenario, "target": "mock", "model": "m", "ended": ended}
    (directory / "run.json").write_text(json.dumps(about))
    lines = (
        json.dumps({"call_id": i, "phase": "fill", "planned_s": row["sent_s"], **row}) for i, row in enumerate(rows)
    )
    (directory / "requests" / "0.jsonl").write_text("".join(line + "\n" for line in lines))
    return directory


def test_a_log_with_mapped_columns_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Production's access log needs no proof of settings to be concluded."""
    log = tmp_path / "access.csv"
    rows = [
        f"{row['sent_s']},{row['status']},{float(str(row['done_s'])) - float(str(row['sent_s']))}" for row in calls()
    ]
    log.write_text("\n".join(["ts,code,took", *rows]) + "\n")
    assert analyze(path=log, map_="status=code,sent_s=ts,latency_s=took") in {ExitCode.CONCLUDED, ExitCode.UNRESOLVED}
    said = capsys.readouterr().out
    assert "how sure" in said
    assert f"{len(calls())} calls" in said


def test_json_prints_the_result_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed decodes as result.json."""
    run = make_run(tmp_path / "run", "completed", calls())
    analyze(path=run, as_json=True)
    assert from_json(capsys.readouterr().out.encode()).spent.requests == 160


@pytest.mark.parametrize(
    ("ended", "scenario", "expected"),
    [
        ("budget", "run", ExitCode.BUDGET),
        (None, "run", ExitCode.CONCLUDED),
        ("completed", "calibrate", ExitCode.FAILED),
    ],
)
def test_the_code_is_the_verdicts(tmp_path: Path, ended: str | None, scenario: str, expected: ExitCode) -> None:
    """A budget is 4; a killed run is concluded as far as it goes; a calibration owes a proof of its settings."""
    rows: list[dict[str, object]] = [{"sent_s": i * 0.5, "done_s": i * 0.5 + 0.2, "status": 200} for i in range(40)]
    assert analyze(path=make_run(tmp_path / "run", ended, rows, scenario)) == expected


def test_a_log_can_be_kept_as_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--save` makes a run directory that `redline report` draws; it overwrites none."""
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in calls()))
    analyze(path=log, save=tmp_path / "kept")
    report(run=tmp_path / "kept")
    assert (tmp_path / "kept" / "report.html").is_file()
    assert f"report: {tmp_path / 'kept' / 'report.html'}" in capsys.readouterr().out
    with pytest.raises(UsageError, match="holds a run already"):
        analyze(path=log, save=tmp_path / "kept")


@pytest.mark.parametrize("rows", [[], calls(1), [{"sent_s": 0.5}]], ids=["none", "one", "unanswered"])
def test_a_killed_run_still_has_a_report(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    """However early the kill came, and with a torn last line."""
    run = make_run(tmp_path / "run", None, rows)
    with (run / "requests" / "0.jsonl").open("a") as ledger:
        ledger.write('{"call_id": 7, "sen')
    report(run=run)
    page = (run / "report.html").read_text()
    assert "This run was killed or still goes on" in page
    assert from_json((run / "result.json").read_bytes()).verification is None


@pytest.mark.parametrize("verb", ["analyze", "report"])
def test_a_wrong_path_is_one_line(tmp_path: Path, verb: str) -> None:
    """It names the path and what a run or a log is."""
    with pytest.raises(UsageError) as error:
        analyze(path=tmp_path / "no.txt") if verb == "analyze" else report(run=tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mapping_is_for_logs(tmp_path: Path) -> None:
    """A run directory's columns are known."""
    with pytest.raises(UsageError, match="--map is for logs"):
        analyze(path=make_run(tmp_path / "run", "completed", []), map_="status=code")
