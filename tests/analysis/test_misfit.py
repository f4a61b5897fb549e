"""What is left unexplained: nothing in a clean world, a finding and a wider interval where others use the quota."""

from __future__ import annotations

import pytest

from analysis.misfit import Misfit, finding_of
from analysis.virtual import Background, Network, Service, VirtualLimit, World
from mock_server import limits
from redline.calibration import CalibrationOptions, calibrate
from redline.simulated import SimulatedTraffic

SPEC = limits.AnchoredWindow(40, 10.0)


@pytest.mark.parametrize(
    ("misfit", "kind"),
    [
        (Misfit(), None),
        (Misfit(early=2, room=(0.1, 0.2)), None),
        (Misfit(early=4, room=(0.1,) * 4, first=0.9, last=1.0), None),
        (Misfit(early=6, room=(0.05,) * 3 + (0.2,) * 3, first=0.1, last=0.9), "background"),
        (Misfit(early=6, room=(0.2,) * 6, first=0.9, last=1.0), "background"),
        (Misfit(early=7, over=1, room=(0.4, 0.5, 0.6), first=0.1, last=0.9), "replicas"),
        (Misfit(early=8, room=(0.2,) * 8, first=0.9, last=1.0), "drift"),
        (Misfit(loss=36.0, refusals=79, open=40), "background"),
        (Misfit(loss=36.0, refusals=79, open=106), None),
        (Misfit(over=9, first=0.0, last=0.1), "drift"),
    ],
)
def test_the_kind_follows_from_where_the_contradictions_stand(misfit: Misfit, kind: str | None) -> None:
    """Few are an accident; deep ones are replicas; those of one part of the run are a change."""
    assert misfit.kind() == kind
    found = finding_of(misfit)
    assert (found.kind if found else None) == kind
    assert found is None or str(misfit.total) in found.text


def calibrated(background: Background | None, seed: int) -> tuple[set[str], float, float, str]:
    """Return (findings, low, high, state) of a limit of 240 a minute that others may use too."""
    world = World((VirtualLimit("requests", SPEC),), Network(0.01, 0.01), Service(0.4, 0.3), background=background)
    options = CalibrationOptions(seed=seed, verify=False)
    found = calibrate(SimulatedTraffic(world, seed=seed, max_requests=20_000), options).inference
    limit = found.identified[0].limit
    low, high = limit.rate_per_min_ci95 or (0.0, float("inf"))
    return {finding.kind for finding in found.findings}, low, high, limit.state


def test_a_clean_world_has_no_finding() -> None:
    """An exact limit contradicts nothing, so nothing is said of others."""
    findings, low, high, state = calibrated(None, 1)
    assert (findings, state) == (set(), "measured")
    assert low <= 240 <= high < 1.03 * low


@pytest.mark.acceptance
def test_others_on_the_quota_are_told_and_the_interval_is_wider() -> None:
    """With 30 % used by others in bursts, what they left over is narrowly told at most once in four: they may rest."""
    noticed = 0
    for seed in range(3, 7):
        findings, low, high, state = calibrated(Background(1.2, group=5), seed)
        told = bool(findings & {"background", "replicas", "drift"})
        noticed += told and (state == "unresolved" or low <= 240 <= high)
    assert noticed >= 3
