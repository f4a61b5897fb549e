"""From a record to the verdict: what `result.json` says, as a pure function of `run.json` and the table.

Puts together what others own: the inference, the settings, the judgement of the verification. Its own business is
whether the measurement can be trusted (the gates) and what it cost. It reads no file and knows no report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from analysis.calls import Calls
from analysis.curves import in_verification, outcomes
from analysis.estimate import Identified, Inference
from analysis.infer import infer
from analysis.load import LogError
from analysis.recommend import recommend
from analysis.recommend_proof import attempts_among, judge
from analysis.result import Gate, Limit, Result, Settings, Spent, Verification
from analysis.saturation import PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

DEFAULT_MAX_THROTTLED = 0.001
_WORDS = {"admitted": "admitted", "throttled": "refused", "failed": "other", "censored": "pending"}
_FREE_TARGETS = {"mock", "sim"}

# What a gate allows, and which states a failed one takes back: a measured limit is then unresolved.
ACHIEVED_LEAST = 0.99
CENSORED_MOST = 0.05
LATENESS_LEAST_S = 0.1  # a sender on a busy machine; sends are judged by when they left, not when they were due
_TOUCHES = {
    "offered_vs_achieved": {"requests", "input_tokens", "concurrency"},
    "censored": {"requests", "input_tokens", "concurrency"},
    "lateness_p99_s": {"requests", "input_tokens"},
}
_REASONS = {
    "offered_vs_achieved": "the generator could not send what the plan asked for",
    "censored": "too many calls were still without an answer when the record ended",
    "lateness_p99_s": "calls left so late that the plan's rate was not kept",
}


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The verdict and what it rests on. ``story``: each settings that were verified, with what was seen."""

    result: Result
    inference: Inference
    story: tuple[tuple[Settings, Verification], ...]


def conclude(run: Mapping[str, Any], table: pd.DataFrame) -> Result:
    """Return the verdict of a run. ``run`` is `run.json`, ``table`` has the columns of `analysis.schema`.

    Phases named ``verify…`` are left out of the inference and give the verification. Raises `LogError` where
    ``run`` holds settings that are none.
    """
    return examine(run, table).result


def examine(run: Mapping[str, Any], table: pd.DataFrame, inference: Inference | None = None) -> Conclusion:
    """Return the verdict with its evidence; ``inference`` spares the search where it was made already."""
    if inference is None:
        inference = _inferred(table)
    found = [each.limit for each in inference.identified]
    gates = validity(run, table, found)
    limits = tuple(downgraded(limit, gates) for limit in found)
    tried = _settings_tried(run)[: attempts_among(table.loc[in_verification(table), "phase"])]
    settings = tried[-1] if tried else _recommended(run, table, inference, limits)
    story = tell_story(table, inference, tried or ((settings,) if settings else ()))
    result = Result(
        run=str(run.get("run", "")),
        target=str(run.get("target", "")),
        model=str(run.get("model", "")),
        limits=limits,
        findings=inference.findings,
        settings=settings,
        verification=story[-1][1] if story else None,
        validity=gates,
        spent=spent(run, table),
    )
    return Conclusion(result, inference, story)


def _inferred(table: pd.DataFrame) -> Inference:
    """Search for the limits; where no call ever passed there is nothing to search for."""
    word = outcomes(table)
    if (word == "admitted").any():
        return infer(Calls.from_table(table))
    refused = int((word == "throttled").sum())
    reason = f"no call was admitted, {refused} were refused" if refused else "no call was admitted"
    unmet = Limit(metric="requests", state="unresolved" if refused else "not_tested", reason=reason)
    return Inference((Identified(unmet),), (), spread_s=0.0, latency=None)


def tell_story(
    table: pd.DataFrame, inference: Inference, tried: tuple[Settings, ...]
) -> tuple[tuple[Settings, Verification], ...]:
    """Judge each verification in the record by the settings that its limiter had."""
    sent = table[in_verification(table) & table["sent_s"].notna()]
    phases, moments = sent["phase"].tolist(), sent["sent_s"].tolist()
    words = [_WORDS.get(word, "other") for word in outcomes(sent)]
    count = min(attempts_among(phases), len(tried))
    return tuple(
        (settings, judge(phases, moments, words, settings=settings, inference=inference, attempt=number))
        for number, settings in enumerate(tried[:count], start=1)
    )


def _settings_tried(run: Mapping[str, Any]) -> tuple[Settings, ...]:
    """Read what `run.json` says was verified; a ledger that lost its end may hold fewer verifications."""
    try:
        return msgspec.convert(run.get("settings_tried") or [], tuple[Settings, ...])
    except msgspec.ValidationError as error:
        raise LogError(f"run.json: settings_tried: {error}") from None


