"""What may be said where the record contradicts every exact limiter: findings, wider intervals, or no number.

Others on the same quota and counters that count apart are told as findings. A number is given only where the causes
that remain agree on it, with an interval for what others use, and only for the windows that people choose most: a
wrong window that fits the noise is hardly ever one of them. Where no number is given the settings still need limits
to keep: those come from the more cautious cause, weighted by how well they explain the record.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from analysis.estimate import Identified
from analysis.likelihood import OUTLIER
from analysis.misfit import DEEP, LEAST_SHARE, MANY, MOST_SHARE, finding_of
from analysis.result import Finding, Limit
from analysis.sharing import Shared, explain

if TYPE_CHECKING:
    from analysis.change import Change
    from analysis.fit import Fit
    from analysis.misfit import Misfit
    from analysis.sharing import Sharing
    from mock_server.limits import Spec

COMMON_WINDOWS_S: Final = (1.0, 10.0, 60.0, 3600.0)
CLOSE: Final = 0.04  # relative distance of a window from such a one: what others use blurs recoveries, too
NEIGHBOUR: Final = 0.06  # and of one that an exact limiter with an odd window may stand for
UNSEEN: Final = (0.985, 1.22)  # an edge lies that much below the limit beside others who use up to a fifth of it
SLOPE: Final = (0.91, 1.08)  # and slopes, which allow for them, are right to so much beyond their own range
REFUSED_TOO: Final = 1.15  # and so much higher where refused calls count
EITHER: Final = (0.9, 1.45)  # where either cause may be: replicas that were not filled up look like less than they are
AGREED: Final = 0.1  # relative difference of two rates that are told as one
APART: Final = 8.0  # nats by which one cause must explain more than the other to be told alone,
APART_SHARE: Final = 0.05  # and as a share of what neither explains: both are simpler than the world is
WATCHED: Final = 1.5  # windows that a record must hold before a number is told
LASTING: Final = 3.0  # windows for which others hardly ever take the same part of each,
FEW_CALLS, FEW_LAST = 8.0, 30.0  # and where one call is a large part of it
SURELY: Final = 3.0  # times as much, from which on others are not told beside replicas: how they group is unknown
EXPLAINED: Final = 0.5  # share of what chance leaves that an explanation with a number must account for

Particles = tuple[tuple[float, "Spec"], ...]


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the exact limiter is in doubt, and how well the causes explain the record."""

    misfit: Misfit
    fewest: int  # contradictions that are no accident
    sharing: Sharing
    shared: bool  # whether a slope explains the record better than an edge, or than chance, do
    exact: float  # log posterior of the best edge, contradictions counted in full
    chance: float  # log likelihood of mere chance
    watched_s: float  # how long the record is

    @property
    def kind(self) -> str | None:
        """What the contradictions of the best edge alone look like."""
        return self.misfit.kind(self.fewest)

    @property
    def lead(self) -> float:
        """By how much replicas explain more than others do, in units of what tells the two apart."""
        return self.sharing.lead_of_replicas() / (APART + APART_SHARE * abs(self.sharing.score))

    @property
    def explained(self) -> float:
        """The share of what chance leaves that the best explanation accounts for."""
        return 1.0 - max(self.exact, self.sharing.score) / min(self.chance, -1.0)


def doubt_of(fitted: Fit, chance: float, fewest: int) -> Doubt:
    """Look for the cause of what no exact limiter explains. ``chance``: log likelihood of mere chance."""
    best, misfit = fitted.best, fitted.misfit
    sharing = explain(fitted)
    exact = min(best.score if best else 0.0, misfit.total * math.log(OUTLIER))
    sent_s = fitted.calls.sent_s
    return Doubt(misfit, fewest, sharing, sharing.beats(exact, chance), exact, chance, float(sent_s[-1] - sent_s[0]))


def said(
    doubt: Doubt, exact: Identified, reason: str, change: Change | None = None
) -> tuple[Identified, tuple[Finding, ...]]:
    """Return the limit on requests and the findings. ``exact``: the limit if the best edge were believed."""
    if change is not None and change.score > doubt.sharing.score + APART + APART_SHARE * abs(doubt.sharing.score):
        requests, moved = changed(change, exact.limit)
        return requests, (*moved, *_instead(doubt, change))
    findings = (*_findings(doubt), *_since(doubt, change))
    agreed = () if doubt.kind == "drift" else _agreed(doubt)
    if agreed:
        return Identified(_limit_of(doubt, agreed, exact.limit), _particles(doubt, agreed)), findings
    shallow = not doubt.shared and doubt.kind == "background" and doubt.misfit.share <= DEEP
    if shallow and _believed(doubt, exact.limit.window_s):
        return Identified(_beside(exact.limit), exact.particles), findings
    half = tuple((0.5 * weight, spec) for weight, spec in (*_cautious(doubt.sharing), *exact.particles))
    return Identified(Limit(metric="requests", state="unresolved", reason=reason), half), findings


