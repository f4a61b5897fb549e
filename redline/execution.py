"""Carries out a plan's phases with one sender: the worker's part of a scenario. Knows no Locust.

Each phase begins at its planned moment, whatever the one before did: the schedule is absolute. Calls of a phase may
still be in flight when the next begins; at the end all are awaited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redline.traffic import BudgetEndedError, Probe, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redline.plan import Phase
    from redline.sender import Sender


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the arrivals is this worker's."""

    worker: int = 0
    workers: int = 1


ALONE = Share()
COMPLETED, BUDGET, FAILED, INTERRUPTED = "completed", "budget", "failed", "interrupted"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a plan ended, and the line that tells why where it did not complete."""

    ended: str
    why: str = ""


def schedules(phases: Sequence[Phase], seed: int, share: Share = ALONE) -> list[list[float]]:
    """Work out all moments ahead of the run. Raises ValueError or OSError for a trace that cannot be read."""
    return [list(phase.offsets_s(f"{seed}/{k}", share.worker, share.workers)) for k, phase in enumerate(phases)]


def execute(
    sender: Sender,
    phases: Sequence[Phase],
    moments: Sequence[Sequence[float]],
    starts_s: float,
    *,
    share: Share = ALONE,
    on_phase: Callable[[str, float, float, str], None],
    now_s: Callable[[], float],
) -> Ending:
    """Run the phases from ``starts_s`` on; ``on_phase`` hears of each as executed (name, start, end, reason)."""
    begins_s = starts_s
    for phase, offsets_s in zip(phases, moments, strict=True):
        ends_s = begins_s + phase.duration_s
        ending = _one(sender, phase, offsets_s, begins_s, share)
        reason = ending.ended if ending else "done"
        on_phase(phase.label, begins_s, now_s(), reason)
        if ending:
            return ending
        begins_s = ends_s
    try:
        sender.drain()
    except TargetError as error:
        return Ending(FAILED, str(error))
    return Ending(COMPLETED)


def _one(sender: Sender, phase: Phase, offsets_s: Sequence[float], begins_s: float, share: Share) -> Ending | None:
    """Carry out one phase up to its end; None where all went as planned."""
    wanted = Probe(
        phase.label,
        offsets_s,
        start_s=begins_s,
        drain=False,
        prompt_tokens=phase.prompt_tokens,
        output_tokens=phase.output_tokens,
        model=phase.model,
    )
    ends_s = begins_s + phase.duration_s
    try:
        if phase.shape == "closed":
            sender.idle_until(begins_s)
            sender.closed(wanted, len(range(share.worker, phase.in_flight or 1, share.workers)), ends_s)
        else:
            sender.run(wanted)
        sender.idle_until(ends_s)
    except BudgetEndedError as error:
        return Ending(BUDGET, str(error))
    except TargetError as error:
        return Ending(FAILED, str(error))
    return Ending(INTERRUPTED) if sender.stopping else None
