"""A run of a scenario under Locust, alone or spread over workers. Knows Locust's messages and nothing of its options.

The conductor (a master, or the only process) owns `run.json`: it gives each worker its share of the arrivals and one
common start, and hears from each once, at its end. A part (a worker, or the only process) sends, and keeps its own
ledger. No message ever passes for a single call.
"""

from __future__ import annotations

import gc
import os
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import gevent
import msgspec
from gevent.event import Event

from redline import locust_process
from redline.budget import Budget, Spending
from redline.client import open_transport
from redline.clock import SystemClock
from redline.execution import BUDGET, COMPLETED, FAILED, INTERRUPTED, Ending, Share, execute, schedules
from redline.plan import Phase  # noqa: TC001 - msgspec reads the annotation
from redline.prices import price_of
from redline.prompts import Prompts
from redline.record import Ledger, RunFile, make_run_dir
from redline.sender import Sender
from redline.traffic import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redline.client import Outcome
    from redline.record import Sent

START_MESSAGE, END_MESSAGE = "redline_start", "redline_end"
START_AHEAD_S = 1.0  # time for every worker to connect and to hear of the start
CALL_IDS_OF_A_WORKER = 1 << 40
_GRAVITY = (COMPLETED, INTERRUPTED, BUDGET, FAILED)


class Order(msgspec.Struct, frozen=True):
    """What a part is told: everything that it needs, so that no option need reach a worker."""

    run_dir: str
    url: str
    model: str
    transport: str
    seed: int
    budget: dict[str, Any]
    phases: list[Phase]
    starts_wall_s: float
    worker: int
    workers: int


class Report(msgspec.Struct, frozen=True):
    """What a part says at its end."""

    worker: int
    ended: str
    why: str
    clock: dict[str, float]
    phases: list[tuple[str, float, float, str]]


@dataclass(slots=True)
class Wanted:
    """A run as its options describe it."""

    scenario: str
    url: str
    model: str
    transport: str
    seed: int
    out: str
    budget: Budget
    phases: Sequence[Phase]
    options: Mapping[str, Any] = field(default_factory=dict)


class Conductor:
    """Starts the parts and writes `run.json`. ``tell`` sends an order to the part with that index."""

    def __init__(self, wanted: Wanted, workers: Sequence[str], tell: Callable[[str, dict[str, Any]], None]) -> None:
        made = os.environ.get(locust_process.RUN_DIR_VARIABLE)
        self.run_dir = Path(made) if made else make_run_dir(Path(wanted.out), wanted.scenario)
        self.over = False
        self._wanted = wanted
        self._workers = workers
        self._tell = tell
        self._reports: dict[int, Report] = {}
        self._news = Event()
        self._run_file = RunFile(
            self.run_dir,
            scenario=wanted.scenario,
            target=wanted.url,
            model=wanted.model,
            transport=wanted.transport,
            seed=wanted.seed,
            options=dict(wanted.options),
            plan=msgspec.to_builtins(wanted.phases),
        )

    def start(self) -> None:
        """Give every worker its order."""
        wanted = self._wanted
        starts_wall_s = time.time() + START_AHEAD_S
        for index, name in enumerate(self._workers):
            share = _divided(wanted.budget, Share(index, len(self._workers)))
            order = Order(
                str(self.run_dir),
                wanted.url,
                wanted.model,
                wanted.transport,
                wanted.seed,
                asdict(share),
                list(wanted.phases),
                starts_wall_s,
                index,
                len(self._workers),
            )
            self._tell(name, msgspec.to_builtins(order))

    def heard(self, data: Mapping[str, Any]) -> None:
        """Take a part's report."""
        report = msgspec.convert(data, Report)
        self._reports[report.worker] = report
        self._news.set()

    def follow(self, alive: Callable[[], int]) -> Ending:
        """Wait until every part that still lives has reported; write the end and return it."""
        while len(self._reports) < len(self._workers) and alive() + len(self._reports) >= len(self._workers):
            self._news.clear()
            self._news.wait(1.0)
        lost = len(self._workers) - len(self._reports)
        ending = Ending(FAILED, f"{lost} of {len(self._workers)} workers vanished") if lost else self._worst()
        self.finish(ending.ended)
        return ending

    def finish(self, ended: str) -> None:
        """Write how the run ended; only the first call counts."""
        if self.over:
            return
        self.over = True
        reports = [self._reports[k] for k in sorted(self._reports)]
        keys = ("name", "start_s", "end_s", "reason")
        self._run_file.update(
            ended=ended,
            clocks={str(r.worker): r.clock for r in reports},
            phases=[dict(zip(keys, phase, strict=True)) for phase in (reports[0].phases if reports else ())],
            wall_s=max((phase[2] for r in reports for phase in r.phases), default=None),
        )

    def _worst(self) -> Ending:
        return max((Ending(r.ended, r.why) for r in self._reports.values()), key=lambda e: _GRAVITY.index(e.ended))


