"""The proof of the settings: the recommended limiter itself drives open-loop traffic against the target.

Two starts, one after the other. *Rested*: after a wait in which every limit forgets what probing spent, the
limiter begins with its whole burst. *Full*: the target is by then as full as this client ever makes it; sending
goes on as soon as the limiter's own bucket has refilled, burst first. That is the worst moment which the settings
still promise to survive, and it costs no call and no wait. (Draining a limit by force would only show refusals
that the settings do not promise to avoid: they speak for their own calls.)

Offered is always a little more than the limiter lets go, so it never idles. What was seen is judged by
`analysis.recommend_proof`. Settings that fail are lowered and tried again, at most twice.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from analysis.recommend import longest_memory_s, rounded_down, token_burst
from analysis.recommend_places import seen_to_pass
from analysis.recommend_proof import FULL, RESTED, accepted_share, clopper_pearson, judge, phase_name
from analysis.recommend_rates import memory_s
from mock_server.limits import LeakyQueue, SlidingCounter, TokenBucket
from redline.traffic import ADMITTED, OTHER, PENDING, REFUSED, Pacing

if TYPE_CHECKING:
    from collections.abc import Callable

    from analysis.estimate import Inference
    from analysis.result import Settings, Verification
    from mock_server.limits import Spec
    from redline.traffic import Attempt, Traffic

ATTEMPTS_MAX = 3  # the first, and at most two with lowered settings
LEAST_S = 20.0
UNMET_LEAST_S = 63.0
# Three windows are asked for, in two halves; a twentieth more covers what the starts lose.
WINDOWS = 3.15
# Offered beyond the rate, so that the limiter and not the arrivals set the pace; a burst is offered within this.
OFFERED_OVER_RATE = 1.1
BURST_OFFERED_WITHIN_S = 0.25
# A semaphore is kept busy by half as much again as passes through it on average: latency varies.
OFFERED_OVER_SEMAPHORE = 1.5
OFFERED_WITHOUT_LIMIT_PER_S = 2.0


@dataclass(frozen=True, slots=True)
class Story:
    """All settings that were tried with what each verification saw; the last pair is what is recommended."""

    tried: tuple[tuple[Settings, Verification], ...]

    @property
    def settings(self) -> Settings:
        """The settings to ship."""
        return self.tried[-1][0]

    @property
    def verification(self) -> Verification:
        """What the last attempt saw."""
        return self.tried[-1][1]


def default_duration_s(inference: Inference) -> float:
    """Return how long to verify: three windows of the slowest limit, at least 20 s.

    Where no limit on requests was met it is a little more than a minute: the window by which Gemini counts them, so
    that what the settings let through has been seen to pass for one.
    """
    unmet = any(f.limit.metric == "requests" and f.limit.state == "at_least" for f in inference.identified)
    return max(UNMET_LEAST_S if unmet else LEAST_S, WINDOWS * longest_memory_s(inference))


def verify(
    traffic: Traffic,
    inference: Inference,
    settings: Settings,
    *,
    verify_for_s: float | None = None,
    max_throttled: float | None = None,
    attempt: int = 1,
) -> Verification:
    """Drive the settings' limiter for ``verify_for_s`` (None: `default_duration_s`) and judge what came back.

    ``max_throttled`` overrides the share that the settings were made for. A length that does not cover three
    windows is kept to, but cannot pass. Raises what `Traffic` raises.
    """
    if max_throttled is not None:
        settings = msgspec.structs.replace(settings, max_throttled=max_throttled)
    duration_s = default_duration_s(inference) if verify_for_s is None else verify_for_s
    traffic.sleep_until(rested_at_s(traffic.attempts, inference))
    first = len(traffic.attempts)
    start_s: float | None = None
    for start in (RESTED, FULL):
        pacing = pacing_for(settings, inference, duration_s / 2.0, phase_name(attempt, start), start_s)
        traffic.pace(pacing)
        start_s = _refilled_at_s(traffic, pacing)
    return judge_attempts(traffic.attempts[first:], inference, settings, attempt)


def verify_and_lower(
    traffic: Traffic,
    inference: Inference,
    settings: Settings,
    *,
    verify_for_s: float | None = None,
    on_attempt: Callable[[int, Settings], None] = lambda _attempt, _settings: None,
) -> Story:
    """Verify; while refusals contradict the accepted share, lower the settings and verify again, at most twice."""
    tried: list[tuple[Settings, Verification]] = []
    for attempt in range(1, ATTEMPTS_MAX + 1):
        on_attempt(attempt, settings)
        first = len(traffic.attempts)
        seen = verify(traffic, inference, settings, verify_for_s=verify_for_s, attempt=attempt)
        tried.append((settings, seen))
        lower, _ = clopper_pearson(seen.throttled, seen.offered)
        if lower <= accepted_share(settings, inference):
            break
        settings = lowered(settings, seen, inference, traffic.attempts[first:])
    return Story(tuple(tried))


def lowered(settings: Settings, seen: Verification, inference: Inference, attempts: list[Attempt]) -> Settings:
    """Return settings that what was refused would have fitted under.

    The rate goes down by the share that was refused, at its upper 95 % bound, and by at least one call per window
    of the slowest limit, the tokens likewise; the burst to one call; the warm-up's start with the rate. Where there
    was no rate, what passed becomes one. Places in flight: see `_fewer_places`.
    """
    share = min(0.5, seen.throttled_rate_upper95)
    rpm = settings.requests_per_minute
    if rpm is None:
        changes: dict[str, object] = {"requests_per_minute": rounded_down(seen.goodput_per_min), "burst": 1.0}
    else:
        calls = rpm / 60.0 * longest_memory_s(inference)
        share = max(share, 1.0 / calls) if calls > 2.0 else share  # noqa: PLR2004 - of two calls none can be taken
        changes = {"requests_per_minute": rounded_down(rpm * (1.0 - share)), "burst": 1.0}
    if settings.input_tokens_per_minute is not None:
        changes["input_tokens_per_minute"] = rounded_down(settings.input_tokens_per_minute * (1.0 - share))
    if settings.warmup is not None:
        changes["warmup"] = msgspec.structs.replace(
            settings.warmup, start_rpm=settings.warmup.start_rpm * (1.0 - share)
        )
    if settings.max_concurrency is not None:
        changes["max_concurrency"] = _fewer_places(settings.max_concurrency, inference, attempts)
    return msgspec.structs.replace(settings, **changes)


def _fewer_places(places: int, inference: Inference, attempts: list[Attempt]) -> int:
    """Return how many calls in flight the refusals leave.

    A measured limit loses one place where a call was refused while all were taken. Where the limit was never met,
    fewer than the fewest at which a call was refused, but as many as probing saw to pass.
    """
    fewest = _fewest_refused(attempts)
    safe = seen_to_pass(inference)
    if safe is not None:
        return min(places, max(safe, fewest - 1))
    return places - 1 if places > 1 and fewest >= places else places


def _fewest_refused(attempts: list[Attempt]) -> int:
    """Return the fewest calls in flight (itself included) at which one was refused; a large number where none was."""
    ends: list[float] = []
    fewest = sys.maxsize
    for attempt in attempts:
        ends = [end for end in ends if end > attempt.sent_s]
        ends.append(math.inf if math.isnan(attempt.done_s) else attempt.done_s)
        if attempt.outcome == REFUSED:
            fewest = min(fewest, len(ends))
    return fewest


def judge_attempts(attempts: list[Attempt], inference: Inference, settings: Settings, attempt: int = 1) -> Verification:
    """Judge one verification by a run's attempts; those of other phases are passed over."""
    return judge(
        [a.phase for a in attempts],
        [a.sent_s for a in attempts],
        [a.outcome for a in attempts],
        settings=settings,
        inference=inference,
        attempt=attempt,
    )


