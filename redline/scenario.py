"""A scenario under Locust: its options, its start and end, its exit code. Imports Locust, so only scenarios import it.

A scenario file gives a name, options and a function from their values to phases; this file does the rest, the same way
under `redline run`, plain ``locust``, headless or with the web UI. Arrivals follow the plan's schedule; Locust's users
only keep its runner alive.
"""

from __future__ import annotations

from locust import User, events, task
from locust.argument_parser import get_parser
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

import os
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import gevent
import msgspec

from redline.budget import Spending
from redline.client import TRANSPORTS, check_target
from redline.errors import ExitCode
from redline.execution import BUDGET, COMPLETED, FAILED, INTERRUPTED, schedules
from redline.lifeline import follow_parent
from redline.locust_process import DRY_RUN_VARIABLE
from redline.locust_stats import observer
from redline.plan import describe
from redline.prices import price_of
from redline.scenario_options import BUDGET as BUDGET_OPTIONS
from redline.scenario_options import CALL, SENDING, budget_of, offer, values
from redline.session import END_MESSAGE, START_MESSAGE, Conductor, Order, Part, Wanted

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.rpc import Message

    from collections.abc import Callable, Sequence
    from types import SimpleNamespace

    from redline.plan import Phase
    from redline.scenario_options import Option

    Plan = Callable[[SimpleNamespace], Sequence[Phase]]

_CODES = {COMPLETED: ExitCode.CONCLUDED, BUDGET: ExitCode.BUDGET, FAILED: ExitCode.TARGET, INTERRUPTED: ExitCode.SIGINT}


_SHARED = (*SENDING, *CALL, *BUDGET_OPTIONS)

_claimed: list[str] = []  # by the scenario files that this process has loaded


def call_of(options: SimpleNamespace) -> dict[str, Any]:
    """Return what the shared options say of each call, as keywords of a `Phase`."""
    return {key: getattr(options, key) for key in ("arrivals", "prompt_tokens", "output_tokens")}


class OpenLoop(User):
    """Base of a scenario's user class: it makes no calls, it keeps the runner alive while the schedule is followed."""

    abstract = True
    fixed_count = 1

    @task
    def follow_schedule(self) -> None:
        """Do nothing: arrivals do not wait for a user."""
        gevent.sleep(3600)


def claim(name: str) -> None:
    """Take this process for one scenario; a second one in it ends the process with one line."""
    _claimed.append(name)
    if len(_claimed) > 1:
        sys.stderr.write(f"-f takes one scenario at a time, not {' and '.join(_claimed)}\n")
        sys.exit(ExitCode.USAGE)


def as_script(path: str) -> None:
    """Be ``locust -f`` on the scenario's own file: ``python locustfiles/ramp.py``, with the same options.

    Locust answers ``--help`` before it reads a scenario, so plain ``locust -f ramp.py --help`` cannot show a scenario's
    options (2.47). Here they are known by then.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        get_parser().parse_args(sys.argv[1:])
    os.execv(sys.executable, [sys.executable, "-m", "locust", "-f", path, *sys.argv[1:]])  # noqa: S606 - our own words


def register(name: str, options: Sequence[Option], plan: Plan) -> None:
    """Make the file that calls this a scenario: hang it on Locust's events."""
    claim(name)
    scenario = _Scenario(name, (*options, *_SHARED), plan)
    hooks: Any = events  # Locust's hooks carry no types
    hooks.init_command_line_parser.add_listener(scenario.offer_options)
    hooks.init.add_listener(scenario.prepare)
    hooks.test_start.add_listener(scenario.start)
    hooks.test_stopping.add_listener(scenario.stop)
    hooks.quitting.add_listener(scenario.leave)


