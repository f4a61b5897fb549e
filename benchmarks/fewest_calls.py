"""How few calls could any plan need? A bound from below, for the worlds of `standard`, beside what was measured.

    python benchmarks/fewest_calls.py [--count 1000] [--seed 18018]

Whoever is told nothing of a window but that it lasts from a second to an hour, and has to name its rate within 1 %,
must tell some 400 lengths apart, and see a refusal: N + 1 calls at once. A limit that gives all back at once says with
m calls only between which two of them that was, so that k recoveries tell (m + 1)^k lengths apart, and each but the
last costs N calls more to be full again. One that gives back call by call may say yes or no with each. Not counted:
what it takes to tell families apart, delays, and checking any of it.
"""

from __future__ import annotations

import argparse
import math
from statistics import median
from typing import TYPE_CHECKING, Final

import worlds

if TYPE_CHECKING:
    from worlds import Case

LENGTHS: Final = math.log(3600.0) / math.log(1.01 / 0.99)  # that are to be told apart
AT_ONCE: Final = frozenset({"fixed_window", "anchored_window"})  # families that give all back at once
MOST: Final = 16  # recoveries that are thought of: of one call, nine are best


def main() -> None:
    """Print the median of the bound over the worlds whose rate a client can reach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="worlds (default 1000)")
    parser.add_argument("--seed", type=int, default=18018, help="of the worlds (default 18018)")
    options = parser.parse_args()
    cases = [worlds.case("standard", index, options.seed) for index in range(options.count)]
    bounds = [bound for case in cases if (bound := in_limits(case)) is not None]
    above = sum(bound > 3.0 for bound in bounds) / len(bounds)  # noqa: PLR2004 - the target
    print(f"{len(bounds)} worlds: the fewest calls, in multiples of the limit: {median(bounds):.2f} in the median,")
    print(f"more than 3 in {above:.0%} of them")


def in_limits(case: Case) -> float | None:
    """Return the fewest calls in multiples of what a window lets in; None where no client meets the limit."""
    truth = case.rates[0]
    if not truth.counts:
        return None
    per_window = max(1.0, truth.rate_per_s * case.window_s)
    return fewest_calls(truth.burst, at_once=truth.family in AT_ONCE) / per_window


def fewest_calls(full: float, lengths: float = LENGTHS, *, at_once: bool) -> float:
    """Return the fewest calls that meet a limit of ``full`` calls and tell so many lengths apart."""
    if not at_once:
        return full + 1.0 + math.ceil(math.log2(lengths))
    each = ((k, math.ceil(lengths ** (1.0 / k) - 1e-9) - 1) for k in range(1, MOST))
    return full + 1.0 + min(k * m + (k - 1) * (full - 1.0) for k, m in each)


if __name__ == "__main__":
    main()
