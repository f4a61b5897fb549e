"""`redline analyze`: the verdict of a run, or of a log that redline did not write. Sends nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from redline.errors import ExitCode, UsageError, worst

if TYPE_CHECKING:
    import pandas as pd

    from analysis.result import Result

_BY_ENDING = {"budget": ExitCode.BUDGET}


def analyze(
    *,
    path: Annotated[
        Path, typer.Argument(metavar="RUN|LOG", help="A run directory, or a .csv, .jsonl or .parquet log.")
    ],
    map_: Annotated[
        str, typer.Option("--map", metavar="COLUMN=THEIRS,...", help="A log's names, as status=code,sent_s=ts.")
    ] = "",
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep a log as a run directory, for `redline report`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json and nothing else.")] = False,
) -> int:
    """Say which limits a record shows, how surely, what to set and whether it held."""
    from analysis.load import LogError  # noqa: PLC0415 - pandas, not for --help
    from analysis.result import to_json  # noqa: PLC0415 - likewise
    from analysis.verdict import conclude  # noqa: PLC0415 - likewise
    from redline import outcome  # noqa: PLC0415 - likewise

    try:
        run, table = _read(path, map_)
        result = conclude(run, table)
    except LogError as error:
        raise UsageError(str(error)) from None
    if save is not None:
        _save(save, run, table)
    if as_json:
        sys.stdout.write(to_json(result).decode())
    else:
        sys.stdout.writelines(f"{line}\n" for line in outcome.lines(result))
    return _exit_code(run, result)


def _read(path: Path, map_: str) -> tuple[dict[str, Any], pd.DataFrame]:
    from analysis import foreign, load  # noqa: PLC0415 - pandas, not for --help

    if not path.is_dir():
        return foreign.load_log(path, foreign.parse_mapping(map_))
    if map_:
        raise UsageError(f"--map is for logs; {path} is a run directory, whose columns are known")
    return load.load_run(path)


def _save(directory: Path, run: dict[str, Any], table: pd.DataFrame) -> None:
    """Write what makes a run directory; one that is there already stays as it is."""
    from analysis.load import write_parquet  # noqa: PLC0415 - pandas, not for --help

    if (directory / "run.json").exists():
        raise UsageError(f"--save {directory} holds a run already; name a new directory")
    directory.mkdir(parents=True, exist_ok=True)
    write_parquet(table, directory / "requests.parquet")
    (directory / "run.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def _exit_code(run: dict[str, Any], result: Result) -> int:
    """Return the verdict's code. Only a calibration owes a proof of its settings: other records never hold one."""
    from redline import outcome  # noqa: PLC0415 - pandas, not for --help

    judged = result
    if run.get("scenario") != "calibrate" and result.verification is None:
        judged = msgspec.structs.replace(result, settings=None)
    return worst(outcome.exit_code(judged), _BY_ENDING.get(str(run.get("ended")), ExitCode.CONCLUDED))
