"""result.json (`redline.result/1`) and settings.toml, as typed values. Every key is always there.

Pure: no files, no clock. `msgspec` gives the JSON, the types and the error that names a wrong key.

Version history: 1 first version (2026-11).
"""

from __future__ import annotations

from typing import Literal

import msgspec

RESULT_SCHEMA = "redline.result/1"

State = Literal["measured", "at_least", "at_most", "declared", "unresolved", "not_tested", "random"]
Interval = tuple[float, float]


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as it was found. Rates per minute, durations in seconds; what does not apply is None.

    For a token bucket or a leaky queue ``limit`` and ``window_s`` are None: rate and burst say it all.
    """

    metric: str  # requests | input_tokens | concurrency | requests_per_day | spend
    state: State
    reason: str | None = None
    scope: tuple[str, ...] | None = None
    family: str | None = None
    family_probability: float | None = None
    also_possible: tuple[tuple[str, float], ...] = ()
    limit: float | None = None
    limit_ci95: Interval | None = None
    window: str | None = None  # "pacific_day" where the window is a civil day
    window_s: float | None = None
    window_s_ci95: Interval | None = None
    phase_s: float | None = None  # of an aligned window, in server time (seconds since the epoch, modulo window_s)
    burst: float | None = None
    burst_ci95: Interval | None = None
    rate_per_min: float | None = None
    rate_per_min_ci95: Interval | None = None
    counts_refused: bool | None = None
    declared_limit: float | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that matters and is no limit: background, replicas, drift, retry_delay, cache, tier, random."""

    kind: str
    value: float | None
    ci95: Interval | None = None
    text: str = ""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How to retry: full jitter between 0 and ``initial_delay_s * exp_base**k``, capped."""

    attempts: int
    initial_delay_s: float
    max_delay_s: float
    exp_base: float = 2.0
    jitter: str = "full"
    honour_retry_delay: bool = False


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """Opens when at least ``error_rate`` of at least ``min_calls`` calls in ``window_s`` failed."""

    error_rate: float
    window_s: float
    min_calls: int
    open_s: float
    false_trips_per_hour: float


class Warmup(msgspec.Struct, frozen=True, kw_only=True):
    """Start at ``start_rpm`` and reach the full rate after ``duration_s``."""

    start_rpm: float
    duration_s: float
    shape: str = "linear"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What production's limiter is to be set to. None: no such limit was found, so none is needed."""

    requests_per_minute: float | None
    burst: float | None
    max_concurrency: int | None
    input_tokens_per_minute: float | None
    requests_per_day: float | None
    max_throttled: float
    timeout_s: float
    retry: Retry
    circuit_breaker: Breaker
    warmup: Warmup | None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What the recommended limiter saw when it drove the traffic itself. Shares are from 0 to 1."""

    offered: int
    throttled: int
    throttled_rate: float
    throttled_rate_upper95: float
    window_edges: int
    goodput_per_min: float
    share_of_limit: float | None
    share_of_optimum: float | None
    attempts: int
    passed: bool


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One condition under which the measurement can be trusted."""

    gate: str
    value: float
    bound: float
    passed: bool


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What the run cost. ``usd`` is None where the price of the model is not known."""

    requests: int
    admitted: int
    throttled: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    wall_s: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole verdict of a run."""

    schema: str = RESULT_SCHEMA
    run: str
    target: str
    model: str
    limits: tuple[Limit, ...]
    findings: tuple[Finding, ...] = ()
    settings: Settings | None
    verification: Verification | None
    validity: tuple[Gate, ...] = ()
    spent: Spent


def to_json(result: Result) -> bytes:
    """Encode as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def from_json(data: bytes) -> Result:
    """Decode; raises `msgspec.ValidationError` naming the key that is wrong."""
    return msgspec.json.decode(data, type=Result)
