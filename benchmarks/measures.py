"""From the marks of many worlds to the rows of the accuracy table, each with its target and a 95 % interval.

This file owns the targets and the statistics; it knows no world. A row passes when its value reaches its target.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from scipy.stats import beta, binom

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from judging import Outcome

SHARE, MEDIAN = "share", 0.5
P10, P95 = 0.1, 0.95
_COVERS = "interval covers"


@dataclass(frozen=True, slots=True)
class Measure:
    """What to make of a mark. ``statistic``: share of worlds, or a quantile. ``at_least``: the target's sense."""

    suite: str
    mark: str
    statistic: str | float
    target: float
    at_least: bool = True

    @property
    def name(self) -> str:
        """How the row is called."""
        if self.statistic == SHARE:
            return self.mark
        word = {MEDIAN: "median", P10: "10th percentile", P95: "95th percentile"}[float(self.statistic)]
        return f"{self.mark}, {word}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table. ``target`` and ``passed`` are None where a row only informs."""

    suite: str
    measure: str
    value: float | None
    ci95: tuple[float, float] | None
    n: int
    target: float | None
    passed: bool | None
    sense: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the row as the issue names its keys."""
        row = asdict(self)
        del row["sense"]
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}


_WIDTH = "width of the rate's interval"
_HOLDS = "settings: at most 0.1 % throttled in an hour"
_GOODPUT = "settings: goodput against the oracle"

TARGETS = (
    Measure("standard", "family right", SHARE, 0.99),
    Measure("standard", "rate within 1 %", SHARE, 0.99),
    Measure("standard", "burst within 1, or 2 %", SHARE, 0.97),
    Measure("standard", "concurrency exact", SHARE, 0.98),
    Measure("standard", "measured", SHARE, 0.95),
    Measure("standard", _WIDTH, MEDIAN, 0.02, at_least=False),
    Measure("standard", _COVERS, SHARE, 0.94),
    Measure("standard", _GOODPUT, MEDIAN, 0.99),
    Measure("standard", _GOODPUT, P10, 0.97),
    Measure("standard", _HOLDS, SHARE, 0.99),
    Measure("standard", "time, in windows of 60 s", MEDIAN, 2.5, at_least=False),
    Measure("standard", "time, in windows of 60 s", P95, 4.0, at_least=False),
    Measure("standard", "calls, in multiples of the limit", MEDIAN, 3.0, at_least=False),
    Measure("odd", "family right", SHARE, 0.97),
    Measure("odd", "rate within 1 %", SHARE, 0.97),
    Measure("odd", _COVERS, SHARE, 0.94),
    Measure("noisy", "family right", SHARE, 0.95),
    Measure("noisy", "rate within 1 %", SHARE, 0.95),
    Measure("noisy", _COVERS, SHARE, 0.94),
    Measure("background", "presence reported", SHARE, 0.95),
    Measure("background", "measured", SHARE, 0.60),
    Measure("background", _WIDTH, MEDIAN, 0.25, at_least=False),
    Measure("background", _COVERS, SHARE, 0.90),
    Measure("replicas", _HOLDS, SHARE, 0.95),
    Measure("replicas", _COVERS, SHARE, 0.94),
    Measure("several", "all found, each within 2 %", SHARE, 0.90),
    Measure("several", _COVERS, SHARE, 0.94),
    Measure("random", "called random, no number invented", SHARE, 0.98),
    Measure("hard", _COVERS, SHARE, 0.94),
    Measure("drift", "noticed, or no narrow interval around a wrong number", SHARE, 0.95),
)
_QUANTILES = {_WIDTH, _GOODPUT, "time, in windows of 60 s", "calls, in multiples of the limit"}


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """Return the table: the targets of every suite that ran, then what else was marked."""
    table: list[Row] = []
    for suite in dict.fromkeys(outcome.suite for outcome in outcomes):
        marks = _collect(outcome.marks for outcome in outcomes if outcome.suite == suite)
        targets = [measure for measure in TARGETS if measure.suite == suite]
        table += [_row(measure, marks.get(measure.mark, [])) for measure in targets]
        aimed_at = {measure.mark for measure in targets}
        table += [_plain(suite, mark, values) for mark, values in marks.items() if mark not in aimed_at]
    return table


def _collect(all_marks: Iterable[dict[str, float]]) -> dict[str, list[float]]:
    """Gather by mark; the numbered intervals of a world count together, and by what they are about."""
    found: dict[str, list[float]] = {}
    for marks in all_marks:
        for mark, value in marks.items():
            name = mark.partition("#")[0]
            found.setdefault(name, []).append(value)
            if name.startswith(_COVERS):
                found.setdefault(_COVERS, []).append(value)
    return found


def _row(measure: Measure, values: list[float]) -> Row:
    value, ci95 = _share(values) if measure.statistic == SHARE else _quantile(values, float(measure.statistic))
    sense = ">=" if measure.at_least else "<="
    passed = value is not None and bool(value >= measure.target if measure.at_least else value <= measure.target)
    return Row(measure.suite, measure.name, value, ci95, len(values), measure.target, passed, sense)


def _plain(suite: str, mark: str, values: list[float]) -> Row:
    if mark in _QUANTILES or "in ten minutes" in mark:
        value, ci95 = _quantile(values, MEDIAN)
        return Row(suite, f"{mark}, median", value, ci95, len(values), None, None)
    value, ci95 = _share(values)
    return Row(suite, mark, value, ci95, len(values), None, None)


def _share(values: list[float]) -> tuple[float | None, tuple[float, float] | None]:
    """Return a share with its Clopper-Pearson interval."""
    if not values:
        return None, None
    n, k = len(values), round(sum(values))
    low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
    return k / n, (low, high)


def _quantile(values: list[float], q: float) -> tuple[float | None, tuple[float, float] | None]:
    """Return a quantile with the interval between two order statistics that covers it whatever the distribution."""
    if not values:
        return None, None
    ranked, n = sorted(values), len(values)
    low = max(0, int(binom.ppf(0.025, n, q)) - 1)
    high = min(n - 1, int(binom.ppf(0.975, n, q)))
    return ranked[min(n - 1, math.ceil(q * n) - 1)], (ranked[low], ranked[high])


def render(table: Sequence[Row]) -> str:
    """Return the table as text."""
    lines = [f"{'suite':<11} {'measure':<54} {'value':>8} {'95 % interval':>19} {'n':>5}  target"]
    for row in table:
        value = "-" if row.value is None else _number(row.value)
        ci95 = "-" if row.ci95 is None else f"{_number(row.ci95[0])} .. {_number(row.ci95[1])}"
        goal = "" if row.target is None else f"{row.sense} {row.target:g} {'ok' if row.passed else 'MISSED'}"
        lines.append(f"{row.suite:<11} {row.measure:<54} {value:>8} {ci95:>19} {row.n:>5}  {goal}".rstrip())
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"  # noqa: PLR2004 - a matter of looks
