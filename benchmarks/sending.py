"""How punctual and how fast the sender is: the real Locust child, on a bundled mock that limits nothing.

    python benchmarks/sending.py [--seconds 5] [--json FILE]

For each transport: arrivals on an even grid, how late they left (sent less planned), the rate that was reached, and how
long a burst of 64 took to leave. Both processes run on this machine, so a busy machine shows in the figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from redline.locust_traffic import LocustTraffic
from redline.mock_process import running_mock
from redline.record import RunFile
from redline.traffic import Probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redline.traffic import Attempt

PROFILE = "[latency]\nfirst_token_s = 0.05\nsigma = 0.1\nper_token_s = 0.0\n"
RATES_PER_S = {"fast": (100, 500), "sdk": (100, 300)}
BURST = 64
BURSTS = 5


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the others does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(measure: str, value: float, n: int) -> dict[str, object]:
    """Make a row of the table; there is no target to pass."""
    return {
        "suite": "sending",
        "measure": measure,
        "value": value,
        "ci95": None,
        "n": n,
        "target": None,
        "passed": None,
    }


def grid(traffic: LocustTraffic, rate_per_s: int, duration_s: float) -> list[Attempt]:
    """Send an even grid; give its attempts."""
    report = traffic.run(Probe("grid", [k / rate_per_s for k in range(int(rate_per_s * duration_s))]))
    return traffic.attempts[report.first : report.last]


def measure(url: str, transport: str, duration_s: float) -> list[dict[str, object]]:
    """Measure one transport with one sender."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        run_file = RunFile(Path(folder), scenario="sending")
        with LocustTraffic(url, run_file, model="gemini-3.8-flash", transport=transport) as traffic:
            grid(traffic, 100, 1.0)  # first calls load code and open connections
            for rate_per_s in RATES_PER_S[transport]:
                sent = grid(traffic, rate_per_s, duration_s)
                late_ms = [1000 * (attempt.sent_s - attempt.planned_s) for attempt in sent]
                reached = (len(sent) - 1) / (sent[-1].sent_s - sent[0].sent_s)
                name = f"{transport}, {rate_per_s} a second"
                rows.append(row(f"{name}: reached, calls a second", reached, len(sent)))
                rows += [row(f"{name}: late, ms, quantile {q:g}", quantile(late_ms, q), len(sent)) for q in (0.5, 0.99)]
            spans_ms = []
            for _ in range(BURSTS):
                report = traffic.run(Probe("burst", [0.0] * BURST))
                sent = traffic.attempts[report.first : report.last]
                spans_ms.append(1000 * (sent[-1].sent_s - sent[0].sent_s))
            rows.append(
                row(f"{transport}: a burst of {BURST} leaves within, ms, median", quantile(spans_ms, 0.5), BURSTS)
            )
    return rows


def main() -> None:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each grid lasts")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "unlimited.toml"
        profile.write_text(PROFILE)
        with running_mock(str(profile)) as url:
            rows = [r for transport in RATES_PER_S for r in measure(url, transport, options.seconds)]
    for one in rows:
        print(f"{one['measure']:55} {one['value']:10.2f}   n = {one['n']}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
