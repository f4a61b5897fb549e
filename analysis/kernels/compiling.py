"""The inner loops of the inference, compiled by numba: what is asked of every decision of a record, for many shapes.

`analysis.replay`, `analysis.judging` and `analysis.likelihood` say what each of these is for; here are loops over plain
arrays of the form (shapes, offsets, decisions), (shapes, candidates), (offsets, decisions) or one dimension; times in
seconds on the record's clock. Compiled code is kept beside its source, or in the user's cache where that cannot be
written, so that only the first run on a machine waits for it; where neither can, each run does. It is made anew where
its own file has changed, not where only one that it imports has: after a change in `selection`, touch the others.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function for the types of its arguments, when it is first called with these.

    A division by zero is infinite or NaN in it, as in numpy.
    """
    try:
        made: Any = numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError:  # nowhere to keep it, as in a container that cannot be written to
        made = numba.njit(error_model="numpy")(function)
    made.compile = undisturbed()(made.compile)
    return cast("Function", made)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back inside the block, and deliver the first of them at its end.

    What their handlers raise while numba or LLVM is at work is lost in a callback from C, or told as an error of these.
    """
    noted: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other runs handlers, or may set them
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda number, _: noted.append(number))
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
        if noted:
            signal.raise_signal(noted[0])
