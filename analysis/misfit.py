"""What an exact limiter leaves unexplained, and what that says: others on the quota, replicas, a limit that moved.

An exact limiter whose parameters are right contradicts no answer at every arrival time that the spread allows: in
virtual worlds with nothing else in them the count is zero, also with a spread of 350 ms and 5 % of failures. So a
few contradictions are a finding. Their kind is read off their shape: a limit that moved is contradicted by one side
of the run only; replicas that count apart refuse long before the whole is used up; others on the same quota take
away a part that changes from window to window. Pure; counts are calls (or tokens).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from analysis import likelihood
from analysis.result import Finding

if TYPE_CHECKING:
    from analysis.calls import Floats
    from analysis.decisions import Record

FEWEST: Final = 5  # contradictions that are no accident: on a busy machine a sender is late now and then
MANY: Final = 8  # and those that take a number back, as a limit that moved and replicas do
DEEP: Final = 0.35  # median room left when refused, as a share of the limit, from which on replicas explain it
LOSS: Final = 25.0  # nats that no exact limiter leaves over,
LOSS_SHARE: Final = 0.1  # also not for each refusal: many answers that fit badly say what one that cannot fit says
LOSS_OPEN: Final = 0.6  # nor for each answer that the spread decided: those of exact limiters cost 0.2 to 0.5
LEAST_SHARE: Final = 0.03  # of the limit: what others use is told as at least that,
MOST_SHARE: Final = 0.45  # and as at most that: those who use more are no background
ONE_SIDED: Final = 0.85  # share of the run without a contradiction, before or after all of them, that tells a change


@dataclass(frozen=True, slots=True)
class Misfit:
    """Answers that contradict a limiter. ``early``: refused with room to spare; ``over``: let in beyond the limit.

    ``room``: what was left at the early refusals, as shares of the limit, sorted. ``highest``: the most that an
    admitted call brought the count to. ``first`` and ``last``: where in the record the contradictions stand, as shares
    of its decided calls. ``loss``: how badly the answers fit in all, in nats; ``refusals``: how many of them there are;
    ``open``: how many the spread decided. ``usual`` and ``usual_loss``: how many would contradict it at most, and how
    badly they would fit, if this limiter had answered: where delays blur it, the right one is contradicted, too.
    """

    early: int = 0
    over: int = 0
    room: tuple[float, ...] = ()
    highest: float = 0.0
    first: float = 0.0
    last: float = 1.0
    loss: float = 0.0
    refusals: int = 0
    open: int = 0
    usual: int = 0
    usual_loss: float = 0.0

    @property
    def total(self) -> int:
        """How many answers contradict the limiter, beyond those that usually do."""
        return max(0, self.early + self.over - self.usual)

    @property
    def share(self) -> float:
        """The median room left at an early refusal, as a share of the limit."""
        return float(np.median(self.room)) if self.room else 0.0

    @property
    def one_sided(self) -> bool:
        """Whether all contradictions, of one sign, stand in one part of the run."""
        return min(self.early, self.over) == 0 and max(self.first, 1.0 - self.last) > ONE_SIDED

    def kind(self, fewest: int = FEWEST) -> str | None:
        """Return ``background``, ``replicas`` or ``drift``; None where an exact limiter explains the record.

        ``fewest``: contradictions that are no accident. Fewer than usual are those of a verification: it ends the
        record, so that they stand in one part of it is not yet a change.
        """
        if self.total < fewest:
            allowed = max(LOSS, LOSS_SHARE * self.refusals, LOSS_OPEN * self.open, self.usual_loss)
            return "background" if self.loss > allowed else None
        if self.total < MANY:
            return "background"
        if fewest >= FEWEST and self.one_sided:
            return "drift"
        return "replicas" if self.share > DEEP else "background"


def misfit_of(record: Record, statistic: Floats, limit: float) -> Misfit:
    """Hold a whole record against one limiter; ``statistic`` of that one shape."""
    agrees = likelihood.agreement(record, statistic, limit)
    wrong = agrees == 0.0
    need = statistic[0] + record.cost
    early, over = wrong & ~record.admitted, wrong & record.admitted
    where = np.flatnonzero(wrong)
    room = np.sort((limit - need.max(axis=0))[early] / max(limit, 1.0))
    let_in = need.min(axis=0)[record.admitted]
    return Misfit(
        early=int(early.sum()),
        over=int(over.sum()),
        room=tuple(np.clip(room, 0.0, 1.0).tolist()),
        highest=float(let_in.max(initial=0.0)),
        first=float(where[0] / record.n) if len(where) else 0.0,
        last=float(where[-1] / record.n) if len(where) else 1.0,
        refusals=int(np.sum(~record.admitted)),
        open=int(np.sum(~wrong & (agrees < 1.0))),
    )


def finding_of(misfit: Misfit, fewest: int = FEWEST) -> Finding | None:
    """Tell what the contradictions say; ``value`` is a share of the limit where it is known."""
    counted = f"{misfit.total} answers contradict an exact limit"
    match misfit.kind(fewest):
        case "background":
            share = min(max(misfit.share, LEAST_SHARE), MOST_SHARE)
            text = f"{counted}: others seem to use about {share:.0%} of the same quota, or servers count apart"
            return Finding(kind="background", value=share, ci95=(0.0, _most(misfit, share)), text=text)
        case "replicas":
            text = f"{counted}, most of them long before it was used up: several servers seem to count apart"
            return Finding(kind="replicas", value=None, text=text)
        case "drift":
            text = f"{counted}, all in one part of the run: the limit seems to have changed"
            return Finding(kind="drift", value=None, text=text)
        case _:
            return None


def _most(misfit: Misfit, share: float) -> float:
    """Return the most that others may use: what was left at nearly all early refusals, or twice the usual part."""
    deepest = float(np.quantile(misfit.room, 0.975)) if misfit.room else 0.0
    return min(max(deepest, 2.0 * share), MOST_SHARE)
