"""Numbers that people choose, where delays leave the exact one open.

Delays that vary by much of what a limit remembers leave its window, or its rate, open by several per cent, and which of
these explains a record best is chance. Then the number that a person would have chosen is told, if it is among them:
the intervals, which are made without that preference, stay as they are. Pure; seconds and nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from analysis.blurred import relief, strongly
from analysis.priors import ROUND_BONUS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analysis.search import Hypothesis

LEFT_OPEN: Final = 8.0  # nats below the best of a family within which a record so blurred leaves its numbers open
NEAR: Final = 0.015  # relative: a rate so near a round one stands for it
FIRST: Final = 1e-3  # nats by which the round one leads


def round_first(found: list[Hypothesis], spread_s: float) -> list[Hypothesis]:
    """Return the hypotheses, of each blurred family the best with a round window or rate first, if it is nearly so."""
    families: dict[tuple[str, bool], list[Hypothesis]] = {}
    for h in found:
        families.setdefault((h.family, h.counts_refused), []).append(h)
    return [h for own in families.values() for h in (*_preferred(own, spread_s), *own)]


def _preferred(own: list[Hypothesis], spread_s: float) -> Iterator[Hypothesis]:
    top = max(own, key=_score)
    if not (strongly(top, spread_s) if top.window_s is None else relief(top, spread_s)):
        return
    rounded = [r for h in own if h.score > top.score - LEFT_OPEN for r in _rounded(h)]
    if rounded:
        best = max(rounded, key=_score)
        more = top.score - best.score + FIRST
        yield msgspec.structs.replace(best, log_prior=best.log_prior + more, roundness=best.roundness + more)


def _score(h: Hypothesis) -> float:
    return h.score


def _rounded(h: Hypothesis) -> Iterator[Hypothesis]:
    """Yield a window that is round; of a bucket, the whole calls a second or the rpm of one digit that it is near."""
    if h.window_s is not None:
        if h.roundness >= ROUND_BONUS:
            yield h
        return
    chosen = (float(round(h.rate_per_s)), float(f"{60.0 * h.rate_per_s:.0e}") / 60.0)
    rate_per_s = min(chosen, key=lambda each: abs(each - h.rate_per_s))
    if abs(rate_per_s - h.rate_per_s) < NEAR * h.rate_per_s:
        yield msgspec.structs.replace(h, rate_per_s=rate_per_s)
