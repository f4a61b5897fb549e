"""Warm-up: start gently and rise to the full rate, then hold it; what production should do after a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.plan import Phase
from redline.scenario import OpenLoop, as_script, call_of, register
from redline.scenario_options import Duration, Option

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = (
    Option("--from-rpm", float, 6.0, "Calls a minute at the start"),
    Option("--to-rpm", float, 60.0, "Calls a minute when warm"),
    Option("--duration", Duration, "2m", "How long warming up takes: 90s, 10m, 1h30m"),
    Option("--hold", Duration, "1m", "How long the full rate is held afterwards"),
)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Make a rising phase and a steady one."""
    rates = {"from_rpm": options.from_rpm, "rpm": options.to_rpm}
    return (
        Phase(name="warmup", shape="ramp", duration=options.duration, **rates, **call_of(options)),
        Phase(name="warm", shape="constant", duration=options.hold, rpm=options.to_rpm, **call_of(options)),
    )


class Warmup(OpenLoop):
    """Follows the warm-up's schedule, whatever the answers."""


register("warmup", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
