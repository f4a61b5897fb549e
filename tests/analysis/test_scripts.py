"""Each study runs as a script on a run directory, and becomes a notebook with the same cells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

from analysis.schema import RUN_SCHEMA
from mock_server.limits import FixedWindow

SCRIPTS = sorted((Path(__file__).parents[2] / "analysis" / "scripts").glob("*.py"))
FEW_SCRIPTS = [SCRIPTS[0], *(pytest.param(path, marks=pytest.mark.acceptance) for path in SCRIPTS[1:])]


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a run directory with half a minute of overload on 30 calls per 10 s."""
    directory = tmp_path_factory.mktemp("run")
    (directory / "requests").mkdir()
    run = {"schema": RUN_SCHEMA, "run": "r", "scenario": "run", "target": "mock", "model": "m", "ended": "completed"}
    (directory / "run.json").write_text(json.dumps(run))
    limiter = FixedWindow(30, 10.0).limiter()
    lines = []
    for i in range(240):
        sent_s = 0.3 + 0.13 * i + 0.02 * (i % 3)
        admitted = limiter.check(sent_s).admitted
        if admitted:
            limiter.commit(sent_s)
        times = {"planned_s": sent_s, "sent_s": sent_s, "done_s": sent_s + (0.2 if admitted else 0.01)}
        lines.append(json.dumps({"call_id": i, "phase": "fill", "status": 200 if admitted else 429, **times}))
    (directory / "requests" / "0.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def test_the_three_studies_are_there() -> None:
    """A glob that finds nothing would pass every test below."""
    assert {"throughput_curve", "error_curve", "limiter_settings"} <= {path.stem for path in SCRIPTS}


def study(script: Path, where: Path, *arguments: str) -> str:
    """Run a study in a directory; return what it printed."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=os.environ | {"MPLBACKEND": "Agg", "REDLINE_RUN": ""},
        cwd=where,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("script", FEW_SCRIPTS, ids=lambda path: path.stem)
def test_a_study_runs_as_a_script(script: Path, run_dir: Path, tmp_path: Path) -> None:
    """The run is the first argument, whatever the directory."""
    assert study(script, tmp_path, str(run_dir)).strip()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_study_becomes_a_notebook(script: Path) -> None:
    """Headings become text cells, the rest code, and nothing is lost on the way back."""
    notebook = jupytext.read(script)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds[0] == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert kinds.count("code") >= 4
    there = json.loads(jupytext.writes(notebook, fmt="ipynb"))
    assert len(there["cells"]) == len(kinds)


def test_a_study_without_a_run_shows_the_sample() -> None:
    """From the checkout's root, as the documents tell."""
    assert "calls at once" in study(SCRIPTS[1], SCRIPTS[0].parents[2])


@pytest.mark.parametrize("script", FEW_SCRIPTS, ids=lambda path: path.stem)
def test_a_study_of_no_run_is_one_line(script: Path, tmp_path: Path) -> None:
    """A directory that is no run is named, without a traceback."""
    done = subprocess.run(
        [sys.executable, str(script), "nowhere"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "nowhere does not exist\n"
