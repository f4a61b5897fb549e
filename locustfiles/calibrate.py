"""Calibrate: find the limits in force. This process sends; `redline calibrate`, at a channel's other end, thinks."""

from __future__ import annotations

from redline.calibrating import Sending, register
from redline.scenario import as_script
from redline.scenario_options import Duration, Option

OPTIONS = (
    Option("--max-rpm", float, None, "Never send faster than this, in calls a minute"),
    Option("--need-rpm", float, None, "Only ask whether this many calls a minute pass"),
    Option("--max-throttled", str, None, "The share of refusals to accept later, such as 0.001"),
    Option("--verify-for", Duration, None, "How long to drive the settings that were found: 90s, 3m"),
)


class Calibrate(Sending):
    """Sends what the plan asks for; the plan decides from what comes back."""


register(OPTIONS)

if __name__ == "__main__":
    as_script(__file__)
