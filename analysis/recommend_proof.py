"""What a verification proves: from the calls that the recommended limiter let go to a `Verification`.

Pure, so that a run just made and a ledger read years later give the same verdict. It owns the names of the
verification's phases, since the ledger knows nothing else about a call's purpose.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from analysis.recommend import longest_memory_s, optimum_found, sustained_found
from analysis.result import Verification

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from analysis.estimate import Inference
    from analysis.result import Settings

RESTED, FULL = "rested", "full"
EDGES_LEAST = 3
# Window lengths are known to about a percent: a span that is short of three windows by less counts as three.
EDGE_TOLERANCE = 0.01
BURST_QUARTER = 0.25
CONFIDENCE = 0.95
_PHASE = re.compile(r"verify-(\d+)-(rested|full)")


def phase_name(attempt: int, start: str) -> str:
    """Return the phase of a verification's calls: which attempt (from 1), and from which start."""
    return f"verify-{attempt}-{start}"


def attempts_among(phases: Iterable[str]) -> int:
    """Return how many verifications a record holds; 0 if none."""
    found = (_PHASE.fullmatch(phase) for phase in set(phases))
    return max((int(match[1]) for match in found if match), default=0)


def judge(
    phases: Sequence[str],
    sent_s: Sequence[float],
    outcomes: Sequence[str],
    *,
    settings: Settings,
    inference: Inference,
    attempt: int = 1,
) -> Verification:
    """Judge one verification by its calls; calls of other phases are passed over.

    The three sequences are parallel, in the order of sending; ``outcomes`` are the words of
    `redline.traffic` (admitted, refused, other, pending). ``settings``: those that the limiter had.

    A pass needs calls from a rested and from a full start, at least three windows of the longest limit, and a
    share of refusals that does not contradict the accepted one: the one-sided 95 % lower bound of Clopper and
    Pearson (Biometrika 26, 1934) is not above ``settings.max_throttled``. Refusals that no quota explains
    (finding ``random``) are no fault of the settings: the accepted share is then at least their upper bound.
    """
    starts = [_Start.of(phases, sent_s, outcomes, phase_name(attempt, start)) for start in (RESTED, FULL)]
    offered = sum(start.offered for start in starts)
    throttled = sum(start.throttled for start in starts)
    lower, upper = clopper_pearson(throttled, offered)
    edges, enough = _edges(starts, longest_memory_s(inference))
    goodput_per_s = _goodput_per_s(starts)
    return Verification(
        offered=offered,
        throttled=throttled,
        throttled_rate=throttled / offered if offered else 0.0,
        throttled_rate_upper95=upper,
        window_edges=edges,
        goodput_per_min=goodput_per_s * 60.0,
        share_of_limit=_share(goodput_per_s, sustained_found(inference)),
        share_of_optimum=_share(goodput_per_s, optimum_found(inference, settings.max_throttled)),
        attempts=attempt,
        passed=enough and all(start.offered for start in starts) and lower <= accepted_share(settings, inference),
    )


def accepted_share(settings: Settings, inference: Inference) -> float:
    """Return the share of refusals that the verification may show: the user's, or what no limiter can avoid."""
    unavoidable = (f.ci95[1] if f.ci95 else f.value or 0.0 for f in inference.findings if f.kind == "random")
    return max([settings.max_throttled, *unavoidable])


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    """Return the one-sided 95 % bounds, lower and upper, of a share of which ``hits`` of ``n`` were seen."""
    lower = 0.0 if hits == 0 else float(special.betaincinv(hits, n - hits + 1, 1.0 - CONFIDENCE))
    upper = 1.0 if hits == n else float(special.betaincinv(hits + 1, n - hits, CONFIDENCE))
    return lower, upper


@dataclass(frozen=True, slots=True)
class _Start:
    """The calls that followed one start, in the order of sending."""

    sent_s: npt.NDArray[np.float64]
    admitted: npt.NDArray[np.bool_]
    throttled: int

    @classmethod
    def of(cls, phases: Sequence[str], sent_s: Sequence[float], outcomes: Sequence[str], phase: str) -> _Start:
        chosen = np.array([p == phase for p in phases], dtype=bool)
        outcome = np.array(outcomes, dtype=str)[chosen]
        return cls(
            np.asarray(sent_s, dtype=float)[chosen], outcome == "admitted", int(np.count_nonzero(outcome == "refused"))
        )

    @property
    def offered(self) -> int:
        return len(self.sent_s)


def _edges(starts: Sequence[_Start], window_s: float) -> tuple[int, bool]:
    """Return how many windows the traffic spans, and whether that is enough; without a window nothing is asked.

    The clock runs on between the two starts, and both sides of that gap carry traffic: one span.
    """
    moments = np.concatenate([start.sent_s for start in starts])
    if window_s <= 0.0 or len(moments) < 2:  # noqa: PLR2004 - a span has two ends
        return 0, window_s <= 0.0
    span_s = float(moments.max() - moments.min())
    span_s += span_s / (len(moments) - 1)  # the last call's own turn
    edges = math.floor(span_s / window_s * (1.0 + EDGE_TOLERANCE))
    return edges, edges >= EDGES_LEAST


def _goodput_per_s(starts: Sequence[_Start]) -> float:
    """Return admitted calls per second in the steady state: the first quarter of each start holds its burst."""
    passed, time_s = 0, 0.0
    for start in starts:
        if start.offered:
            first_s, last_s = start.sent_s[0], start.sent_s[-1]
            steady = start.sent_s >= first_s + (last_s - first_s) * BURST_QUARTER
            passed += int(np.count_nonzero(start.admitted[steady][1:]))
            time_s += float(last_s - start.sent_s[steady][0])
    return passed / time_s if time_s > 0.0 else 0.0


def _share(goodput_per_s: float, most_per_s: float) -> float | None:
    return goodput_per_s / most_per_s if math.isfinite(most_per_s) and most_per_s > 0.0 else None
