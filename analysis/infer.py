"""From the joint explanation to limits with states and intervals: what may be said, and how surely."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.estimate import Identified, Inference, Latency
from analysis.fit import Fit, fit, server_offset
from analysis.flight import undecided
from analysis.misfit import finding_of
from analysis.replay import ADMITTED, OTHER, OUTLIER, REFUSED, UNCLEAR
from analysis.result import Finding, Limit
from analysis.search import PLATEAU, RATE_PRICE
from analysis.tokens import blamed, fit_tokens, for_requests, sized

if TYPE_CHECKING:
    from analysis.replay import Calls
    from analysis.search import Hypothesis
    from mock_server.limits import Spec

LEAST_BLUR = 0.0005
FEWEST_REFUSALS = 8  # fewer say nothing about chance
MOST_MISSED = 0.04  # share of the answers that an exact limiter may leave unexplained


def infer(calls: Calls) -> Inference:
    """Explain a finished record (phases named ``verify…`` left out) and say what follows.

    A limit on tokens is believed where it explains, together with one on requests, more than requests alone.
    """
    probes = calls.where([not p.startswith("verify") for p in calls.phase])
    alone = fit(probes)
    if not np.any(sized(probes) & (probes.outcome == REFUSED)):
        return conclude_limits(alone, probes, None)
    requests = fit(for_requests(probes))
    tokens = fit_tokens(probes, requests)
    if tokens is None or tokens.score + requests.score < alone.score:
        return conclude_limits(alone, probes, None)
    if (theirs := blamed(probes, tokens)).any():
        outcome = np.where(theirs, UNCLEAR, probes.outcome)
        requests = fit(for_requests(replace(probes, outcome=outcome)))
    return conclude_limits(requests, probes, tokens)


def rate_interval(fitted: Fit) -> tuple[float, float]:
    """Return the range (per second) of the rates that explain the record almost as well as the best one."""
    rates = [h.rate_per_s for h in near(fitted)]
    low, high = _unseen(fitted)
    return min(rates) * (1.0 - _blur(fitted)) * low, max(rates) * (1.0 + _blur(fitted)) * high


def _unseen(fitted: Fit) -> tuple[float, float]:
    """Return the factors by which limits may lie lower and higher, for what others used of them unseen.

    What others use is missing from the best limit in most windows: the limit itself is at least the most that was let
    in, and may be higher by what they use, which changes from window to window.
    """
    best = fitted.best
    if best is None or fitted.misfit.kind() is None:
        return 1.0, 1.0
    share = min(max(fitted.misfit.share, 0.05), 0.3)
    return 1.0 - 0.1 * share, max(1.0, fitted.misfit.highest / best.limit) * (1.0 + share)


def _blur(fitted: Fit) -> float:
    """Return the relative error that arrival times alone leave: no time is known better than the record's ends are.

    The likelihood takes delays for independent; what several decisions share makes it a little too sure.
    """
    calls = fitted.calls
    duration = float(calls.sent_s[-1] - calls.sent_s[0]) if len(calls) > 1 else 1.0
    return LEAST_BLUR + 0.5 * float(fitted.offsets_s[-1]) / max(duration, 1e-3)


def near(fitted: Fit) -> list[Hypothesis]:
    """Return the hypotheses that explain the record about as well as the best one.

    A preference for round numbers may choose the number that is told, but never makes its interval narrower.
    """
    top = fitted.hypotheses[0].score
    plain = max(h.evidence for h in fitted.hypotheses if h.family == fitted.hypotheses[0].family)
    return [h for h in fitted.hypotheses if h.score > top - PLATEAU or h.evidence > plain - PLATEAU]


def conclude_limits(fitted: Fit, probes: Calls, tokens: Fit | None) -> Inference:
    """Return what the fits allow to say: of requests and calls in flight, and of input tokens."""
    identified = [_rate(fitted, "requests"), _concurrency(fitted), _tokens(fitted, probes, tokens)]
    calls = fitted.calls
    failed = float(np.mean(calls.outcome == OTHER)) if len(calls) else 0.0
    spread = float(fitted.offsets_s[-1] - fitted.offsets_s[0])
    share = (0.5, 0.9, 0.99, 0.999)
    points = tuple((q, float(np.quantile(fitted.offsets_s - fitted.offsets_s[0], q))) for q in share)
    return Inference(
        identified=tuple(identified),
        findings=_findings(fitted),
        spread_s=spread,
        latency=_latency(calls),
        error_rate=failed,
        spread_at=points,
    )


def _findings(fitted: Fit) -> tuple[Finding, ...]:
    if fitted.best is None or by_chance(fitted):
        return ()
    found = finding_of(fitted.misfit)
    return (found,) if found else ()


def _latency(calls: Calls) -> Latency | None:
    took = (calls.done_s - calls.sent_s)[calls.outcome == ADMITTED]
    took = took[np.isfinite(took)]
    if len(took) == 0:
        return None
    return Latency(float(np.median(took)), float(took.mean()), float(np.quantile(took, 0.999)), len(took))


def _concurrency(fitted: Fit) -> Identified:
    if fitted.concurrency is not None and not by_chance(fitted):
        low, high = fitted.concurrency_range or (fitted.concurrency, fitted.concurrency)
        c = float(fitted.concurrency)
        return Identified(
            Limit(metric="concurrency", state="measured", family="concurrency", limit=c, limit_ci95=(low, high))
        )
    if fitted.reached == 0:
        return Identified(Limit(metric="concurrency", state="not_tested", reason="no call was admitted"))
    return Identified(
        Limit(
            metric="concurrency",
            state="at_least",
            limit=float(fitted.reached),
            reason=f"{fitted.reached} calls in flight were admitted and none was refused for their number",
        )
    )


def _tokens(requests: Fit, probes: Calls, tokens: Fit | None) -> Identified:
    """Tell the limit on input tokens, or how many passed without meeting one."""
    sent = sized(probes)
    if not sent.any():
        reason = "no call had a large prompt"
        return Identified(Limit(metric="input_tokens", state="not_tested", reason=reason))
    if tokens is not None and not by_chance(requests):
        return _rate(tokens, "input_tokens")
    passed = sent & (probes.outcome == ADMITTED)
    at_s, spent = probes.sent_s[passed], np.concatenate([[0.0], np.cumsum(probes.tokens[passed])])
    inside = spent[1:] - spent[np.searchsorted(at_s, at_s - 60.0, side="left")]
    most = float(inside.max(initial=0.0))
    reason = f"{most:.0f} input tokens passed within a minute and none were refused for their number"
    if not most:
        return Identified(Limit(metric="input_tokens", state="not_tested", reason="no large prompt was admitted"))
    return Identified(Limit(metric="input_tokens", state="at_least", rate_per_min=most, reason=reason))


def _rate(fitted: Fit, metric: str) -> Identified:
    unit = "calls" if metric == "requests" else "tokens"
    doubt = _contradiction(fitted, metric)
    if doubt is not None:
        return Identified(doubt)
    best = fitted.best
    if best is None:
        return Identified(_unmet(fitted, metric))
    if not _gave_back(fitted):
        reason = f"the limit was met after {best.limit:g} {unit} and gave nothing back while it was watched"
        return Identified(Limit(metric=metric, state="unresolved", reason=reason))
    close = near(fitted)
    ranked = fitted.probabilities()
    bucket = best.window_s is None
    same = [h for h in close if h.family == best.family]
    offset = server_offset(fitted.calls)
    phase = None
    if best.phase_s is not None and best.window_s is not None and offset is not None:
        phase = (best.phase_s + offset[0]) % best.window_s
    rates, blur = rate_interval(fitted), _blur(fitted)
    lower, higher = _unseen(fitted)
    bursts = [
        float(math.floor(min(h.limit for h in same) * lower)),
        float(math.ceil(max(h.limit for h in same) * higher)),
    ]
    windows = [h.window_s for h in same if h.window_s is not None]
    limit = Limit(
        metric=metric,
        state="measured",
        family=best.family,
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
    return Identified(limit, _particles(fitted))


def _gave_back(fitted: Fit) -> bool:
    """Return whether a call passed after one was refused: a window is not known before it has ended once."""
    outcome = fitted.calls.outcome
    first = int(np.argmax(outcome == REFUSED))
    return bool(np.any(outcome[first:] == ADMITTED))


def _contradiction(fitted: Fit, metric: str) -> Limit | None:
    """Return what to say where no limit explains the record: refusals by chance, or a reason to doubt."""
    refused = fitted.refusals
    decided = refused + int(np.sum(fitted.calls.outcome == ADMITTED))
    if refused < FEWEST_REFUSALS or refused == decided:
        return None
    missed = fitted.missed
    if by_chance(fitted):
        return Limit(
            metric=metric,
            state="random",
            family="random",
            reason=f"{refused} of {decided} calls were refused, whatever had been sent before: no quota explains it",
        )
    kind = fitted.misfit.kind()
    if missed > max(3.0, MOST_MISSED * decided) or (fitted.best is not None and kind in {"replicas", "drift"}):
        return Limit(
            metric=metric,
            state="unresolved",
            reason=f"{missed} of {decided} answers contradict the best explanation: others may use the same quota, "
            "replicas may count apart, or the limit may have changed",
        )
    return None


def by_chance(fitted: Fit) -> bool:
    """Return whether a constant chance explains the refusals as well as the best limits do.

    A limit on calls in flight explains nothing where a call may have met it or may not: such decisions cost it as
    much as chance among them would.
    """
    admitted = int(np.sum(fitted.calls.outcome == ADMITTED))
    if fitted.refusals < FEWEST_REFUSALS or admitted == 0:
        return False
    explained = fitted.missed * np.log(OUTLIER)
    if fitted.best is not None:
        explained = min(explained, fitted.best.log_likelihood)
    if fitted.concurrency is not None:
        explained += _log_chance(*undecided(fitted.calls, fitted.flight, fitted.concurrency))
    return bool(_log_chance(fitted.refusals, admitted) > explained - 2.0 * RATE_PRICE)


def _log_chance(refused: int, admitted: int) -> float:
    """Return the log likelihood of so many refusals under the constant chance that fits them best."""
    total = refused + admitted
    return sum(n * float(np.log(n / total)) for n in (refused, admitted) if n)


def _particles(fitted: Fit) -> tuple[tuple[float, Spec], ...]:
    best = fitted.hypotheses[0].score
    kept = fitted.hypotheses[:200]
    weights = np.exp([h.score - best for h in kept])
    weights /= weights.sum()
    return tuple((float(w), h.spec()) for w, h in zip(weights, kept, strict=True))


def _unmet(fitted: Fit, metric: str) -> Limit:
    admitted = np.sort(fitted.calls.sent_s[fitted.calls.outcome == ADMITTED])
    if len(admitted) == 0:
        refused = int(np.sum(fitted.calls.outcome == REFUSED))
        reason = f"no call was admitted ({refused} refused)"
        return Limit(metric=metric, state="unresolved" if refused else "not_tested", reason=reason)
    inside = np.arange(1, len(admitted) + 1) - np.searchsorted(admitted, admitted - 60.0, side="left")
    return Limit(
        metric=metric,
        state="at_least",
        rate_per_min=float(inside.max()),
        reason=f"{int(inside.max())} calls passed within a minute and the rate was never refused",
    )
