"""From a record of calls to the joint explanation: which rate limit, with which limit on calls in flight.

A call is admitted if all limits admit it. So an admission is evidence on every limit, while a refusal says only
that at least one was full: refusals that the concurrency limit explains are excused from the rate's fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import decisions, flight, judging, overlooked, places, proposals, search
from analysis.agreement import likelihood_of, recorded, replayed
from analysis.blurred import charged, relief
from analysis.calls import OTHER, REFUSED, arrival_offsets, server_offset
from analysis.likelihood import OUTLIER
from analysis.longer import with_longer
from analysis.misfit import Misfit, misfit_of
from analysis.opened import with_opened
from analysis.priors import prior_of
from analysis.remembered import MOST_REMEMBERED, Question
from analysis.rounded import round_first
from analysis.usual import usual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.calls import Bools, Calls, Floats
    from analysis.decisions import Record
    from analysis.flight import Flight
    from analysis.search import Hypothesis

CONCURRENCY_PRICE: Final = 4.0  # nats that a limit on calls in flight must earn
BESIDE_RATE: Final = 4.0  # and as many again beside one on the rate, which could explain the rest as well
COUNTING_PRICE: Final = 1.0  # nats that it must earn that refused calls count,
UNCOUNTED_PRICE: Final = 0.5  # and that calls which failed do not
RULED_OUT: Final = 25.0  # nats behind which another assumption about calls in flight is not worth a probe
DOUBT: Final = 0.05  # relative difference of two rates that is worth another probe
SAME_WHEN_ONE: Final = ("anchored_window", "sliding_log", "token_bucket")
FEW: Final = 3  # shapes of each family that are judged again without failed calls
REMEMBERED: Final = 160  # fits: what confirms a record, concludes from it and verifies asks for the same ones again
AGAIN: Final = 2  # searches more, where what was not looked at contradicts the best explanation
LEADING: Final = 20  # hypotheses that these start from
REFUSED_VARIANTS: Final = ("sliding_log", "sliding_counter")  # families for which "refused calls count" is tried


@dataclass(frozen=True, slots=True)
class Fit:
    """The joint explanation. ``hypotheses``: of the rate limit, best first (empty: no rate limit is needed).

    ``concurrency``: the limit on calls in flight, None where none is needed. ``reached``: the most calls that were
    surely in flight and admitted. ``candidate`` and ``otherwise``: the limit on calls in flight that the record
    suggests, and the rate hypotheses under the other assumption about it, which explains ``behind`` nats less.
    ``misfit``: what the best explanation cannot account for.
    """

    calls: Calls
    offsets_s: Floats
    flight: Flight
    hypotheses: tuple[Hypothesis, ...]
    otherwise: tuple[Hypothesis, ...]
    behind: float
    candidate: int | None
    concurrency: int | None
    concurrency_range: tuple[int, int] | None
    reached: int
    score: float
    misfit: Misfit
    refusals: int

    @property
    def missed(self) -> int:
        """How many decisions the best explanation cannot account for at any offset."""
        return self.misfit.total

    @property
    def best(self) -> Hypothesis | None:
        """The leading rate hypothesis."""
        return self.hypotheses[0] if self.hypotheses else None

    def leaders(self) -> list[Hypothesis]:
        """Return the best hypothesis of each family, best first."""
        seen: dict[tuple[str, bool], Hypothesis] = {}
        for h in self.hypotheses:
            seen.setdefault((h.family, h.counts_refused), h)
        return list(seen.values())

    def leading(self, most: int) -> tuple[Hypothesis, ...]:
        """Return the best hypotheses, and the best few of each family that is still possible."""
        few: dict[tuple[str, bool], int] = {}
        kept = list(self.hypotheses[:most])
        for h in self.hypotheses[most:]:
            key = (h.family, h.counts_refused)
            few[key] = few.get(key, 0) + 1
            if few[key] <= 4:  # noqa: PLR2004 - a few
                kept.append(h)
        return tuple(kept)

    def rate_doubtful(self) -> bool:
        """Return whether the rate would be another one if the refusals at the most calls in flight were not its own."""
        if self.concurrency is not None or self.candidate is None or not self.hypotheses or self.behind > RULED_OUT:
            return False
        if not self.otherwise:
            return True
        return abs(self.otherwise[0].rate_per_s / self.hypotheses[0].rate_per_s - 1.0) > DOUBT

    def certainty(self) -> float:
        """Return the probability of the leading family, together with those that are the same limiter.

        With one call a window, or a burst of one, an anchored window, a sliding log and a bucket are one thing.
        """
        ranked = dict(self.probabilities())
        if self.hypotheses and self.hypotheses[0].limit == 1 and self.hypotheses[0].family in SAME_WHEN_ONE:
            return sum(ranked.get(f, 0.0) for f in SAME_WHEN_ONE)
        return max(ranked.values(), default=0.0)

    def probabilities(self) -> list[tuple[str, float]]:
        """Return (family, probability), likeliest first."""
        top: dict[str, float] = {}
        for h in self.hypotheses:
            top[h.family] = max(top.get(h.family, -np.inf), h.score)
        best = max(top.values(), default=0.0)
        weight = {f: float(np.exp(s - best)) for f, s in top.items()}
        total = sum(weight.values())
        return sorted(((f, w / total) for f, w in weight.items()), key=lambda pair: -pair[1])


def fit(calls: Calls, warm: Sequence[Hypothesis] = (), *, tokens: bool = False, thorough: bool = True) -> Fit:
    """Explain a record. ``warm``: hypotheses of an earlier fit to start from.

    Not ``thorough``: only what ``warm`` left over is looked at, which is several times faster.
    """
    asked = Question(calls, tuple(warm), tokens, thorough)
    found = _explain(asked) if len(calls) > MOST_REMEMBERED else _remembered(asked)
    return replace(found, calls=calls)


@lru_cache(maxsize=REMEMBERED)
def _remembered(asked: Question) -> Fit:
    return _explain(asked)


def _explain(asked: Question) -> Fit:
    """Search; and again with what a search did not look at, where the best explanation is contradicted just there."""
    found = _searched(asked)
    for _ in range(AGAIN):
        telling = _overlooked(found, asked.calls)
        if telling is None:
            break
        asked = replace(asked, calls=replace(asked.calls, telling=telling), warm=(*found.leading(LEADING), *asked.warm))
        again = _searched(asked)
        if again.missed >= found.missed:
            break
        found = again
    return found


def _overlooked(found: Fit, calls: Calls) -> Bools | None:
    best = found.best
    if best is None or found.misfit.over < overlooked.FEWEST or found.score < search.poor(found.refusals):
        return None  # what was looked at is explained no better
    excuse = None if found.concurrency is None else flight.excused(calls, found.flight, found.concurrency)
    return overlooked.overlooked(calls, found.offsets_s, excuse, best)


def _searched(asked: Question) -> Fit:
    calls, warm, tokens, thorough = asked.calls, asked.warm, asked.tokens, asked.thorough
    offsets = arrival_offsets(calls)
    around = flight.in_flight(calls, offsets)
    reached = flight.reached(calls, around)
    refusals = int(np.sum(calls.outcome == REFUSED))
    limit = None if tokens else flight.candidate(calls, around)
    again: tuple[float, list[Hypothesis]] = (-np.inf, [])
    span: tuple[int, int] | None = None
    if limit is not None:
        again = _given(calls, offsets, around, limit, warm, tokens=tokens, thorough=thorough)
        higher = places.least_unexplained(calls, offsets, around, limit, again[1])
        if higher is not None and higher > limit:
            limit = higher
            again = _given(calls, offsets, around, limit, again[1][:20], tokens=tokens, thorough=thorough)
        least, most = flight.span(calls, around, limit)
        limit, earned = places.likeliest(calls, offsets, around, limit, again[1])
        again, span = (again[0] + earned, again[1]), (min(least, limit), most)
    rival = again[0] - max((relief(h, float(offsets[-1] - offsets[0])) for h in again[1][:1]), default=0.0)
    score, found = _given(calls, offsets, around, None, warm, tokens=tokens, thorough=thorough, rival=rival)
    concurrency, other, behind = None, again[1] if limit is not None else found, 0.0
    if limit is not None:
        behind = abs(again[0] - score)
        if again[0] > score:
            other, (score, found), concurrency = found, again, limit
    return Fit(
        calls=calls,
        offsets_s=offsets,
        flight=around,
        hypotheses=tuple(found),
        otherwise=tuple(other[:20]),
        behind=behind,
        candidate=limit,
        concurrency=concurrency,
        concurrency_range=None if concurrency is None else span,
        reached=reached,
        score=score,
        misfit=_misfit(calls, offsets, around, concurrency, found, tokens=tokens),
        refusals=refusals,
    )


def _given(
    calls: Calls,
    offsets: Floats,
    around: Flight,
    limit: int | None,
    warm: Sequence[Hypothesis],
    *,
    tokens: bool,
    thorough: bool,
    rival: float = -np.inf,
) -> tuple[float, list[Hypothesis]]:
    """Return (score, rate hypotheses) when the concurrency limit is taken as known.

    ``rival``: the score of another assumption about it; what stays far below is given up early.
    """
    excuse = flight.excused(calls, around, limit) if limit is not None else None
    price = 0.0
    if limit is not None:
        price = CONCURRENCY_PRICE - np.log(OUTLIER) * flight.contradictions(calls, around, limit)
    plain = decisions.prepare(calls, offsets, tokens=tokens, excused=excuse)
    left = int(np.sum(~plain.admitted))
    nothing = left * float(np.log(OUTLIER))
    found = _rates(calls, offsets, plain, excuse, warm, tokens=tokens, thorough=thorough, rival=rival) if left else []
    if max((h.score for h in found), default=-np.inf) < nothing + 2.0:
        best, found = nothing, []
    else:
        if not tokens:
            found = _weighed(calls, found, offsets, excuse)
        best = max(h.score for h in found)
        found = sorted((h for h in found if h.score > best - search.KEEP), key=lambda h: -h.score)
    if limit is not None:
        own = places.own_refusals(calls, offsets, around, limit, found)
        if found:
            asked = recorded(found[0], calls, offsets, excused=own, tokens=tokens, thin=True)
            best, price = min(best, found[0].log_prior + likelihood_of(found[0], asked)), price + BESIDE_RATE
        if places.unsure(calls, around, limit, own):
            price += places.surprise(calls, limit, offsets, own)
    return best - price, found


def _weighed(calls: Calls, found: list[Hypothesis], offsets: Floats, excuse: Bools | None) -> list[Hypothesis]:
    """Return the hypotheses, and others near them, as likely as they are where delays blur what limits remember."""
    spread_s, asked = float(offsets[-1] - offsets[0]), calls if excuse is None else calls.where(~excuse)
    found = charged(asked, with_longer(calls, found, offsets, excuse), spread_s)
    return round_first(with_opened(asked, found, offsets), spread_s)


def _rates(
    calls: Calls,
    offsets: Floats,
    plain: Record,
    excuse: Bools | None,
    warm: Sequence[Hypothesis],
    *,
    tokens: bool,
    thorough: bool,
    rival: float,
) -> list[Hypothesis]:
    seen = proposals.structure(plain, server_offset(calls))
    found: list[Hypothesis] = []
    refused_too = decisions.prepare(calls, offsets, tokens=tokens, excused=excuse, counts_refused=True)
    best = rival
    for family, counts_refused in _variants(warm, thorough=thorough):
        start = [search.shape_of(h) for h in warm if (h.family, h.counts_refused) == (family, counts_refused)][:6]
        record = refused_too if counts_refused else plain
        bonus = -COUNTING_PRICE if counts_refused else 0.0
        made = search.search(record, family, seen, start, afresh=thorough, rival=best, bonus=bonus)
        best = max([best, *(h.score for h in made[:1])])
        found += made
    if thorough and bool(np.any(calls.outcome == OTHER)):
        found += _without_failures(calls, offsets, excuse, found, tokens=tokens)
    return found


def _variants(warm: Sequence[Hypothesis], *, thorough: bool) -> list[tuple[str, bool]]:
    """Return (family, whether refused calls count) to be searched: all, or those that an earlier fit left over.

    The likeliest come first: the others are held against them.
    """
    top = max((h.score for h in warm), default=0.0)
    left = list(dict.fromkeys((h.family, h.counts_refused) for h in warm if h.score > top - search.KEEP))
    if left and not thorough:
        return left
    every = [(f, c) for f in search.RATE_FAMILIES for c in (False, True) if not c or f in REFUSED_VARIANTS]
    return list(dict.fromkeys([*left, *every]))


def _without_failures(
    calls: Calls, offsets: Floats, excuse: Bools | None, found: list[Hypothesis], *, tokens: bool
) -> list[Hypothesis]:
    """Judge the leading shapes again under the assumption that calls answered with 5xx were never counted.

    A few calls too many move the rate of a bucket: where only an odd window explains the record, one is searched anew.
    """
    record = decisions.prepare(calls, offsets, tokens=tokens, excused=excuse, counts_other=False)
    seen = proposals.structure(record, server_offset(calls))
    ranked = sorted((h for h in found if not h.counts_refused), key=lambda h: -h.score)
    leading = [h for family in search.RATE_FAMILIES for h in [h for h in ranked if h.family == family][:FEW]]
    again: list[Hypothesis] = []
    for h in leading:
        shape = search.shape_of(h)
        for _, thresholds, ll in judging.judged(record, h.family, [shape], seen):
            prior = prior_of(record, h.family, shape, seen) - UNCOUNTED_PRICE
            again += [
                search.hypothesis_of(record, h.family, shape, float(k), float(v), prior)
                for k, v in zip(thresholds[0], ll[0], strict=True)
            ]
    if ranked and ranked[0].window_s is not None and not ranked[0].roundness:
        again += search.search(record, "token_bucket", seen, bonus=-UNCOUNTED_PRICE)
    return again


def _misfit(
    calls: Calls,
    offsets: Floats,
    around: Flight,
    concurrency: int | None,
    found: list[Hypothesis],
    *,
    tokens: bool,
) -> Misfit:
    excuse = flight.excused(calls, around, concurrency) if concurrency is not None else None
    if not found:
        left = calls.outcome == REFUSED
        return Misfit(early=int(np.sum(left if excuse is None else left & ~excuse)))
    h = found[0]
    record = recorded(h, calls, offsets, excused=excuse, tokens=tokens)
    seen = replace(misfit_of(record, replayed(h, record), h.limit), loss=-h.log_likelihood)
    if tokens or not relief(h, float(offsets[-1] - offsets[0])):
        return seen
    known = usual(h, calls if excuse is None else calls.where(~excuse), offsets)
    return replace(seen, usual=known.missed, usual_loss=known.loss)