def changed(change: Change, exact: Limit) -> tuple[Identified, tuple[Finding, ...]]:
    """Return the limit that holds since the change, with an interval from the lowest to the highest that was seen.

    It may still be moving, so no more is promised; settings are made for either.
    """
    now = change.after
    whole = sorted((change.before.limit, now.limit))
    many = _around(now.limit, SLOPE[0] * whole[0], SLOPE[1] * whole[1])
    rates = [60.0 * factor * h.rate_per_s for h in (change.before, now) for factor in SLOPE]
    window_s = now.window_s
    limit = msgspec.structs.replace(
        exact,
        family=now.family,
        family_probability=None,
        also_possible=(),
        limit=now.limit,
        limit_ci95=many,
        window_s=window_s,
        window_s_ci95=None if window_s is None else (window_s * (1.0 - CLOSE), window_s * (1.0 + CLOSE)),
        phase_s=None,
        burst=now.limit,
        burst_ci95=many,
        rate_per_min=60.0 * now.rate_per_s,
        rate_per_min_ci95=(min(rates), max(rates)),
        counts_refused=now.counts_refused,
    )
    return Identified(limit, change.particles()), (_moved(change, "has changed: "),)


def beside_common(limit: Limit) -> Limit:
    """Return a measured limit whose odd window is next to a common one, with an interval that holds that one, too.

    Such a window is rare, and a limit that moved a little while it was probed looks just like it.
    """
    if limit.window_s is None or limit.window_s_ci95 is None or limit.rate_per_min_ci95 is None or not limit.limit:
        return limit
    common = next((w for w in COMMON_WINDOWS_S if 0.0 < abs(limit.window_s / w - 1.0) < NEIGHBOUR), None)
    if common is None:
        return limit
    rate = limit.limit / common * 60.0
    return msgspec.structs.replace(
        limit,
        window_s_ci95=(min(common, limit.window_s_ci95[0]), max(common, limit.window_s_ci95[1])),
        rate_per_min_ci95=(min(rate, limit.rate_per_min_ci95[0]), max(rate, limit.rate_per_min_ci95[1])),
    )


def _findings(doubt: Doubt) -> tuple[Finding, ...]:
    """Return what seems to be the cause; both where the record does not tell them apart."""
    told = finding_of(doubt.misfit, doubt.fewest)
    if not doubt.shared or (told and told.kind == "drift"):
        return _told_with(told) if told else ()
    counted = f"{doubt.misfit.total} answers contradict an exact limit"
    either = -1.0 < doubt.lead < SURELY
    found: list[Finding] = []
    if doubt.lead < SURELY:
        share = doubt.sharing.others[0].slope.share
        cause = "others on the same quota explain them" + (", or servers that count apart do" if either else "")
        value = None if either else max(share, LEAST_SHARE)
        ci95 = None if either else (0.0, min(1.5 * share, MOST_SHARE))
        found.append(Finding(kind="background", value=value, ci95=ci95, text=f"{counted}; {cause}"))
    if doubt.lead > -1.0:
        places, fewest, most = doubt.sharing.places()
        cause = f"{fewest} to {most} servers that count apart explain them" + (", or others do" if either else "")
        ci95 = (float(fewest), float(most))
        found.append(Finding(kind="replicas", value=float(places), ci95=ci95, text=f"{counted}; {cause}"))
    return tuple(found)


def _since(doubt: Doubt, change: Change | None) -> tuple[Finding, ...]:
    """Return whether a change explains it, too; a verification refused again and again may mean that as well."""
    misfit = doubt.misfit
    if doubt.kind == "drift":
        return ()
    if change is not None:
        return (_moved(change, "may have changed, too: "),)
    if misfit.total < MANY or not misfit.one_sided:
        return ()
    text = f"{misfit.total} answers, all in one part of the run, contradict an exact limit: it may have changed, too"
    return (Finding(kind="drift", value=None, text=text),)


def _moved(change: Change, words: str) -> Finding:
    text = f"the limit {words}{change.before.limit:g} calls in the window at first, {change.after.limit:g} later"
    return Finding(kind="drift", value=change.after.limit / change.before.limit - 1.0, text=text)


def _instead(doubt: Doubt, change: Change) -> tuple[Finding, ...]:
    """Return what may look like a change: others who took as much of each window before it, or after it.

    They do so for a window or two; the same number in one window after another is a limit. Where refused calls count,
    those of others do, and steady ones take the same number all the time.
    """
    if change.after.counts_refused:
        text = "or others on the same quota use the rest, whose refused calls count, too"
        return (Finding(kind="background", value=None, text=text),)
    if not doubt.shared or change.windows >= (FEW_LAST if change.after.limit <= FEW_CALLS else LASTING):
        return ()
    share = max(doubt.sharing.others[0].slope.share, LEAST_SHARE)
    text = f"or others on the same quota used about {share:.0%} of it in a part of the run"
    return (Finding(kind="background", value=None, text=text),)


