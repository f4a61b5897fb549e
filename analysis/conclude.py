"""From an explanation to limits with states and intervals: what may be said, and how surely."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.calls import ADMITTED, EXCUSED, OTHER, REFUSED, server_offset
from analysis.chance import FAR_APART, FEWEST_REFUSALS, by_chance, log_chance
from analysis.change import change_of
from analysis.doubt import beside_common, changed, doubt_of, said
from analysis.estimate import Identified, Inference, Latency
from analysis.misfit import FEWEST
from analysis.queueing import waits
from analysis.rates import blur_of, near, rate_interval, unseen
from analysis.result import Limit
from analysis.steadiness import with_beginning
from analysis.tokens import sized
from analysis.two_limits import LOOKING
from mock_server.limits import LeakyQueue, TokenBucket

if TYPE_CHECKING:
    from analysis.calls import Calls
    from analysis.fit import Fit
    from analysis.result import Finding
    from analysis.search import Hypothesis
    from analysis.two_limits import Pair
    from mock_server.limits import Spec

SHARED = frozenset({"background", "replicas"})  # findings beside which no single refusal tells an edge
SURE_ODDS = 50.0  # nats that a limit on calls in flight must earn beside them
MOST_PARTICLES = 200
LATE = (1.5, 0.25)  # times what comes back within the spread that a bucket may hold less and more
FEWEST_RESTED = 3  # contradictions that are no accident where bursts from rest met them: none was near an edge
FEWEST_PROVEN = 1  # contradictions that are no accident where a verification was refused
MOST_MISSED = 0.04  # share of the answers that an exact limiter may leave unexplained


def conclude_limits(fitted: Fit, fewest: int = FEWEST) -> Inference:
    """Return what the fit allows to say. ``fewest``: contradictions that are no accident."""
    requests, findings = _requests(fitted, fewest)
    shared = any(finding.kind in SHARED for finding in findings)
    identified = [requests, _concurrency(fitted, shared=shared)]
    calls = fitted.calls
    failed = float(np.mean(calls.outcome == OTHER)) if len(calls) else 0.0
    spread = float(fitted.offsets_s[-1] - fitted.offsets_s[0])
    share = (0.5, 0.9, 0.99, 0.999)
    points = tuple((q, float(np.quantile(fitted.offsets_s - fitted.offsets_s[0], q))) for q in share)
    return Inference(
        identified=tuple(identified),
        findings=findings,
        spread_s=spread,
        latency=_latency(calls),
        error_rate=failed,
        spread_at=points,
    )


def conclude_both(both: Pair) -> Inference:
    """Return what two limits on requests allow to say: the shorter one first."""
    one, other = conclude_limits(both.short), conclude_limits(both.long)
    (short, places), (long, others) = one.identified, other.identified
    known = places if places.limit.state == "measured" else others
    return replace(one, identified=(short, long, known), findings=())


def _latency(calls: Calls) -> Latency | None:
    took = (calls.done_s - calls.sent_s)[calls.outcome == ADMITTED]
    took = took[np.isfinite(took)]
    if len(took) == 0:
        return None
    return Latency(float(np.median(took)), float(took.mean()), float(np.quantile(took, 0.999)), len(took))


def _concurrency(fitted: Fit, *, shared: bool) -> Identified:
    """Tell the limit on calls in flight. ``shared``: refusals come at any height, so that a lowest one says little."""
    surely = fitted.behind > SURE_ODDS and len(set(fitted.concurrency_range or ())) == 1
    if fitted.concurrency is not None and not by_chance(fitted) and (surely or not shared):
        low, high = fitted.concurrency_range or (fitted.concurrency, fitted.concurrency)
        c = float(fitted.concurrency)
        return Identified(
            Limit(metric="concurrency", state="measured", family="concurrency", limit=c, limit_ci95=(low, high))
        )
    if fitted.reached == 0:
        return Identified(Limit(metric="concurrency", state="not_tested", reason="no call was admitted"))
    reason = f"{fitted.reached} calls in flight were admitted and none was refused for their number"
    if fitted.concurrency is not None:
        reason = f"{fitted.reached} calls in flight were admitted; what refused more may be what refused fewer"
    return Identified(Limit(metric="concurrency", state="at_least", limit=float(fitted.reached), reason=reason))


def token_limit(requests: Fit, probes: Calls, tokens: Fit | None) -> Identified:
    """Tell the limit on input tokens, or how many passed without meeting one."""
    sent = sized(probes)
    if not sent.any():
        reason = "no large prompt was sent: requests had no room for one, or no tokens were to be spent on it"
        return Identified(Limit(metric="input_tokens", state="not_tested", reason=reason))
    if tokens is not None and tokens.best is not None and not by_chance(requests):
        return _token_rate(tokens, tokens.best)
    passed = sent & (probes.outcome == ADMITTED)
    at_s, spent = probes.sent_s[passed], np.concatenate([[0.0], np.cumsum(probes.tokens[passed])])
    inside = spent[1:] - spent[np.searchsorted(at_s, at_s - 60.0, side="left")]
    most = float(inside.max(initial=0.0))
    reason = f"{most:.0f} input tokens passed within a minute and none were refused for their number"
    if not most:
        return Identified(Limit(metric="input_tokens", state="not_tested", reason="no large prompt was admitted"))
    return Identified(Limit(metric="input_tokens", state="at_least", rate_per_min=most, reason=reason))


def _token_rate(fitted: Fit, best: Hypothesis) -> Identified:
    doubt = _contradiction(fitted, "input_tokens", chance=by_chance(fitted, "input_tokens"))
    if doubt is not None:
        return Identified(doubt)
    if fitted.misfit.kind() in {"replicas", "drift"}:
        return Identified(Limit(metric="input_tokens", state="unresolved", reason=_unexplained(fitted)))
    if not _gave_back(fitted):
        reason = f"the limit was met after {best.limit:g} tokens and gave nothing back while it was watched"
        return Identified(Limit(metric="input_tokens", state="unresolved", reason=reason))
    return _exact(fitted, best, FEWEST, "input_tokens")


def _requests(fitted: Fit, fewest: int) -> tuple[Identified, tuple[Finding, ...]]:
    """Return the limit on requests with what else the record shows: nothing where an exact limiter explains it."""
    best = fitted.best
    looked = LOOKING in fitted.calls.phase
    chance = by_chance(fitted) and not looked  # a limit that explained all else is looked at
    if _refused_from_rest(fitted.calls) >= FEWEST_RESTED:
        fewest = min(fewest, FEWEST_RESTED)
    kind = fitted.misfit.kind(fewest)
    if kind is None and fitted.missed > _tolerated(fitted):
        fewest = FEWEST_PROVEN
        kind = fitted.misfit.kind(fewest)
    alone = not np.any(fitted.calls.outcome == EXCUSED)  # beside a second limit a change is not told
    change = change_of(fitted) if alone and fitted.missed and not chance and _gave_back(fitted) else None
    surely = chance and FAR_APART in fitted.calls.phase  # whatever the pace: no counter does that
    if best is not None and _gave_back(fitted) and (chance or kind is not None) and not surely:
        doubt = doubt_of(fitted, log_chance(fitted.refusals, int(np.sum(fitted.calls.outcome == ADMITTED))), fewest)
        if doubt.shared or (kind is not None and not chance):
            return said(doubt, _exact(fitted, best, fewest), _unexplained(fitted), change)
    if best is not None and change is not None:
        return changed(change, _exact(fitted, best, fewest).limit)
    contradiction = _contradiction(fitted, chance=chance)
    if contradiction is not None:
        return Identified(contradiction), ()
    if best is None:
        return Identified(_unmet(fitted)), ()
    if not _gave_back(fitted):
        reason = f"the limit was met after {best.limit:g} calls and gave nothing back while it was watched"
        return Identified(Limit(metric="requests", state="unresolved", reason=reason)), ()
    return _exact(fitted, best, fewest), ()


def _exact(fitted: Fit, best: Hypothesis, fewest: int, metric: str = "requests") -> Identified:
    """Return the limit that the best exact limiter is."""
    close = near(fitted)
    ranked = fitted.probabilities()
    bucket = best.window_s is None
    queue = bucket and metric == "requests" and waits(fitted, best)
    same = [h for h in close if h.family == best.family]
    offset = server_offset(fitted.calls)
    phase = None
    if best.phase_s is not None and best.window_s is not None and offset is not None:
        phase = (best.phase_s + offset[0]) % best.window_s
    rates, blur = rate_interval(fitted, fewest), blur_of(fitted)
    if bucket and metric == "requests":
        rates = with_beginning(fitted, rates)
    lower, higher = unseen(fitted, fewest)
    fewest_calls, most_calls = min(h.limit for h in same), max(h.limit for h in same)
    bursts = [float(math.floor(fewest_calls * lower)), float(math.ceil(most_calls * higher))]
    if best.family == "sliding_counter":
        bursts += [float(round(fewest_calls * (1.0 - blur))), float(round(most_calls * (1.0 + blur)))]
    if bucket and best.limit > 1:  # what comes late in a burst meets what has come back since
        came_back = best.rate_per_s * float(fitted.offsets_s[-1])
        bursts += [
            max(1.0, float(round(fewest_calls - LATE[0] * came_back))),
            float(round(most_calls + LATE[1] * came_back)),
        ]
    windows = [h.window_s for h in same if h.window_s is not None]
    limit = Limit(
        metric=metric,
        state="measured",
        family="leaky_queue" if queue else best.family,
        family_probability=ranked[0][1],
        also_possible=tuple((f, p) for f, p in ranked[1:] if p > 0.001),  # noqa: PLR2004 - worth a mention
        limit=None if bucket else best.limit,
        limit_ci95=None if bucket else (min(bursts), max(bursts)),
        window_s=best.window_s,
        window_s_ci95=None if bucket else (min(windows) * (1.0 - blur), max(windows) * (1.0 + blur)),
        phase_s=phase,
        burst=best.limit,
        burst_ci95=(min(bursts), max(bursts)),
        rate_per_min=best.rate_per_s * 60,
        rate_per_min_ci95=(rates[0] * 60, rates[1] * 60),
        counts_refused=best.counts_refused,
    )
    particles = _particles(fitted)
    if queue:
        particles = tuple((w, _queue(spec)) for w, spec in particles)
    return Identified(beside_common(limit), particles)


def _queue(spec: Spec) -> Spec:
    return LeakyQueue(spec.rate_per_s, spec.burst) if isinstance(spec, TokenBucket) else spec


def _gave_back(fitted: Fit) -> bool:
    """Return whether a call passed after one was refused: a window is not known before it has ended once."""
    outcome = fitted.calls.outcome
    first = int(np.argmax(outcome == REFUSED))
    return bool(np.any(outcome[first:] == ADMITTED))


def _refused_from_rest(calls: Calls) -> int:
    """Return how many calls were refused of those that one limit, at rest, should all have let in."""
    looked = np.array([phase == LOOKING for phase in calls.phase], bool)
    return int(np.sum(looked & (calls.outcome == REFUSED)))


def _contradiction(fitted: Fit, metric: str = "requests", *, chance: bool) -> Limit | None:
    """Return what to say where no limit explains the record: refusals by chance, or a reason to doubt."""
    refused = fitted.refusals
    decided = refused + int(np.sum(fitted.calls.outcome == ADMITTED))
    if refused < FEWEST_REFUSALS or refused == decided:
        return None
    if chance:
        return Limit(
            metric=metric,
            state="random",
            family="random",
            reason=f"{refused} of {decided} calls were refused, whatever had been sent before: no quota explains it",
        )
    if fitted.missed > _tolerated(fitted):
        return Limit(metric=metric, state="unresolved", reason=_unexplained(fitted))
    return None


def _tolerated(fitted: Fit) -> float:
    """Return how many answers may contradict the explanation before none is believed."""
    return max(3.0, MOST_MISSED * (fitted.refusals + int(np.sum(fitted.calls.outcome == ADMITTED))))


def _unexplained(fitted: Fit) -> str:
    decided = fitted.refusals + int(np.sum(fitted.calls.outcome == ADMITTED))
    return (
        f"{fitted.missed} of {decided} answers contradict the best explanation: others may use the same quota, "
        "replicas may count apart, or the limit may have changed"
    )


def _particles(fitted: Fit) -> tuple[tuple[float, Spec], ...]:
    """Return the leading hypotheses as weighted specs. A family weighs what its best one does.

    How many points of a family were looked at says nothing about it.
    """
    kept = fitted.hypotheses[:MOST_PARTICLES]
    score = np.array([h.score for h in kept])
    weights = np.exp(score - score[0])
    for family in {h.family for h in kept}:
        own = np.array([h.family == family for h in kept])
        weights[own] *= weights[own].max() / weights[own].sum()
    weights /= weights.sum()
    return tuple((float(w), h.spec()) for w, h in zip(weights, kept, strict=True))


def _unmet(fitted: Fit) -> Limit:
    admitted = np.sort(fitted.calls.sent_s[fitted.calls.outcome == ADMITTED])
    if len(admitted) == 0:
        refused = int(np.sum(fitted.calls.outcome == REFUSED))
        reason = f"no call was admitted ({refused} refused)"
        return Limit(metric="requests", state="unresolved" if refused else "not_tested", reason=reason)
    inside = np.arange(1, len(admitted) + 1) - np.searchsorted(admitted, admitted - 60.0, side="left")
    return Limit(
        metric="requests",
        state="at_least",
        rate_per_min=float(inside.max()),
        reason=f"{int(inside.max())} calls passed within a minute and the rate was never refused",
    )
