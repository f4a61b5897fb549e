"""Burst: many calls at once, again and again at a steady average rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.plan import Phase
from redline.scenario import OpenLoop, as_script, call_of, register
from redline.scenario_options import Duration, Option

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = (
    Option("--calls", int, 20, "How many calls leave at once"),
    Option("--rpm", float, 120.0, "Calls a minute on average"),
    Option("--duration", Duration, "2m", "How long the bursts go on: 90s, 10m, 1h30m"),
)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Make one phase of equal bursts."""
    size = {"in_flight": options.calls, "rpm": options.rpm}
    return (Phase(shape="burst", duration=options.duration, **size, **call_of(options)),)


class Burst(OpenLoop):
    """Follows the bursts' schedule, whatever the answers."""


register("burst", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
