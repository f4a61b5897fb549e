"""SIGINT and SIGTERM as an exception that names them, so that a run can keep what it has.

Inside the block each signal raises in the main thread; outside it they keep what they did before.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from redline.errors import InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise `InterruptedRunError` at SIGINT or SIGTERM inside the block; main thread only."""
    before = {number: signal.signal(number, _raise) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise InterruptedRunError(number)
