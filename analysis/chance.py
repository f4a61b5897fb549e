"""Refusals by mere chance: how well that explains a record, and whether it is what it looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from scipy import stats

from analysis.again import beside_chance
from analysis.calls import ADMITTED, REFUSED
from analysis.flight import excused, undecided
from analysis.likelihood import OUTLIER
from analysis.priors import RATE_PRICE

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls, Ints
    from analysis.fit import Fit
    from analysis.search import Hypothesis

FEWEST_REFUSALS: Final = 8  # fewer say nothing about chance, and neither do fewer admissions
UNLIKELY: Final = 0.001  # probability from which on an accident is taken for none
FAR_APART: Final = "apart"  # phase of calls so far apart that no limit which refused the others should refuse them,
CROWDED: Final = "crowded"  # and of so many at once that no limit of a few calls lets in as many as of the others
SELDOM: Final = 0.003  # probability of so few, or so many, refusals among these from which on pace matters
CLEARLY: Final = 5.0  # nats by which chance must explain better than a limit how many passed when
MOSTLY: Final = 0.4  # share of the refusals that an edge must contradict before it gives way to chance by that alone


def by_chance(fitted: Fit, metric: str = "requests") -> bool:
    """Return whether a constant chance explains the refusals as well as the best limits do.

    A limit on calls in flight explains nothing where a call may have met it or may not: such decisions cost it as
    much as chance among them would. With a limit that is free to lie anywhere, and delays that may have changed the
    order of calls, some of the refusals by chance can always be explained: an edge that contradicts most is none.
    What the limit was not asked to explain is no sign of chance either.
    """
    asked = fitted.calls if fitted.calls.asked is None else fitted.calls.where(fitted.calls.asked)
    refused, admitted = (int(np.sum(asked.outcome == o)) for o in (REFUSED, ADMITTED))
    if min(refused, admitted) < FEWEST_REFUSALS or not _scattered(asked.outcome):
        return False
    if not _at_any_pace(_not_in_flight(fitted)):
        return False
    if fitted.missed > MOSTLY * refused:
        return True
    explained = fitted.missed * np.log(OUTLIER)
    if fitted.best is not None:
        explained = min(explained, fitted.best.log_likelihood)
    if fitted.concurrency is not None:
        explained += log_chance(*undecided(fitted.calls, fitted.flight, fitted.concurrency))
    if log_chance(refused, admitted) > explained - 2.0 * RATE_PRICE:
        return True
    if fitted.best is None or metric != "requests":
        return False
    return _chance_foretells(fitted, fitted.best)


def _chance_foretells(fitted: Fit, best: Hypothesis) -> bool:
    """Return whether the best limit, if the calls were sent again, would refuse at other moments; chance would not.

    What a limit on calls in flight may have refused says nothing about the one on the rate.
    """
    spread_s = float(fitted.offsets_s[-1] - fitted.offsets_s[0])
    return beside_chance(_not_in_flight(fitted), best, spread_s) > CLEARLY


def _not_in_flight(fitted: Fit) -> Calls:
    """Return the calls that a limit on the rate must explain: not those that one on calls in flight may refuse."""
    calls = fitted.calls
    if fitted.concurrency is not None:
        calls = calls.where(~excused(calls, fitted.flight, fitted.concurrency))
    return calls if calls.asked is None else calls.where(calls.asked)


def _scattered(outcome: Ints) -> bool:
    """Return whether a refusal is followed by another one no more often than by mere chance.

    What a limit refused it refuses again, until there is room.
    """
    refused = _refused(outcome)
    again = int(np.sum(refused[1:] & refused[:-1]))
    return bool(stats.binom.sf(again - 1, int(refused.sum()), float(refused.mean())) > UNLIKELY)


def _at_any_pace(calls: Calls) -> bool:
    """Return whether calls far apart, and many at once, were refused about as often as the others.

    So they were if there are none.
    """
    return not _differs(calls, FAR_APART, "less") and not _differs(calls, CROWDED, "greater")


def _differs(calls: Calls, phase: str, alternative: Literal["less", "greater"]) -> bool:
    """Return whether calls of this phase were surely refused less, or more, often than the others were."""
    there = np.array([own == phase for own in calls.phase], bool)
    table = np.array([[np.sum(calls.outcome[part] == o) for o in (REFUSED, ADMITTED)] for part in (there, ~there)])
    return bool(stats.fisher_exact(table, alternative=alternative).pvalue <= SELDOM)


def _refused(outcome: Ints) -> Bools:
    """Return which of the decided calls were refused."""
    return np.asarray(outcome[(outcome == REFUSED) | (outcome == ADMITTED)] == REFUSED)


def log_chance(refused: int, admitted: int) -> float:
    """Return the log likelihood of so many refusals under the constant chance that fits them best."""
    total = refused + admitted
    return sum(n * float(np.log(n / total)) for n in (refused, admitted) if n)


def foretold(proof: Calls, probed: Fit) -> bool:
    """Return whether chance alone explains the probes, and brought a verification as many refusals as it had to.

    Steady traffic is refused by chance at any height; an edge next to that height would seem to explain some of it.
    """
    if not by_chance(probed):
        return False
    table = np.array([[np.sum(part.outcome == o) for o in (REFUSED, ADMITTED)] for part in (probed.calls, proof)])
    return bool(stats.fisher_exact(table).pvalue > UNLIKELY)
