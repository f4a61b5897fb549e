"""What it costs to ask redline for help, beside what Python itself costs to start: paired runs, in one loop.

    python benchmarks/startup.py [--runs 21] [--json FILE]

A quotient of two times on one machine says more than a time; the design asks for less than 0.3 s on a quiet one.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

MEASURED = {
    "redline --help": ["-m", "redline", "--help"],
    "redline calibrate --help": ["-m", "redline", "calibrate", "--help"],
    "redline calibrate --dry-run": ["-m", "redline", "calibrate", "--dry-run"],
    "import locust": ["-c", "import locust"],
}
TARGET_S = 0.3


def seconds(words: list[str]) -> float:
    """Return how long a fresh interpreter takes for these words."""
    began_s = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)  # noqa: S603 - our own interpreter
    return time.perf_counter() - began_s


def main() -> None:
    """Measure, print a table, and write rows where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=21, help="pairs of runs (default 21)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    options = parser.parse_args()
    bare_s: list[float] = []
    taken_s: dict[str, list[float]] = {name: [] for name in MEASURED}
    for _ in range(options.runs):  # interleaved, so that a busy minute falls on all alike
        bare_s.append(seconds(["-c", "pass"]))
        for name, words in MEASURED.items():
            taken_s[name].append(seconds(words))
    rows = [row(name, times_s, bare_s) for name, times_s in taken_s.items()]
    print(f"{'':30}{'median':>10}{'of python -c pass':>20}")
    for entry in rows:
        print(f"{entry['measure']:30}{entry['value']:>8.3f} s{entry['times_bare']:>19.1f}x")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def row(name: str, times_s: list[float], bare_s: list[float]) -> dict[str, object]:
    """Return one measure as the other benchmarks write theirs; the interval is the median's, by order statistics."""
    ordered = sorted(times_s)
    median_s = statistics.median(ordered)
    edge = max(0, math.floor(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered))))
    judged = name == "redline --help"
    return {
        "suite": "startup",
        "measure": name,
        "value": median_s,
        "ci95": [ordered[edge], ordered[-1 - edge]],
        "n": len(ordered),
        "target": TARGET_S if judged else None,
        "passed": median_s < TARGET_S if judged else None,
        "times_bare": median_s / statistics.median(bare_s),
    }


if __name__ == "__main__":
    main()
