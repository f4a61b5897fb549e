"""What settings are worth: the formulas beside what people set instead, in two hours of virtual time a cell.

    python benchmarks/settings.py --json settings.json

Each way to set a limiter meets each family of limit with a saturated client. A cell says which share of the limit
was used (goodput over N / W, or r) and which share of the calls was refused. The limits are known exactly here, so
the table is about the formulas and not about the inference; a delay that varies by J lies between client and limit.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from analysis.estimate import Identified, Inference
from analysis.recommend import recommend
from analysis.recommend_proof import clopper_pearson
from analysis.recommend_rates import largest_rate_per_s, sustained_rate_per_s
from analysis.result import Limit
from mock_server.limits import AnchoredWindow, FixedWindow, LeakyQueue, SlidingCounter, SlidingLog, TokenBucket
from redline.limiter import ClientLimiter
from redline.traffic import Pacing

if TYPE_CHECKING:
    from collections.abc import Callable

    from mock_server.limits import Spec

Floats = npt.NDArray[np.float64]
HOURS_S = 7200.0
WINDOW_S = 60.0
SPREADS_S = (0.035, 0.35)
SIZES = (15, 150)
PROMPT_SHARE = 0.2  # of the tokens' cells: calls of up to a fifth of the limit
UNIT = 1000  # tokens per call of the limit, so that N calls are N thousand tokens


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to set a limiter against one limit."""

    way: str
    limit: str
    spread_s: float
    calls: int
    refused: int
    goodput_share: float

    @property
    def refused_share(self) -> float:
        """Share of the calls, 0 to 1."""
        return self.refused / self.calls if self.calls else 0.0


def limits(n: int) -> dict[str, Spec]:
    """Return a limit of n calls a minute of each family; buckets as small as one call and as large as a quarter."""
    rate_per_s = n / WINDOW_S
    return {
        f"fixed window {n}": FixedWindow(n, WINDOW_S, 23.0),
        f"anchored window {n}": AnchoredWindow(n, WINDOW_S),
        f"sliding log {n}": SlidingLog(n, WINDOW_S),
        f"sliding counter {n}": SlidingCounter(n, WINDOW_S, 41.0),
        f"bucket of a quarter {n}": TokenBucket(rate_per_s, math.ceil(n / 4)),
        f"bucket of one {n}": TokenBucket(rate_per_s, 1),
        f"leaky queue {n}": LeakyQueue(rate_per_s, math.ceil(n / 4)),
    }


def pacer(rate_per_s: float, burst: float = 1.0, instances: int = 1) -> Callable[[np.random.Generator], Floats]:
    """Return a saturated client: token buckets of this rate and burst, each started at its own moment."""

    def leave(rng: np.random.Generator) -> Floats:
        return np.concatenate([_paced(rate_per_s, burst, rng.uniform(0.0, WINDOW_S)) for _ in range(instances)])

    return leave


def _paced(rate_per_s: float, burst: float, now_s: float) -> Floats:
    limiter = ClientLimiter(Pacing(rate_per_s, burst, None, HOURS_S, math.inf))
    left_s: list[float] = []
    while now_s < HOURS_S:
        now_s = limiter.next_moment_s(now_s, 0)
        limiter.sent(now_s)
        left_s.append(now_s)
    return np.array(left_s)


def poisson(rate_per_s: float) -> Callable[[np.random.Generator], Floats]:
    """Return a client that sends whenever its users ask."""
    return lambda rng: np.cumsum(rng.exponential(1.0 / rate_per_s, int(HOURS_S * rate_per_s)))


def ways(spec: Spec, n: int, spread_s: float) -> dict[str, Callable[[np.random.Generator], Floats]]:
    """Return what people set, and what the formulas say, for one limit."""
    full_per_s = sustained_rate_per_s(spec)
    known = Identified(Limit(metric="requests", state="measured"), ((1.0, spec),))
    made = recommend(Inference((known,), (), spread_s, None))
    table = {
        "paced at the limit": pacer(full_per_s),
        "paced at 80 %": pacer(0.8 * full_per_s),
        "a burst of 10 %, full rate": pacer(full_per_s, max(1.0, math.floor(0.1 * n))),
        "as users ask, 95 %": poisson(0.95 * full_per_s),
        "7 clients, rate / 7": pacer(full_per_s / 7, instances=7),
        "formula, one by one": pacer(largest_rate_per_s(spec, 1.0, spread_s=spread_s)),
        "formula, with its burst": pacer((made.requests_per_minute or 0.0) / 60.0, made.burst or 1.0),
    }
    shared_per_s = largest_rate_per_s(spec, 1.0, spread_s=spread_s, instances=7)
    if shared_per_s > 0.0:
        table["formula, 7 clients"] = pacer(shared_per_s, instances=7)
    return table


