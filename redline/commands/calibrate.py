"""``redline calibrate``: options in, a run directory with its report out.

Puts together what others own: a target, the plan that probes it, the report. It decides nothing about limits.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from redline import live, options, targets
from redline.budget import LOOK_SHARE, Budget
from redline.errors import ExitCode, InterruptedRunError, TargetError, UsageError, worst
from redline.prices import price_of
from redline.record import RunFile, make_run_dir
from redline.signals import interruptible
from redline.traffic import Progress
from redline.warnings import Warn, tell

# What another machine is asked for at most, unless the user says more.
FOREIGN_MAX_REQUESTS = 20_000
FOREIGN_MAX_DURATION_S = 1800.0
FOREIGN_PROBE_TOKENS = 1_000_000
_LOCAL_PROBE_TOKENS = 100_000_000
_PUSH_SHARE = 0.6  # of a budget of calls within which a limit on the rate must be met
_PROBE_SHARE = 0.5  # of a budget of tokens or money that large prompts may use up
_DEFAULT_MAX_RATE_PER_S = 500.0
_SECONDS_PER_MINUTE = 60.0
_PROMPT_TOKENS = 8  # of a cheap call, about
_INTERRUPTED = {ExitCode.SIGINT, ExitCode.SIGTERM}


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that the options say. ``max_rate_per_s``: never send faster."""

    target: targets.Target
    sending: targets.Sending
    max_rate_per_s: float
    max_throttled: float
    verify_for_s: float | None
    probe_tokens: int
    out: Path


def calibrate(  # noqa: PLR0913 - a parameter is an option
    *,
    target: options.Target = "mock",
    model: options.Model = "gemini-3.8-flash",
    transport: options.TransportOption = "fast",
    profile: options.Profile = "demo",
    max_requests: options.MaxRequests = None,
    max_input_tokens: options.MaxInputTokens = None,
    max_output_tokens: options.MaxOutputTokens = None,
    max_usd: options.MaxUsd = None,
    max_duration: options.MaxDuration = None,
    max_throttled_calls: options.MaxThrottledCalls = None,
    max_throttled: options.MaxThrottled = 0.001,
    probe_tokens: options.ProbeTokens = None,
    max_rpm: options.MaxRpm = None,
    need_rpm: options.NeedRpm = None,
    verify_for: Annotated[
        float | None,
        typer.Option("--verify-for", parser=options.duration_s, metavar="3m", help="How long to drive the settings."),
    ] = None,
    seed: options.Seed = 0,
    out: options.Out = Path("reports"),
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
    allow_host: options.AllowHost = None,
) -> int:
    """Find the limits that a target enforces, choose limiter settings, and prove them on live traffic."""
    place = targets.parse(target, os.environ)
    budget = Budget(max_requests, max_input_tokens, max_output_tokens, max_usd, max_duration, max_throttled_calls)
    ceilings = [rpm / _SECONDS_PER_MINUTE for rpm in (max_rpm, need_rpm) if rpm is not None]
    order = Order(
        place,
        targets.Sending(model, transport, profile, seed, bounded(place, budget)),
        min([*ceilings, _DEFAULT_MAX_RATE_PER_S]),
        max_throttled,
        verify_for,
        tokens_to_probe(place, budget, model, probe_tokens),
        out,
    )
    require_price(order)
    if dry_run:
        sys.stdout.writelines(f"{line}\n" for line in preview(order))
        return ExitCode.CONCLUDED
    targets.require_consent(place, allow_host or (), yes=yes)
    warn_before(order)
    return carry_out(order, as_json=as_json)


def bounded(target: targets.Target, budget: Budget) -> Budget:
    """Return the budget with the bounds that hold for other people's machines where the user gave none."""
    if target.is_local:
        return budget
    given = {name: value for name, value in asdict(budget).items() if value is not None}
    return Budget(**{"max_requests": FOREIGN_MAX_REQUESTS, "max_duration_s": FOREIGN_MAX_DURATION_S} | given)


