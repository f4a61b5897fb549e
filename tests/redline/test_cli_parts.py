"""The pieces that the command is made of: values of options, progress, the verdict's lines and its exit code."""

from __future__ import annotations

import io
import math
import os
import signal
from typing import TYPE_CHECKING

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analysis.load import load_run
from analysis.result import Breaker, Finding, Gate, Limit, Result, Retry, Settings, Spent, Verification
from mock_server import profile as profiles
from mock_server.replicas import scaled
from redline import live, options, outcome, targets
from redline.budget import Budget
from redline.errors import ExitCode, InterruptedRunError, UsageError, worst
from redline.record import RunFile
from redline.signals import interruptible
from redline.simulation import Simulation, world_of
from redline.traffic import Attempt, Pacing, Probe, ProbeReport, Progress
from redline.warnings import Warn, tell

if TYPE_CHECKING:
    from pathlib import Path

    from redline.clock import VirtualClock

# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5m", 90), ("250ms", 0.25), ("2 m", 120), (45.0, 45)],
)
def test_durations(text: str | float, seconds: float) -> None:
    """Seconds, with or without a unit, and several units in a row."""
    assert options.duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "value"), [("0.1%", 0.001), ("0.001", 0.001), ("0", 0), ("5 %", 0.05), (0.25, 0.25)])
def test_shares(text: str | float, value: float) -> None:
    """A percentage or a number below 1."""
    assert options.share(text) == pytest.approx(value)


@given(st.text(max_size=12))
def test_no_text_breaks_an_option(text: str) -> None:
    """Whatever is typed is a finite number in range, or a refusal that names it."""
    for read, most in ((options.duration_s, math.inf), (options.share, 1.0), (options.positive, math.inf)):
        try:
            value = read(text)
        except typer.BadParameter:
            continue
        assert 0 <= value < most


# ------------------------------------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("mock", True),
        ("sim", True),
        ("http://127.0.0.1:80", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:80", True),
        ("http://localhost:1", True),
        ("http://192.0.2.1", False),
        ("https://localhost.example.org", False),
        ("http://0.0.0.0:80", False),
    ],
)
def test_only_this_machine_is_loaded_without_asking(text: str, local: bool) -> None:  # noqa: FBT001 - a table's column
    """Loopback, the mock and the simulator are ours; any other host needs the user's word."""
    target = targets.parse(text, {})
    assert target.is_local is local
    if local:
        targets.require_consent(target, (), yes=False)
    else:
        with pytest.raises(UsageError, match="--allow-host"):
            targets.require_consent(target, (), yes=False)
        targets.require_consent(target, (), yes=True)
        targets.require_consent(target, (target.host,), yes=False)


def test_gemini_needs_a_key_and_has_its_address() -> None:
    """The key is looked for before anything is sent, and is in no value that is written down."""
    target = targets.parse("gemini", {"GEMINI_API_KEY": "secret"})
    assert target.url.startswith("https://")
    assert "secret" not in repr(target)


# ------------------------------------------------------------------------------------------------ progress


