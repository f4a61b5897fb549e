"""What a server says when it refuses, held against what it does: the wait that it names, and the value of the quota.

Neither is ever believed. A named wait is kept where the first call that passed again was sent no later than it said,
and broken where a call was still refused after it; the named delay is a whole number of seconds, rounded down, so a
second is allowed for. A quota's value is told beside what was measured; a quota per day, which no probe can measure, is
told as declared, and calls that it refused are no evidence on any other limit. Pure; times on the record's clock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from scipy import special

from analysis.calls import ADMITTED, REFUSED
from analysis.estimate import Identified
from analysis.result import Finding, Limit

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls
    from analysis.estimate import Inference

ROUNDED_S: Final = 1.0  # the named delay is a floor
FEWEST: Final = 3  # recoveries from which on promises are judged
PER_DAY: Final = "PerDay"
MINUTE: Final = "PerMinute"
TOKENS: Final = "InputToken"


def of_the_day(calls: Calls) -> Bools:
    """Return which calls a quota per day refused."""
    return np.asarray(calls.throttled & np.array([PER_DAY in name for name in calls.quota_id], bool))


def with_promises(said: Inference, calls: Calls, probes: Calls) -> Inference:
    """Return the same with what the server itself says: values beside the measured, and whether its waits hold.

    ``calls``: the whole record. ``probes``: without verifications, after which nothing is judged anew.
    """
    identified = tuple(replace(each, limit=_named(each.limit, probes)) for each in said.identified)
    findings = tuple(f for f in (_waits(probes), _chance(said, probes)) if f is not None)
    return replace(said, identified=(*identified, *_daily(calls)), findings=(*said.findings, *findings))


def _daily(calls: Calls) -> tuple[Identified, ...]:
    """Return the quota of the day where one was met."""
    which = of_the_day(calls)
    if not which.any():
        return ()
    value = _value(calls, which)
    reason = "a refusal named this quota; no probe measures a day"
    limit = Limit(
        metric="requests_per_day",
        state="declared",
        limit=value,
        declared_limit=value,
        window="pacific_day",
        reason=reason,
    )
    return (Identified(limit),)


def _named(limit: Limit, calls: Calls) -> Limit:
    """Return the limit with the value per minute that refusals named for its metric."""
    if limit.metric not in {"requests", "input_tokens"}:
        return limit
    tokens = limit.metric == "input_tokens"
    which = np.array([MINUTE in name and (TOKENS in name) == tokens for name in calls.quota_id], bool)
    value = _value(calls, which & calls.throttled)
    return limit if value is None else msgspec.structs.replace(limit, declared_limit=value)


def _value(calls: Calls, which: Bools) -> float | None:
    """Return the value that these refusals named most often."""
    named = calls.quota_value[which]
    values, times = np.unique(named[np.isfinite(named)], return_counts=True)
    return float(values[np.argmax(times)]) if len(values) else None


def _waits(calls: Calls) -> Finding | None:
    """Return how often the wait that a refusal named was long enough; one vote for each recovery."""
    decided = np.flatnonzero(((calls.outcome == REFUSED) | (calls.outcome == ADMITTED)) & ~of_the_day(calls))
    refused = calls.outcome[decided] == REFUSED
    back = np.flatnonzero(refused[:-1] & ~refused[1:])  # the last refusal of each block
    blocks = np.split(decided, back + 1)[:-1]
    kept = broken = 0
    for block, last in zip(blocks, back, strict=True):
        named = block[(calls.outcome[block] == REFUSED) & np.isfinite(calls.retry_delay_s[block])]
        if len(named) == 0:
            continue
        until_s = float(np.median(calls.sent_s[named] + calls.retry_delay_s[named]))
        if until_s + ROUNDED_S < calls.sent_s[decided[last]]:
            broken += 1
        elif until_s + ROUNDED_S >= calls.sent_s[decided[last + 1]]:
            kept += 1
    n = kept + broken
    if n < FEWEST:
        return None
    text = f"the wait that the server names was long enough before {kept} of {n} recoveries"
    return Finding(kind="retry_delay", value=kept / n, ci95=_share(kept, n), text=text)


def _chance(said: Inference, calls: Calls) -> Finding | None:
    """Return the share of calls that chance refuses, where it was called so."""
    if not any(each.limit.state == "random" and each.limit.metric == "requests" for each in said.identified):
        return None
    refused, admitted = (int(np.sum(calls.outcome == o)) for o in (REFUSED, ADMITTED))
    share = refused / (refused + admitted)
    text = f"about {share:.1%} of the calls are refused whatever was sent before"
    return Finding(kind="random", value=share, ci95=_share(refused, refused + admitted), text=text)


def _share(hits: int, n: int) -> tuple[float, float]:
    """Return the two-sided 95 % interval of a share (Clopper and Pearson 1934)."""
    low = 0.0 if hits == 0 else float(special.betaincinv(hits, n - hits + 1, 0.025))
    return low, 1.0 if hits == n else float(special.betaincinv(hits + 1, n - hits, 0.975))