def tokens_to_probe(target: targets.Target, budget: Budget, model: str, asked: int | None) -> int:
    """Return how many input tokens the search for a limit on them may send: no more than half of any budget."""
    bounds: list[float] = [FOREIGN_PROBE_TOKENS if not target.is_local else _LOCAL_PROBE_TOKENS]
    if asked is not None:
        bounds = [asked]
    if budget.max_input_tokens is not None:
        bounds.append(_PROBE_SHARE * budget.max_input_tokens)
    price = price_of(model, datetime.now(UTC).date())
    if budget.max_usd is not None and price is not None:
        bounds.append(_PROBE_SHARE * budget.max_usd / price.usd(1, 0))
    return int(min(bounds))


def calls_to_push(budget: Budget) -> int | None:
    """Return after how many calls nothing more is pushed for that was not met: a budget must do to verify the rest."""
    return None if budget.max_requests is None else max(1, int(_PUSH_SHARE * budget.max_requests))


def require_price(order: Order) -> None:
    """Raise `UsageError` where money is bounded and nobody knows what the model costs."""
    if order.sending.budget.max_usd is not None and not _price_is_known(order):
        raise UsageError(
            f"--max-usd cannot be kept: the price of {order.sending.model} is not known; bound --max-requests"
        )


def warn_before(order: Order) -> None:
    """Say what the user ought to know before anything is sent."""
    if order.target.kind in {"mock", "sim"}:
        return
    tell(sys.stderr, Warn.SHARED_QUOTA, target=order.target.name)
    if not _price_is_known(order):
        tell(sys.stderr, Warn.NO_PRICE, model=order.sending.model)


def preview(order: Order) -> Iterator[str]:
    """Yield what a run with these options would do and cost at most, for ``--dry-run``."""
    budget = order.sending.budget
    yield f"target        {order.target.name}, model {order.sending.model}, transport {order.sending.transport}"
    yield "phases        baseline, then fill and watch in turn until the limits are known, then verify"
    yield "others        where they may use the limit, too: more than it lets in, for up to five minutes, at the end;"
    yield "              a limit of few calls is looked at for five minutes first, or twelve"
    yield f"rate          at most {order.max_rate_per_s * _SECONDS_PER_MINUTE:g} calls a minute"
    yield f"calls         {_at_most(budget.max_requests)}; probing takes four to ten times what a window admits"
    yield f"time          {_at_most(budget.max_duration_s, ' s')}; two to five windows, then three and more to verify"
    yield f"tokens        {_at_most(budget.max_input_tokens)} in, {_at_most(budget.max_output_tokens)} out"
    yield f"large prompts {_large_prompts(order)}"
    yield f"money         {_money(order)}"


def carry_out(order: Order, *, as_json: bool) -> int:
    """Calibrate, write the report, print the verdict; returns the exit code."""
    run_dir = _make_run_dir(order.out)
    run_file = RunFile(
        run_dir,
        scenario="calibrate",
        target=order.target.name,
        model=order.sending.model,
        transport=order.sending.transport,
        seed=order.sending.seed,
        options=_recorded(order),
    )
    try:
        stopped = _calibrate(order, run_file)
    except (TargetError, UsageError):
        _sweep(run_dir)
        raise
    recorded = _was_recorded(run_dir)
    if stopped in _INTERRUPTED:
        tell(sys.stderr, Warn.INTERRUPTED if recorded else Warn.INTERRUPTED_EARLY, run_dir=run_dir)
    if stopped is ExitCode.BUDGET:
        tell(sys.stderr, Warn.BUDGET_ENDED)
    if not recorded:
        _sweep(run_dir)
        return stopped
    return conclude(run_dir, stopped, as_json=as_json)


def conclude(run_dir: Path, stopped: ExitCode, *, as_json: bool) -> int:
    """Write the report from the ledger and print the verdict; ``stopped`` is how the sending ended."""
    from analysis import report  # noqa: PLC0415 - pandas and matplotlib, only once something was measured
    from analysis.result import from_json  # noqa: PLC0415 - likewise
    from redline import outcome  # noqa: PLC0415 - likewise

    page = report.write(run_dir)
    encoded = (run_dir / "result.json").read_bytes()
    result = from_json(encoded)
    if as_json:
        sys.stdout.write(encoded.decode())
    else:
        sys.stdout.writelines(f"{line}\n" for line in outcome.lines(result))
        sys.stdout.write(f"report: {page}\n")
    return worst(stopped, outcome.exit_code(result))