def pacing_for(
    settings: Settings, inference: Inference, duration_s: float, phase: str, start_s: float | None = None
) -> Pacing:
    """Return the limiter that the settings describe, kept busy for ``duration_s``.

    Where input tokens are limited, prompts have the size at which both limits bind at once.
    """
    rate_per_s = None if settings.requests_per_minute is None else settings.requests_per_minute / 60.0
    burst = settings.burst or 1.0
    tokens_per_s = None if settings.input_tokens_per_minute is None else settings.input_tokens_per_minute / 60.0
    room = token_burst(inference)
    prompt_tokens = 1
    if tokens_per_s is not None and room is not None:
        prompt_tokens = max(1, math.floor(min(room, tokens_per_s / rate_per_s if rate_per_s else room)))
    return Pacing(
        rate_per_s=rate_per_s,
        burst=burst,
        max_concurrency=settings.max_concurrency,
        duration_s=duration_s,
        offered_per_s=_offered_per_s(rate_per_s, burst, settings.max_concurrency, inference),
        tokens_per_s=tokens_per_s,
        token_burst=None if tokens_per_s is None else max(room or 0.0, float(prompt_tokens)),
        prompt_tokens=prompt_tokens,
        phase=phase,
        start_s=start_s,
        timeout_s=settings.timeout_s,
    )


def rested_at_s(attempts: list[Attempt], inference: Inference) -> float:
    """Return when every limit met has forgotten the calls so far (-inf: at once).

    A call may have arrived J after it was sent. Refused calls count only where a limit counts them; a call that
    failed otherwise or has no answer may have been admitted.
    """
    moments = [-math.inf]
    for found in inference.identified:
        for _, spec in found.particles[:1]:
            counted = {ADMITTED, OTHER, PENDING} | ({REFUSED} if getattr(spec, "count_refused", False) else set())
            costs = [
                (a.sent_s, a.prompt_tokens if found.limit.metric == "input_tokens" else 1)
                for a in attempts
                if a.outcome in counted
            ]
            moments.append(_forgotten_at_s(spec, costs) + inference.spread_s)
    return max(moments)


def _forgotten_at_s(spec: Spec, costs: list[tuple[float, int]]) -> float:
    """Return when the limit is as if these calls (moment, cost; in order of time) had never been."""
    if not costs:
        return -math.inf
    if isinstance(spec, TokenBucket | LeakyQueue):
        # Refused calls that count can fill the bucket far beyond its size, so the level is followed call by call.
        empty_s = -math.inf
        for moment_s, cost in costs:
            empty_s = max(empty_s, moment_s) + cost / spec.rate_per_s
        return empty_s
    windows = 2.0 if isinstance(spec, SlidingCounter) else 1.0
    return costs[-1][0] + windows * memory_s(spec)


def _refilled_at_s(traffic: Traffic, pacing: Pacing) -> float | None:
    """Return when the limiter that just ended would have its whole burst again; None for at once."""
    if not pacing.rate_per_s or not traffic.attempts:
        return None
    return traffic.attempts[-1].sent_s + pacing.burst / pacing.rate_per_s


def _offered_per_s(rate_per_s: float | None, burst: float, places: int | None, inference: Inference) -> float:
    """Return arrivals per second that keep the limiter busy, and that bring its first burst at once."""
    if rate_per_s:
        return OFFERED_OVER_RATE * rate_per_s + (burst - 1.0) / BURST_OFFERED_WITHIN_S
    if places and inference.latency:
        return OFFERED_OVER_SEMAPHORE * places / max(inference.latency.mean_s, 0.001)
    return OFFERED_WITHOUT_LIMIT_PER_S
