"""Step: climb a stair of steady rates, long enough on each level to see the limit's window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.plan import Phase
from redline.scenario import OpenLoop, as_script, call_of, register
from redline.scenario_options import Duration, Option

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = (
    Option("--from-rpm", float, 30.0, "Calls a minute on the first level"),
    Option("--to-rpm", float, 300.0, "Calls a minute on the last level"),
    Option("--steps", int, 5, "How many levels"),
    Option("--duration", Duration, "10m", "How long the whole stair takes: 90s, 10m, 1h30m"),
)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Make one phase of several levels."""
    rates = {"from_rpm": options.from_rpm, "rpm": options.to_rpm, "steps": options.steps}
    return (Phase(shape="step", duration=options.duration, **rates, **call_of(options)),)


class Step(OpenLoop):
    """Follows the stair's schedule, whatever the answers."""


register("step", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
