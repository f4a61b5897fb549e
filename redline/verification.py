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
import numpy as np

from analysis.calls import Calls, arrival_offsets
from analysis.conclude import SHARED
from analysis.flight import in_flight, reached
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
# Few calls show little: so many are asked for, as long as that takes no longer than this.
ENOUGH_CALLS = 100
LONGER_S = 90.0
SHARED_CALLS, SHARED_S = 300, 180.0  # and where others, or servers that count apart, are told
UNEXPLAINED_STEP = 0.75  # share of the rate that is given up where nothing explains the refusals
STUBBORN_STEP = 0.25  # and where what was refused first was still refused with as much less: it is no edge
UNMET_LEAST_S = 63.0
# A window so short says nothing of a minute, and a quota per second often has one per minute beside it. Paced at the
# short limit, that one is met within two thirds of a minute if it is lower by half; a minute on the clock may have
# begun a while before.
SHORT_WINDOW_S = 6.0
SHORT_LEAST_S = 90.0
# Of windows up to this long a minute is looked at too: until so much of what it would let through was sent in one.
MINUTE_S, MINUTE_SHORT_S, MINUTE_SEEN = 60.0, 12.5, 0.8
# So many refusals, and so large a share of the calls, make a second start a waste of quota.
HOPELESS_FROM, HOPELESS_SHARE = 20, 0.05
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
    memory_s = longest_memory_s(inference)
    least_s = UNMET_LEAST_S if unmet else SHORT_LEAST_S if 0.0 < memory_s <= SHORT_WINDOW_S else LEAST_S
    return max(least_s, WINDOWS * memory_s)


def _enough_s(settings: Settings, inference: Inference) -> float:
    """Return how long a limiter is watched: others on the quota do not show in a handful of calls.

    Where they, or servers that count apart, are told, the rate rests on how many there are: a share of refusals that
    matters might not show in a hundred calls.
    """
    rpm, shared = settings.requests_per_minute, any(finding.kind in SHARED for finding in inference.findings)
    calls, longest_s = (SHARED_CALLS, SHARED_S) if shared else (ENOUGH_CALLS, LONGER_S)
    return min(longest_s, 60.0 * calls / rpm) if rpm else 0.0


def verify(
    traffic: Traffic,
    inference: Inference,
    settings: Settings,
    *,
    verify_for_s: float | None = None,
    max_throttled: float | None = None,
    attempt: int = 1,
) -> Verification:
    """Drive the settings' limiter for ``verify_for_s`` and judge what came back.

    Without ``verify_for_s`` it is `default_duration_s`, or longer where few calls leave in that time.
    ``max_throttled`` overrides the share that the settings were made for. A length that does not cover three
    windows is kept to, but cannot pass. Raises what `Traffic` raises.
    """
    if max_throttled is not None:
        settings = msgspec.structs.replace(settings, max_throttled=max_throttled)
    traffic.sleep_until(rested_at_s(traffic.attempts, inference))
    duration_s = verify_for_s
    if duration_s is None:
        minute_s = _a_minute_s(traffic, inference, settings)
        duration_s = max(default_duration_s(inference), minute_s, _enough_s(settings, inference))
    first = len(traffic.attempts)
    start_s: float | None = None
    for start in (RESTED, FULL):
        pacing = pacing_for(settings, inference, duration_s / 2.0, phase_name(attempt, start), start_s)
        traffic.pace(pacing)
        start_s = _refilled_at_s(traffic, pacing)
        if _hopeless([a.outcome for a in traffic.attempts[first:]], accepted_share(settings, inference)):
            break
    return judge_attempts(traffic.attempts[first:], inference, settings, attempt)


def _a_minute_s(traffic: Traffic, inference: Inference, settings: Settings) -> float:
    """Return how long to verify until some minute has seen most of what the settings allow in one.

    What probing let through counts. Only for windows that are short of a minute by far; 0 for others.
    """
    rpm = settings.requests_per_minute
    if not rpm or not 0.0 < longest_memory_s(inference) <= MINUTE_SHORT_S:
        return 0.0
    now_s = traffic.now_s()
    sent_s = np.array([a.sent_s for a in traffic.attempts if a.outcome != REFUSED])
    lasts_s = np.arange(0.0, MINUTE_S + 1.0)
    seen = lasts_s * rpm / 60.0 + [np.count_nonzero(sent_s > now_s + lasting - MINUTE_S) for lasting in lasts_s]
    return float(lasts_s[np.argmax(seen >= MINUTE_SEEN * rpm)])


