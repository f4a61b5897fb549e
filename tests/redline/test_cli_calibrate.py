"""The main job from the outside: `redline calibrate` as a process, on real sockets and in virtual time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300.0  # a busy machine takes several times as long as a quiet one


def start(*words: str, folder: Path) -> subprocess.Popen[str]:
    """Start the command in a folder of its own, without keys or settings from outside."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REDLINE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "redline", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_naming(folder: Path) -> list[int]:
    """Return the processes whose working folder lies in this one: the sender's does."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve().is_relative_to(folder) and (process / "stat").read_text().split()[2] != "Z":
                found.append(int(process.name))
        except (OSError, ValueError):
            continue
    return found


TWO_LIMITS = """
description = "Requests and input tokens bind alike"
date = "2026-11-25"
source = "made up"
[[limits]]
metric = "requests"
family = "fixed_window"
limit = 40
window_s = 8
[[limits]]
metric = "input_tokens"
family = "fixed_window"
limit = 9000
window_s = 8
[latency]
first_token_s = 0.25
sigma = 0.3
"""


def test_over_a_socket_it_measures_input_tokens(tmp_path: Path) -> None:
    """Prompts of the wanted size really go out: the mock's limit on tokens comes out beside the one on requests."""
    (tmp_path / "two.toml").write_text(TWO_LIMITS)
    process = start("calibrate", "--json", "--profile", "two.toml", folder=tmp_path)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    limits = {limit["metric"]: limit for limit in json.loads(out)["limits"]}
    assert limits["input_tokens"]["state"] == "measured"
    assert limits["input_tokens"]["rate_per_min"] == pytest.approx(67_500, rel=0.02)
    assert limits["requests"]["rate_per_min"] == pytest.approx(300, rel=0.02)


def test_against_the_mock_it_concludes(tmp_path: Path) -> None:
    """With --json stdout is the result and nothing else; the limit of the profile comes out; the settings held."""
    process = start("calibrate", "--json", folder=tmp_path)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    result = json.loads(out)
    (run_dir,) = (tmp_path / "reports").iterdir()
    assert out == (run_dir / "result.json").read_text()
    limits = {limit["metric"]: limit for limit in result["limits"]}
    assert limits["requests"]["state"] == "measured"
    assert limits["requests"]["rate_per_min"] == pytest.approx(300, rel=0.02)
    assert limits["concurrency"]["limit"] == 12
    assert result["verification"]["passed"]
    assert "verification" in err
    assert {"run.json", "settings.toml", "report.html", "requests.parquet"} <= {path.name for path in run_dir.iterdir()}
    assert json.loads((run_dir / "run.json").read_text())["ended"] == "completed"
    assert not processes_naming(tmp_path)


def test_a_budget_ends_it_with_what_was_learnt(tmp_path: Path) -> None:
    """Code 4, not one call more than the budget, and a report."""
    process = start("calibrate", "--max-requests", "50", folder=tmp_path)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 4, err
    (run_dir,) = (tmp_path / "reports").iterdir()
    assert json.loads((run_dir / "result.json").read_text())["spent"]["requests"] <= 50
    assert out.splitlines()[-1] == f"report: {run_dir / 'report.html'}"


PLACES = """\
description = "Places in flight, and no limit on the rate"
date = "2026-11-30"
source = "a test"

[[limits]]
metric = "concurrency"
family = "concurrency"
limit = 5

[latency]
first_token_s = 0.3
sigma = 0.1
per_token_s = 0.0
"""


def test_what_is_never_refused_leaves_enough_of_a_budget_to_be_verified(tmp_path: Path) -> None:
    """It was pushed until the last call, and ended with code 4 and nothing verified."""
    profile = tmp_path / "places.toml"
    profile.write_text(PLACES)
    options = ("--target", "sim", "--profile", str(profile), "--max-requests", "4000", "--json")
    process = start("calibrate", *options, folder=tmp_path)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    result = json.loads(out)
    limits = {limit["metric"]: limit for limit in result["limits"]}
    assert limits["requests"]["state"] == "at_least"
    assert limits["concurrency"]["limit"] == 5
    assert result["verification"]["passed"]
    assert result["spent"]["requests"] <= 4000


def test_the_simulator_leaves_the_same_run_directory(tmp_path: Path) -> None:
    """Virtual time, real report: the same files, the same words, no child at all."""
    process = start("calibrate", "--target", "sim", folder=tmp_path)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    (run_dir,) = (tmp_path / "reports").iterdir()
    assert out.splitlines()[-1] == f"report: {run_dir / 'report.html'}"
    rates = [
        limit for limit in json.loads((run_dir / "result.json").read_text())["limits"] if limit["metric"] == "requests"
    ]
    assert [limit["rate_per_min"] for limit in rates] == [pytest.approx(300, rel=0.01)]
    assert f"{rates[0]['rate_per_min']:.0f} a minute" in out
    assert json.loads((run_dir / "run.json").read_text())["ended"] == "completed"
