"""What tests of the analysis share: a run for each state that a verdict can end in, and the page made from it.

A test that takes ``ending`` runs once for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from analysis import report, wording
from analysis.calls import Calls
from analysis.estimate import Identified, Inference, Latency
from analysis.exhibits import exhibits
from analysis.load import to_table
from analysis.recommend import recommend
from analysis.result import Finding, Limit
from analysis.schema import RUN_SCHEMA
from analysis.verdict import examine
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server.limits import Concurrency, FixedWindow, TokenBucket
from redline.simulated import SimulatedTraffic
from redline.traffic import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from analysis.result import State
    from mock_server.limits import Spec

FIXED = Limit(
    metric="requests",
    state="measured",
    family="fixed_window",
    family_probability=0.98,
    also_possible=(("sliding_log", 0.02),),
    limit=60,
    limit_ci95=(60, 60),
    window_s=10.0,
    window_s_ci95=(9.99, 10.01),
    phase_s=0.0,
    burst=60,
    burst_ci95=(60, 60),
    rate_per_min=360.0,
    rate_per_min_ci95=(359.6, 360.4),
    counts_refused=False,
    declared_limit=60,
)
BUCKET = Limit(
    metric="requests",
    state="measured",
    family="token_bucket",
    family_probability=1.0,
    burst=20,
    burst_ci95=(20, 20),
    rate_per_min=300.0,
    rate_per_min_ci95=(298, 302),
)
SLOTS = Limit(metric="concurrency", state="measured", family="concurrency", limit=8, limit_ci95=(8, 8))
SLOTS_UNMET = Limit(metric="concurrency", state="at_least", limit=12, reason="12 calls in flight were admitted")
SLOTS_UNTESTED = Limit(metric="concurrency", state="not_tested", reason="no call was admitted")
TOKENS = Limit(metric="input_tokens", state="at_least", rate_per_min=800_000, reason="no larger prompt was sent")


def reason(state: State, text: str, *, rate_per_min: float | None = None, declared: float | None = None) -> Limit:
    """Make a limit on requests that is not measured."""
    return Limit(metric="requests", state=state, reason=text, rate_per_min=rate_per_min, declared_limit=declared)


WINDOW = FixedWindow(60, 10.0)


@dataclass(frozen=True)
class Case:
    """One way in which a run can end: the target's limiter, what was inferred, and what the page must say."""

    limits: tuple[Limit, ...]
    says: tuple[str, ...]
    spec: Spec | None = WINDOW
    ended: str | None = "completed"
    findings: tuple[Finding, ...] = ()
    verify_at: float | None = 1.0  # the verification's rate in multiples of the settings'
    all_refused: bool = False
    calls: int = 400


CASES = {
    "measured": Case(
        (FIXED, SLOTS_UNMET), ("60 requests in 10 s (360 a minute)", "✓ Yes", "98 % likely a fixed window")
    ),
    "bucket": Case(
        (BUCKET, SLOTS), ("300 requests a minute in bursts of up to 20 and 8 calls at once",), TokenBucket(5, 20)
    ),
    "several": Case((FIXED, SLOTS, TOKENS), ("360 a minute) and 8 calls at once", "800,000 input tokens a minute")),
    "failed": Case((FIXED, SLOTS_UNMET), ("✗ No", "✗ Did not hold"), verify_at=1.6),
    "at_least": Case(
        (reason("at_least", "900 calls passed within a minute", rate_per_min=900.0), SLOTS_UNMET),
        ("No limit on requests was met: 900 requests a minute passed", "≥ At least"),
        spec=None,
    ),
    "at_most": Case(
        (reason("at_most", "each try at this rate was refused", rate_per_min=900.0), SLOTS_UNMET),
        ("The limit on requests lies below 900 requests a minute",),
        verify_at=None,
    ),
    "declared": Case(
        (reason("declared", "the server names it; it was not met", declared=1000.0), SLOTS_UNMET),
        ("The server names a limit of 1,000 requests a minute, which was not met",),
        verify_at=None,
    ),
    "unresolved": Case(
        (reason("unresolved", "two kinds of limit explain the record and ask for different settings"), SLOTS_UNMET),
        ("the record does not settle which", "Two kinds of limit", "the record supports no settings", "Not verified"),
        verify_at=None,
    ),
    "not_tested": Case(
        (reason("not_tested", "three calls are too few"), SLOTS_UNTESTED),
        ("The limit on requests was not tested", "Three calls are too few", f"{wording.NONE} Not tested"),
        verify_at=None,
        calls=3,
    ),
    "random": Case(
        (reason("random", "10 % of the calls were refused at any rate"), SLOTS_UNMET),
        ("Some calls are refused at any rate", "≈ Random refusals", "refused 10 % of calls whatever was sent"),
        findings=(
            Finding(
                kind="random", value=0.1, ci95=(0.08, 0.12), text="the server refused 10 % of calls whatever was sent"
            ),
        ),
        verify_at=None,
    ),
    "all_refused": Case(
        (reason("unresolved", "no call was admitted (400 refused)"), SLOTS_UNTESTED),
        ("Every one of 400 calls was refused", "No call was admitted (400 refused)", "400 of 400 calls were throttled"),
        verify_at=None,
        all_refused=True,
    ),
    "interrupted": Case((FIXED, SLOTS_UNMET), ("This run was interrupted",), ended="interrupted", verify_at=None),
    "killed": Case((FIXED, SLOTS_UNMET), ("This run was killed or still goes on",), ended=None, verify_at=None),
    "budget": Case((FIXED, SLOTS_UNMET), ("A budget ended this run",), ended="budget", verify_at=None),
    "nothing": Case(
        (reason("not_tested", "no call was sent"),), ("Nothing was sent, so nothing is known",), verify_at=None, calls=0
    ),
}


