"""`redline report`: make the report of a run again, from its record alone. Sends nothing."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import Annotated

import typer

from redline.errors import UsageError


def report(
    *, run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, also of a run that was killed.")]
) -> None:
    """Write report.html, result.json, settings.toml and figures/ into a run directory; print where the report is.

    Ends with 0 once they are written, whatever the verdict: `redline analyze` ends with the verdict's code.
    """
    from analysis import report as reports  # noqa: PLC0415 - pandas and matplotlib, not for --help
    from analysis.load import LogError  # noqa: PLC0415 - likewise

    try:
        page = reports.write(run)
    except LogError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"{run} cannot be written: {error.strerror}") from None
    sys.stdout.write(f"report: {page}\n")