def _told_with(told: Finding) -> tuple[Finding, ...]:
    """Return what the contradictions look like, and others on the quota where these may look the same.

    Bursts of others refuse as early as replicas do, and those who come or go look like a change.
    """
    match told.kind:
        case "replicas":
            return Finding(kind="background", value=None, text=told.text), told
        case "drift":
            text = "or others on the same quota took part of it for a while"
            return told, Finding(kind="background", value=None, text=text)
        case _:
            return (told,)


def _agreed(doubt: Doubt) -> tuple[Shared, ...]:
    """Return the explanations that give the same number, best first; none where they do not, or are not believed."""
    if not doubt.shared or doubt.lead >= 1.0:
        return ()
    others = doubt.sharing.others[0]
    if doubt.lead <= -1.0:
        return (others,) if _believed(doubt, others.window_s) else ()
    both = sorted((others, doubt.sharing.replicas[0]), key=lambda m: -m.score)
    alike = abs(both[0].rate_per_s / both[1].rate_per_s - 1.0) < AGREED and both[0].family == both[1].family
    return tuple(both) if alike and all(_believed(doubt, m.window_s) for m in both) else ()


def _believed(doubt: Doubt, window_s: float | None) -> bool:
    """Return whether a number with this window may be told: long enough watched, common, and a good explanation."""
    if window_s is not None and (_common(window_s) is None or window_s > doubt.watched_s / WATCHED):
        return False
    return doubt.explained > EXPLAINED


def _common(window_s: float) -> float | None:
    """Return the common window that this one is about; None where it is none."""
    return next((w for w in COMMON_WINDOWS_S if abs(window_s / w - 1.0) < CLOSE), None)


def _limit_of(doubt: Doubt, agreed: tuple[Shared, ...], exact: Limit) -> Limit:
    """Return the limit that slopes tell, as wide as the good ones differ."""
    best = agreed[0]
    rates = [m.rate_per_s * 60.0 for each in agreed for m in doubt.sharing.near(each) if _believed(doubt, m.window_s)]
    factors = SLOPE if len(agreed) == 1 else EITHER
    low, high = factors[0] * min(rates), factors[1] * max(rates)
    if best.counts_refused:  # what others were refused counts as well
        high *= REFUSED_TOO
    if best.window_s is None:  # what others use all the time looks like a bucket that refills so much more slowly
        high /= 1.0 - min(max(m.slope.share for each in agreed for m in doubt.sharing.near(each)), MOST_SHARE)
    window_s = best.window_s
    common = None if window_s is None else _common(window_s)
    whole = None if common is None else float(round(best.rate_per_s * common))
    ci95 = None if whole is None or common is None else _around(whole, low * common / 60.0, high * common / 60.0)
    return msgspec.structs.replace(
        exact,
        family=best.family,
        family_probability=None,
        also_possible=(),
        limit=whole,
        limit_ci95=ci95,
        window_s=common,
        window_s_ci95=_both(window_s, common),
        phase_s=None,
        burst=float(best.slope.limit),
        burst_ci95=ci95,
        rate_per_min=best.rate_per_s * 60.0,
        rate_per_min_ci95=(low, high),
        counts_refused=best.counts_refused,
    )


def _beside(exact: Limit) -> Limit:
    """Return the limit of the best edge (whose interval allows for others), with what others blur left open."""
    if exact.window_s is None or exact.window_s_ci95 is None:
        return msgspec.structs.replace(exact, burst_ci95=None)
    common = _common(exact.window_s)
    low, high = _both(exact.window_s, common) or exact.window_s_ci95
    ci95 = (min(low, exact.window_s_ci95[0]), max(high, exact.window_s_ci95[1]))
    return msgspec.structs.replace(exact, window_s_ci95=ci95)


def _both(window_s: float | None, common: float | None) -> tuple[float, float] | None:
    if window_s is None or common is None:
        return None
    return 0.995 * min(window_s, common), 1.005 * max(window_s, common)


def _around(whole: float, low: float, high: float) -> tuple[float, float]:
    """Return the interval of a whole number: never without its neighbours."""
    return float(min(whole - 1.0, math.floor(low))), float(max(whole + 1.0, math.ceil(high)))


def _particles(doubt: Doubt, agreed: tuple[Shared, ...]) -> Particles:
    alone = len(agreed) == 1 and agreed[0].slope.places == 1
    return doubt.sharing.particles(doubt.sharing.others) if alone else _cautious(doubt.sharing)


def _cautious(sharing: Sharing) -> Particles:
    """Return the specs under the cause that asks for lower settings; none where nothing was found."""
    return sharing.particles(sharing.replicas) if sharing.replicas else ()
