"""A run directory becomes one table, whatever a kill left of it; each error names file, line and key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from analysis.load import LogError, chosen_run, load_run
from analysis.schema import COLUMNS, RUN_SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

SENT = '{"record":"sent","call_id":%d,"phase":"pump","planned_s":%s,"sent_s":%s,"prompt_tokens":3,"in_flight":1}\n'
DONE = '{"record":"done","call_id":%d,"done_s":%s,"status":%d,"error":"%s"}\n'
DROPPED = '{"record":"dropped","call_id":9,"phase":"pump","planned_s":0.5,"error":"dropped"}\n'


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Give a run directory with an empty folder for ledgers."""
    (tmp_path / "requests").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"schema": RUN_SCHEMA, "ended": None}))
    return tmp_path


def ledger(run_dir: Path, text: str, worker: str = "0") -> None:
    """Write a worker's ledger."""
    (run_dir / "requests" / f"{worker}.jsonl").write_text(text)


def test_sent_and_done_are_joined_in_the_order_of_sending(run_dir: Path) -> None:
    """Two workers, answers in another order than sends: one row an attempt, sorted by sending."""
    ledger(run_dir, SENT % (1, 0.2, 0.21) + SENT % (2, 0.3, 0.31) + DONE % (2, 0.4, 429, "throttled"))
    ledger(run_dir, SENT % (1, 0.1, 0.11) + DONE % (1, 0.9, 200, ""), worker="1")
    about, table = load_run(run_dir)
    assert about["ended"] is None
    assert list(table.columns) == list(COLUMNS)
    assert table["sent_s"].tolist() == [0.11, 0.21, 0.31]
    assert table["status"].tolist() == [200, pd.NA, 429]
    assert table["error"].tolist() == ["", "", "throttled"]


def test_a_call_without_an_answer_is_kept(run_dir: Path) -> None:
    """What was in flight at a kill is censored, not lost, and a torn last line is skipped."""
    ledger(run_dir, SENT % (1, 0.2, 0.2) + '{"record":"done","call_i')
    table = load_run(run_dir)[1]
    assert len(table) == 1
    assert table["done_s"].isna().all()


def test_a_dropped_arrival_has_no_sending(run_dir: Path) -> None:
    """An arrival that the generator could not send stands where it was planned."""
    ledger(run_dir, SENT % (1, 0.2, 0.2) + DROPPED + SENT % (2, 0.7, 0.7))
    table = load_run(run_dir)[1]
    assert table["error"].tolist() == ["", "dropped", ""]


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_ledger_gives_an_empty_table(run_dir: Path, text: str) -> None:
    """A run killed before its first call can still be read."""
    ledger(run_dir, text)
    table = load_run(run_dir)[1]
    assert table.empty
    assert table.dtypes.astype(str).to_dict() == COLUMNS


def test_a_run_without_any_ledger_gives_an_empty_table(run_dir: Path) -> None:
    """A run killed before it made its ledger can still be read."""
    assert load_run(run_dir)[1].empty


def test_the_parquet_copy_says_the_same(run_dir: Path) -> None:
    """The second reading comes from the copy; a ledger that grew makes the copy old."""
    ledger(run_dir, SENT % (1, 0.2, 0.2) + DONE % (1, 0.4, 200, ""))
    first = load_run(run_dir)[1]
    assert (run_dir / "requests.parquet").is_file()
    pd.testing.assert_frame_equal(first, load_run(run_dir)[1])
    with (run_dir / "requests" / "0.jsonl").open("a") as file:
        file.write(SENT % (2, 0.5, 0.5))
    assert len(load_run(run_dir)[1]) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"record":"done","call_id":1,"status":"ok"}\n', "line 2: key `status`: expected `int | null`, got `str`"),
        ('{"record":"done","status":200}\n', "line 2: key `call_id` is missing"),
        ("nonsense\n", "line 2 is no JSON"),
        ('["a"]\n', "line 2: "),
    ],
)
def test_a_broken_line_is_named(run_dir: Path, line: str, said: str) -> None:
    """The message leads to the file, the line and the key."""
    ledger(run_dir, SENT % (1, 0.2, 0.2) + line)
    with pytest.raises(LogError) as error:
        load_run(run_dir)
    assert said in str(error.value)
    assert "0.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "must hold a JSON object"),
        ('{"schema": "other/1"}', "schema must be 'redline.run/1', not 'other/1'"),
    ],
)
def test_a_broken_run_file_is_named(run_dir: Path, text: str, said: str) -> None:
    """A run.json that is none is one line."""
    (run_dir / "run.json").write_text(text)
    with pytest.raises(LogError, match=r"run\.json") as error:
        load_run(run_dir)
    assert said in str(error.value)


def test_what_is_no_run_directory_is_said_so(tmp_path: Path) -> None:
    """A wrong path names what a run directory holds."""
    with pytest.raises(LogError, match=r"has no run\.json"):
        load_run(tmp_path)
    with pytest.raises(LogError, match="does not exist"):
        load_run(tmp_path / "nowhere")


def test_a_broken_copy_is_named(run_dir: Path) -> None:
    """A Parquet file that is none leads to a message, not to a traceback."""
    (run_dir / "requests.parquet").write_text("not parquet")
    with pytest.raises(LogError, match=r"requests\.parquet is no Parquet file"):
        load_run(run_dir)


def test_a_broken_copy_is_made_again_from_the_ledger(run_dir: Path) -> None:
    """Where the ledger is there, its copy is never worth failing for."""
    ledger(run_dir, SENT % (1, 0.2, 0.2))
    (run_dir / "requests.parquet").write_text("not parquet")
    assert len(load_run(run_dir)[1]) == 1
    assert len(pd.read_parquet(run_dir / "requests.parquet")) == 1


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["reports/a", "reports/b"], {"REDLINE_RUN": "reports/c"}, "reports/a"),
        (["-f", "kernel-1.json"], {"REDLINE_RUN": "reports/c"}, "reports/c"),
        ([], {"REDLINE_RUN": ""}, "reports/sample"),
    ],
)
def test_a_study_finds_its_run(arguments: list[str], environment: dict[str, str], expected: str) -> None:
    """The argument, then the environment, then the sample; a kernel's own arguments are none."""
    assert str(chosen_run(arguments, environment)) == expected
