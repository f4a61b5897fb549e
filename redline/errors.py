"""How a command can end, and the exceptions that make it end so. Each message is one line for the person who typed.

Owns the exit codes and nothing else: who prints the line is `redline.cli`, who raises it is everybody else.
"""

from __future__ import annotations

import enum
import signal

from redline.traffic import TargetError

__all__ = ["ExitCode", "InterruptedRunError", "RedlineError", "TargetError", "UsageError", "worst"]


class ExitCode(enum.IntEnum):
    """What the process tells its caller. The same for each command and for a scenario under plain Locust."""

    CONCLUDED = 0
    FAILED = 1  # a threshold or the verification failed
    USAGE = 2  # wrong option, key or file
    TARGET = 3  # unreachable, untrusted, refused the key, or has no such model
    BUDGET = 4  # ended before a conclusion
    UNRESOLVED = 5
    SIGINT = 130
    SIGTERM = 143


# Where several hold, the first of these is told.
PRECEDENCE = (
    ExitCode.USAGE,
    ExitCode.TARGET,
    ExitCode.SIGINT,
    ExitCode.SIGTERM,
    ExitCode.BUDGET,
    ExitCode.UNRESOLVED,
    ExitCode.FAILED,
    ExitCode.CONCLUDED,
)


def worst(*codes: ExitCode) -> ExitCode:
    """Return the code that is told where several hold; `ExitCode.CONCLUDED` where none does."""
    return min(codes, key=PRECEDENCE.index, default=ExitCode.CONCLUDED)


class RedlineError(Exception):
    """Ends a command with `exit_code` and this one line, without a traceback."""

    exit_code = ExitCode.FAILED


class UsageError(RedlineError):
    """An option, environment variable, key or file is wrong: the line names it and says what it takes."""

    exit_code = ExitCode.USAGE


class InterruptedRunError(RedlineError):
    """SIGINT or SIGTERM arrived. What was recorded until then is kept."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signal_number).name}")
        self.exit_code = ExitCode(128 + signal_number)
