"""Ramp: raise the rate evenly, to see where refusals begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.plan import Phase
from redline.scenario import OpenLoop, as_script, call_of, register
from redline.scenario_options import Duration, Option

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = (
    Option("--from-rpm", float, 0.0, "Calls a minute at the start"),
    Option("--to-rpm", float, 600.0, "Calls a minute at the end"),
    Option("--duration", Duration, "2m", "How long the ramp takes: 90s, 10m, 1h30m"),
)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Make one phase whose rate goes up in a line."""
    rates = {"from_rpm": options.from_rpm, "rpm": options.to_rpm}
    return (Phase(shape="ramp", duration=options.duration, **rates, **call_of(options)),)


class Ramp(OpenLoop):
    """Follows the ramp's schedule, whatever the answers."""


register("ramp", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
