"""Refusals by chance: told from those of limits, whatever the network's delays let one explain."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.chance import by_chance
from analysis.fit import fit
from analysis.infer import contradicted, infer

SPREAD_S = 0.06


def bursts(share: float | None, seed: int, phases: tuple[str, ...] = ("fill",) * 12, limit: int = 30) -> Calls:
    """Return bursts of 100 calls, 2 ms apart and so in no certain order: refused by chance, or by a window of 2 s."""
    rng = np.random.default_rng(seed)
    starts_s = np.cumsum(rng.uniform(1.0, 3.0, len(phases)))
    sent_s = (starts_s[:, None] + 0.002 * np.arange(100)).ravel()
    there_s, back_s = rng.uniform(0.01, 0.01 + SPREAD_S, (2, len(sent_s)))
    refused = rng.random(len(sent_s)) < (share or 0.0)
    if share is None:
        passed: list[float] = []
        for k in np.argsort(sent_s + there_s):
            at_s = float(sent_s[k] + there_s[k])
            refused[k] = sum(at_s - 2.0 < other <= at_s for other in passed) >= limit
            passed += [] if refused[k] else [at_s]
    outcome = np.where(refused, REFUSED, ADMITTED)
    done_s = sent_s + there_s + back_s + np.where(refused, 0.0, 0.5)
    n, nothing = len(sent_s), np.full(len(sent_s), np.nan)
    phase = tuple(p for p in phases for _ in range(100))
    return Calls(sent_s, done_s, outcome, np.ones(n), nothing, nothing, nothing, ("",) * n, phase)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.acceptance) for s in (1, 2, 4, 6))])
@pytest.mark.parametrize("share", [0.02, 0.03, 0.2])
def test_chance_is_called_so_in_dense_bursts(share: float, seed: int) -> None:
    """A refused call may have come after any that was sent within the spread: that must not look like a full bucket."""
    found = infer(bursts(share, seed))
    assert found.identified[0].limit.state == "random"
    (finding,) = found.findings
    assert finding.kind == "random"
    assert finding.value == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_a_limit_is_not_called_chance(seed: int) -> None:
    """What it refused it refuses again."""
    assert not by_chance(fit(bursts(None, seed)))


def test_a_verification_that_chance_foretold_is_no_evidence_against_it() -> None:
    """It was refused as much as the probes were; no limit is read off that."""
    record = bursts(0.03, 5, ("fill",) * 8 + ("verify-1-rested",) * 4)
    assert contradicted(record)
    assert infer(record).identified[0] == infer(record.take(np.arange(800))).identified[0]