def _calibrate(order: Order, run_file: RunFile) -> ExitCode:
    """Run the plan and leave `run.json` complete; returns BUDGET or an interrupt's code where one stopped it."""
    from analysis.ready import get_ready  # noqa: PLC0415 - numba, numpy and scipy, not for --help
    from redline.calibration import CalibrationOptions, calibrate  # noqa: PLC0415

    wanted = CalibrationOptions(
        seed=order.sending.seed,
        max_throttled=order.max_throttled,
        max_rate_per_s=order.max_rate_per_s,
        verify_for_s=order.verify_for_s,
        probe_tokens=order.probe_tokens,
        met_within_calls=calls_to_push(order.sending.budget),
    )

    def keep(tried: Sequence[msgspec.Struct]) -> None:
        run_file.update(settings_tried=[msgspec.to_builtins(settings) for settings in tried])

    began_s = time.monotonic()
    try:
        with (
            interruptible(),
            live.view(sys.stderr, f"calibrating {order.target.name}") as board,
        ):
            board.report(Progress(live.STARTING, "getting the inference ready; a machine compiles it once"))
            get_ready()
            with targets.opened(order.target, order.sending, run_file) as traffic:
                found = calibrate(board.watch(traffic), wanted, board.report, keep)
                wall_s = traffic.now_s()
    except InterruptedRunError as signal:
        run_file.update(ended="interrupted", wall_s=time.monotonic() - began_s)
        return signal.exit_code
    except BaseException:
        run_file.update(ended="failed", wall_s=time.monotonic() - began_s)
        raise
    run_file.update(
        ended="budget" if found.ended == "budget" else "completed",
        wall_s=wall_s,
        settings_tried=[msgspec.to_builtins(settings) for settings in found.settings_tried],
    )
    return ExitCode.BUDGET if found.ended == "budget" else ExitCode.CONCLUDED


def _make_run_dir(out: Path) -> Path:
    try:
        return make_run_dir(out, "calibrate")
    except OSError as error:
        raise UsageError(f"--out {out} cannot hold a run directory: {error.strerror}") from None


def _was_recorded(run_dir: Path) -> bool:
    """Return whether any call is in the ledger."""
    return any(ledger.stat().st_size for ledger in (run_dir / "requests").glob("*.jsonl"))


def _sweep(run_dir: Path) -> None:
    """Remove the run directory, which this process made, where no call was ever sent."""
    if not _was_recorded(run_dir):
        shutil.rmtree(run_dir)


def _recorded(order: Order) -> dict[str, object]:
    """Return the options as `run.json` keeps them: no key is among them."""
    sending = order.sending
    return {
        "profile": sending.profile if order.target.kind in {"mock", "sim"} else None,
        "budget": asdict(sending.budget),
        "max_rate_per_s": order.max_rate_per_s,
        "max_throttled": order.max_throttled,
        "verify_for_s": order.verify_for_s,
        "probe_tokens": order.probe_tokens,
    }


def _price_is_known(order: Order) -> bool:
    return price_of(order.sending.model, datetime.now(UTC).date()) is not None


def _at_most(bound: float | None, unit: str = "") -> str:
    return "no bound" if bound is None else f"at most {bound:g}{unit}"


def _large_prompts(order: Order) -> str:
    """Return what the search for a limit on input tokens sends at most: to look for one, and to measure one."""
    if not order.probe_tokens:
        return "none: no limit on input tokens is looked for"
    price = None if order.target.kind in {"mock", "sim"} else price_of(order.sending.model, datetime.now(UTC).date())
    look, most = (
        f"{tokens:.0f}" + (f" (US$ {price.usd(tokens, 0):.2f})" if price else "")
        for tokens in (LOOK_SHARE * order.probe_tokens, order.probe_tokens)
    )
    return f"at most {look} to look for a limit on input tokens; if one is met, about {most} to measure it"


def _money(order: Order) -> str:
    """Return what a thousand cheap calls cost: one output token each, prompts of a few words."""
    if order.target.kind in {"mock", "sim"}:
        return "none"
    price = price_of(order.sending.model, datetime.now(UTC).date())
    if price is None:
        return f"not known for {order.sending.model}"
    bound = order.sending.budget.max_usd
    told = f"US$ {price.usd(1000 * _PROMPT_TOKENS, 1000):.3f} for 1000 cheap calls"
    return told if bound is None else f"at most US$ {bound:g}; {told}"