def _hopeless(outcomes: list[str], accepted: float) -> bool:
    """Return whether more calls were refused than are accepted, and so many that another start changes nothing."""
    refused = outcomes.count(REFUSED)
    most = max(HOPELESS_SHARE, accepted)
    return refused >= HOPELESS_FROM and clopper_pearson(refused, len(outcomes))[0] > most


def verify_and_lower(
    traffic: Traffic,
    inference: Inference,
    settings: Settings,
    *,
    verify_for_s: float | None = None,
    on_attempt: Callable[[int, Settings], None] = lambda _attempt, _settings: None,
    tried_before: Story | None = None,
    enough: Callable[[], bool] = lambda: False,
    rethink: Callable[[], Settings] | None = None,
) -> Story:
    """Verify; while refusals contradict the accepted share, lower the settings and verify again, at most twice.

    ``tried_before``: verifications of settings that more probing has overtaken; the story goes on from them.
    ``enough``: asked after each verification that failed; true ends the story there. ``rethink`` gives the settings
    that the record recommends with the first verification in it: what is tried next is never above them. The settings
    to ship have no more places than were seen to pass.
    """
    tried = list(tried_before.tried) if tried_before else []
    began = len(tried)
    for attempt in range(began + 1, began + ATTEMPTS_MAX + 1):
        on_attempt(attempt, settings)
        first = len(traffic.attempts)
        seen = verify(traffic, inference, settings, verify_for_s=verify_for_s, attempt=attempt)
        tried.append((settings, seen))
        lower, _ = clopper_pearson(seen.throttled, seen.offered)
        if lower <= accepted_share(settings, inference) or enough():
            break
        if attempt < began + ATTEMPTS_MAX:
            least = 0.0 if attempt == began + 1 else STUBBORN_STEP
            settings = lowered(settings, seen, inference, traffic.attempts[first:], least)
            settings = _lower_of(settings, rethink()) if rethink and attempt == began + 1 else settings
    tried[-1] = (_no_more_places(settings, inference, traffic), seen)
    return Story(tuple(tried))


def _no_more_places(settings: Settings, inference: Inference, traffic: Traffic) -> Settings:
    """Return the settings with as many places as were seen to pass, in probing or in the verification.

    Where no limit on calls in flight was met, the rate may need more at worst than probing had in flight; what the
    verification never had in flight either might be refused.
    """
    safe, places = seen_to_pass(inference), settings.max_concurrency
    if safe is None or places is None or places <= safe:
        return settings
    calls = Calls.from_attempts(traffic.attempts, now_s=traffic.now_s())
    passed = reached(calls, in_flight(calls, arrival_offsets(calls)))
    return msgspec.structs.replace(settings, max_concurrency=min(places, max(safe, passed)))


def _lower_of(settings: Settings, other: Settings) -> Settings:
    """Return the settings with the lower rate and the fewer places of the two."""
    rpm = _least(settings.requests_per_minute, other.requests_per_minute)
    places = _least(settings.max_concurrency, other.max_concurrency)
    return msgspec.structs.replace(
        settings, requests_per_minute=rpm, max_concurrency=None if places is None else int(places)
    )


def _least(one: float | None, other: float | None) -> float | None:
    return min((value for value in (one, other) if value), default=None)


def lowered(
    settings: Settings, seen: Verification, inference: Inference, attempts: list[Attempt], least: float = 0.0
) -> Settings:
    """Return settings that what was refused would have fitted under, lower by ``least`` (a share) at least.

    The rate goes down by the share that was refused, at its upper 95 % bound, and by at least one call per window
    of the slowest limit, the tokens likewise; the burst to one call; the warm-up's start with the rate. Where there
    was no rate, what passed becomes one. Where no limit explains the refusals the step is large, since nothing says
    how far to go. Places in flight: see `_fewer_places`.
    """
    share = max(UNEXPLAINED_STEP if _unexplained(inference) else least, min(0.5, seen.throttled_rate_upper95))
    rpm = settings.requests_per_minute
    if rpm is None:
        kept = 1.0 - UNEXPLAINED_STEP if _unexplained(inference) else 1.0
        changes: dict[str, object] = {"requests_per_minute": rounded_down(kept * seen.goodput_per_min), "burst": 1.0}
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


def _unexplained(inference: Inference) -> bool:
    """Return whether the record's refusals have no cause that a number could be put to."""
    states = {f.limit.state for f in inference.identified if f.limit.metric == "requests"}
    return bool(states & {"unresolved", "random"})


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
