"""The limit on input tokens: read off the calls whose prompts were sized to meet it.

Such calls are sent in phases named ``tokens`` while the limits on requests and on calls in flight have room. What is
refused there nevertheless is the token limit's; it is no evidence on requests (`for_requests`), and a refusal that
those limits do explain is none on tokens. Everything else about the limiter is told as for requests: the same families
are replayed with the cost of each call.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from analysis import decisions, flight, judging, likelihood, proposals, search
from analysis.agreement import explained_by
from analysis.calls import ADMITTED, OTHER, REFUSED, server_offset
from analysis.fit import REFUSED_VARIANTS, Fit
from analysis.misfit import misfit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.calls import Bools, Calls, Floats, Ints
    from analysis.proposals import Shape
    from analysis.search import Hypothesis

PHASE: Final = "tokens"
KINSHIP: Final = 3.0  # nats: the limits of one service are mostly of one kind
REFUSED_COST: Final = 1.0  # nats: that refused calls count is the rarer case
LEVEL: Final = 0.3  # nats within which explanations are as good as one another
MOST_CHEAP: Final = 400  # cheap calls that are told apart; more are counted together


def sized(calls: Calls) -> Bools:
    """Return which calls were sent to meet the limit on input tokens."""
    return np.array([p.startswith(PHASE) for p in calls.phase], bool)


def for_requests(calls: Calls) -> Calls:
    """Return the record as evidence on requests: a refused sized call may have had too many tokens."""
    return calls.set_aside(sized(calls) & calls.throttled)


def fit_tokens(calls: Calls, requests: Fit, warm: Sequence[Hypothesis] = ()) -> Fit | None:
    """Explain the sized calls by a limit on input tokens; None where none is needed.

    ``calls``: the whole record. ``requests``: what explains it otherwise. ``warm``: hypotheses of an earlier fit.
    """
    offsets = requests.offsets_s
    decides = sized(calls) & ~explained(calls, requests)
    if not np.any(decides & (calls.outcome == REFUSED)):
        return None
    kept, cost = _together(calls)
    calls, decides = replace(calls.take(kept), tokens=cost), decides[kept]
    records = {c: _record(calls, offsets, decides, counts_refused=c) for c in (False, True)}
    seen = proposals.structure(records[False], server_offset(calls))
    found: list[Hypothesis] = []
    for family in search.RATE_FAMILIES:
        for counts in (False, True) if family in REFUSED_VARIANTS else (False,):
            start = _starts(family, requests, [h for h in warm if h.counts_refused == counts])
            bonus = KINSHIP * (_kin(family, requests) - 0.5) - REFUSED_COST * counts
            found += search.search(records[counts], family, seen, start, bonus=bonus)
    left = int(np.sum(~records[False].admitted))
    top = max((h.score for h in found), default=-np.inf)
    if top < left * float(np.log(likelihood.OUTLIER)) + 2.0:
        found = []
    ranked = sorted((h for h in found if h.score > top - search.KEEP), key=lambda h: -h.score)
    ranked = _central(ranked)
    return Fit(
        calls=calls.where(decides),
        offsets_s=offsets,
        flight=flight.in_flight(calls, offsets),
        hypotheses=tuple(ranked),
        otherwise=(),
        candidate=None,
        concurrency=None,
        concurrency_range=None,
        behind=0.0,
        reached=0,
        score=top,
        misfit=misfit_of(*_held(records, ranked[0])) if ranked else replace(requests.misfit, early=left, over=0),
        refusals=left,
    )


def explained(calls: Calls, requests: Fit) -> Bools:
    """Return which refused calls the limits on requests or on calls in flight account for."""
    refused = calls.outcome == REFUSED
    around = flight.in_flight(calls, requests.offsets_s)
    found = np.zeros(len(calls), bool)
    if requests.concurrency is not None:
        found |= flight.excused(calls, around, requests.concurrency)
    h = requests.best
    if h is not None:
        found[refused] |= agreeing(calls, requests.offsets_s, h, refused)
    return found


def blamed(calls: Calls, tokens: Fit) -> Bools:
    """Return which refused cheap calls the limit on tokens accounts for: it was full."""
    h, cheap = tokens.best, (calls.outcome == REFUSED) & ~sized(calls)
    found = np.zeros(len(calls), bool)
    if h is not None:
        found[cheap] = agreeing(calls, tokens.offsets_s, h, cheap, tokens=True)
    return found


def agreeing(calls: Calls, offsets: Floats, h: Hypothesis, which: Bools, *, tokens: bool = False) -> Bools:
    """Return, for each of the calls asked for, whether a limit agrees with its answer; where there is none, it does."""
    if not which.any():
        return np.ones(0, bool)
    asked, explained = explained_by(h, calls, offsets, excused=~which, tokens=tokens)
    agrees = np.ones(len(calls), bool)
    agrees[asked] = explained
    return agrees[which]


def _record(calls: Calls, offsets: Floats, decides: Bools, *, counts_refused: bool) -> decisions.Record:
    return decisions.prepare(calls, offsets, tokens=True, counts_refused=counts_refused, excused=~decides, thin=False)


def _held(records: dict[bool, decisions.Record], h: Hypothesis) -> tuple[decisions.Record, Floats, float]:
    record = records[h.counts_refused]
    return record, judging.statistic(record, h.family, [search.shape_of(h)], h.limit), h.limit


def _starts(family: str, requests: Fit, warm: Sequence[Hypothesis]) -> list[Shape]:
    """Return shapes to start from: those of an earlier fit, and the windows that the limit on requests has."""
    shapes = [search.shape_of(h) for h in warm if h.family == family][:6]
    kin = [search.shape_of(h) for h in requests.hypotheses if h.family == family and h.window_s is not None][:6]
    if not kin and requests.best is not None and requests.best.window_s is not None and family in proposals.OF_WINDOW:
        kin = [(requests.best.window_s,)]
    return [*shapes, *kin]


def _kin(family: str, requests: Fit) -> bool:
    return requests.best is not None and requests.best.family == family


def _together(calls: Calls) -> tuple[Ints, Floats]:
    """Count cheap calls that came close together as one: (positions that are kept, tokens of each).

    Their cost is next to nothing beside that of sized calls, but there may be a hundred thousand of them.
    """
    cheap = ~sized(calls) & ((calls.outcome == ADMITTED) | (calls.outcome == OTHER))
    # By number, and never across a pause: the call after a pause may open a window, at a moment that matters.
    together = math.ceil(max(1, int(cheap.sum())) / MOST_CHEAP)
    pause_s = float(calls.sent_s[-1] - calls.sent_s[0]) / MOST_CHEAP
    sent = calls.sent_s[cheap]
    stretch = np.cumsum(np.diff(sent, prepend=sent[:1]) > pause_s)
    place = np.cumsum(cheap)[cheap] // together
    group = np.arange(len(calls)) + int(cheap.sum()) * 2
    group[cheap] = place + stretch
    _, first, which = np.unique(group, return_index=True, return_inverse=True)
    tokens = np.bincount(which, weights=calls.tokens).astype(float)
    order = np.argsort(first)
    return first[order].astype(np.int64), tokens[order]


def _central(ranked: list[Hypothesis]) -> list[Hypothesis]:
    """Put the middle of those that explain the record alike first: a bracket's end is the worst guess."""
    if not ranked:
        return ranked
    top = ranked[0]
    level = [h for h in ranked if h.score > top.score - LEVEL and h.family == top.family]
    centre = 0.5 * (min(h.rate_per_s for h in level) + max(h.rate_per_s for h in level))
    best = min(level, key=lambda h: abs(h.rate_per_s - centre))
    lifted = msgspec.structs.replace(best, log_prior=best.log_prior + top.score - best.score)
    return [lifted, *(h for h in ranked if h is not best)]