class _Scenario:
    """One scenario's life in one Locust process, which conducts the run, takes part in it, or both."""

    def __init__(self, name: str, options: Sequence[Option], plan: Plan) -> None:
        self._name = name
        self._options = options
        self._plan = plan
        self._conductor: Conductor | None = None
        self._part: Part | None = None
        self._terminated = False

    def offer_options(self, parser: Any, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Add the options to ``--help``, and to the web UI's start form."""
        offer(parser, self._options)

    def prepare(self, environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Refuse wrong options before anything starts, in one line; listen to the other processes of the run."""
        runner: Any = environment.runner
        gevent.signal_handler(signal.SIGTERM, self._note_signal)
        follow_parent(self._abandon, forked=isinstance(runner, WorkerRunner))
        if not isinstance(runner, MasterRunner):
            runner.register_message(START_MESSAGE, self._ordered)
        if not isinstance(runner, WorkerRunner):
            runner.register_message(END_MESSAGE, self._reported)
            try:
                wanted = self._wanted(environment, host_needed=environment.web_ui is None)
            except (ValueError, OSError) as error:
                sys.stderr.write(f"{self._name}: {_line(error)}\n")
                sys.exit(ExitCode.USAGE)
            if os.environ.get(DRY_RUN_VARIABLE):
                sys.stdout.write(f"{describe(wanted.phases)}\n")
                sys.exit(ExitCode.CONCLUDED)

    def start(self, environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Begin a run; a worker only waits for its order."""
        runner: Any = environment.runner
        if isinstance(runner, WorkerRunner):
            return
        workers = [client.id for client in runner.clients.all] if isinstance(runner, MasterRunner) else ["local"]
        try:
            wanted = self._wanted(environment, host_needed=True)
            conductor = Conductor(wanted, workers, lambda name, data: runner.send_message(START_MESSAGE, data, name))
        except (ValueError, OSError) as error:
            sys.stderr.write(f"{self._name}: {_line(error)}\n")
            self._give_up(environment, ExitCode.USAGE)
            return
        except Exception:
            self._give_up(environment, ExitCode.FAILED)  # Locust logs a listener's defect and would wait for ever
            raise
        self._conductor = conductor
        conductor.start()
        gevent.spawn(self._follow, environment, conductor)

    def stop(self, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Send no more: the user pressed Stop, or Locust's run time is over."""
        if self._part:
            self._part.stop()

    def leave(self, environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Keep what there is when Locust ends; a run that was under way was interrupted."""
        if self._conductor and not self._conductor.over:
            ended = self._abandon()
            if ended == INTERRUPTED:
                environment.process_exit_code = ExitCode.SIGTERM if self._terminated else ExitCode.SIGINT
        elif self._part:
            self._part.abandon()

    def _give_up(self, environment: Environment, code: ExitCode) -> None:
        environment.process_exit_code = code
        gevent.spawn(_end, environment)

    # ------------------------------------------------------------------------------------------ the run

    def _ordered(self, environment: Environment, msg: Message, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        """Take part: the conductor's order has come."""
        self._part = Part(msgspec.convert(msg.data, Order), observer(environment.events.request.fire))
        gevent.spawn(self._send, environment.runner, self._part)

    def _send(self, runner: Any, part: Part) -> None:  # noqa: ANN401 - any of Locust's runners
        runner.send_message(END_MESSAGE, part.run())

    def _reported(self, msg: Message, **_: Any) -> None:  # noqa: ANN401 - Locust's signature
        if self._conductor:
            self._conductor.heard(msg.data)

    def _follow(self, environment: Environment, conductor: Conductor) -> None:
        """Wait for the end of the run, tell how it was, and end Locust where nobody watches it."""
        ending = conductor.follow(lambda: _alive(environment))
        if ending.why:
            sys.stderr.write(f"{self._name}: {ending.why}\n")
        environment.process_exit_code = _CODES[ending.ended]
        sys.stdout.write(f"run: {conductor.run_dir}\n")
        _end(environment)

    def _abandon(self) -> str:
        """Close the ledger and write how it ended, now."""
        report = self._part.abandon() if self._part else None
        if self._conductor:
            if report:
                self._conductor.heard(report)
            self._conductor.finish(report["ended"] if report else INTERRUPTED)
        return report["ended"] if report else INTERRUPTED

    def _note_signal(self) -> None:
        self._terminated = True

    # ---------------------------------------------------------------------------------------- the options

    def _wanted(self, environment: Environment, *, host_needed: bool) -> Wanted:
        """Read all options. Raises ValueError in one line that names the option, OSError for a file."""
        options = values(environment.parsed_options, self._options)
        if options.transport not in TRANSPORTS:
            raise ValueError(f"--transport takes {' or '.join(TRANSPORTS)}, not {options.transport!r}")
        url = target_of(environment, needed=host_needed)
        budget = budget_of(options)
        phases = tuple(self._plan(options))
        schedules(phases, options.seed)  # a trace that cannot be read shows now
        Spending(budget, price_of(options.model, datetime.now(UTC).date()))  # and so does a bound that cannot be kept
        sending = (options.model, options.transport, options.seed, options.out)
        return Wanted(self._name, url, *sending, budget, phases, vars(options))


def target_of(environment: Environment, *, needed: bool) -> str:
    """Return the URL of ``--host``, or of the web form. Raises ValueError."""
    if environment.host:
        return check_target(environment.host, "--host takes a URL")
    if needed:
        raise ValueError("--host takes the target's URL, such as http://127.0.0.1:8080")
    return ""


def _alive(environment: Environment) -> int:
    """Count the workers that have not gone missing."""
    runner: Any = environment.runner
    return (
        len(runner.clients.running + runner.clients.spawning + runner.clients.ready)
        if isinstance(runner, MasterRunner)
        else 1
    )


def _end(environment: Environment) -> None:
    """End the process where nobody watches; leave a web UI up, with its tables."""
    runner: Any = environment.runner
    if environment.web_ui is None:
        runner.quit()
    elif isinstance(runner, LocalRunner | MasterRunner):
        runner.stop()


def _line(error: ValueError | OSError) -> str:
    """Say what is wrong in one line; a file that cannot be read is named first."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