class Script:
    """A traffic in virtual time that sends three calls and is paced once."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.attempts = [Attempt(n, "fill", 0.0, 0.0, status=status) for n, status in enumerate((200, 429, None))]
        self.seen_while_pacing: Progress | None = None
        self.board = live.Board()

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return self.clock.now_s()

    def run(self, probe: Probe) -> ProbeReport:
        """Not asked for here."""
        raise NotImplementedError

    def pace(self, pacing: Pacing) -> ProbeReport:
        """Note what a reader sees a quarter of the way through."""
        self.clock.sleep(pacing.duration_s / 4)
        self.seen_while_pacing = self.board.now()
        return ProbeReport(0.0, self.now_s(), "done", 0, 0)

    def sleep_until(self, moment_s: float) -> None:
        """Let the time pass."""
        self.clock.sleep(moment_s - self.now_s())


def test_the_board_moves_between_reports(clock: VirtualClock) -> None:
    """Counts and clock come from the traffic; the time left is known while a limiter paces, and then no more."""
    traffic = Script(clock)
    watched = traffic.board.watch(traffic)
    traffic.board.report(Progress("verification 1", "60 a minute"))
    watched.sleep_until(10.0)
    assert traffic.board.now() == Progress("verification 1", "60 a minute", 3, 1, 1, 10.0)
    watched.pace(Pacing(rate_per_s=1.0, burst=1.0, max_concurrency=None, duration_s=20.0, offered_per_s=1.0))
    assert traffic.seen_while_pacing == Progress("verification 1", "60 a minute", 3, 1, 1, 15.0, 15.0)
    assert traffic.board.now().eta_s is None


def test_lines_come_with_a_phase_or_when_wanted_again() -> None:
    """A new phase has its line at once; the same phase only where one is due."""
    stream = io.StringIO()
    lines = live.Lines(stream)
    lines.show(Progress(live.STARTING))  # so that a refused option stays one line
    lines.show(Progress("fill", sent=1))
    lines.show(Progress("fill", sent=2))
    lines.show(Progress("watch", sent=3))
    lines.show(Progress("watch", "60 a minute", 4, 3, 1, 65.0, 30.0), again=True)
    assert stream.getvalue().splitlines() == [
        "0:00 · fill · 1 sent, 0 admitted, 0 throttled",
        "0:00 · watch · 3 sent, 0 admitted, 0 throttled",
        "1:05 · watch · 4 sent, 3 admitted, 1 throttled · 60 a minute · about 0:30 left",
    ]


def test_the_view_on_a_terminal(clock: VirtualClock) -> None:
    """Phase, estimate, counts, time and time left are there; markup in a text stays a text."""
    traffic = Script(clock)
    traffic.board.watch(traffic)
    clock.sleep(10.0)
    traffic.board.report(Progress("fill", "about [60] a minute", eta_s=20.0, notes=("a note",)))
    clock.sleep(5.0)
    console = Console(file=io.StringIO(), width=100)
    console.print(live.Panel("calibrating [mock]", traffic.board))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO from above
    for part in ("calibrating [mock]", "fill", "about [60] a minute", "3 sent", "0:15", "about 0:15 left", "a note"):
        assert part in text


def test_no_terminal_no_redrawing() -> None:
    """Into a file go whole lines, without control characters."""
    stream = io.StringIO()
    with live.view(stream, "x") as board:
        board.report(Progress("fill"))
    assert stream.getvalue() == "0:00 · fill · 0 sent, 0 admitted, 0 throttled\n"


def test_each_warning_says_what_to_do() -> None:
    """One line each, the hint in it, every name filled in."""
    values = {"target": "T", "model": "M", "run_dir": "R"}
    for warning in Warn:
        stream = io.StringIO()
        tell(stream, warning, **values)
        assert stream.getvalue().count("\n") == 1
        assert "(" in stream.getvalue()
        assert "{" not in stream.getvalue()


# ------------------------------------------------------------------------------------------------ signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_become_exceptions_and_are_given_back(number: signal.Signals, code: int) -> None:
    """Inside the block a signal raises; afterwards the old handlers are there again."""
    before = signal.getsignal(number)
    with pytest.raises(InterruptedRunError, match=number.name) as caught, interruptible():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


# ------------------------------------------------------------------------------------------------ the verdict

MEASURED = Limit(
    metric="requests",
    state="measured",
    family="fixed_window",
    family_probability=0.98,
    limit=60.0,
    limit_ci95=(60, 60),
    window_s=10.0,
    rate_per_min=360.0,
    rate_per_min_ci95=(359.5, 360.4),
)
FLIGHT = Limit(metric="concurrency", state="measured", limit=8.0, limit_ci95=(8, 8))
AT_LEAST = Limit(metric="input_tokens", state="at_least", rate_per_min=800000.0)
UNRESOLVED = Limit(metric="requests", state="unresolved", reason="two families fit")
TOKENS_OPEN = Limit(metric="input_tokens", state="unresolved", reason="it gave nothing back while it was watched")
NOT_TESTED = Limit(metric="input_tokens", state="not_tested")
SETTINGS = Settings(
    requests_per_minute=57.9,
    burst=3.0,
    max_concurrency=8,
    input_tokens_per_minute=None,
    requests_per_day=None,
    max_throttled=0.001,
    timeout_s=30.0,
    retry=Retry(attempts=6, initial_delay_s=8.0, max_delay_s=60.0),
    circuit_breaker=Breaker(error_rate=0.5, window_s=60, min_calls=20, open_s=60, false_trips_per_hour=0.001),
    warmup=None,
)


def result(*limits: Limit, passed: bool | None = True, settings: Settings | None = SETTINGS) -> Result:
    """Make a result with these limits; ``passed`` None: not verified."""
    verification = Verification(
        offered=193,
        throttled=0,
        throttled_rate=0.0,
        throttled_rate_upper95=0.0154,
        window_edges=3,
        goodput_per_min=57.8,
        share_of_limit=0.963,
        share_of_optimum=0.998,
        attempts=1,
        passed=bool(passed),
    )
    return Result(
        run="r",
        target="mock",
        model="m",
        limits=limits,
        findings=(Finding(kind="retry_delay", value=0.9, text="honest in 9 of 10"),),
        settings=settings,
        verification=None if passed is None else verification,
        validity=(Gate(gate="dropped_calls", value=0.2, bound=0.01, passed=False),),
        spent=Spent(requests=461, admitted=394, throttled=67, input_tokens=1, output_tokens=2, usd=0.5, wall_s=405.2),
    )


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (result(MEASURED, FLIGHT, AT_LEAST, NOT_TESTED), 0),
        (result(AT_LEAST, passed=None, settings=None), 0),
        (result(MEASURED, passed=False), 1),
        (result(MEASURED, passed=None), 1),
        (result(UNRESOLVED, passed=False), 5),
        (result(MEASURED, TOKENS_OPEN), 0),
        (result(UNRESOLVED, TOKENS_OPEN), 5),
    ],
)
def test_exit_codes(found: Result, code: int) -> None:
    """Concluded, failed, unresolved: where several hold, the graver is told."""
    assert outcome.exit_code(found) == code


def test_precedence() -> None:
    """2, 3, 130/143, 4, 5, 1, and 0 only where nothing else holds."""
    order = [2, 3, 130, 143, 4, 5, 1, 0]
    for place, code in enumerate(order):
        assert worst(*map(ExitCode, reversed(order[place:]))) == code
    assert worst() == ExitCode.CONCLUDED


def test_the_verdict_in_lines() -> None:
    """What a reader needs, and no None anywhere."""
    text = "\n".join(outcome.lines(result(MEASURED, FLIGHT, AT_LEAST, UNRESOLVED)))
    for part in ("360", "8 calls", "57.9", "Yes", "honest in 9 of 10", "461 calls, 67 of them refused", "US$ 0.5000"):
        assert part in text
    assert "None" not in text


def test_the_verdict_names_a_limit_on_tokens_that_it_did_not_settle() -> None:
    """The settings hold for small prompts, and whoever sends large ones is told."""
    text = "\n".join(outcome.lines(result(MEASURED, TOKENS_OPEN)))
    assert "There is a limit on input tokens, but the record does not settle which." in text


# ------------------------------------------------------------------------------------------------ the simulator


@pytest.mark.parametrize("name", [name for name in profiles.bundled() if name != "nasty-weather"])
def test_each_bundled_profile_has_its_world(name: str) -> None:
    """Virtual time knows every profile that the mock serves, with the same limits; of replicas each has a share."""
    profile = profiles.load(name)
    world = world_of(profile)
    shares = [
        scaled(limit.spec, 1 / limit.replicas) if limit.replicas > 1 else limit.spec for limit in profile.quota_limits()
    ]
    assert [limit.spec for limit in world.limits] == shares
    assert [limit.replicas for limit in world.limits] == [limit.replicas for limit in profile.quota_limits()]
    assert [len(limit.changes) for limit in world.limits] == [len(limit.changes) for limit in profile.limits]
    assert (world.background is not None) == (profile.background.calls_per_s > 0)


def test_what_virtual_time_lacks_is_said() -> None:
    """A profile that asks for a connection reset, or an outage, is refused by name."""
    with pytest.raises(UsageError, match=r"\[\[outages\]\]"):
        world_of(profiles.parse('[[outages]]\nfault = "hang"', "mine"))
    with pytest.raises(UsageError, match=r"\[faults\] reset"):
        world_of(profiles.parse("[faults]\nreset = 0.5", "mine"))


def test_a_simulation_leaves_a_run_that_can_be_read(tmp_path: Path) -> None:
    """The ledger of a simulated run has each attempt, with the calls in flight counted."""
    run_file = RunFile(tmp_path, scenario="calibrate", target="sim", model="m")
    sending = targets.Sending("m", "fast", "demo", 0, Budget())
    with Simulation(sending, run_file) as simulation:
        simulation.run(Probe("burst", [0.0] * 15))
    run_file.update(ended="completed")
    about, table = load_run(tmp_path)
    assert [phase["name"] for phase in about["phases"]] == ["burst"]
    assert list(table["in_flight"]) == list(range(1, 16))
    assert (table["status"] == 200).sum() == 12  # the demo's limit of calls in flight
    assert (table["status"] == 429).sum() == 3
