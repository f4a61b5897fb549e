"""Logs of other tools, and any log with mapped columns, become the same table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from analysis.foreign import error_class, load_log, parse_mapping
from analysis.load import LogError
from analysis.schema import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

START_S = 1_795_000_000.25


def lines(*rows: dict[str, object]) -> str:
    """Write one JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def k6(metric: str, time: str, value: float, **tags: str) -> dict[str, object]:
    """Make one sample as k6 writes it."""
    return {"type": "Point", "metric": metric, "data": {"time": time, "value": value, "tags": tags}}


LOCUST = (
    "timestamp,request_type,name,response_time_ms,response_length,status_code,exception\n"
    f"{START_S},POST,generate,250.0,10,200,\n{START_S + 0.5},POST,generate,10.0,10,429,Too Many\n"
)
K6 = lines(
    {"type": "Metric", "metric": "http_req_duration", "data": {"name": "http_req_duration"}},
    k6("http_reqs", "2026-11-23T18:00:00.5Z", 1),
    k6("http_req_duration", "2026-11-23T18:00:00.5Z", 250.0, status="200"),
    k6("http_req_duration", "2026-11-23T18:00:00.760000Z", 10.0, status="429"),
)
VEGETA = lines(
    {"code": 200, "timestamp": "2026-11-23T18:00:00.25Z", "latency": 250_000_000, "bytes_in": 9, "error": ""},
    {"code": 429, "timestamp": "2026-11-23T18:00:00.75Z", "latency": 10_000_000, "bytes_in": 9, "error": ""},
)
AIPERF = lines(
    {
        "metadata": {"request_start_ns": 1_795_000_000_250_000_000, "request_end_ns": 1_795_000_000_500_000_000},
        "metrics": {"input_sequence_length": {"value": 7, "unit": "tokens"}},
        "error": None,
    },
    {
        "metadata": {"request_start_ns": 1_795_000_000_750_000_000, "request_end_ns": 1_795_000_000_760_000_000},
        "metrics": {},
        "error": {"code": 429, "type": "TooManyRequests"},
    },
)


@pytest.mark.parametrize(
    ("name", "text"),
    [("r.csv", LOCUST), ("k6.json", K6), ("vegeta.jsonl", VEGETA), ("profile_export.jsonl", AIPERF)],
)
def test_known_formats_are_read_without_a_mapping(tmp_path: Path, name: str, text: str) -> None:
    """Two calls half a second apart, one admitted after 250 ms and one refused after 10 ms, in four formats."""
    (tmp_path / name).write_text(text)
    about, table = load_log(tmp_path / name)
    assert list(table.columns) == list(COLUMNS)
    assert table["sent_s"].tolist() == pytest.approx([0.0, 0.5], abs=1e-6)
    assert (table["done_s"] - table["sent_s"]).tolist() == pytest.approx([0.25, 0.01], abs=1e-6)
    assert table["status"].tolist() == [200, 429]
    assert table["error"].tolist() == ["", "throttled"]
    assert about["wall_s"] == pytest.approx(0.51, abs=1e-6)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_any_log_is_read_with_mapped_columns(tmp_path: Path, suffix: str) -> None:
    """An access log with names and units of its own."""
    path = tmp_path / f"access.{suffix}"
    frame = pd.DataFrame({"ts": [START_S * 1e3 + 750, START_S * 1e3], "code": [503, 200], "took": [10.0, 250.0]})
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    about, table = load_log(path, parse_mapping("status=code, sent_s=ts,latency_ms=took"))
    assert table["sent_s"].tolist() == pytest.approx([0.0, 0.75], abs=1e-6)
    assert table["done_s"].tolist() == pytest.approx([0.25, 0.76], abs=1e-6)
    assert table["error"].tolist() == ["", "overloaded"]
    assert about["clocks"]["0"]["wall_s"] == pytest.approx(START_S, abs=1e-6)


def test_our_own_names_need_no_mapping(tmp_path: Path) -> None:
    """The mock's access log has the ledger's columns."""
    (tmp_path / "access.jsonl").write_text(lines({"sent_s": 3.5, "done_s": 3.75, "status": 200, "model": "m"}))
    about, table = load_log(tmp_path / "access.jsonl")
    assert table["done_s"].tolist() == [0.25]
    assert about["model"] == "m"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("status", "'status' is none"),
        ("status=", "'status=' is none"),
        ("stauts=code", "'stauts' is no column"),
    ],
)
def test_a_wrong_mapping_is_named(text: str, said: str) -> None:
    """The message quotes the part that is wrong and says what is taken."""
    with pytest.raises(LogError, match="--map") as error:
        parse_mapping(text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "mapping", "said"),
    [
        ("a.csv", "ts,code\n1,200\n2,abc\n", "status=code,sent_s=ts", "row 2: column 'code' must be a number"),
        ("a.csv", "ts,code\n1,200\n", "status=code", "which column is sent_s?"),
        ("a.csv", "ts,code\n1,200\n", "sent_s=ts,status=code", "which column is done_s?"),
        ("a.csv", "ts,code\n1,200\n", "status=cod,sent_s=ts", "has no column 'cod' (for status); it has ts, code"),
        ("a.jsonl", "{}\nnonsense\n{}\n", "", "line 2 is no JSON"),
        ("a.jsonl", "[1]\n", "", "line 1 is no JSON object"),
        ("a.txt", "", "", "a log is a run directory or a .csv, .jsonl or .parquet file"),
        ("a.parquet", "nonsense", "", "is no Parquet file"),
        ("a.csv", "", "", "is no CSV file"),
    ],
)
def test_a_log_that_does_not_fit_is_named(tmp_path: Path, name: str, text: str, mapping: str, said: str) -> None:
    """One line with file, row and column."""
    (tmp_path / name).write_text(text)
    with pytest.raises(LogError) as error:
        load_log(tmp_path / name, parse_mapping(mapping))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_log_that_is_missing_is_named(tmp_path: Path) -> None:
    """A wrong path is one line."""
    for name in ("nothing.csv", "nothing"):
        with pytest.raises(LogError, match="does not exist"):
            load_log(tmp_path / name)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, ""),
        (429, "throttled"),
        (503, "overloaded"),
        (504, "deadline"),
        (500, "server_error"),
        (404, "invalid"),
        (0, "connection"),
        (None, ""),
    ],
)
def test_a_status_has_a_class(status: int | None, expected: str) -> None:
    """The class of an error follows from its HTTP status."""
    assert error_class(status) == expected
