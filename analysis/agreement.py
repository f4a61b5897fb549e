"""Which decisions of a record a limit explains, at some arrival time that the network's spread allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis import decisions, judging, likelihood, search

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls, Floats, Ints
    from analysis.search import Hypothesis


def explained_by(
    h: Hypothesis, calls: Calls, offsets_s: Floats, *, excused: Bools | None = None, tokens: bool = False
) -> tuple[Ints, Bools]:
    """Return the positions of all decisions among ``calls``, and of each whether the limit explains it.

    ``excused``: calls whose outcome is not asked.
    """
    record = decisions.prepare(
        calls,
        offsets_s,
        tokens=tokens,
        counts_refused=h.counts_refused,
        counts_other=h.counts_other,
        excused=excused,
        thin=False,
    )
    if record.n == 0:
        return record.position, np.zeros(0, bool)
    s = judging.statistic(record, h.family, [search.shape_of(h)], h.limit)
    return record.position, np.asarray(likelihood.agreement(record, s, h.limit) > 0.0)