def cell(way: str, name: str, spec: Spec, left_s: Floats, spread_s: float, rng: np.random.Generator) -> Cell:
    """Send the calls through the limit and count; every delay is as likely as any other up to J."""
    arrivals_s = np.sort(left_s + rng.uniform(0.0, spread_s, len(left_s)))
    state, refused, passed = spec.limiter(), 0, 0
    for moment_s in arrivals_s.tolist():
        if state.check(moment_s).admitted:
            state.commit(moment_s)
            passed += WINDOW_S <= moment_s < HOURS_S
        else:
            refused += 1
    share = passed / (HOURS_S - WINDOW_S) / sustained_rate_per_s(spec)
    return Cell(way, name, spread_s, len(arrivals_s), refused, share)


def token_cells(n: int, spread_s: float, rng: np.random.Generator) -> list[Cell]:
    """Return the cells of a log of n thousand input tokens: calls of all sizes up to a fifth of it."""
    spec = SlidingLog(n * UNIT, WINDOW_S)
    largest = PROMPT_SHARE * spec.limit
    rates_per_s = {
        "tokens paced at N / (W + J)": spec.limit / (WINDOW_S + spread_s),
        "tokens by the formula": largest_rate_per_s(spec, largest, spread_s=spread_s, whole_calls=False),
    }
    return [_tokens(way, f"input tokens {n}", spec, rate, largest, spread_s, rng) for way, rate in rates_per_s.items()]


def _tokens(
    way: str, name: str, spec: SlidingLog, rate_per_s: float, largest: float, spread_s: float, rng: np.random.Generator
) -> Cell:
    """Pace calls of uniform sizes by a bucket that holds the largest; the limit counts their tokens."""
    costs = rng.uniform(0.02, 1.0, int(4.0 * HOURS_S * rate_per_s / largest)) * largest
    full_at_s, left_s = 0.0, []
    for cost in costs.tolist():
        left_s.append(max(0.0, full_at_s - (largest - cost) / rate_per_s))
        full_at_s = max(left_s[-1], full_at_s) + cost / rate_per_s
    arrivals_s = np.array(left_s) + rng.uniform(0.0, spread_s, len(left_s))
    order = np.argsort(arrivals_s)
    state, refused, passed, calls = spec.limiter(), 0, 0.0, 0
    for moment_s, cost in zip(arrivals_s[order].tolist(), costs[order].tolist(), strict=True):
        if moment_s > HOURS_S:
            break
        calls += 1
        if state.check(moment_s, cost).admitted:
            state.commit(moment_s, cost)
            passed += cost
        else:
            refused += 1
    return Cell(way, name, spread_s, calls, refused, passed / HOURS_S * spec.window_s / spec.limit)


def measure(seed: int) -> list[Cell]:
    """Return all cells."""
    rng = np.random.default_rng(seed)
    cells: list[Cell] = []
    for spread_s in SPREADS_S:
        for n in SIZES:
            for name, spec in limits(n).items():
                cells += [
                    cell(way, name, spec, client(rng), spread_s, rng) for way, client in ways(spec, n, spread_s).items()
                ]
            cells += token_cells(n, spread_s, rng)
    return cells


def table(cells: list[Cell]) -> str:
    """Return Markdown, a table for each spread and size: goodput of the limit / refused share of the calls."""
    parts: list[str] = []
    for spread_s in SPREADS_S:
        for n in SIZES:
            chosen = {(c.way, c.limit): c for c in cells if c.spread_s == spread_s and c.limit.endswith(f" {n}")}
            names = list(dict.fromkeys(name for _, name in chosen))
            heads = [name.removesuffix(f" {n}") for name in names]
            parts.append(f"\n{n} a minute, J = {spread_s * 1000:g} ms (goodput of the limit / refused)\n")
            parts.append(f"| set to | {' | '.join(heads)} |\n| --- |{' ---: |' * len(names)}")
            for way in dict.fromkeys(way for way, _ in chosen):
                told = [_told(chosen.get((way, name))) for name in names]
                parts.append(f"| {way} | {' | '.join(told)} |")
    return "\n".join(parts)


def _told(one: Cell | None) -> str:
    return "-" if one is None else f"{one.goodput_share:.1%} / {one.refused_share:.2%}"


def rows(cells: list[Cell]) -> list[dict[str, object]]:
    """Return the cells as rows of the benchmarks' common shape; only the formulas have a target: no refusal."""
    made: list[dict[str, object]] = []
    for one in cells:
        target = 0.0 if "formula" in one.way else None
        low, high = clopper_pearson(one.refused, one.calls)
        made.append(
            {
                "suite": "settings",
                "measure": f"refused: {one.way}, {one.limit}, J {one.spread_s:g} s",
                "value": one.refused_share,
                "ci95": [low, high],
                "n": one.calls,
                "target": target,
                "passed": None if target is None else one.refused_share <= target,
                **{key: asdict(one)[key] for key in ("way", "limit", "spread_s", "goodput_share")},
            }
        )
    return made


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=1, help="of phases and delays")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    arguments = parser.parse_args()
    cells = measure(arguments.seed)
    print(table(cells))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows(cells), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
