"""The options that `calibrate` and `run` share, each declared once, and how their values are read.

A value that cannot be read ends in one line that names the option and what it takes. This file knows what an
option is called and takes; what it does belongs to the command.
"""

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def duration_s(text: str | float) -> float:
    """Read ``90``, ``90s``, ``10m`` or ``1h30m`` as seconds; raises `typer.BadParameter`."""
    compact = str(text).replace(" ", "")
    if _DURATION.fullmatch(compact):
        return sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(compact))
    try:
        seconds = float(compact)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise typer.BadParameter(f"{text!r} is no duration; it takes seconds or 90s, 10m, 1h30m")
    return seconds


def share(text: str | float) -> float:
    """Read ``0.1%`` or ``0.001`` as a share from 0 to 1, 1 excluded; raises `typer.BadParameter`."""
    compact = str(text).replace(" ", "")
    try:
        value = float(compact[:-1]) / 100 if compact.endswith("%") else float(compact)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{text!r} is no share; it takes a percentage as 0.1% or a number below 1 as 0.001")
    return value


def positive(text: str | float) -> float:
    """Read a finite number above 0; raises `typer.BadParameter`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text!r} is not a number above 0")
    return value


Transport = Literal["fast", "sdk"]

Target = Annotated[
    str, typer.Option("--target", help="mock, sim, gemini, vertex, or the URL of a server that speaks Gemini's format.")
]
Model = Annotated[str, typer.Option("--model", help="The model to call.")]
TransportOption = Annotated[
    Transport, typer.Option("--transport", help="sdk: google-genai, what production feels; fast: raw HTTP.")
]
Profile = Annotated[
    str, typer.Option("--profile", metavar="NAME|FILE", help="What the mock or the simulator enforces.")
]
MaxRequests = Annotated[int | None, typer.Option("--max-requests", min=1, help="Send no more calls than this.")]
MaxInputTokens = Annotated[int | None, typer.Option("--max-input-tokens", min=1, help="Spend no more input tokens.")]
MaxOutputTokens = Annotated[int | None, typer.Option("--max-output-tokens", min=1, help="Spend no more output tokens.")]
ProbeTokens = Annotated[
    int | None,
    typer.Option(
        "--probe-tokens",
        min=0,
        metavar="N",
        help="Input tokens that the search for a limit on them may send: a quarter to look for one, all to measure one "
        "that is met; 0: no search. Default: 1000000 on other machines.",
    ),
]
MaxUsd = Annotated[
    float | None, typer.Option("--max-usd", parser=positive, metavar="X", help="Spend no more, by the price table.")
]
MaxDuration = Annotated[
    float | None, typer.Option("--max-duration", parser=duration_s, metavar="10m", help="Send for no longer than this.")
]
MaxThrottledCalls = Annotated[
    int | None, typer.Option("--max-throttled-calls", min=1, help="Stop after this many refused calls.")
]
MaxThrottled = Annotated[
    float,
    typer.Option("--max-throttled", parser=share, metavar="SHARE", help="The share of refusals to accept later."),
]
MaxRpm = Annotated[
    float | None, typer.Option("--max-rpm", parser=positive, metavar="R", help="Never send faster, in calls a minute.")
]
NeedRpm = Annotated[
    float | None,
    typer.Option("--need-rpm", parser=positive, metavar="R", help="Only ask whether R calls a minute pass."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="For everything that is drawn at random.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the run directory is made.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be sent and what it may cost; send nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before sending to a host that is not this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print result.json and nothing else on stdout.")]
AllowHost = Annotated[
    list[str] | None, typer.Option("--allow-host", metavar="HOST", help="A host that may be loaded without asking.")
]
