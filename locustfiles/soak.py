"""Soak: one steady rate for long, to see limits that drift, days that end, and rare faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.plan import Phase
from redline.scenario import OpenLoop, as_script, call_of, register
from redline.scenario_options import Duration, Option

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = (
    Option("--rpm", float, 60.0, "Calls a minute"),
    Option("--duration", Duration, "1h", "How long: 90s, 10m, 1h30m"),
)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Make one long phase."""
    return (Phase(shape="constant", duration=options.duration, rpm=options.rpm, **call_of(options)),)


class Soak(OpenLoop):
    """Follows a steady schedule, whatever the answers."""


register("soak", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
