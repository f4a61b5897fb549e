"""``redline export``: a run's settings in the words of the limiter that production uses."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from redline.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from analysis.result import Settings


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    form: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help="aiolimiter, env, envoy, litellm, nginx, pyrate or tenacity."),
    ] = "env",
    instances: Annotated[
        int, typer.Option("--instances", min=1, metavar="N", help="Clients that share the limit, each paced by itself.")
    ] = 1,
) -> int:
    """Print the settings that a run recommends, as configuration or code of a limiter."""
    from analysis import export as formats  # noqa: PLC0415 - `--help` does without
    from analysis.result import from_json  # noqa: PLC0415 - likewise

    if form not in formats.FORMATS:
        raise UsageError(f"--format takes {', '.join(formats.FORMATS)}, not {form!r}")
    path = run / "result.json"
    if not run.exists():
        raise UsageError(f"{run} does not exist; it takes a run directory")
    if not path.is_file():
        raise UsageError(f"{run} has no result.json; `redline analyze {run}` makes it")
    try:
        result = from_json(path.read_bytes())
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: {error}") from None
    settings = result.settings
    if settings is None:
        raise UsageError(f"{path} holds no settings: nothing was concluded")
    try:
        if instances > 1:
            settings = _split(run, settings, instances)
        text = formats.export(form, settings, model=result.model, instances=instances)
    except ValueError as error:
        raise UsageError(str(error)) from None
    sys.stdout.write(text)
    return ExitCode.CONCLUDED


def _split(run: Path, settings: Settings, instances: int) -> Settings:
    """Divide the settings by what the run's record says about the limits."""
    from analysis.load import load_run  # noqa: PLC0415 - pandas only where it is needed
    from analysis.recommend_fleet import split  # noqa: PLC0415 - likewise
    from analysis.verdict import examine  # noqa: PLC0415 - likewise

    return split(settings, examine(*load_run(run)).inference, instances)
