"""Plain ``locust -f locustfiles/calibrate.py``: the Locust process sends, and starts the process that thinks.

The other way round from `redline calibrate`, with the same two processes and the same channel between them. The thinker
is `redline calibrate` itself, told by an environment variable that its sender is there already. Runs under gevent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from redline.channel import SENDER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

GIVE_UP_S = 60.0  # a thinker that was told to stop still writes the report


class Thinker:
    """A `redline calibrate` process at the other end of a channel. ``descriptor`` is this process's end."""

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "redline", "calibrate", "--target", url, "--yes"]
        for name, value in options.items():
            if value is not None:
                command += [name, str(value)]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                env=os.environ | {SENDER_VARIABLE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a Ctrl-C reaches it through this process alone
            )
        self.descriptor = ours.detach()

    def wait(self) -> int:
        """Wait for its end; returns its exit code, which is redline's."""
        return self._process.wait()

    def stop(self, number: int = signal.SIGINT, *, grace_s: float = 0.0) -> int:
        """Interrupt it, let it report what it has, and return its exit code. Within the grace it may end by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(GIVE_UP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
