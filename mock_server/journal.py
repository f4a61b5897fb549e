"""What happened: the last decisions, counts for Prometheus, and an access log in the ledger's columns.

It watches and decides nothing. A call's record travels beside it in a context variable, so that the endpoints need
not hand it on. Nothing here reads a clock; whoever calls says when.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from contextvars import ContextVar
from typing import IO, TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from mock_server.quota import Call, Decision

KEPT_DECISIONS = 10_000
# Upper bounds of the histogram, seconds.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ERRORS = {
    401: "auth",
    402: "billing",
    403: "auth",
    429: "throttled",
    499: "timeout",
    503: "overloaded",
    504: "deadline",
}


class Row(msgspec.Struct):
    """One call in the columns of the ledger (`analysis.schema.COLUMNS`; a test compares them). Seconds since start."""

    call_id: int
    sent_s: float
    attempt: int = 1
    worker: str = "mock"
    instance: int | None = None
    phase: str = ""
    strategy: str = ""
    model: str = ""
    project: str = ""
    region: str = ""
    key_slot: int | None = None
    planned_s: float = math.nan
    first_token_s: float | None = None
    done_s: float | None = None
    status: int | None = None
    error: str = ""
    quota_metric: str = ""
    quota_id: str = ""
    quota_value: float | None = None
    retry_delay_s: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    thought_tokens: int | None = None
    cached: int | None = None
    in_flight: int | None = None
    server_date: float | None = None


current: ContextVar[Row | None] = ContextVar("current", default=None)


class Journal:
    """Everything that is remembered of the calls. ``log``: where access lines go, if anywhere."""

    def __init__(self, start_s: float, log: IO[bytes] | None = None) -> None:
        self.start_s = start_s
        self.decisions: deque[dict[str, Any]] = deque(maxlen=KEPT_DECISIONS)
        self.answers: Counter[tuple[str, int]] = Counter()
        self.refusals: Counter[tuple[str, str]] = Counter()
        self.tokens: Counter[str] = Counter()
        self.in_flight = 0
        self.histogram = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0
        self._log = log
        self._keys: dict[str, int] = {}
        self._calls = 0

    def began(self, now_s: float) -> Row:
        """Open the record of a request."""
        self._calls += 1
        self.in_flight += 1
        sent_s = now_s - self.start_s
        row = Row(self._calls, sent_s, planned_s=sent_s, in_flight=self.in_flight)
        current.set(row)
        return row

    def decided(self, now_s: float, call: Call, decision: Decision) -> None:
        """Note what became of a call, and why."""
        refused = [violation.limit for violation in decision.violations]
        self.decisions.append(
            {
                "at_s": now_s,
                "model": call.model,
                "project": call.project,
                "region": call.region,
                "tier": decision.tier,
                "costs": dict(call.costs),
                "admitted": decision.admitted,
                "refused_by": [limit.quota_id or limit.metric for limit in refused],
                "retry_at_s": None if decision.retry_at_s == math.inf else decision.retry_at_s,
            }
        )
        for limit in refused:
            self.refusals[limit.metric, limit.quota_id] += 1
        row = current.get()
        if row is None:
            return
        row.sent_s = row.planned_s = now_s - self.start_s
        row.model, row.project, row.region = call.model, call.project, call.region
        row.key_slot = self._keys.setdefault(call.key, len(self._keys))
        row.prompt_tokens = round(call.costs.get("input_tokens", 0))
        if refused:
            row.quota_id, row.quota_metric, row.quota_value = (
                refused[0].quota_id,
                refused[0].quota_metric,
                refused[0].value,
            )
            moment_s = decision.retry_at_s
            row.retry_delay_s = None if moment_s is None or math.isinf(moment_s) else moment_s - now_s

    def ended(self, row: Row, now_s: float, status: int) -> None:
        """Close the record. ``status`` 0: the connection was broken without an answer."""
        self.in_flight -= 1
        row.done_s, row.status, row.server_date = now_s - self.start_s, status, math.floor(now_s)
        row.error = _error(row, status)
        self.answers[row.model, status] += 1
        self.histogram[bisect.bisect_left(BUCKETS_S, row.done_s - row.sent_s)] += 1
        self.seconds += row.done_s - row.sent_s
        self.tokens["input"] += row.prompt_tokens or 0
        self.tokens["output"] += row.output_tokens or 0
        if self._log and row.model:
            self._log.write(msgspec.json.encode(row) + b"\n")

    def flush(self) -> None:
        """Write what is waiting to the log."""
        if self._log:
            self._log.flush()


def _error(row: Row, status: int) -> str:
    """Return the ledger's class of an error, empty on success."""
    if status == 429 and "PerDay" in row.quota_id:  # noqa: PLR2004 - HTTP's own number
        return "daily_quota"
    if status in _ERRORS:
        return _ERRORS[status]
    if status == 0:
        return "connection"
    if status >= 500:  # noqa: PLR2004 - likewise
        return "server_error"
    return "invalid" if status >= 400 else ""  # noqa: PLR2004 - likewise
