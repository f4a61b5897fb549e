"""The table of settings: the formulas refuse nothing, the folklore does, and the rows have the common shape."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import settings as benchmark

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_formulas_refuse_nothing_and_the_folklore_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quarter of an hour a cell, small limits: each row that has a target reaches it."""
    monkeypatch.setattr(benchmark, "HOURS_S", 900.0)
    monkeypatch.setattr(benchmark, "SIZES", (15,))
    path = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["settings.py", "--seed", "3", "--json", str(path)])
    benchmark.main()
    rows = json.loads(path.read_text())
    assert {"suite", "measure", "value", "ci95", "n", "target", "passed"} <= rows[0].keys()
    by_formula = [row for row in rows if row["target"] is not None]
    assert by_formula
    assert all(row["passed"] for row in by_formula)
    folklore = next(row for row in rows if row["way"] == "paced at the limit" and row["limit"] == "sliding log 15")
    assert folklore["value"] > 0.03
    assert "| formula, one by one |" in capsys.readouterr().out
