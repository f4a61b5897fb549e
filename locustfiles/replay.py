"""Replay: send at the moments of a recorded trace, such as production's access log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.plan import Phase
from redline.scenario import OpenLoop, as_script, call_of, register
from redline.scenario_options import Duration, Option

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = (
    Option("--trace", str, "", "A CSV file with a column sent_s, in seconds"),
    Option("--duration", Duration, "1h", "Stop after this much of the trace: 90s, 10m, 1h30m"),
)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Make one phase whose moments come from a file."""
    if not options.trace:
        raise ValueError("--trace takes a CSV file with a column sent_s, in seconds")
    call = call_of(options) | {"arrivals": options.trace}
    return (Phase(name="replay", shape="constant", duration=options.duration, **call),)


class Replay(OpenLoop):
    """Sends at the trace's moments, whatever the answers."""


register("replay", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
