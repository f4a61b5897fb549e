"""Compiled functions: a signal that arrives while numba is at work is neither lost nor told as an error of it."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest
from numba.core import event

from analysis.kernels.compiling import compiled, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Interrupted(Exception):  # noqa: N818 - as the signals' handlers of a run raise it
    """Numba takes any `Exception` for an error of the function that it compiles."""


class Signals(event.Listener):
    """Sends this process a signal at each pass of the compiler."""

    def __init__(self, number: int) -> None:
        self.number, self.sent = number, 0

    def on_start(self, event: event.Event) -> None:
        """Send it as a pass begins."""
        del event
        signal.raise_signal(self.number)
        self.sent += 1

    def on_end(self, event: event.Event) -> None:
        """Let a pass end."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def raising(request: pytest.FixtureRequest) -> Iterator[int]:
    """Either signal raises `Interrupted`, as in a calibration."""
    number: int = request.param
    before = signal.signal(number, _raise)
    yield number
    signal.signal(number, before)


def _raise(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def test_a_signal_waits_until_the_function_is_compiled(raising: int) -> None:
    """It is raised once, from the call, and the function is there for the next."""

    def inner(x: float) -> float:
        return x + 1.0

    inner = compiled(inner)

    @compiled
    def outer(x: float) -> float:
        return 2.0 * inner(x)

    with event.install_listener("numba:run_pass", Signals(raising)) as _, pytest.raises(Interrupted) as caught:
        outer(1.0)
    assert caught.value.args == (raising,)
    assert outer(1.0) == 4.0
    assert signal.getsignal(raising) is _raise


def test_a_signal_is_delivered_where_the_block_fails(raising: int) -> None:
    """What the user asked for comes first; the error is its context."""

    @undisturbed()
    def fail() -> None:
        signal.raise_signal(raising)
        raise ValueError

    with pytest.raises(Interrupted) as caught:
        fail()
    assert isinstance(caught.value.__context__, ValueError)


def test_blocks_within_one_another_deliver_at_the_outermost_end(raising: int) -> None:
    """The inner ends undisturbed."""
    reached = []

    @undisturbed()
    def outer() -> None:
        inner()
        reached.append("the end")

    @undisturbed()
    def inner() -> None:
        signal.raise_signal(raising)

    with pytest.raises(Interrupted):
        outer()
    assert reached == ["the end"]


def test_other_threads_leave_the_handlers_alone() -> None:
    """Only the main thread may set them."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with undisturbed():
                pass
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
