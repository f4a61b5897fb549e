"""What changes in the search of a limiter when calls have different costs: input tokens instead of requests.

With one cost, each refusal says "full". With sizes it says "less than this was left", so a recovery is an admission
of more than was known to be left, and a threshold is known to a bracket whose width is the last size that was tried.
Pure; seconds on the record's clock, costs in tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from analysis.calls import Floats
    from analysis.decisions import Record

_BETWEEN = np.linspace(0.0, 1.0, 9)
_LATEST = 12  # admissions before a recovery that may be what it gave back


def sized(record: Record) -> bool:
    """Return whether calls differ in cost."""
    return bool(np.any(record.cost != 1.0))


def recoveries(record: Record) -> tuple[Floats, Floats, Floats]:
    """Return (brackets, waits, lumps) as `analysis.proposals.Structure` has them.

    The room that may be left is followed: a refusal bounds it, an admission takes its cost from it, and an admission
    beyond the bound says that something was given back since the bound was last confirmed.
    """
    most, bounded_s, full_s, lump = np.inf, np.nan, np.nan, 0.0
    brackets, waits, lumps = [], [], []
    for at_s, admitted, cost in zip(record.sent_s, record.admitted, record.cost, strict=True):
        if not admitted:
            full_s = at_s if np.isnan(full_s) else full_s
            most, bounded_s = min(most, cost), at_s
            continue
        if cost >= most:
            brackets.append((bounded_s, at_s))
            waits.append(bounded_s - full_s)
            lumps.append(lump)
            most, full_s, lump = np.inf, np.nan, 0.0
        most -= cost
        lump += cost
    table = np.array(brackets) if brackets else np.zeros((0, 2))
    return table, np.array(waits), np.array([*lumps, lump])


def log_windows(record: Record, brackets: Floats) -> list[float]:
    """Return the windows after which a sliding log gives back one of the latest admissions before each recovery."""
    spent_s = record.sent_s[record.admitted]
    found: list[float] = []
    for last_s, first_s in brackets:
        for at_s in spent_s[spent_s < last_s][-_LATEST:]:
            found += [last_s - at_s, (last_s + first_s) / 2 - at_s, first_s - at_s]
    return found


def thresholds(record: Record, need: Floats) -> Floats:
    """Return limits, (shapes, candidates) in rising order, from the most that passed to the least that did not.

    ``need``: (shapes, decisions), what each decision brings the count to. Where the two overlap the limits lie between
    the extremes of the overlap.
    """
    passed = need[:, record.admitted].max(axis=1)
    refused = need[:, ~record.admitted].min(axis=1) - 1.0
    low, high = np.minimum(passed, refused), np.maximum(passed, refused)
    values = low[:, None] + _BETWEEN * (high - low)[:, None]
    values[:, :-1] = np.ceil(values[:, :-1] - 1e-6)
    values[:, -1] = np.floor(values[:, -1] + 1e-6)
    return np.asarray(np.sort(np.maximum(values, 1.0), axis=1))
