"""``redline run SCENARIO``: drive a target with one of the scenarios, and report what the answers show.

Locust sends, in a process of its own; this one starts it, shows its progress, and makes the report when it has ended.
A scenario's own options are handed on as they are: Locust says which ones it takes.
"""

# ruff: noqa: ARG001 - most options go to Locust whole, through typer's context

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from redline import live, locust_process, options, targets
from redline.clock import SystemClock
from redline.errors import ExitCode, InterruptedRunError, TargetError, UsageError
from redline.follow import Follower
from redline.mock_process import running_mock
from redline.record import make_run_dir
from redline.signals import interruptible
from redline.warnings import Warn, tell

LOOK_EVERY_S = 0.5
STOP_TIMEOUT_S = 10.0
KNOWN = [name for name in locust_process.scenarios() if name != "calibrate"]  # which is a command of its own
_OURS = {"scenario", "target", "profile", "out", "dry_run", "yes", "as_json", "allow_host"}  # not Locust's affair


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be run: a scenario on a target, with the words that Locust is given."""

    scenario: str
    target: targets.Target
    profile: str
    seed: int
    arguments: tuple[str, ...]
    out: Path


def _own(flag: str, help_: str, metavar: str = "X") -> typer.models.OptionInfo:
    """Declare an option that some scenarios take; its text goes to Locust unread."""
    option: typer.models.OptionInfo = typer.Option(flag, help=help_, metavar=metavar, rich_help_panel="Of scenarios")
    return option


def run(  # noqa: PLR0913 - a parameter is an option; most go to Locust as they are, by `_words`
    ctx: typer.Context,
    *,
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help=f"{', '.join(KNOWN)}.")],
    from_rpm: Annotated[str | None, _own("--from-rpm", "Calls a minute at the start (ramp, step, warmup).")] = None,
    to_rpm: Annotated[str | None, _own("--to-rpm", "Calls a minute at the end (ramp, step, warmup).")] = None,
    rpm: Annotated[str | None, _own("--rpm", "Calls a minute (burst, soak, spike, tokens).")] = None,
    duration: Annotated[str | None, _own("--duration", "How long: 90s, 10m, 1h30m (each has its own).", "10m")] = None,
    hold: Annotated[str | None, _own("--hold", "How long the full rate is held (warmup).", "1m")] = None,
    steps: Annotated[str | None, _own("--steps", "How many levels (step, tokens).", "N")] = None,
    spike: Annotated[str | None, _own("--spike", "How long the spike lasts (spike).", "10s")] = None,
    spike_rpm: Annotated[str | None, _own("--spike-rpm", "Calls a minute during the spike (spike).")] = None,
    calls: Annotated[str | None, _own("--calls", "How many calls leave at once (burst).", "N")] = None,
    max_in_flight: Annotated[str | None, _own("--max-in-flight", "Callers at most (concurrency).", "N")] = None,
    from_tokens: Annotated[str | None, _own("--from-tokens", "Prompt size of the first level (tokens).", "N")] = None,
    to_tokens: Annotated[str | None, _own("--to-tokens", "Prompt size of the last level (tokens).", "N")] = None,
    trace: Annotated[Path | None, _own("--trace", "Moments to send at, a CSV with sent_s (replay).", "FILE")] = None,
    plan: Annotated[Path | None, _own("--plan", "A TOML file with [[phases]] (phases).", "FILE")] = None,
    arrivals: Annotated[str | None, _own("--arrivals", "constant, poisson, or a trace.", "HOW")] = None,
    prompt_tokens: Annotated[str | None, _own("--prompt-tokens", "Input tokens of a call, about.", "N")] = None,
    output_tokens: Annotated[str | None, _own("--output-tokens", "Output tokens of a call, at most.", "N")] = None,
    target: options.Target = "mock",
    model: options.Model = "gemini-3.8-flash",
    transport: options.TransportOption = "fast",
    profile: options.Profile = "demo",
    processes: Annotated[int, typer.Option("--processes", min=1, help="Send from so many processes.")] = 1,
    max_requests: options.MaxRequests = None,
    max_input_tokens: options.MaxInputTokens = None,
    max_output_tokens: options.MaxOutputTokens = None,
    max_usd: options.MaxUsd = None,
    max_duration: options.MaxDuration = None,
    max_throttled_calls: options.MaxThrottledCalls = None,
    seed: options.Seed = 0,
    out: options.Out = Path("reports"),
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
    allow_host: options.AllowHost = None,
) -> int:
    """Drive a target with a scenario: open loop, on a schedule, whatever the answers."""
    if scenario not in KNOWN:
        raise UsageError(f"SCENARIO takes {', '.join(KNOWN)}, not {scenario!r}")
    place = targets.parse(target, os.environ)
    if place.kind == "sim":
        raise UsageError("--target sim takes no scenario: it is for calibrate")
    order = Order(scenario, place, profile, seed, tuple(_words(ctx.params)), out)
    if dry_run:
        return preview(order)
    targets.require_consent(place, allow_host or (), yes=yes)
    if place.kind != "mock":
        tell(sys.stderr, Warn.SHARED_QUOTA, target=place.name)
    return carry_out(order, as_json=as_json)


def preview(order: Order) -> int:
    """Print the phases and what they will send; send nothing."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {locust_process.DRY_RUN_VARIABLE: "1"}
        url = order.target.url or "http://127.0.0.1"
        process = locust_process.spawn(
            order.scenario, Path(folder), url=url, arguments=order.arguments, environment=environment
        )
        code = process.wait()
        lines = locust_process.log_lines(Path(folder))
    if code != ExitCode.CONCLUDED:
        raise UsageError(_complaint(order, lines))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return ExitCode.CONCLUDED