class Part:
    """Sends one worker's share. Made from an order; `run` returns what to report."""

    def __init__(self, order: Order, observe: Callable[[Sent, Outcome], None]) -> None:
        self._order = order
        self._phases: list[tuple[str, float, float, str]] = []
        # Second 0 of the run is one moment of the wall clock for all; from there each counts on its steady clock.
        self._clock = SystemClock(time.monotonic() + order.starts_wall_s - time.time())
        self._ledger = Ledger(Path(order.run_dir) / "requests" / f"{order.worker}.jsonl")
        self._stopped = False
        self._sender = Sender(
            open_transport(order.transport, order.url, self._clock.now_s),
            self._ledger,
            self._clock.now_s,
            url=order.url,
            model=order.model,
            prompts=Prompts(Random(f"{order.seed}/{order.worker}")),  # noqa: S311 - prompts, not secrets
            spending=Spending(Budget(**order.budget), price_of(order.model, datetime.now(UTC).date())),
            observe=observe,
            worker=str(order.worker),
            first_call_id=order.worker * CALL_IDS_OF_A_WORKER,
        )

    def run(self) -> dict[str, Any]:
        """Carry out the share; never raises for what the target does."""
        flusher = gevent.spawn(self._sender.flush_for_ever)
        share = Share(self._order.worker, self._order.workers)
        try:
            self._sender.warm(1)
            gc.collect()
            gc.freeze()  # what start-up made stays; a later collection then delays no send
            ending = execute(
                self._sender,
                self._order.phases,
                schedules(self._order.phases, self._order.seed, share),
                0.0,
                share=share,
                on_phase=lambda *phase: self._phases.append(phase),
                now_s=self._clock.now_s,
            )
        except TargetError as error:
            ending = Ending(FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - the conductor waits for a report, whatever goes wrong here
            ending = Ending(FAILED, f"{type(error).__name__}: {error}")
        flusher.kill()
        self._ledger.close()
        if self._stopped and ending.ended == INTERRUPTED:
            ending = Ending(COMPLETED)
        return self._report(ending)

    def stop(self) -> None:
        """Send no more, as a user asked: the run counts as complete."""
        self._stopped = True
        self._sender.stop()

    def abandon(self) -> dict[str, Any]:
        """Leave at once, with the ledger whole; returns what to report."""
        self._sender.stop()
        self._ledger.close()
        return self._report(Ending(COMPLETED if self._stopped else INTERRUPTED))

    def _report(self, ending: Ending) -> dict[str, Any]:
        clock = {"wall_s": self._order.starts_wall_s, "monotonic_s": self._clock.anchor_s}
        report: dict[str, Any] = msgspec.to_builtins(
            Report(self._order.worker, ending.ended, ending.why, clock, self._phases)
        )
        return report


def _divided(budget: Budget, share: Share) -> Budget:
    """Return one worker's part of a budget: counts and money are split, the time is everybody's."""
    split = {
        name: len(range(share.worker, bound, share.workers)) if isinstance(bound, int) else bound / share.workers
        for name, bound in asdict(budget).items()
        if bound is not None and name != "max_duration_s"
    }
    return Budget(**split, max_duration_s=budget.max_duration_s)
