"""The yardstick measured: worlds as the suites define them, drives that agree, marks that follow the truth."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import discovery
import judging
import measures
import numpy as np
import pytest
import scoring
import worlds
from baselines import BASELINES
from hypothesis import given
from hypothesis import strategies as st

from analysis.estimate import Identified, Inference, Latency
from analysis.recommend import recommend
from analysis.result import Finding, Limit
from analysis.virtual import Faults, Network, ServerClock, Service, VirtualLimit, World
from mock_server.limits import AnchoredWindow, Concurrency, FixedWindow, SlidingCounter, SlidingLog, TokenBucket
from redline.calibration import Calibration
from redline.traffic import Pacing, Probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mock_server.limits import Spec
    from redline.simulated import SimulatedTraffic

RATES = [
    FixedWindow(20, 10.0, phase_s=2.5),
    AnchoredWindow(20, 10.0),
    SlidingLog(20, 10.0),
    SlidingLog(20, 10.0, count_refused=True),
    SlidingCounter(20, 10.0),
    TokenBucket(2.0, 6.0),
]


@pytest.mark.parametrize("suite", worlds.SUITES)
def test_a_world_is_a_function_of_its_suite_index_and_seed(suite: str) -> None:
    """Drawn twice alike; the next index and the next seed differ."""
    assert worlds.case(suite, 3, seed=1) == worlds.case(suite, 3, seed=1)
    assert worlds.case(suite, 3, seed=1) != worlds.case(suite, 4, seed=1)
    assert worlds.case(suite, 3, seed=1).world != worlds.case(suite, 3, seed=2).world


def test_the_standard_suite_is_what_the_table_says() -> None:
    """Families alike, rates log-uniform, windows of three lengths, half with a concurrency limit."""
    cases = [worlds.case("standard", index, seed=11) for index in range(1000)]
    truths = [case.rates[0] for case in cases]
    for family in worlds.FAMILIES:
        assert sum(truth.family == family for truth in truths) == pytest.approx(200, abs=60)
    assert {case.window_s for case in cases} == {1.0, 10.0, 60.0}
    assert sum(case.concurrency is not None for case in cases) == pytest.approx(500, abs=70)
    minute_rpm = [t.rate_per_s * 60 for t, case in zip(truths, cases, strict=True) if case.window_s == 60.0]
    assert np.median(minute_rpm) == pytest.approx(math.sqrt(10 * 10_000), rel=0.5)
    counting = [t.count_refused for t in truths if t.family.startswith("sliding")]
    assert np.mean(counting) == pytest.approx(0.25, abs=0.08)
    for case, truth in zip(cases, truths, strict=True):
        assert case.world.network.spread_s <= 0.07
        assert case.world.faults.overloaded <= 0.02
        if truth.window_s:
            assert truth.limit == max(1, round(truth.rate_per_s * truth.window_s))


def test_who_counts_is_decided_by_the_truth() -> None:
    """A rate above what the concurrency lets through is hidden; a concurrency above the burst is."""
    for index in range(300):
        case = worlds.case("standard", index, seed=5)
        truth = case.rates[0]
        if case.concurrency is None:
            assert truth.counts
            assert not case.concurrency_counts
            continue
        assert truth.counts == (truth.rate_per_s < case.concurrency / worlds.latency_s(case.world))
        assert case.concurrency_counts == (case.concurrency < 0.6 * truth.burst)


@pytest.mark.parametrize("spec", RATES, ids=repr)
@given(gaps_s=st.lists(st.floats(0.0, 1.2), min_size=1, max_size=120))
def test_refusals_laid_out_are_the_limiters_own(spec: Spec, gaps_s: list[float]) -> None:
    """The shortcut says 'all pass' only where the state machine does; else the state machine counts."""
    arrived_s = 1000.0 + np.cumsum(gaps_s)
    state, refused = spec.limiter(), 0
    for moment_s in arrived_s.tolist():
        if state.check(moment_s).admitted:
            state.commit(moment_s)
        else:
            state.refused(moment_s)
            refused += 1
    assert scoring.refusals(spec, arrived_s) == refused


@pytest.mark.parametrize("spec", RATES, ids=repr)
@pytest.mark.parametrize("rate_per_s", [1.2, 2.3])
def test_both_forms_of_a_drive_agree(spec: Spec, rate_per_s: float) -> None:
    """Without jitter the laid-out drive and the event queue decide alike, below the limit and above it."""
    world = World(
        (VirtualLimit("requests", spec),), Network(0.01), Service(0.3, 0.2), clock=ServerClock(1000.0, drift=1e-5)
    )
    pacing = Pacing(rate_per_s, 3.0, None, 300.0, math.inf)
    laid_out = scoring.drive(world, pacing, (1,))
    queued = scoring.drive_controller(world, scoring.Limited(pacing), 300.0, np.random.default_rng(1))
    assert laid_out.sent == pytest.approx(queued.sent, abs=1)
    assert laid_out.throttled == pytest.approx(queued.throttled, abs=1)


@pytest.mark.parametrize(("places", "held", "replicas"), [(4, 5, 1), (2, 5, 1), (8, 5, 1), (None, None, 3)])
def test_both_forms_of_a_drive_agree_where_places_are_few(places: int | None, held: int | None, replicas: int) -> None:
    """A semaphore of ours, one of the server, both, refusals of it, or counters apart: by chance, so nearly alike."""
    limits = [VirtualLimit("requests", SlidingLog(50.0, 10.0), replicas=replicas)]
    if held is not None:
        limits.append(VirtualLimit("concurrency", Concurrency(held)))
    world = World(tuple(limits), Network(0.01, 0.05), Service(0.8, 0.3), Faults(0.02), clock=ServerClock(1000.0))
    pacing = Pacing(4.8, 2.0, places, 600.0, math.inf)
    laid_out = scoring.drive(world, pacing, (1,))
    queued = scoring.drive_controller(world, scoring.Limited(pacing), 600.0, np.random.default_rng(2))
    assert laid_out.sent == pytest.approx(queued.sent, rel=0.03)
    assert laid_out.throttled == pytest.approx(queued.throttled, rel=0.5, abs=2)


def test_the_oracle_is_not_refused() -> None:
    """The formulas on the true limits keep below them for ten minutes."""
    for index in range(40):
        case = worlds.case("standard", index, seed=2)
        pacing = scoring.pacing_of(judging.oracle(case), 600.0)
        assert scoring.drive(case.world, pacing, (*case.seed, 2)).throttled_share <= 0.001


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_run_to_their_end(name: str) -> None:
    """Each sends something, and refusals are a part of what was sent."""
    case = next(
        c for c in (worlds.case("standard", i, seed=4) for i in range(50)) if 60 < c.rates[0].rate_per_s * 60 < 600
    )
    driven = BASELINES[name](case, np.random.default_rng(1))
    assert 0 < driven.passed <= driven.sent


# ------------------------------------------------------------------------------------- marks and rows


def _knowing(case: worlds.Case) -> Callable[..., Calibration]:
    """Give a calibration that knows the truth: every mark must be a yes."""

    def answer(traffic: SimulatedTraffic, _options: object, _on_progress: object) -> Calibration:
        traffic.run(Probe("baseline", (0.0,)))
        identified = [_told(truth, limit.spec) for truth, limit in zip(case.rates, case.world.limits, strict=False)]
        if case.concurrency is not None:
            told = Limit(metric="concurrency", state="measured", limit=case.concurrency)
            identified.append(Identified(told, ((1.0, case.world.limits[-1].spec),)))
        latency = Latency(case.world.service.median_s, worlds.latency_s(case.world), 9.0, 100)
        findings = (Finding(kind="background", value=0.1),) if case.background_share else ()
        inference = Inference(tuple(identified), findings, case.world.network.spread_s, latency)
        return Calibration(inference, recommend(inference), None, "completed", (), traffic.now_s(), 1)

    return answer


def _told(truth: worlds.RateTruth, spec: Spec) -> Identified:
    rpm = truth.rate_per_s * 60
    limit = Limit(
        metric=truth.metric,
        state="measured",
        family=truth.family,
        limit=truth.limit,
        limit_ci95=truth.limit and (truth.limit, truth.limit),
        window_s=truth.window_s,
        burst=truth.burst,
        burst_ci95=(truth.burst, truth.burst),
        rate_per_min=rpm,
        rate_per_min_ci95=(rpm * 0.999, rpm * 1.001),
        counts_refused=truth.count_refused,
    )
    return Identified(limit, ((1.0, spec),))


@pytest.mark.parametrize("suite", ["standard", "odd", "noisy", "background", "several"])
def test_whoever_knows_the_truth_is_right(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every yes-or-no mark of a perfect answer is a yes."""
    for index in range(6):
        case = worlds.case(suite, index, seed=9)
        monkeypatch.setattr(judging, "calibrate", _knowing(case))
        outcome = judging.judge(judging.Job(suite, index, 9, score=index < 2))
        assert outcome.trouble == ""
        wrong = {mark: value for mark, value in outcome.marks.items() if value < 0.9 and "width" not in mark}
        assert {mark for mark in wrong if not mark.startswith(("calls", "time"))} == set()


