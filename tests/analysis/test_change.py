"""A limit that changes while it is probed: told with both numbers, and never where nothing changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.change import change_of
from analysis.fit import fit
from analysis.infer import infer

WINDOW_S = 10.0
CHANGES_S = 60.0


def record(before: int, after: int) -> Calls:
    """Return bursts against a sliding log of so many calls in ten seconds that has another limit after a minute."""
    rng = np.random.default_rng(3)
    sent_s = np.concatenate(
        [at + 0.05 * np.arange(20) for at in np.arange(0.0, 120.0, 4.3) + rng.uniform(0.0, 1.5, 28)]
    )
    passed_s: list[float] = []
    outcome = []
    for now_s in sent_s:
        held = sum(now_s - WINDOW_S < at for at in passed_s)
        passes = held < (before if now_s < CHANGES_S else after)
        outcome.append(ADMITTED if passes else REFUSED)
        if passes:
            passed_s.append(float(now_s))
    n = len(sent_s)
    nothing = np.full(n, np.nan)
    done_s = sent_s + 0.02
    return Calls(sent_s, done_s, np.array(outcome), np.ones(n), nothing, nothing, nothing, ("",) * n, ("fill",) * n)


@pytest.mark.parametrize(("before", "after"), [(20, 26), (24, 16)])
def test_a_step_is_told_with_both_limits(before: int, after: int) -> None:
    """Up or down: the family and the window stay, and the moment is known to a few seconds."""
    change = change_of(fit(record(before, after)))
    assert change is not None
    assert (change.before.family, change.before.limit, change.after.limit) == ("sliding_log", before, after)
    assert change.before.window_s == pytest.approx(WINDOW_S, rel=0.01)
    assert change.at_s == pytest.approx(CHANGES_S, abs=8.0)


def test_a_limit_that_stays_has_not_changed() -> None:
    """One limit explains all of it."""
    assert change_of(fit(record(20, 20))) is None


def test_what_is_said_holds_both_limits() -> None:
    """The number is the one that holds now; its interval reaches to what held before, and settings allow for either."""
    said = infer(record(24, 16))
    assert [finding.kind for finding in said.findings] == ["drift"]
    limit = said.identified[0].limit
    assert (limit.state, limit.limit) == ("measured", 16)
    assert limit.rate_per_min_ci95 is not None
    assert limit.rate_per_min_ci95[0] <= 96
    assert limit.rate_per_min_ci95[1] >= 144
    assert {spec.limit for _, spec in said.identified[0].particles} == {16.0, 24.0}  # type: ignore[union-attr]


def test_refusals_by_chance_are_no_change() -> None:
    """Two limits explain a coin no better than one does."""
    calls = record(20, 20)
    outcome = np.where(np.random.default_rng(1).random(len(calls)) < 0.2, REFUSED, ADMITTED)
    assert change_of(fit(replace(calls, outcome=outcome))) is None
