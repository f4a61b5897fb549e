"""The closed list of things to tell the user beside the result, each with what to do about it.

Nothing here is an error: a run goes on. Whoever notices one of these calls `tell`; nobody writes a warning of
their own, so that all of them can be found, and answered for, in this file.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO


class Warn(enum.Enum):
    """(what is so, what to do); the text may name values in braces."""

    SHARED_QUOTA = (
        "calibrating {target} uses up quota that everybody who calls it with this project shares",
        "--max-rpm, --max-requests and --max-duration bound it; --dry-run shows the bounds",
    )
    NO_PRICE = (
        "what {model} costs is not known here, so the money that this run spends is not told",
        "--max-requests and --max-output-tokens bound it all the same",
    )
    INTERRUPTED = (
        "interrupted; the verdict rests on what was recorded until then",
        "redline report {run_dir} makes the report again",
    )
    INTERRUPTED_EARLY = (
        "interrupted before a call was sent; nothing was recorded",
        "the same command starts again",
    )
    BUDGET_ENDED = (
        "a budget ended the run before a conclusion; the verdict says what was learnt until then",
        "a larger --max-requests or --max-duration takes it further; a quota of the day has to come back first",
    )


def tell(stream: TextIO, warning: Warn, **values: object) -> None:
    """Write a warning and its hint on one line."""
    what, hint = warning.value
    stream.write(f"redline: {what.format(**values)} ({hint.format(**values)})\n")
    stream.flush()
