"""`redline export` reads a run and prints; what it cannot do is one line that names the option or the file."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING

import msgspec
import pytest

from analysis.load import to_table, write_parquet
from analysis.result import Result, Settings, from_json, to_json
from analysis.schema import COLUMNS, RUN_SCHEMA
from analysis.verdict import conclude
from analysis.virtual import Network, VirtualLimit, World
from mock_server.limits import SlidingLog
from redline.commands.export import export
from redline.errors import UsageError
from redline.simulated import SimulatedTraffic
from redline.traffic import Attempt, Probe

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = {"schema": RUN_SCHEMA, "run": "r", "target": "sim", "model": "gemini-3.8-flash", "scenario": "probe"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory of a run that met a sliding log of 40 calls in 5 s, several times."""
    path = tmp_path_factory.mktemp("run")
    traffic = SimulatedTraffic(World((VirtualLimit("requests", SlidingLog(40, 5.0)),), Network(0.01, 0.01)), seed=3)
    for _ in range(4):
        traffic.run(Probe("fill", [0.011 * k for k in range(60)]))
        traffic.run(Probe("watch", [0.05 * k for k in range(160)], stop_admitted=1))
    names = [field.name for field in fields(Attempt) if field.name in COLUMNS]
    table = to_table({name: getattr(attempt, name) for name in names} for attempt in traffic.attempts)
    (path / "requests").mkdir()
    write_parquet(table, path / "requests.parquet")
    (path / "run.json").write_text(json.dumps(ABOUT))
    (path / "result.json").write_bytes(to_json(conclude(ABOUT, table)))
    return path


def settings_of(run: Path) -> Settings:
    """Return what the run recommends."""
    settings = from_json((run / "result.json").read_bytes()).settings
    assert settings is not None
    return settings


def test_the_settings_are_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As environment variables, for the run's model."""
    assert export(run, "env") == 0
    told = capsys.readouterr().out
    assert "gemini-3.8-flash" in told
    assert f"GEMINI_REQUESTS_PER_MINUTE={settings_of(run).requests_per_minute}" in told


def test_a_fleet_gets_its_part(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The record is read again, since a part is not the whole divided: bursts add up."""
    assert export(run, "env", 4) == 0
    told = dict(line.split("=") for line in capsys.readouterr().out.splitlines() if "=" in line)
    whole = settings_of(run).requests_per_minute or 0.0
    assert 0.8 * whole < 4 * float(told["GEMINI_REQUESTS_PER_MINUTE"]) < whole


def test_unusable_input_is_one_line(run: Path, tmp_path: Path) -> None:
    """Format, run, result, settings and number of instances: each is named with what it takes."""
    with pytest.raises(UsageError, match=r"--format takes aiolimiter, env, .* not 'toml'"):
        export(run, "toml")
    with pytest.raises(UsageError, match=r"has no result.json; `redline analyze .*` makes it"):
        export(tmp_path, "env")
    with pytest.raises(UsageError, match="instances are too many"):
        export(run, "env", 1000)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(UsageError, match=r"result.json: Object missing required field"):
        export(tmp_path, "env")
    result: Result = from_json((run / "result.json").read_bytes())
    (tmp_path / "result.json").write_bytes(to_json(msgspec.structs.replace(result, settings=None)))
    with pytest.raises(UsageError, match="holds no settings"):
        export(tmp_path, "env")
