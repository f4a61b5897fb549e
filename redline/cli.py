"""The command: a table of names, each loaded only when it is called, and the one place where an error becomes a code.

A command is a typer-annotated function in ``redline/commands/``; it returns an exit code (None: 0) or raises. So
`redline --help` imports no command, and nobody but this file prints an error line or calls `sys.exit`.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from redline import __version__, config
from redline.errors import ExitCode, InterruptedRunError, RedlineError, TargetError
from redline.traffic import BudgetEndedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typer import TyperException
    from typer.core import TyperCommand


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives, and its line in the list."""

    module: str
    function: str
    help: str


COMMANDS = {
    "calibrate": Entry("redline.commands.calibrate", "calibrate", "Find the limits, choose settings and verify them."),
    "run": Entry("redline.commands.run", "run", "Drive a target with a scenario: ramp, step, burst, soak, …"),
    "analyze": Entry("redline.commands.analyze", "analyze", "Say what a run, or a log of yours, shows about limits."),
    "report": Entry("redline.commands.report", "report", "Make the report of a run again, also of a killed one."),
    "export": Entry("redline.commands.export", "export", "Print a run's settings in the words of your limiter."),
    "mock": Entry("redline.commands.mock", "mock", "Serve a Gemini look-alike that enforces a profile's limits."),
}

_USAGE = """\
Usage: redline COMMAND [OPTIONS]

Find the point where Gemini starts refusing, and how to stay just under it.

Commands:
{commands}

redline COMMAND --help tells the options. Each can also be set as REDLINE_MAX_RPM=600, or as max_rpm = 600 in
redline.toml; a flag wins over the environment, the environment over the file.
"""


def main() -> None:
    """Entry point of the ``redline`` script."""
    sys.unraisablehook = _unraisable
    code = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: one more would only disturb Python's shutting down
    sys.exit(code)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Say nothing of an interrupt that met an object's end, where nothing can be raised; tell of the rest."""
    if not isinstance(what.exc_value, (KeyboardInterrupt, InterruptedRunError)):
        sys.__unraisablehook__(what)


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit code. An error that the user can mend is one line on stderr."""
    try:
        return _dispatch(list(arguments))
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return _tell("interrupted by SIGINT", ExitCode.SIGINT)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        return _tell(str(error), code)


def exit_code(error: BaseException) -> ExitCode | None:
    """Return the code for an error that is the user's or the target's to mend; None for a defect of redline."""
    if isinstance(error, RedlineError):
        return error.exit_code
    if isinstance(error, TargetError):
        return ExitCode.TARGET
    if isinstance(error, BudgetEndedError):
        return ExitCode.BUDGET
    if isinstance(error, OSError) and error.filename is not None:
        return ExitCode.USAGE
    return None


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in {"--help", "-h", "help"}:
        width = max(map(len, COMMANDS)) + 2
        lines = (f"  {command:{width}}{entry.help}" for command, entry in COMMANDS.items())
        sys.stdout.write(_USAGE.format(commands="\n".join(lines)))
        return ExitCode.CONCLUDED
    if name == "--version":
        sys.stdout.write(f"redline {__version__}\n")
        return ExitCode.CONCLUDED
    if name not in COMMANDS:
        return _tell(f"no command {name!r}; it takes {', '.join(COMMANDS)}", ExitCode.USAGE)
    return _call(name, arguments[1:])


def _call(name: str, arguments: list[str]) -> int:
    """Load a command and hand it its words; a word that it does not take is one line and code 2."""
    import typer  # noqa: PLC0415 - `redline --help` does without

    command = _load(name)
    flags = {flag[2:]: option.name for option in command.params for flag in option.opts if flag.startswith("--")}
    file = config.read_file(Path(config.FILE), COMMANDS)
    if config.unclaimed(flags, environment=os.environ, file=file):
        everything = {flag for other in COMMANDS for flag in _shapes(_load(other))}
        config.refuse_slips(everything, environment=os.environ, file=file)
    found = config.defaults(name, _shapes(command), environment=os.environ, file=file)
    sources = {flags[flag]: default.source for flag, default in found.items()}
    try:
        outcome = command.main(
            arguments,
            prog_name=f"redline {name}",
            standalone_mode=False,
            default_map={flags[flag]: default.value for flag, default in found.items()},
        )
    except typer.TyperException as error:
        return _tell(_one_line(error, arguments, sources), ExitCode.USAGE)
    except typer.Abort:
        return _tell("nothing was sent", ExitCode.USAGE)
    return int(outcome or 0)


def _shapes(command: TyperCommand) -> dict[str, config.Shape]:
    """Return a command's long options, each with how many values it takes."""
    shapes: dict[str, config.Shape] = {}
    for option in command.params:
        several, flag_only = getattr(option, "multiple", False), getattr(option, "is_flag", False)
        shape: config.Shape = "several" if several else "flag" if flag_only else "one"
        shapes |= {flag[2:]: shape for flag in option.opts if flag.startswith("--")}
    return shapes


def _load(name: str) -> TyperCommand:
    """Return typer's command object for a name in the table."""
    import typer.main  # noqa: PLC0415 - `redline --help` does without

    entry = COMMANDS[name]
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name)(getattr(importlib.import_module(entry.module), entry.function))
    return cast("TyperCommand", typer.main.get_command(app))


def _one_line(error: TyperException, arguments: list[str], sources: dict[str, str]) -> str:
    """Return typer's message on one line, with the place of the value where no flag gave it."""
    text = " ".join(error.format_message().replace("Value error, ", "").split())
    option = getattr(error, "param", None)
    if option is None or option.name not in sources or any(word.split("=")[0] in option.opts for word in arguments):
        return text
    return f"{text} (from {sources[option.name]})"


def _tell(message: str, code: ExitCode) -> ExitCode:
    sys.stderr.write(f"redline: {' '.join(message.split())}\n")
    return code
