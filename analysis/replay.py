"""How well a limiter explains a record: every family as a threshold on a statistic of our own past.

A limiter without hidden state admits a call of cost c exactly when ``s + c <= K``. The family and its shape
(window, phase, refill rate) decide what ``s`` is; K is then a threshold. The state follows what was *observed*
(teacher forcing), so one jittered call cannot make everything after it look wrong. A property test holds these
statistics to the state machines of `mock_server.limits`.

Two kinds of uncertainty are kept apart. *Order*: calls sent close together may arrive in any order, so the n-th
admitted call is compared with the n - 1 admitted ones before it, whichever of them came first, and a refused call
may have come after admitted ones that were sent up to the spread later. *Time*: a call's own arrival is off by a
little against the calls that decide; each decision is therefore asked at several offsets (quantiles of the measured
spread), and the share of offsets that agree is its likelihood. This file reads no files and knows no search.
"""

from __future__ import annotations

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
OUTLIER: Final = 1e-3  # chance that a decision has a cause outside the model
SILENCE_S: Final = 2.0  # a call without an answer for so long was not refused: refusals come back at once
_QUANTILES: Final = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
MOST_DECISIONS: Final = 1000  # that are looked at in a search
STRETCH: Final = 24  # of them in a row, where not all can be
OWN: Final = 2  # offsets to either side that a decision's own delay may reach
_LOG_SHARE: Final = np.log(OUTLIER + (1.0 - OUTLIER) * np.arange(2 * OWN + 2) / (2 * OWN + 1)).astype(np.float32)
MISSED_AT_ALL: Final = 0.03  # what a decision on the wrong side costs in `overlap`, however near
_SPREAD_FLOOR_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Calls:
    """A record of calls in the order of sending, as arrays of one length. Times in seconds; NaN where unknown.

    ``asked``: whose outcome is to be explained (None: all); the others only spend.
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

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self.sent_s)

    @staticmethod
    def from_attempts(attempts: Sequence[Any], *, now_s: float | None = None, answer_s: float = np.inf) -> Calls:
        """Read `redline.traffic.Attempt`-like objects.

        A call that has been out for longer than ``answer_s`` at ``now_s`` counts as admitted: refusals are fast.
        """
        rows = [a for a in attempts if not np.isnan(a.sent_s)]
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
        return Calls(
            self.sent_s[index],
            self.done_s[index],
            self.outcome[index],
            self.tokens[index],
            self.server_date[index],
            self.retry_delay_s[index],
            self.quota_value[index],
            tuple(self.quota_id[i] for i in index),
            tuple(self.phase[i] for i in index),
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


@dataclass(frozen=True, slots=True)
class Record:
    """A record prepared for fitting one metric: the history that counts, and the decisions worth explaining.

    ``history_s``: when the counted calls were sent, sorted; ``spent[k]``: their cost up to the k-th. ``at_s`` and
    ``before`` are (offsets, decisions): the moment each decision is asked at, and how many of the history stand
    before it. ``episodes``: where each stretch from one block to the next starts.
    """

    history_s: Floats
    spent: Floats
    sent_s: Floats
    admitted: Bools
    cost: Floats
    at_s: Floats
    before: Ints
    position: Ints
    episodes: Ints
    spread_s: float
    counts_refused: bool
    counts_other: bool

    @property
    def n(self) -> int:
        """Return the number of decisions."""
        return len(self.sent_s)


def prepare(
    calls: Calls,
    offsets_s: Floats,
    *,
    tokens: bool = False,
    counts_refused: bool = False,
    counts_other: bool = True,
    excused: Bools | None = None,
    thin: bool = True,
) -> Record:
    """Turn calls into a `Record`. Decisions deep inside a run of equal outcomes are thinned out: they say nothing."""
    counted = (calls.outcome == ADMITTED) | (counts_other & (calls.outcome == OTHER))
    if counts_refused:
        counted |= calls.throttled
    cost = calls.tokens if tokens else np.ones(len(calls))
    history = calls.sent_s[counted]
    spent = np.concatenate([[0.0], np.cumsum(cost[counted])])
    before_all = np.concatenate([[0], np.cumsum(counted)])[:-1]
    decided = (calls.outcome == ADMITTED) | (calls.outcome == REFUSED)
    if excused is not None:
        decided &= ~excused
    if calls.asked is not None:
        decided &= calls.asked
    position = np.flatnonzero(decided)
    if thin:
        position = _sampled(position[_informative(calls.outcome[position] == ADMITTED)])
    admitted = calls.outcome[position] == ADMITTED
    at = calls.sent_s[position][None, :] + offsets_s[:, None]
    # A refused call may have come after calls sent later, but not after those sent when its answer was back.
    answered = np.where(np.isfinite(calls.done_s), calls.done_s, np.inf)[position]
    later = np.searchsorted(history, np.minimum(at[-1], answered), side="right") - counted[position]
    back = np.flatnonzero(admitted[:-1] & ~admitted[1:]) + 1
    if counts_refused:
        # Of the refused calls sent just before an admitted one, none need have arrived before it.
        refused = np.flatnonzero(calls.throttled)
        near = np.searchsorted(refused, position) - np.searchsorted(
            calls.sent_s[refused], calls.sent_s[position] - float(offsets_s[-1]), side="right"
        )
        earlier = before_all[position] - np.maximum(near, 0)
    else:
        earlier = before_all[position]
    before = np.broadcast_to(np.where(admitted, earlier, later), at.shape)
    return Record(
        history_s=history,
        spent=spent,
        sent_s=calls.sent_s[position],
        admitted=admitted,
        cost=cost[position],
        at_s=at,
        before=before.astype(np.int64),
        position=position,
        episodes=_spaced(calls.sent_s[position], np.concatenate([[0], back]), float(offsets_s[-1] - offsets_s[0])),
        spread_s=float(offsets_s[-1] - offsets_s[0]),
        counts_refused=counts_refused,
        counts_other=counts_other,
    )


def _spaced(sent_s: Floats, starts: Ints, spread_s: float) -> Ints:
    """Keep the starts that are further apart than the spread: closer ones are one jumbled moment."""
    kept = [int(starts[0])]
    for start in starts[1:]:
        if sent_s[start] - sent_s[kept[-1]] > spread_s:
            kept.append(int(start))
    return np.array(kept, np.int64)


def _informative(admitted: Bools, dense: int = 4) -> Ints:
    """Keep the ends of each run of equal outcomes and a geometrically thinning sample between."""
    n = len(admitted)
    if n == 0:
        return np.zeros(0, np.int64)
    change = np.flatnonzero(np.diff(admitted.astype(np.int8))) + 1
    starts = np.concatenate([[0], change])
    ends = np.concatenate([change, [n]])
    run = np.searchsorted(ends, np.arange(n), side="right")
    from_start = np.arange(n) - starts[run]
    from_end = ends[run] - 1 - np.arange(n)
    near = np.minimum(from_start, from_end)
    power = np.floor(np.log(np.maximum(near, 1)) / np.log(1.4))
    previous = np.floor(np.log(np.maximum(near - 1, 1)) / np.log(1.4))
    return np.flatnonzero((near < dense) | (power != previous))


def _sampled(position: Ints) -> Ints:
    """Keep both ends of a very long row and stretches of what is between: a steady overload repeats itself."""
    if len(position) <= MOST_DECISIONS:
        return position
    end = MOST_DECISIONS // 5
    every = int(np.ceil((len(position) - 2 * end) / (MOST_DECISIONS - 2 * end)))
    index = np.arange(len(position))
    inside = (index - end) % (every * STRETCH) < STRETCH
    return position[inside | (index < end) | (index >= len(position) - end)]


# ------------------------------------- the statistic s of each family, (shapes, offsets, decisions), for many shapes


def _column(values: Floats) -> Floats:
    return np.asarray(values, float)[:, None, None]


def _spent_since(record: Record, first: Ints) -> Floats:
    """Return what was spent from the ``first`` entry of the history up to each decision."""
    return np.asarray(record.spent[record.before] - record.spent[np.minimum(first, record.before)])


def sliding_log(record: Record, window_s: Floats) -> Floats:
    """Return what was spent in (t - window_s, t]."""
    start = record.at_s[None] - _column(window_s)
    return _spent_since(record, np.searchsorted(record.history_s, start, side="right"))


def fixed_window(record: Record, window_s: Floats, phase_s: Floats) -> Floats:
    """Return what was spent since the last boundary ``phase_s + k * window_s``.

    History sent within the spread of a boundary may have arrived on either side: each decision has the benefit.
    """
    window, phase = _column(window_s), _column(phase_s)
    start = np.floor((record.at_s - phase) / window) * window + phase
    slack = np.where(record.admitted, 0.5, -0.5) * np.minimum(record.spread_s, 0.2 * window)
    start = np.minimum(start + slack, record.at_s)
    return _spent_since(record, np.searchsorted(record.history_s, start, side="left"))


def anchored_window(record: Record, window_s: Floats, limit: float) -> Floats:
    """Return what was spent since the window in force was opened by its first call.

    ``limit`` is a guess of N that tells full windows: see `_openings`.
    """
    windows = np.asarray(window_s, float)
    if len(record.history_s) == 0:
        return np.zeros((len(windows), *record.at_s.shape))
    rows = zip(windows, _openings(record, windows, limit), strict=True)
    return np.stack([_anchored_row(record, float(w), first) for w, first in rows])


def _anchored_row(record: Record, window_s: float, first: Ints) -> Floats:
    opened = record.history_s[first]
    index = np.searchsorted(opened, record.at_s, side="right") - 1
    held = np.maximum(index, 0)
    inside = (index >= 0) & (record.at_s < opened[held] + window_s)
    return np.where(inside, _spent_since(record, first[held]), 0.0)


def _openings(record: Record, windows_s: Floats, limit: float) -> list[Ints]:
    """Return for each window which entries of the history opened one.

    A call that was admitted while the window was full can only have opened the next one, if it came close
    enough to the end for the spread to explain it.
    """
    history, spent = record.history_s, record.spent
    n = len(history)
    k = np.zeros(len(windows_s), np.int64)
    steps: list[Ints] = []
    while (k < n).any():
        steps.append(k)
        held = np.minimum(k, n - 1)
        end = history[held] + windows_s
        after = np.searchsorted(history, end, side="left")
        full = np.searchsorted(spent, spent[held] + limit, side="right") - 1
        early = (held < full) & (full < after) & (history[np.minimum(full, n - 1)] >= end - record.spread_s)
        k = np.where(k < n, np.maximum(np.where(early, full, after), held + 1), n)
    table = np.stack(steps, axis=1)
    return [row[row < n] for row in table]


def sliding_counter(record: Record, window_s: Floats, phase_s: Floats) -> Floats:
    """Return this aligned window's spending plus the last one's times the part of it that still overlaps."""
    window, phase = _column(window_s), _column(phase_s)
    start = np.floor((record.at_s - phase) / window) * window + phase
    first = np.minimum(np.searchsorted(record.history_s, start, side="left"), record.before)
    last = np.minimum(np.searchsorted(record.history_s, start - window, side="left"), first)
    overlap = 1.0 - (record.at_s - start) / window
    spent = record.spent
    return np.asarray(spent[record.before] - spent[first] + (spent[first] - spent[last]) * overlap)


def bucket_level(record: Record, rate_per_s: Floats) -> Floats:
    """Return the water level of a bucket that drains at ``rate_per_s``."""
    rate = np.asarray(rate_per_s, float)[:, None]
    lowest = np.minimum.accumulate(record.spent[:-1] - rate * record.history_s, axis=1)
    lowest = np.concatenate([np.full((len(rate), 1), np.inf), lowest], axis=1)
    level = record.spent[record.before] - rate[..., None] * record.at_s - lowest[:, record.before]
    return np.maximum(level, 0.0)


def log_likelihood(record: Record, statistic: Floats, limits: Floats) -> Floats:
    """Return the log likelihood, (shapes, candidates), of the decisions for thresholds (shapes, candidates).

    Decisions of one episode (from one block to the next) share the calls that decide them, hence an error in time
    too: each episode is averaged over the offsets as a whole. What a decision has for itself, its own delay, is
    allowed for by its share of agreement at the neighbouring offsets.
    """
    need = statistic + record.cost - 1e-9
    return np.stack([_episodes_ll(record, need <= limits[:, k, None, None]) for k in range(limits.shape[1])], axis=1)


def _episodes_ll(record: Record, passes: Bools) -> Floats:
    agree = passes == record.admitted
    open_ = np.flatnonzero(~agree.all(axis=(0, 1)))  # the others agree whatever the shape: they add nothing
    if len(open_) == 0:
        return np.zeros(len(passes))
    padded = np.pad(agree[:, :, open_], ((0, 0), (OWN, OWN), (0, 0)), mode="edge").view(np.int8)
    near = sum(padded[:, k : k + agree.shape[1]] for k in range(2 * OWN + 1))
    episode = np.searchsorted(record.episodes, open_, side="right")
    starts = np.flatnonzero(np.diff(episode, prepend=-1))
    by_episode = np.add.reduceat(_LOG_SHARE[near], starts, axis=2)
    top = by_episode.max(axis=1, keepdims=True)
    mean = np.log(np.exp(by_episode - top).mean(axis=1)) + top[:, 0]
    return np.asarray(mean.sum(axis=1))


def at_middle(record: Record) -> Record:
    """Return the record asked at the middle offset alone: seven times cheaper, and good enough to sort out."""
    middle = record.at_s.shape[0] // 2
    return replace(record, at_s=record.at_s[middle : middle + 1], before=record.before[middle : middle + 1])


def misfits(record: Record, statistic: Floats, limits: Floats) -> Floats:
    """Return how many decisions the thresholds, (shapes, candidates), miss at the middle offset."""
    need = statistic[:, statistic.shape[1] // 2] + record.cost - 1e-9
    columns = [((need <= limits[:, k, None]) != record.admitted).sum(axis=1) for k in range(limits.shape[1])]
    return np.stack(columns, axis=1).astype(float)


def overlap(record: Record, statistic: Floats, limits: Floats) -> Floats:
    """Return how far decisions lie on the wrong side of the thresholds, (shapes, candidates), at the middle offset.

    In calls relative to the threshold, each decision at most a fifth of it: smooth in the shape, so that a search can
    go downhill, and no outlier counts for much. What is wrong counts a little however near it is: a limiter that
    never refuses is wrong by nothing at each refusal.
    """
    need = statistic[:, statistic.shape[1] // 2] + record.cost
    columns = []
    for k in range(limits.shape[1]):
        limit = limits[:, k, None]
        wrong = np.where(record.admitted, need - limit, limit + 1e-9 - need)
        columns.append((np.clip(wrong / (limit + 1.0), 0.0, 0.2) + MISSED_AT_ALL * (wrong > 0.0)).sum(axis=1))
    return np.stack(columns, axis=1)


def agreement(record: Record, statistic: Floats, limit: float) -> Floats:
    """Return for each decision the share of offsets at which ``limit`` agrees with it; statistic of one shape."""
    passes = statistic[0] + record.cost <= limit + 1e-9
    return np.asarray((passes == record.admitted).mean(axis=0))
