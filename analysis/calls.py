"""A record of calls: what was sent when, and what became of it. All that the inference ever sees.

Times in seconds on the record's clock, never the server's. This file reads no files and knows no limiter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

REFUSED, ADMITTED, OTHER, PENDING = 0, 1, 2, 3
EXCUSED: Final = 4  # refused, but by another limit than the one that is looked for
SILENCE_S: Final = 2.0  # a call without an answer for so long was not refused: refusals come back at once
_QUANTILES: Final = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
_SPREAD_FLOOR_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Calls:
    """A record of calls in the order of sending, as arrays of one length. Times in seconds; NaN where unknown.

    ``asked``: whose outcome is to be explained (None: all); the others only spend. ``telling``: calls that a search
    has to look at, however far from the next block they are (None: no such).
    """

    sent_s: Floats
    done_s: Floats
    outcome: Ints  # REFUSED | ADMITTED | OTHER | PENDING | EXCUSED
    tokens: Floats  # input tokens
    server_date: Floats
    retry_delay_s: Floats
    quota_value: Floats
    quota_id: tuple[str, ...]
    phase: tuple[str, ...]
    asked: Bools | None = None
    telling: Bools | None = None

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self.sent_s)

    @staticmethod
    def from_attempts(attempts: Sequence[Any], *, now_s: float | None = None, answer_s: float = np.inf) -> Calls:
        """Read `redline.traffic.Attempt`-like objects.

        A call that has been out for longer than ``answer_s`` at ``now_s`` counts as admitted: refusals are fast.
        """
        rows = [a for a in attempts if not math.isnan(a.sent_s)]
        outcome = [_outcome(a.status) for a in rows]
        if now_s is not None:
            outcome = [
                ADMITTED if o == PENDING and now_s - a.sent_s > answer_s else o
                for o, a in zip(outcome, rows, strict=True)
            ]
        return Calls(
            sent_s=np.array([a.sent_s for a in rows], float),
            done_s=np.array([a.done_s for a in rows], float),
            outcome=np.array(outcome, np.int64),
            tokens=np.array([a.prompt_tokens for a in rows], float),
            server_date=np.array([a.server_date for a in rows], float),
            retry_delay_s=np.array([a.retry_delay_s for a in rows], float),
            quota_value=np.array([a.quota_value for a in rows], float),
            quota_id=tuple(a.quota_id for a in rows),
            phase=tuple(a.phase for a in rows),
        ).in_order()

    @staticmethod
    def from_table(table: pd.DataFrame) -> Calls:
        """Read a table with the columns of `analysis.schema`; arrivals that were never sent are left out."""
        rows = table[table["sent_s"].notna() & (table["error"].fillna("") != "dropped")]

        def floats(name: str) -> Floats:
            return np.asarray(rows[name].to_numpy(dtype=float, na_value=np.nan), dtype=float)

        status = floats("status")
        outcome = [_outcome(None if np.isnan(s) else int(s)) for s in status]
        last_s = max([0.0, *floats("sent_s"), *floats("done_s")[np.isfinite(floats("done_s"))]])
        silent = last_s - floats("sent_s") > SILENCE_S
        outcome = [ADMITTED if o == PENDING and quiet else o for o, quiet in zip(outcome, silent, strict=True)]
        return Calls(
            sent_s=floats("sent_s"),
            done_s=floats("done_s"),
            outcome=np.array(outcome, np.int64),
            tokens=np.nan_to_num(floats("prompt_tokens"), nan=1.0),
            server_date=floats("server_date"),
            retry_delay_s=floats("retry_delay_s"),
            quota_value=floats("quota_value"),
            quota_id=tuple(rows["quota_id"].fillna("")),
            phase=tuple(rows["phase"].fillna("")),
        ).in_order()

    @property
    def throttled(self) -> Bools:
        """Which calls were refused, by whatever limit."""
        return np.asarray((self.outcome == REFUSED) | (self.outcome == EXCUSED))

    def excuse(self, which: Bools) -> Calls:
        """Return the calls with these refusals given to another limit: they are spent, but explain nothing here."""
        given = self.throttled
        if self.asked is not None:
            given &= self.asked | (self.outcome == REFUSED)
        outcome = np.where(given & which, EXCUSED, np.where(given, REFUSED, self.outcome))
        return replace(self, outcome=outcome)

    def set_aside(self, which: Bools) -> Calls:
        """Return the calls with these refusals given to another limit for good: a later `excuse` leaves them so."""
        which = which & self.throttled
        if not which.any():
            return self
        asked = ~which if self.asked is None else self.asked & ~which
        return replace(self, outcome=np.where(which, EXCUSED, self.outcome), asked=asked)

    def in_order(self) -> Calls:
        """Return the calls in the order of sending."""
        order = np.argsort(self.sent_s, kind="stable")
        return self if bool(np.all(np.diff(order) > 0)) else self.take(order)

    def take(self, index: Ints) -> Calls:
        """Return the calls at these positions."""
        at = index.tolist()
        return Calls(
            self.sent_s[index],
            self.done_s[index],
            self.outcome[index],
            self.tokens[index],
            self.server_date[index],
            self.retry_delay_s[index],
            self.quota_value[index],
            tuple([self.quota_id[i] for i in at]),
            tuple([self.phase[i] for i in at]),
            None if self.asked is None else self.asked[index],
        )

    def joined(self, later: Calls) -> Calls:
        """Return this record and what was sent after it."""
        return Calls(
            np.concatenate([self.sent_s, later.sent_s]),
            np.concatenate([self.done_s, later.done_s]),
            np.concatenate([self.outcome, later.outcome]),
            np.concatenate([self.tokens, later.tokens]),
            np.concatenate([self.server_date, later.server_date]),
            np.concatenate([self.retry_delay_s, later.retry_delay_s]),
            np.concatenate([self.quota_value, later.quota_value]),
            self.quota_id + later.quota_id,
            self.phase + later.phase,
        )

    def where(self, keep: Bools | Iterable[bool]) -> Calls:
        """Return the calls for which ``keep`` holds."""
        return self.take(np.flatnonzero(np.asarray(keep)))


def _outcome(status: int | None) -> int:
    if status is None:
        return PENDING
    return {200: ADMITTED, 429: REFUSED}.get(status, OTHER)


def arrival_offsets(calls: Calls) -> Floats:
    """Return offsets (s) that stand for the difference of two calls' one-way delays, as equally likely quantiles.

    One-way delay cannot be seen. A refusal's round trip is the sum of two independent delays with no work in
    between, and the difference of two such delays has the variance of their sum: so the centred round trips,
    made symmetric, stand for it. A few of them have not shown how far apart they can be: what they show is stretched.
    """
    trip = (calls.done_s - calls.sent_s)[calls.throttled]
    trip = trip[np.isfinite(trip)]
    if len(trip) < 5:  # noqa: PLR2004 - too few to say anything about a spread
        trip = np.array([0.0, 4 * _SPREAD_FLOOR_S])
    trip = trip[trip <= np.median(trip) + 8 * (np.quantile(trip, 0.8) - trip.min() + _SPREAD_FLOOR_S)]
    centred = (trip - np.median(trip)) * (1.0 + 3.0 / len(trip))
    both = np.concatenate([centred, -centred])
    quantiles = np.quantile(both, _QUANTILES)
    return np.asarray(quantiles + _SPREAD_FLOOR_S * np.linspace(-1, 1, len(quantiles)), dtype=float)


def server_offset(calls: Calls) -> tuple[float, float] | None:
    """Return (server time - record time, half width) from the answers' Date headers, which have whole seconds."""
    seen = np.isfinite(calls.server_date) & np.isfinite(calls.done_s)
    if not seen.any():
        return None
    # The header is floor(server time) at some moment between sending and answer.
    low = float(np.quantile(calls.server_date[seen] - calls.done_s[seen], 0.98))
    high = float(np.quantile(calls.server_date[seen] + 1.0 - calls.sent_s[seen], 0.02))
    return (low + high) / 2, max((high - low) / 2, 0.01)
