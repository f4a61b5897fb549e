"""A verification is judged by its calls alone: how many, refused or not, over how many windows, from which start."""

from __future__ import annotations

import pytest
from scipy import stats

from analysis.estimate import Identified, Inference, Latency
from analysis.recommend import recommend
from analysis.recommend_proof import FULL, RESTED, attempts_among, clopper_pearson, judge, phase_name
from analysis.result import Finding, Limit, Verification
from mock_server.limits import Random, SlidingLog

WINDOW = Identified(Limit(metric="requests", state="measured"), ((1.0, SlidingLog(60, 10.0)),))
LATENCY = Latency(0.5, 0.6, 2.0, 400)


def inferred(*identified: Identified, findings: tuple[Finding, ...] = ()) -> Inference:
    """Return an inference without spread."""
    return Inference(identified, findings, 0.0, LATENCY)


def judged(
    n: int,
    refused: tuple[int, ...] = (),
    *,
    gap_s: float = 1 / 6,
    starts: tuple[str, ...] = (RESTED, FULL),
    inference: Inference | None = None,
    max_throttled: float = 0.001,
) -> Verification:
    """Judge n evenly spaced calls, divided between the starts, of which those at these places were refused."""
    inference = inference or inferred(WINDOW)
    phases = ["fill"] * 3 + [phase_name(1, starts[k * len(starts) // n]) for k in range(n)]
    sent_s = [-60.0, -59.0, -58.0] + [k * gap_s for k in range(n)]
    outcomes = ["refused"] * 3 + ["refused" if k in refused else "admitted" for k in range(n)]
    settings = recommend(inference, max_throttled=max_throttled)
    return judge(phases, sent_s, outcomes, settings=settings, inference=inference)


def test_a_clean_verification() -> None:
    """Nothing refused over three windows; the upper bound says what that is worth."""
    seen = judged(181)
    assert (seen.offered, seen.throttled, seen.window_edges, seen.passed) == (181, 0, 3, True)
    assert seen.throttled_rate_upper95 == pytest.approx(1 - 0.05 ** (1 / 181))
    assert seen.goodput_per_min == pytest.approx(360.0)
    assert seen.share_of_limit == pytest.approx(1.0)
    assert seen.share_of_optimum == pytest.approx(1.0, rel=1e-5)


def test_one_refusal_in_a_few_hundred_does_not_contradict_a_tenth_of_a_percent() -> None:
    """Two do, and one does where nothing is accepted."""
    assert judged(181, (90,)).passed
    assert not judged(181, (90, 140)).passed
    assert not judged(181, (90,), max_throttled=0.0).passed


def test_three_windows_are_asked_for() -> None:
    """A span within a per cent of three counts as three."""
    assert judged(179).passed
    short = judged(170)
    assert (short.window_edges, short.passed) == (2, False)


def test_both_starts_are_asked_for() -> None:
    """Calls from a rested start alone prove half."""
    assert not judged(181, starts=(RESTED,)).passed


def test_without_a_window_no_edges_are_asked_for() -> None:
    """A limit that was never met has no window to cross, and no share to reach."""
    unmet = Identified(Limit(metric="requests", state="at_least", rate_per_min=360.0))
    seen = judged(40, inference=inferred(unmet))
    assert (seen.window_edges, seen.passed, seen.share_of_limit, seen.share_of_optimum) == (0, True, None, None)


def test_refusals_at_random_are_no_fault_of_the_settings() -> None:
    """What no limiter can avoid is accepted up to the upper end of its interval."""
    found = Identified(Limit(metric="requests", state="random"), ((1.0, Random(0.1)),))
    finding = Finding(kind="random", value=0.1, ci95=(0.07, 0.13))
    assert judged(100, tuple(range(0, 100, 9)), inference=inferred(found, findings=(finding,))).passed
    assert not judged(100, tuple(range(0, 100, 3)), inference=inferred(found, findings=(finding,))).passed


def test_nothing_sent_proves_nothing() -> None:
    """No calls, no pass, and no division by zero."""
    settings = recommend(inferred(WINDOW))
    seen = judge([], [], [], settings=settings, inference=inferred(WINDOW))
    assert (seen.offered, seen.throttled_rate, seen.throttled_rate_upper95, seen.passed) == (0, 0.0, 1.0, False)


def test_clopper_pearson_agrees_with_scipy() -> None:
    """The one-sided bounds are the ends of the two-sided 90 % interval."""
    for hits, n in ((0, 10), (1, 193), (7, 50), (10, 10)):
        interval = stats.binomtest(hits, n).proportion_ci(0.90, method="exact")
        assert clopper_pearson(hits, n) == pytest.approx((interval.low, interval.high))


def test_phases_name_attempt_and_start() -> None:
    """The ledger knows nothing else about a call's purpose."""
    assert attempts_among(["fill", phase_name(1, RESTED), phase_name(2, FULL), "verify"]) == 2
    assert attempts_among(["fill", "watch"]) == 0
