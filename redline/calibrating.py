"""The calibration scenario under Locust: the sending half. Imports Locust, so only the scenario imports it.

Started by `redline calibrate` it finds a channel to its parent and obeys. Started as plain ``locust`` it makes the
channel itself and starts `redline calibrate` at its other end. Either way the other process decides what is sent.
"""

from __future__ import annotations

from locust import events
from locust.runners import LocalRunner

import math
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import gevent

from redline.channel import CHANNEL_VARIABLE
from redline.child import Child
from redline.errors import ExitCode
from redline.locust_stats import observer
from redline.plan import seconds
from redline.scenario import OpenLoop, claim, target_of
from redline.scenario_options import BUDGET, SENDING, offer, values
from redline.thinker import Thinker

if TYPE_CHECKING:
    from locust.env import Environment

    from collections.abc import Sequence

    from redline.scenario_options import Option

TIME_TO_CONCLUDE_S = 20.0  # for a thinker whose time is over: it waits for the answers in flight, then infers


class Sending(OpenLoop):
    """Base of the scenario's user class: it makes no calls, it keeps the runner alive."""

    abstract = True


def register(options: Sequence[Option]) -> None:
    """Make the file that calls this the calibration: hang it on Locust's events."""
    claim("calibrate")
    calibration = _Calibration((*options, *SENDING, *BUDGET))
    hooks: Any = events  # Locust's hooks carry no types
    hooks.init_command_line_parser.add_listener(calibration.offer_options)
    hooks.init.add_listener(calibration.prepare)
    hooks.test_start.add_listener(calibration.start)
    hooks.test_stopping.add_listener(calibration.stop)
    hooks.quitting.add_listener(calibration.leave)


class _Calibration:
    """The sending half's life in a Locust process."""

    def __init__(self, options: Sequence[Option]) -> None:
        self._options = options
        self._child: Child | None = None
        self._thinker: Thinker | None = None
        self._terminated = False
        self._ends_s = math.inf  # when Locust's run time is over

    def offer_options(self, parser: Any, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Add the options to ``--help``, and to the web UI's start form."""
        offer(parser, self._options)

    def prepare(self, environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Refuse what cannot work before anything starts, in one line."""
        gevent.signal_handler(signal.SIGTERM, self._note_signal)
        try:
            values(environment.parsed_options, self._options)
            target_of(environment, needed=environment.web_ui is None)
            _require_one_process(environment)
        except ValueError as error:
            sys.stderr.write(f"calibrate: {error}\n")
            sys.exit(ExitCode.USAGE)

    def start(self, environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Take up the channel to the parent, or make one and start a thinker."""
        self._ends_s = time.monotonic() + (_run_time_s(environment) or math.inf)
        descriptor = os.environ.get(CHANNEL_VARIABLE)
        if descriptor is None:
            try:
                descriptor = self._think(environment)
            except ValueError as error:
                sys.stderr.write(f"calibrate: {error}\n")
                return
        self._child = Child(int(descriptor), environment.host or "", observer(environment.events.request.fire))
        gevent.spawn(self._serve, environment, self._child)

    def stop(self, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Interrupt the thinker: the user pressed Stop. at the end of Locust's run time it ends by itself."""
        if self._thinker:
            gevent.spawn(self._thinker.stop, grace_s=self._grace_s())

    def leave(self, environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Keep what there is when Locust ends, and let a thinker report it."""
        if self._thinker:
            number = signal.SIGTERM if self._terminated else signal.SIGINT
            environment.process_exit_code = self._thinker.stop(number, grace_s=self._grace_s())
        if self._child:
            self._child.close()

    def _think(self, environment: Environment) -> str:
        options = values(environment.parsed_options, self._options)
        url = target_of(environment, needed=True)
        wanted = {o.name: getattr(options, o.key) for o in self._options}
        bounds = [seconds(wanted["--max-duration"]) if wanted["--max-duration"] else None, _run_time_s(environment)]
        wanted["--max-duration"] = min((bound for bound in bounds if bound), default=None)
        self._thinker = Thinker(url, wanted)
        return str(self._thinker.descriptor)

    def _serve(self, environment: Environment, child: Child) -> None:
        runner: Any = environment.runner
        told_to_stop = child.serve()
        if self._thinker:
            environment.process_exit_code = self._thinker.wait()
            if environment.web_ui is not None:
                runner.stop()
                return
        elif not told_to_stop:
            os._exit(1)  # nobody is left to report to, and Locust's own way out takes a second or two
        else:
            environment.process_exit_code = ExitCode.CONCLUDED
        runner.quit()

    def _grace_s(self) -> float:
        """Return how long the thinker may still take where Locust's run time is what ends it."""
        return TIME_TO_CONCLUDE_S if time.monotonic() >= self._ends_s - 1.0 else 0.0

    def _note_signal(self) -> None:
        self._terminated = True


def _run_time_s(environment: Environment) -> float | None:
    """Return Locust's ``--run-time``, which it has read as seconds; None where there is none."""
    return getattr(environment.parsed_options, "run_time", None) or None


def _require_one_process(environment: Environment) -> None:
    """Raise ValueError on a master or a worker: one clock must see every send."""
    alone = isinstance(environment.runner, LocalRunner)
    if not alone:
        raise ValueError("a calibration sends from one process: leave --master, --worker and --processes out")
