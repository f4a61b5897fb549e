"""How long the inference takes to explain a record again, by its length: CPU seconds, median of a few runs.

    python benchmarks/refit.py [--calls 5000 100000] [--runs 3] [--seed 1] [--json FILE]

The record is one of two hundred windows on the clock, filled and overfilled in turn. A thorough fit looks at every
family from nothing; a light one starts from what that found, as a plan does between two probes. Targets (seconds,
for a light one on a quiet machine): 0.2 for 5 000 calls, 2 for 100 000.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.fit import fit
from analysis.two_limits import WARM
from mock_server.limits import FixedWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from analysis.fit import Fit

WINDOW_S = 60.0
WINDOWS = 200
SPREAD_S = 0.02
MARGIN = 1.3  # what is sent in relation to what passes, on average
BRIEFLY_S = 0.1  # a refusal's round trip


def record_of(calls: int, seed: int) -> Calls:
    """Return a record of about so many calls, as a fixed window would have answered them."""
    rng = np.random.default_rng(seed)
    per_window = calls / WINDOWS
    limiter = FixedWindow(max(1.0, round(per_window / MARGIN)), WINDOW_S, 17.0).limiter()
    sent_s = np.sort(rng.uniform(0.0, WINDOW_S * WINDOWS, calls))
    arrived_s = sent_s + rng.uniform(0.0, SPREAD_S, calls)
    outcome = np.empty(calls, np.int64)
    for i in np.argsort(arrived_s):
        at_s = float(arrived_s[i])
        admitted = limiter.check(at_s).admitted
        (limiter.commit if admitted else limiter.refused)(at_s)
        outcome[i] = ADMITTED if admitted else REFUSED
    blank = np.full(calls, np.nan)
    done_s = arrived_s + BRIEFLY_S + rng.uniform(0.0, SPREAD_S, calls)
    names = ("",) * calls
    return Calls(sent_s, done_s, outcome, np.ones(calls), blank, blank, blank, names, names)


def timed(work: Callable[[], Fit]) -> tuple[float, Fit]:
    """Return the CPU seconds that this takes, and what it makes."""
    began_s = time.process_time()
    made = work()
    return time.process_time() - began_s, made


def measured(calls: int, runs: int, seed: int) -> dict[str, float]:
    """Return the medians for records of this length; each run has a record of its own, or the fit is remembered."""
    thorough, light = [], []
    for run in range(runs):
        record = record_of(calls, seed + run)
        took_s, found = timed(partial(fit, record))
        thorough.append(took_s)
        light.append(timed(partial(fit, record, found.leading(WARM), thorough=False))[0])
    return {"calls": calls, "thorough_s": statistics.median(thorough), "light_s": statistics.median(light)}


def main() -> None:
    """Measure, print a table, and write rows where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="+", default=[5_000, 100_000], help="lengths of the records")
    parser.add_argument("--runs", type=int, default=3, help="records of each length (default 3)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    options = parser.parse_args()
    rows = []
    print(f"{'calls':>9}{'thorough':>12}{'light':>9}")
    for calls in options.calls:
        row = measured(calls, options.runs, options.seed)
        rows.append(row)
        print(f"{calls:9d}{row['thorough_s']:10.2f} s{row['light_s']:7.2f} s")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
