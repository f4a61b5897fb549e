"""Tokens: a steady rate of calls whose prompts grow, to find the limit on input tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.plan import Phase
from redline.scenario import OpenLoop, as_script, call_of, register
from redline.scenario_options import Duration, Option

if TYPE_CHECKING:
    from types import SimpleNamespace

OPTIONS = (
    Option("--rpm", float, 30.0, "Calls a minute"),
    Option("--from-tokens", int, 100, "Input tokens of a call on the first level"),
    Option("--to-tokens", int, 10000, "Input tokens of a call on the last level"),
    Option("--steps", int, 5, "How many levels"),
    Option("--duration", Duration, "1m", "How long each level lasts: 90s, 10m, 1h30m"),
)


def plan(options: SimpleNamespace) -> tuple[Phase, ...]:
    """Make one phase a prompt size, each larger by the same factor."""
    if not 1 <= options.from_tokens <= options.to_tokens:
        raise ValueError("--from-tokens takes a number from 1 up to --to-tokens")
    growth = (options.to_tokens / options.from_tokens) ** (1 / max(1, options.steps - 1))
    sizes = [round(options.from_tokens * growth**k) for k in range(max(1, options.steps))]
    steady = {"shape": "constant", "duration": options.duration, "rpm": options.rpm} | call_of(options)
    return tuple(Phase(name=f"tokens-{n}", **(steady | {"prompt_tokens": n})) for n in sizes)


class Tokens(OpenLoop):
    """Follows the levels' schedule, whatever the answers."""


register("tokens", OPTIONS, plan)

if __name__ == "__main__":
    as_script(__file__)