def test_a_crash_is_wrong_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer: nothing is right, nothing is measured, the settings get nothing through."""

    def crash(*_: object) -> None:
        raise RuntimeError("no idea")

    monkeypatch.setattr(judging, "calibrate", crash)
    outcome = judging.judge(judging.Job("standard", 0, 3))
    assert "no idea" in outcome.trouble
    for mark in ("settings: goodput against the oracle", "settings: at most 0.1 % throttled in an hour"):
        assert outcome.marks[mark] == 0.0
    rated = next(i for i in range(20) if worlds.case("standard", i, 3).rates[0].counts)
    marks = judging.judge(judging.Job("standard", rated, 3, score=False)).marks
    assert marks["family right"] == marks["rate within 1 %"] == marks["measured"] == 0.0


def test_one_call_each_second_has_three_right_names() -> None:
    """A bucket of one, a log of one and an anchored window of one are the same limiter; an aligned one is not."""
    truth = worlds.truth_of("requests", TokenBucket(1.0, 1))
    for family, right in (("token_bucket", True), ("sliding_log", True), ("fixed_window", False)):
        found = Limit(metric="requests", state="measured", family=family, burst=1.0, rate_per_min=60.0)
        assert judging._family_right(truth, found) is right
    larger = worlds.truth_of("requests", TokenBucket(1.0, 2))
    found = Limit(metric="requests", state="measured", family="sliding_log", burst=2.0, rate_per_min=60.0)
    assert not judging._family_right(larger, found)


def _outcomes(marks: dict[str, list[float]], suite: str = "standard") -> list[judging.Outcome]:
    count = max(len(values) for values in marks.values())
    return [
        judging.Outcome(suite, k, {mark: values[k] for mark, values in marks.items() if k < len(values)})
        for k in range(count)
    ]


def test_rows_hold_shares_and_quantiles_against_their_targets() -> None:
    """Shares with Clopper-Pearson's interval, medians between order statistics, targets in both senses."""
    table = measures.rows(
        _outcomes(
            {
                "family right": [1.0] * 99 + [0.0],
                "width of the rate's interval": [0.01] * 60 + [math.inf] * 40,
                "interval covers: rate#0": [1.0] * 90,
                "interval covers: burst#1": [0.0] * 10,
            }
        )
    )
    found = {row.measure: row for row in table}
    share = found["family right"]
    assert (share.value, share.n, share.target, share.passed) == (0.99, 100, 0.99, True)
    assert share.ci95 == pytest.approx((0.9455, 0.9997), abs=1e-3)
    width = found["width of the rate's interval, median"]
    assert (width.value, width.passed) == (0.01, True)
    assert found["interval covers"].value == 0.9
    assert found["interval covers"].passed is False
    assert found["interval covers: burst"].passed is None
    assert found["settings: goodput against the oracle, median"].passed is False  # nothing was scored
    assert set(width.as_json()) == {"suite", "measure", "value", "ci95", "n", "target", "passed"}


def test_the_script_prints_a_table_and_writes_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process, a calibration that finds nothing: the table, the failures, the rows, exit code 1."""
    nothing = Calibration(Inference((), (), 0.0, None), None, None, "unresolved")
    monkeypatch.setattr(judging, "calibrate", lambda *_: nothing)
    target = tmp_path / "rows.json"
    arguments = ["--suite", "random", "--count", "2", "--jobs", "1", "--failures", "--json", str(target)]
    assert discovery.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "called random, no number invented" in printed
    rows = json.loads(target.read_text())
    assert rows[0]["suite"] == "random"
    assert rows[0]["passed"] is False
    assert discovery.main(["--suite", "standard", "--world", "0", "--no-score"]) == 1
    assert "truth" in capsys.readouterr().out


def test_rows_of_numpy_numbers_can_be_written() -> None:
    """A mark may come out of numpy; the row is plain JSON all the same."""
    outcome = judging.Outcome("standard", 0, {"width of the rate's interval": np.float64(0.5)})
    rows = json.loads(json.dumps([row.as_json() for row in measures.rows([outcome])]))
    assert [row["passed"] for row in rows if row["value"] == 0.5] == [False]
