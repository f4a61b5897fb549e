"""A profile in virtual time, recorded as if it had been real: `--target sim` leaves the same run directory.

Owns the way from a mock profile to `analysis.virtual.World` and from simulated attempts to a ledger. What happens
in between is `redline.simulated`'s.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from analysis.virtual import Background, Faults, Network, Service, VirtualLimit, World
from mock_server import profile as profiles
from mock_server.quota import STANDARD, with_value
from mock_server.replicas import scaled
from redline.budget import Spending
from redline.errors import UsageError
from redline.prices import price_of
from redline.record import Done, Ledger, Sent
from redline.simulated import SimulatedTraffic

if TYPE_CHECKING:
    from types import TracebackType

    from mock_server.limits import Spec
    from mock_server.profile import Profile
    from mock_server.quota import Limit
    from redline.record import RunFile
    from redline.targets import Sending
    from redline.traffic import Attempt, Pacing, Probe, ProbeReport

NETWORK = Network(minimum_s=0.0005, spread_s=0.002)  # a loopback's order of size, so that sim and mock compare


# What a profile can ask for and virtual time does not have. It is refused by name: to leave it out would be to lie.
_MISSING_FAULTS = ("reset", "malformed", "cut", "cancelled_499", "blocked")
_METRICS = ("requests", "input_tokens", "concurrency")  # what a simulated call costs


def world_of(profile: Profile) -> World:
    """Return the world that a profile describes. Raises `UsageError` for what virtual time does not have."""
    missing = [f"[faults] {kind}" for kind in _MISSING_FAULTS if getattr(profile.faults, kind)]
    missing += ["[latency] slots"] if profile.latency.slots else []
    missing += ["[[outages]]"] if profile.outages else []
    missing += ["limit on spend"] if any(limit.metric == "spend" for limit in profile.limits) else []
    if missing:
        raise UsageError(f"--profile {profile.name}: --target sim has no {missing[0]}; use --target mock")
    faults, others = profile.faults, profile.background
    overloaded = faults.overloaded_503 + faults.overloaded_503_old + faults.internal_500 + faults.deadline_504
    return World(
        limits=tuple(_virtual(limit, profile) for limit in profile.quota_limits() if _meets(limit)),
        network=NETWORK,
        service=Service(profile.latency.first_token_s, profile.latency.sigma, profile.latency.per_token_s),
        faults=Faults(overloaded, faults.hang),
        background=Background(others.calls_per_s, tokens=others.input_tokens_per_request)
        if others.calls_per_s
        else None,
    )


def _meets(limit: Limit) -> bool:
    """Return whether a simulated call (standard tier, text) counts on this limit."""
    return limit.metric in _METRICS and limit.tier in {"", STANDARD}


def _virtual(limit: Limit, profile: Profile) -> VirtualLimit:
    named = profile.refusal.shape in {"full", "decimals", "mismatched"}
    changes, present = [], limit
    for after_s, value in limit.changes:
        present = replace(present, spec=with_value(present, value), value=value)
        changes.append((after_s, _share(present)))
    return VirtualLimit(
        limit.metric,
        _share(limit),
        replicas=limit.replicas,
        changes=tuple(changes),
        quota_id=limit.quota_id if named else "",
        quota_value=limit.value if named and limit.value is not None else math.nan,
    )


def _share(limit: Limit) -> Spec:
    """Return what one of the servers that count apart enforces."""
    return scaled(limit.spec, 1 / limit.replicas) if limit.replicas > 1 else limit.spec


class Simulation(SimulatedTraffic):
    """`SimulatedTraffic` that writes a run directory: phases as they end, the ledger on leaving the context."""

    def __init__(self, sending: Sending, run_file: RunFile) -> None:
        """Raise `UsageError` where the profile is none that virtual time has."""
        try:
            profile = profiles.load(sending.profile)
        except profiles.ProfileError as error:
            raise UsageError(str(error)) from None
        world = world_of(profile)
        super().__init__(
            world,
            seed=sending.seed,
            spending=Spending(sending.budget, price_of(sending.model, datetime.now(UTC).date())),
        )
        self._model = sending.model
        self._run_file = run_file
        run_file.update(clocks={"0": {"wall_s": world.clock.epoch_s, "monotonic_s": 0.0}})

    def __enter__(self) -> Self:
        """Start; nothing happens until a probe is run."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Write the ledger, whatever happened."""
        write_ledger(self.attempts, Ledger(self._run_file.path.parent / "requests" / "0.jsonl"), self._model)

    def run(self, probe: Probe) -> ProbeReport:
        """Carry out a probe and note the phase; see `SimulatedTraffic.run`."""
        return self._noted(probe.phase, super().run(probe))

    def pace(self, pacing: Pacing) -> ProbeReport:
        """Pace through the recommended limiter and note the phase; see `SimulatedTraffic.pace`."""
        return self._noted(pacing.phase, super().pace(pacing))

    def _noted(self, phase: str, report: ProbeReport) -> ProbeReport:
        self._run_file.phase(phase, report.started_s, report.ended_s, report.reason)
        return report


def write_ledger(attempts: list[Attempt], ledger: Ledger, model: str) -> None:
    """Write attempts, in the order of sending, as ``sent`` and ``done`` records; closes the ledger."""
    open_calls: list[float] = []  # a heap of the moments at which calls in flight end
    for attempt in attempts:
        while open_calls and open_calls[0] <= attempt.sent_s:
            heapq.heappop(open_calls)
        answered = attempt.status is not None
        heapq.heappush(open_calls, attempt.done_s if answered else math.inf)
        ledger.write(
            Sent(
                attempt.call_id,
                attempt.phase,
                float(attempt.planned_s),  # numpy's numbers are no JSON
                float(attempt.sent_s),
                attempt.prompt_tokens,
                len(open_calls),
                model=model,
            )
        )
        if answered:
            ledger.write(_done(attempt))
    ledger.close()


def _done(attempt: Attempt) -> Done:
    return Done(
        attempt.call_id,
        float(attempt.done_s),
        attempt.status or 0,
        error=attempt.error,
        quota_metric=attempt.quota_metric,
        quota_id=attempt.quota_id,
        quota_value=_known(attempt.quota_value),
        retry_delay_s=_known(attempt.retry_delay_s),
        output_tokens=attempt.output_tokens,
        server_date=_known(attempt.server_date),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