def inference_of(case: Case) -> Inference:
    """Make what the inference would hand on."""
    particles = {"requests": case.spec, "concurrency": Concurrency(8)}
    return Inference(
        identified=tuple(
            Identified(m, ((1.0, particles[m.metric]),) if m.state == "measured" and m.metric in particles else ())  # type: ignore[arg-type]
            for m in case.limits
        ),
        findings=case.findings,
        spread_s=0.02,
        latency=Latency(0.3, 0.35, 1.0, 300),
    )


def record(case: Case, inference: Inference) -> tuple[dict[str, Any], pd.DataFrame]:
    """Make `run.json` and a table: an overload, then the settings' pace from a rested and from a full start."""
    sends = [("baseline", 0.0)] + [("fill", 0.5 + i * 0.05) for i in range(case.calls - 1)]
    tried = []
    if case.verify_at is not None:
        settings = recommend(inference)
        tried.append(msgspec.to_builtins(settings))
        gap_s = 60.0 / (settings.requests_per_minute or 300.0) / case.verify_at
        for start, name in ((40.0, "rested"), (60.0, "full")):
            sends += [(f"verify-1-{name}", start + i * gap_s) for i in range(int(19.0 / gap_s))]
    limiter = (case.spec or FixedWindow(10_000, 10.0)).limiter()
    rows = []
    for number, (phase, at_s) in enumerate(sends if case.calls else []):
        admitted = limiter.check(at_s).admitted and not case.all_refused
        if admitted:
            limiter.commit(at_s)
        rows.append(
            {
                "call_id": number,
                "phase": phase,
                "planned_s": at_s,
                "sent_s": at_s,
                "done_s": at_s + (0.25 + 0.1 * math.sin(number) if admitted else 0.01),
                "status": 200 if admitted else 429,
                "prompt_tokens": 6,
                "output_tokens": 1 if admitted else None,
            }
        )
    run = {
        "schema": RUN_SCHEMA,
        "run": "20261123-181500-calibrate-3fa9",
        "scenario": "calibrate",
        "target": "mock",
        "model": "gemini-3.8-flash",
        "transport": "fast",
        "seed": 7,
        "versions": {"python": "3.11"},
        "started": "2026-11-23T18:15:00.000Z",
        "settings_tried": tried,
        "ended": case.ended,
        "wall_s": 80.0,
    }
    return run, to_table(rows)


# Figures take a second to draw, so not every state has them here.
DRAWN = {"measured", "at_least", "all_refused", "nothing"}


def page_of(name: str, *, drawn: bool) -> str:
    """Make the page of a case, with its figures or without."""
    inference = inference_of(CASES[name])
    run, table = record(CASES[name], inference)
    conclusion = examine(run, table, inference)
    return report.render(run, conclusion, exhibits(conclusion, table) if drawn else [])


@pytest.fixture(scope="session")
def pages() -> Callable[[str], str]:
    """Give the page of a case by its name; each is drawn once."""
    made: dict[str, str] = {}

    def page(name: str) -> str:
        if name not in made:
            made[name] = page_of(name, drawn=name in DRAWN)
        return made[name]

    return page


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``ending`` once for each case."""
    if "ending" in metafunc.fixturenames:
        metafunc.parametrize("ending", CASES)


@pytest.fixture
def says(ending: str) -> tuple[str, ...]:
    """Give what the page of an ending must say."""
    return CASES[ending].says


@pytest.fixture
def measured_run() -> tuple[dict[str, Any], pd.DataFrame, Inference]:
    """Give `run.json`, table and inference of a run that measured its limit and verified nothing."""
    case = replace(CASES["measured"], verify_at=None)
    inference = inference_of(case)
    return *record(case, inference), inference


@pytest.fixture(scope="session")
def filled() -> Callable[..., Calls]:
    """Return what makes a record: calls at one pace for a second or two at a time, behind delays that vary."""

    def record(
        spec: Spec, seed: int, *, per_s: float, times: int, spread_s: float = 0.35, work_s: float = 0.3
    ) -> Calls:
        world = World((VirtualLimit("requests", spec),), Network(0.15, spread_s), Service(work_s, 0.1))
        traffic, rng = SimulatedTraffic(world, seed=seed), np.random.default_rng(seed)
        for _ in range(times):
            lasts_s = float(rng.uniform(0.8, 2.5))
            traffic.run(Probe("fill", np.sort(rng.uniform(0.0, lasts_s, int(per_s * lasts_s))).tolist()))
            traffic.sleep_until(traffic.now_s() + float(rng.uniform(0.0, 1.5)))
        traffic.sleep_until(traffic.now_s() + 5.0)
        return Calls.from_attempts(traffic.attempts, now_s=traffic.now_s(), answer_s=2.0)

    return record
