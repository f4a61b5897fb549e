"""Calibrate servers with hidden limits over real sockets, and hold what was found against the truth.

    python benchmarks/live.py --count 60 --seed 1 --jobs 3 --json live.json

A hidden server (``benchmarks/hidden``, written apart from the mock) is started for each configuration, and
``redline calibrate --target URL --json`` runs against it as a user would run it. A row says how it ended; under the
rows stand the totals and, for each configuration that came out wrong, the truth, what was found and where the run
directory is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hidden.configurations import Configuration, draw
from hidden.judging import Check, judge
from hidden.running import Ended, calibrate, serving
from scipy.stats import binomtest

SUITE = "live"
ALL_RIGHT = "configuration right"
TARGET = 0.95  # 57 of 60
CALIBRATION_WITHIN_S = 900.0
CONCLUDED = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One configuration, how its calibration ended, and what the truth says about it."""

    configuration: Configuration
    ended: Ended
    checks: list[Check]
    took_s: float
    directory: Path

    @property
    def failed(self) -> list[Check]:
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]


def run_one(configuration: Configuration, keep: Path, options: list[str]) -> Run:
    """Start the server, calibrate it, judge the result."""
    directory = keep / configuration.name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "truth.json").write_text(json.dumps(configuration.server_config(), indent=1), encoding="utf-8")
    started = time.monotonic()
    with serving(configuration.server_config(), directory / "decisions.jsonl") as url:
        ended = calibrate(url, directory, *options, timeout_s=CALIBRATION_WITHIN_S)
    concluded = Check("concluded", ended.exit_code == CONCLUDED, f"exit code {ended.exit_code}: {ended.last_line}")
    checks = [concluded] if ended.result is None else [concluded, *judge(configuration, ended.result)]
    return Run(configuration, ended, checks, time.monotonic() - started, directory)


def row(run: Run) -> str:
    """Say in a line what was there and what came out."""
    truth = " + ".join(_limit_words(table) for table in run.configuration.limits)
    faults = "503" if run.configuration.error_share else ""
    calls = run.ended.result["spent"]["requests"] if run.ended.result else "-"
    verdict = "right" if not run.failed else "WRONG: " + ", ".join(check.measure for check in run.failed)
    return f"{run.configuration.name:>8}  {truth:<62} {faults:>3} {run.took_s:5.0f} s {calls:>6} calls  {verdict}"


def _limit_words(table: dict[str, Any]) -> str:
    family = table["family"]
    if family == "concurrency":
        return f"{table['limit']} at once"
    if family == "token_bucket":
        return f"{family} {table['rate_per_s']:g}/s burst {table['burst']}"
    refused = " counting refused" if table.get("counts_refused") else ""
    return f"{family} {table['limit']} in {table['window_s']:g} s{refused}"


def reasons(run: Run) -> list[str]:
    """Explain a configuration that came out wrong."""
    head = f"{run.configuration.name}: {json.dumps(run.configuration.server_config())}"
    return [head, *(f"    {check.measure}: {check.detail}" for check in run.failed), f"    kept in {run.directory}"]


def totals(runs: list[Run]) -> list[dict[str, Any]]:
    """Sum up each measure as a share with its 95 % interval (Clopper and Pearson)."""
    counted: dict[str, list[bool]] = {ALL_RIGHT: [not run.failed for run in runs]}
    for check in (check for run in runs for check in run.checks):
        counted.setdefault(check.measure, []).append(check.passed)
    return [_total(measure, outcomes) for measure, outcomes in counted.items()]


def _total(measure: str, outcomes: list[bool]) -> dict[str, Any]:
    n, right = len(outcomes), sum(outcomes)
    interval = binomtest(right, n).proportion_ci()
    return {
        "suite": SUITE,
        "measure": measure,
        "value": right / n,
        "ci95": [float(interval.low), float(interval.high)],
        "n": n,
        "target": TARGET,
        "passed": right / n >= TARGET,
    }


def parse() -> argparse.Namespace:
    """Read the command line; what follows ``--`` goes to ``redline calibrate``."""
    parser = argparse.ArgumentParser(description="Judge redline against servers with hidden limits.")
    parser.add_argument("--count", type=int, default=60, help="how many configurations")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--json", type=Path, help="write the totals here")
    parser.add_argument("--only", default="", help="names of configurations, comma-separated")
    parser.add_argument("--keep", type=Path, help="where run directories go (default: a new temporary directory)")
    parser.add_argument("options", nargs="*", help="passed on to redline calibrate, after --")
    return parser.parse_args()


def main() -> int:
    """Run the configurations, print the table, write the JSON. Exit code 1 where a target was missed."""
    options = parse()
    keep = options.keep or Path(tempfile.mkdtemp(prefix="redline-live-"))
    wanted = set(filter(None, options.only.split(",")))
    chosen = [each for each in draw(options.seed, options.count) if not wanted or each.name in wanted]
    runs = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for run in pool.map(lambda each: run_one(each, keep, options.options), chosen):
            print(row(run), flush=True)
            runs.append(run)
    rows = totals(runs)
    print()
    for total in rows:
        low, high = total["ci95"]
        print(f"{total['measure']:<30} {total['value']:6.1%}  ({low:.0%} to {high:.0%}, n = {total['n']})")
    for line in (line for run in runs if run.failed for line in reasons(run)):
        print(line)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0 if all(total["passed"] for total in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
