"""Concurrency: a growing number of callers, each waiting for its answer, to find how many may be in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.plan import Phase
from redline.scenario import OpenLoop, as_script, call_of, register
from redline.scenario_options import Duration, Option

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = (
    Option("--max-in-flight", int, 32, "Callers on the last level; the levels double up to it"),
    Option("--duration", Duration, "20s", "How long each level lasts: 90s, 10m, 1h30m"),
)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Make one closed phase a level."""
    levels = [2**k for k in range(options.max_in_flight.bit_length()) if 2**k < options.max_in_flight]
    callers = {"shape": "closed", "duration": options.duration, **call_of(options)}
    return tuple(Phase(name=f"callers-{n}", in_flight=n, **callers) for n in (*levels, options.max_in_flight))


class Concurrency(OpenLoop):
    """Keeps a level's callers busy; a closed loop, on purpose."""


register("concurrency", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
