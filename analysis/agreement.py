"""Which decisions of a record a limit explains, at some arrival time that the network's spread allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis import decisions, judging, likelihood, search

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls, Floats, Ints
    from analysis.decisions import Record
    from analysis.search import Hypothesis


def replayed(
    h: Hypothesis,
    calls: Calls,
    offsets_s: Floats,
    *,
    excused: Bools | None = None,
    tokens: bool = False,
    thin: bool = False,
) -> tuple[Record, Floats]:
    """Return the record as this limit counts it, and its statistic, (1, offsets, decisions).

    ``excused``: calls whose outcome is not asked; ``thin``: only the decisions that a search looks at.
    """
    record = decisions.prepare(
        calls,
        offsets_s,
        tokens=tokens,
        counts_refused=h.counts_refused,
        counts_other=h.counts_other,
        excused=excused,
        thin=thin,
    )
    if record.n == 0:
        return record, np.zeros((1, *record.at_s.shape))
    return record, judging.statistic(record, h.family, [search.shape_of(h)], h.limit)


def explained_by(
    h: Hypothesis, calls: Calls, offsets_s: Floats, *, excused: Bools | None = None, tokens: bool = False
) -> tuple[Ints, Bools]:
    """Return the positions of all decisions among ``calls``, and of each whether the limit explains it.

    ``excused``: calls whose outcome is not asked.
    """
    record, s = replayed(h, calls, offsets_s, excused=excused, tokens=tokens)
    return record.position, np.asarray(likelihood.agreement(record, s, h.limit) > 0.0)
