"""Which decisions of a record a limit explains, at some arrival time that the network's spread allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis import decisions, judging, likelihood, search

if TYPE_CHECKING:
    from collections.abc import Iterable

    from analysis.calls import Bools, Calls, Floats, Ints
    from analysis.decisions import Record
    from analysis.search import Hypothesis


def recorded(
    h: Hypothesis,
    calls: Calls,
    offsets_s: Floats,
    *,
    excused: Bools | None = None,
    tokens: bool = False,
    thin: bool = False,
) -> Record:
    """Return the record as this limit counts it.

    ``excused``: calls whose outcome is not asked; ``thin``: only the decisions that a search looks at.
    """
    return decisions.prepare(
        calls,
        offsets_s,
        tokens=tokens,
        counts_refused=h.counts_refused,
        counts_other=h.counts_other,
        excused=excused,
        thin=thin,
    )


def replayed(h: Hypothesis, record: Record) -> Floats:
    """Return the statistic of this limit, (1, offsets, decisions), over the record as it counts it."""
    if record.n == 0:
        return np.zeros((1, *record.at_s.shape))
    return judging.statistic(record, h.family, [search.shape_of(h)], h.limit)


def likelihood_of(h: Hypothesis, record: Record) -> float:
    """Return the log likelihood of this limit over the record as it counts it."""
    return float(likelihood.log_likelihood(record, replayed(h, record), np.array([[h.limit]]))[0, 0])


def explained_by(
    h: Hypothesis, calls: Calls, offsets_s: Floats, *, excused: Bools | None = None, tokens: bool = False
) -> tuple[Ints, Bools]:
    """Return the positions of all decisions among ``calls``, and of each whether the limit explains it.

    ``excused``: calls whose outcome is not asked.
    """
    record = recorded(h, calls, offsets_s, excused=excused, tokens=tokens)
    return record.position, _agrees(h, record)


def explained_by_some(hypotheses: Iterable[Hypothesis], calls: Calls, offsets_s: Floats) -> Bools:
    """Return which of the calls are decisions that one of these limits explains."""
    found = np.zeros(len(calls), bool)
    records: dict[tuple[bool, bool], Record] = {}
    for h in hypotheses:
        counts = (h.counts_refused, h.counts_other)
        if counts not in records:
            records[counts] = recorded(h, calls, offsets_s)
        found[records[counts].position[_agrees(h, records[counts])]] = True
    return found


def _agrees(h: Hypothesis, record: Record) -> Bools:
    return np.asarray(likelihood.agreement(record, replayed(h, record), h.limit) > 0.0)
