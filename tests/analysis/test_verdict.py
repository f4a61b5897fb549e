"""The verdict follows from run.json and the table alone: settings, proof, validity, cost."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from analysis.estimate import Identified, Inference, Latency
from analysis.load import LogError, to_table
from analysis.recommend import recommend
from analysis.result import Limit, from_json, to_json
from analysis.verdict import conclude, examine
from mock_server.limits import FixedWindow

if TYPE_CHECKING:
    import pandas as pd

    from analysis.result import Gate, Result

LIMIT = Limit(
    metric="requests",
    state="measured",
    family="fixed_window",
    family_probability=0.99,
    limit=60,
    limit_ci95=(60, 60),
    window_s=10.0,
    window_s_ci95=(10, 10),
    burst=60,
    burst_ci95=(60, 60),
    rate_per_min=360.0,
    rate_per_min_ci95=(360, 360),
)
INFERENCE = Inference((Identified(LIMIT, ((1.0, FixedWindow(60, 10.0)),)),), (), 0.01, Latency(0.3, 0.3, 0.5, 100))
RUN: dict[str, Any] = {"run": "r", "scenario": "calibrate", "target": "mock", "model": "m", "ended": "completed"}


def call(number: int, phase: str, sent_s: float, status: int | None = 200, **more: object) -> dict[str, object]:
    """Make one attempt that left when it was due and took 0.2 s."""
    ended = {} if status is None else {"done_s": sent_s + 0.2, "status": status}
    times = {"planned_s": sent_s, "sent_s": sent_s}
    return {"call_id": number, "phase": phase, **times, "prompt_tokens": 5, "output_tokens": 2, **ended, **more}


def probing(n: int = 100, **more: object) -> list[dict[str, object]]:
    """Make calls at five a second."""
    return [call(i, "fill", 0.2 * i, **more) for i in range(n)]


def proof(attempt: int, start_s: float, refused: int = 0) -> list[dict[str, object]]:
    """Make a verification of 40 s from both starts, of which the first calls are refused."""
    return [
        call(
            1000 * attempt + i,
            f"verify-{attempt}-{'rested' if i < 100 else 'full'}",
            start_s + 0.2 * i,
            200 if i >= refused else 429,
        )
        for i in range(200)
    ]


def verdict(rows: list[dict[str, object]], inference: Inference = INFERENCE, **run: object) -> Result:
    """Conclude with a given inference."""
    return examine(RUN | run, to_table(rows), inference).result


def gate(result: Result, name: str) -> Gate:
    """Return one gate of a result."""
    return next(g for g in result.validity if g.gate == name)


def test_the_settings_that_were_tried_are_the_verdicts() -> None:
    """Not what the record would recommend now, but what was verified; the last of two tries counts."""
    first = recommend(INFERENCE)
    second = msgspec.structs.replace(first, requests_per_minute=300.0)
    tried = [msgspec.to_builtins(s) for s in (first, second)]
    rows = [*probing(), *proof(1, 40.0, refused=30), *proof(2, 100.0)]
    conclusion = examine(RUN | {"settings_tried": tried}, to_table(rows), INFERENCE)
    assert conclusion.result.settings == second
    assert [seen.passed for _, seen in conclusion.story] == [False, True]
    assert [seen.throttled for _, seen in conclusion.story] == [30, 0]
    assert conclusion.result.verification is not None
    assert conclusion.result.verification.attempts == 2


def test_no_refusal_bounds_the_share_as_clopper_and_pearson_do() -> None:
    """0 of 200: at most 1 - 0.05 ** (1 / 200) with 95 % confidence."""
    seen = verdict(
        [*probing(), *proof(1, 40.0)], settings_tried=[msgspec.to_builtins(recommend(INFERENCE))]
    ).verification
    assert seen is not None
    assert seen.offered == 200
    assert seen.throttled_rate_upper95 == pytest.approx(1 - 0.05 ** (1 / 200))


def test_a_run_killed_before_its_end_is_judged_by_what_it_would_have_tried() -> None:
    """`settings_tried` is written at the end; without it the recommendation stands in, and its proof counts."""
    result = verdict([*probing(), *proof(1, 40.0)], ended=None)
    assert result.settings == recommend(INFERENCE)
    assert result.verification is not None


def test_a_limit_in_doubt_supports_no_settings() -> None:
    """Too many calls without an answer take a limit back, and with it the settings that would follow from it."""
    rows = probing()
    for row in rows[-40:]:
        row["done_s"] = row["status"] = None
    result = verdict(rows)
    assert not gate(result, "censored").passed
    assert result.settings is None


def test_settings_whose_verification_the_ledger_lost_are_not_the_verdicts() -> None:
    """A record that lost its end is judged by what it holds: the try that is there, or a new recommendation."""
    first = msgspec.structs.replace(recommend(INFERENCE), requests_per_minute=333.0)
    second = msgspec.structs.replace(first, requests_per_minute=300.0)
    tried = [msgspec.to_builtins(s) for s in (first, second)]
    assert verdict([*probing(), *proof(1, 40.0)], settings_tried=tried).settings == first
    assert verdict(probing(), settings_tried=tried).settings == recommend(INFERENCE)


def test_an_empty_record_supports_no_settings() -> None:
    """Whatever run.json says was tried: a ledger that was emptied shows nothing."""
    result = conclude(RUN | {"settings_tried": [msgspec.to_builtins(recommend(INFERENCE))]}, to_table([]))
    assert result.settings is None
    assert result.verification is None


def test_without_a_verification_there_are_settings_but_no_proof() -> None:
    """An access log has no verification."""
    result = verdict(probing())
    assert result.settings is not None
    assert result.verification is None


@pytest.mark.parametrize("rows", [[], [call(1, "fill", 0.1, 429)], [call(1, "fill", 0.1, None)]])
def test_a_record_without_an_admitted_call_supports_no_settings(rows: list[dict[str, object]]) -> None:
    """Nothing sent, everything refused, or everything still out."""
    assert verdict(rows).settings is None


def test_an_unresolved_limit_supports_no_settings() -> None:
    """A guess is worse than none."""
    unresolved = Limit(metric="requests", state="unresolved", reason="two kinds of limit explain the record")
    inference = inference_with(unresolved)
    assert verdict(probing(), inference).settings is None


def test_tokens_in_doubt_leave_the_settings_for_requests() -> None:
    """A limit on tokens that was met but not settled says nothing about small prompts."""
    doubt = Limit(metric="input_tokens", state="unresolved", reason="it gave nothing back while it was watched")
    beside = replace(INFERENCE, identified=(*INFERENCE.identified, Identified(doubt)))
    settings = verdict(probing(), beside).settings
    assert settings is not None
    assert settings.requests_per_minute is not None
    assert settings.input_tokens_per_minute is None


def inference_with(limit: Limit) -> Inference:
    """Return an inference with this limit alone."""
    return Inference((Identified(limit),), (), 0.01, None)


def test_the_accepted_share_comes_from_the_runs_options() -> None:
    """`--max-throttled` is recorded in run.json."""
    result = verdict(probing(), options={"max_throttled": 0.02})
    assert result.settings is not None
    assert result.settings.max_throttled == 0.02


def test_a_clean_record_passes_every_gate() -> None:
    """Nothing dropped, late, censored or refused at the start."""
    result = verdict(probing())
    assert all(g.passed for g in result.validity)
    assert result.limits[0].state == "measured"


def test_arrivals_that_could_not_be_sent_take_the_measurement_back() -> None:
    """More than 1 % dropped: the limit is unresolved, and says why."""
    dropped = [{"call_id": 500 + i, "phase": "fill", "planned_s": 1.0, "error": "dropped"} for i in range(5)]
    result = verdict([*probing(), *dropped])
    assert gate(result, "offered_vs_achieved").value == pytest.approx(100 / 105)
    assert result.limits[0].state == "unresolved"
    assert result.limits[0].reason == "the generator could not send what the plan asked for"


def test_calls_without_an_answer_are_counted() -> None:
    """A tenth still out at the end is too much."""
    result = verdict([*probing(90), *(call(200 + i, "fill", 18.0, None) for i in range(10))])
    assert gate(result, "censored").value == pytest.approx(0.1)
    assert not gate(result, "censored").passed


def test_lateness_is_told_but_the_verifications_waiting_is_not_lateness() -> None:
    """A limiter makes calls wait on purpose."""
    late = [row | {"planned_s": float(str(row["sent_s"])) - 0.5} for row in probing()]
    assert not gate(verdict(late), "lateness_p99_s").passed
    waited = [row | {"planned_s": 40.0} for row in proof(1, 40.0)]
    assert gate(verdict([*probing(), *waited]), "lateness_p99_s").passed


def test_a_refusal_before_the_first_probe_is_told_and_takes_nothing_back() -> None:
    """The quota was in use already; the cycles after it are judged by themselves."""
    result = verdict([call(0, "baseline", 0.0, 429), *probing()])
    assert not gate(result, "refused_at_start").passed
    assert result.limits[0].state == "measured"


def test_spending_is_added_up() -> None:
    """Refused calls bring no tokens; thoughts are billed as output; the mock costs nothing."""
    rows = [call(0, "fill", 0.0, thought_tokens=3), call(1, "fill", 0.5, 429), call(2, "fill", 1.0, None)]
    spent = verdict(rows).spent
    assert (spent.requests, spent.admitted, spent.throttled) == (3, 1, 1)
    assert (spent.input_tokens, spent.output_tokens) == (5, 5)
    assert spent.usd == 0.0
    assert spent.wall_s == pytest.approx(1.0)


def test_money_needs_a_price() -> None:
    """Without a price in run.json it is not known, with one it is arithmetic."""
    assert verdict(probing(), target="gemini").spent.usd is None
    priced = verdict(probing(), target="gemini", usd_per_million={"input": 1.0, "output": 10.0})
    assert priced.spent.usd == pytest.approx((500 * 1.0 + 200 * 10.0) / 1e6)


def test_settings_that_are_none_are_named() -> None:
    """A broken run.json is one line."""
    with pytest.raises(LogError, match="settings_tried"):
        verdict(probing(), settings_tried=[{"burst": 1}])


def test_the_verdict_survives_its_own_encoding() -> None:
    """What `result.json` says is what was concluded."""
    result = verdict([*probing(), *proof(1, 40.0)])
    assert from_json(to_json(result)) == result


@pytest.mark.parametrize(
    ("status", "state"),
    [(429, "unresolved"), (503, "not_tested"), (None, "not_tested")],
    ids=["refused", "down", "out"],
)
def test_a_record_in_which_nothing_passed_is_concluded(status: int | None, state: str) -> None:
    """All refused, all failed, or all still out: no number, no settings, and no crash of the search."""
    result = conclude(RUN, to_table(call(i, "fill", 0.1 * i, status) for i in range(30)))
    assert result.limits[0].state == state
    assert result.limits[0].rate_per_min is None
    assert result.settings is None


def overload(limiter_seconds: float, seed: int) -> pd.DataFrame:
    """Make a log of irregular overload on 60 calls per aligned 10 s, with pauses."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable log
    limiter = FixedWindow(60, 10.0, 3.0).limiter()
    rows, now_s = [], 0.5
    while now_s < limiter_seconds:
        admitted = limiter.check(now_s).admitted
        if admitted:
            limiter.commit(now_s)
        status, took_s = (200, rng.uniform(0.2, 0.4)) if admitted else (429, rng.uniform(0.01, 0.013))
        rows.append(call(len(rows), "fill", now_s, status, done_s=now_s + took_s))
        now_s += rng.expovariate(15.0) if rng.random() > 0.01 else rng.uniform(0.5, 2.0)
    return to_table(rows)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_log_of_known_truth_is_concluded_rightly(seed: int) -> None:
    """From a bare log, without plan, phases or names: the family, the rate, and settings below the limit."""
    result = conclude({"run": "log", "scenario": "log", "target": "access.csv"}, overload(60.0, seed))
    limit = next(m for m in result.limits if m.metric == "requests")
    assert limit.state == "measured"
    assert limit.family == "fixed_window"
    assert limit.rate_per_min == pytest.approx(360.0, rel=0.02)
    assert result.settings is not None
    assert result.settings.requests_per_minute is not None
    assert 340 < result.settings.requests_per_minute < 364
    assert from_json(to_json(result)) == result