def carry_out(order: Order, *, as_json: bool) -> int:
    """Run the scenario, write the report, print the verdict; returns the exit code of the sending."""
    try:
        run_dir = make_run_dir(order.out, order.scenario)
    except OSError as error:
        raise UsageError(f"--out {order.out} cannot hold a run directory: {error.strerror}") from None
    try:
        code = _send(order, run_dir)
    except (TargetError, UsageError):
        _forget(run_dir)
        raise
    lines = locust_process.log_lines(run_dir)
    if not any(ledger.stat().st_size for ledger in (run_dir / "requests").glob("*.jsonl")):
        _forget(run_dir)
        if code == ExitCode.TARGET:
            raise TargetError(_complaint(order, lines))
        if code not in {ExitCode.SIGINT, ExitCode.SIGTERM}:
            raise UsageError(_complaint(order, lines))
        return code
    if code == ExitCode.TARGET:
        sys.stderr.write(f"redline: {_complaint(order, lines)}\n")
    if code == ExitCode.BUDGET:
        tell(sys.stderr, Warn.BUDGET_ENDED)
    if code in {ExitCode.SIGINT, ExitCode.SIGTERM}:
        tell(sys.stderr, Warn.INTERRUPTED, run_dir=run_dir)
    _tell_verdict(run_dir, as_json=as_json)
    return code


def _send(order: Order, run_dir: Path) -> int:
    """Let Locust carry out the scenario, and show how it goes; returns its exit code."""
    clock = SystemClock()
    follower = Follower(run_dir, clock.now_s)
    with (
        live.view(sys.stderr, f"{order.scenario} on {order.target.name}") as board,
        _served(order) as url,
        _locust(order, url, run_dir) as process,
    ):
        try:
            with interruptible():
                while process.poll() is None:
                    board.report(follower.progress())
                    clock.sleep(LOOK_EVERY_S)
        except InterruptedRunError as signal:
            process.send_signal(signal.exit_code - 128)
            locust_process.end(process, STOP_TIMEOUT_S)
            return signal.exit_code
        return process.wait()


@contextlib.contextmanager
def _served(order: Order) -> Iterator[str]:
    """Give the URL to load; the bundled mock is started where no other is named."""
    if order.target.url:
        yield order.target.url
        return
    with running_mock(order.profile, seed=order.seed) as url:
        yield url


@contextlib.contextmanager
def _locust(order: Order, url: str, run_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start Locust with a lifeline: the pipe's other end closes when this process is gone, however that happens."""
    theirs, ours = os.pipe()
    told = {
        locust_process.RUN_DIR_VARIABLE: str(run_dir),
        locust_process.LIFELINE_VARIABLE: str(theirs),
    }
    try:
        process = locust_process.spawn(
            order.scenario,
            run_dir,
            url=url,
            arguments=order.arguments,
            environment=os.environ | told,
            descriptors=(theirs,),
        )
    finally:
        os.close(theirs)
    try:
        yield process
    finally:
        os.close(ours)
        locust_process.end(process, STOP_TIMEOUT_S)


def _tell_verdict(run_dir: Path, *, as_json: bool) -> None:
    from analysis import report  # noqa: PLC0415 - pandas and matplotlib, only once something was measured
    from analysis.result import from_json  # noqa: PLC0415 - likewise
    from redline import outcome  # noqa: PLC0415 - likewise

    page = report.write(run_dir)
    encoded = (run_dir / "result.json").read_bytes()
    if as_json:
        sys.stdout.write(encoded.decode())
        return
    sys.stdout.writelines(f"{line}\n" for line in outcome.lines(from_json(encoded)))
    sys.stdout.write(f"report: {page}\n")


def _words(given: Mapping[str, object]) -> Iterator[str]:
    """Yield what Locust is given: each option that is set and is not this command's own affair.

    Files are made absolute, since Locust runs in another folder.
    """
    for name, value in given.items():
        if value is None or name in _OURS or (name == "processes" and value == 1):
            continue
        is_file = isinstance(value, Path) or (name == "arrivals" and value not in {"constant", "poisson"})
        yield f"--{name.replace('_', '-')}"
        yield str(Path(str(value)).resolve() if is_file else value)


def _complaint(order: Order, lines: list[str]) -> str:
    """Return why Locust ended, in one line that names the option."""
    marks = (": error: ", f"{order.scenario}: ")  # of Locust's parser, and of the scenario
    said = [line.partition(mark)[2] for line in lines for mark in marks if mark in line]
    last = next(reversed(said or lines), "Locust ended without a word")
    unknown = last.removeprefix("unrecognized arguments: ")
    return last if unknown == last else f"scenario {order.scenario} takes no {unknown.split()[0]}"


def _forget(run_dir: Path) -> None:
    """Remove the run directory, which this process made, where no call was ever sent."""
    shutil.rmtree(run_dir)
