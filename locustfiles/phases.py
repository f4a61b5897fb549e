"""Phases: carry out a plan file, a table of phases in TOML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from redline.plan import read_plan
from redline.scenario import OpenLoop, as_script, register
from redline.scenario_options import Option

if TYPE_CHECKING:
    from types import SimpleNamespace

    from redline.plan import Phase

OPTIONS = (Option("--plan", str, "", "A TOML file with [[phases]]"),)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Read the plan; its phases say themselves what a call is like."""
    if not options.plan:
        raise ValueError("--plan takes a TOML file with [[phases]]")
    return read_plan(Path(options.plan))


class Phases(OpenLoop):
    """Follows the plan's schedule, whatever the answers."""


register("phases", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