def _recommended(
    run: Mapping[str, Any], table: pd.DataFrame, inference: Inference, limits: tuple[Limit, ...]
) -> Settings | None:
    """Return settings where the record supports any: something passed, and each limit has specs to keep to."""
    withdrawn = any(
        limit.state == "unresolved" and (found.unknown or found.limit.state != "unresolved")
        for found, limit in zip(inference.identified, limits, strict=True)
    )
    if withdrawn or not (outcomes(table) == "admitted").any():
        return None
    options = run.get("options") or {}
    return recommend(inference, max_throttled=float(options.get("max_throttled") or DEFAULT_MAX_THROTTLED))


# ------------------------------------------------------------------------------- can the measurement be trusted


def validity(run: Mapping[str, Any], table: pd.DataFrame, limits: list[Limit]) -> tuple[Gate, ...]:
    """Return the gates that this record can be asked about; none for an empty one."""
    if table.empty:
        return ()
    word = outcomes(table)
    sent = int(table["sent_s"].notna().sum())
    planned = sent + int((word == "dropped").sum())
    achieved = sent / planned if planned else 0.0
    censored = float((word == "censored").mean())
    gates = [
        Gate(gate="offered_vs_achieved", value=achieved, bound=ACHIEVED_LEAST, passed=achieved >= ACHIEVED_LEAST),
        Gate(gate="censored", value=censored, bound=CENSORED_MOST, passed=censored <= CENSORED_MOST),
    ]
    late_s = _lateness_p99_s(table)
    if late_s is not None:
        bound = max(LATENESS_LEAST_S, _time_between_calls_s(limits))
        gates.append(Gate(gate="lateness_p99_s", value=late_s, bound=bound, passed=late_s <= bound))
    if run.get("scenario") == "calibrate":
        early = int(((table["phase"] == "baseline") & (word == "throttled")).sum())
        gates.append(Gate(gate="refused_at_start", value=float(early), bound=0.0, passed=early == 0))
    return tuple(gates)


def _lateness_p99_s(table: pd.DataFrame) -> float | None:
    """Return how late calls left. The verification's waited for their limiter on purpose; a full limit has no plan."""
    planned = ~(in_verification(table) | table["phase"].isin(PHASES))
    late = (table["sent_s"] - table["planned_s"])[planned].dropna()
    return None if late.empty else max(0.0, float(late.quantile(0.99)))


def _time_between_calls_s(limits: list[Limit]) -> float:
    """Return the time between calls at the limit; 0 where no limit on requests was measured."""
    rates = [m.rate_per_min for m in limits if m.metric == "requests" and m.state == "measured" and m.rate_per_min]
    return 60.0 / min(rates) if rates else 0.0


def downgraded(limit: Limit, gates: tuple[Gate, ...]) -> Limit:
    """Take ``measured`` back where a gate that touches this limit failed."""
    broken = [g for g in gates if not g.passed and limit.metric in _TOUCHES.get(g.gate, ())]
    if limit.state != "measured" or not broken:
        return limit
    return msgspec.structs.replace(limit, state="unresolved", reason="; ".join(_REASONS[g.gate] for g in broken))


def spent(run: Mapping[str, Any], table: pd.DataFrame) -> Spent:
    """Add up what the run cost. Refused calls bring no tokens; ``usd`` needs a price in `run.json`."""
    word = outcomes(table)
    admitted = table[word == "admitted"]
    tokens_in, tokens_out = int(admitted["prompt_tokens"].sum()), int(admitted["output_tokens"].sum())
    tokens_out += int(admitted["thought_tokens"].sum())  # billed as output
    return Spent(
        requests=int(table["sent_s"].notna().sum()),
        admitted=len(admitted),
        throttled=int((word == "throttled").sum()),
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        usd=_usd(run, tokens_in, tokens_out),
        wall_s=_wall_s(run, table),
    )


def _usd(run: Mapping[str, Any], tokens_in: int, tokens_out: int) -> float | None:
    """Price the tokens by `run.json`'s ``usd_per_million`` (``input``, ``output``); the mock costs nothing."""
    if run.get("target") in _FREE_TARGETS:
        return 0.0
    price = run.get("usd_per_million")
    return None if not price else (tokens_in * price["input"] + tokens_out * price["output"]) / 1e6


def _wall_s(run: Mapping[str, Any], table: pd.DataFrame) -> float:
    """Return the run's length; that of its record where it never came to write one."""
    if run.get("wall_s") is not None:
        return float(run["wall_s"])
    last = table[["planned_s", "sent_s", "done_s"]].max().max()
    return 0.0 if last != last else float(last)  # noqa: PLR0124 - NaN is the one number unlike itself
