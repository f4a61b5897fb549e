"""What a calibration asks of whoever sends: a `Probe` goes out, attempts come back.

Two senders implement `Traffic`: a Locust child process (real HTTP) and `analysis.virtual` through
`redline.simulated` (virtual time). The planner knows neither. This file holds plain values only; it imports
nothing of Locust, HTTP or numpy, so both ends of the pipe can use it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

ADMITTED, REFUSED, OTHER, PENDING = "admitted", "refused", "other", "pending"


@dataclass(slots=True)
class Attempt:
    """One request as the planner sees it; the sender fills it in as the answer arrives.

    Times are seconds on the sender's steady clock since the run's start. ``status`` is None while in flight, 0
    where no answer came (timeout, connection lost), else the HTTP status.
    """

    call_id: int
    phase: str
    planned_s: float
    sent_s: float
    prompt_tokens: int = 1
    done_s: float = math.nan
    status: int | None = None
    error: str = ""
    output_tokens: int = 0
    quota_id: str = ""
    quota_metric: str = ""
    quota_value: float = math.nan
    retry_delay_s: float = math.nan
    server_date: float = math.nan
    key_slot: int = 0
    model: str = ""

    @property
    def outcome(self) -> str:
        """One of the four words above; ``other`` is any failure that is not a 429."""
        if self.status is None:
            return PENDING
        if self.status == 200:  # noqa: PLR2004 - HTTP's own number
            return ADMITTED
        return REFUSED if self.status == 429 else OTHER  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Probe:
    """A small reactive program that a sender carries out by itself, without asking back.

    ``offsets_s``: send times relative to the probe's zero, non-decreasing; ``start_s`` is that zero on the run's
    clock (None: at once; a moment already past: at once). An arrival that is due while ``max_in_flight`` calls
    are out is skipped and never queued. Sending ends when the offsets are used up, or when ``stop_refused``
    refusals (429) or ``stop_admitted`` admissions *of this probe* have been seen, or ``stop_other`` other
    failures, or when ``max_sent`` calls were sent. A call that stays unanswered for ``admit_after_s`` counts as
    admitted for ``stop_admitted``: refusals come back at once, answers take their time. With ``drain`` the probe
    ends when all its calls are answered (or ``timeout_s`` after their sending), without it as soon as sending ends;
    late answers still update their `Attempt`. ``keep_s``: go on for this long after a stop condition became true
    (0: stop at once).
    """

    phase: str
    offsets_s: Sequence[float]
    start_s: float | None = None
    max_in_flight: int | None = None
    stop_refused: int | None = None
    stop_admitted: int | None = None
    stop_other: int | None = None
    max_sent: int | None = None
    admit_after_s: float | None = None
    keep_s: float = 0.0
    drain: bool = True
    timeout_s: float = 120.0
    prompt_tokens: int = 1
    output_tokens: int = 1
    key_slot: int = 0
    model: str = ""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """How a probe ended. ``reason``: done | refused | admitted | other | budget | stopped.

    ``first`` and ``last`` index `Traffic.attempts` (half open): the attempts that this probe sent.
    ``skipped``: arrivals not sent because ``max_in_flight`` was reached.
    """

    started_s: float
    ended_s: float
    reason: str
    first: int
    last: int
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Pacing:
    """The recommended limiter, as a sender applies it in a verification: a token bucket and a semaphore.

    Arrivals are offered open loop (every ``1 / offered_per_s`` s) and wait in a queue behind the limiter. A
    call leaves when the bucket (``rate_per_s``, ``burst``) and the input-token bucket have room and fewer than
    ``max_concurrency`` calls are in flight. ``start`` is rested (full bucket) or drained.
    """

    rate_per_s: float | None
    burst: float
    max_concurrency: int | None
    duration_s: float
    offered_per_s: float
    tokens_per_s: float | None = None
    token_burst: float | None = None
    prompt_tokens: int = 1
    output_tokens: int = 1
    phase: str = "verify"
    start_s: float | None = None
    timeout_s: float = 120.0


class Traffic(Protocol):
    """A sender. ``attempts`` grows in the order of sending and is updated in place as answers arrive."""

    attempts: list[Attempt]

    def now_s(self) -> float:
        """Seconds since the run's start, on the sender's clock."""

    def run(self, probe: Probe) -> ProbeReport:
        """Carry out a probe and return when it ended. Raises `BudgetEndedError` or `TargetError`."""

    def pace(self, pacing: Pacing) -> ProbeReport:
        """Drive traffic through the recommended limiter; returns when all calls are answered."""

    def sleep_until(self, moment_s: float) -> None:
        """Send nothing until this moment; answers still arrive."""


class BudgetEndedError(Exception):
    """A budget (calls, tokens, money, time) would be exceeded by the next call. Names the budget."""


class TargetError(Exception):
    """The target cannot be reached or trusted, refused the key, or has no such model. One line, for the user."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the live view shows. ``estimate`` is a sentence; ``eta_s`` None where unknown."""

    phase: str
    estimate: str = ""
    sent: int = 0
    admitted: int = 0
    throttled: int = 0
    elapsed_s: float = 0.0
    eta_s: float | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)
