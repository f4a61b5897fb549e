"""Spike: a steady rate, a short and much higher one, and the steady one again: to see how soon refusals end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.plan import Phase
from redline.scenario import OpenLoop, as_script, call_of, register
from redline.scenario_options import Duration, Option

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = (
    Option("--rpm", float, 60.0, "Calls a minute before and after"),
    Option("--spike-rpm", float, 600.0, "Calls a minute during the spike"),
    Option("--spike", Duration, "10s", "How long the spike lasts"),
    Option("--duration", Duration, "1m", "How long the steady rate lasts, before and after: 90s, 10m, 1h30m"),
)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Make three phases: before, spike, after."""
    steady = {"shape": "constant", "duration": options.duration, "rpm": options.rpm, **call_of(options)}
    return (
        Phase(name="before", **steady),
        Phase(name="spike", shape="constant", duration=options.spike, rpm=options.spike_rpm, **call_of(options)),
        Phase(name="after", **steady),
    )


class Spike(OpenLoop):
    """Follows the spike's schedule, whatever the answers."""


register("spike", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
