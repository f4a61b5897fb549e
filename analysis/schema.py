"""The columns of an attempt, the unit of every run directory. Standard library only.

The recorder inside a Locust process imports this file, so it must not drag pandas in. One attempt is one HTTP
request: a retried call has several. Times are seconds since the run's start (``run.json`` holds the anchors).

Version history of the ledger:
    1  first version (2026-11)
"""

from __future__ import annotations

LEDGER_SCHEMA = "redline.ledger/1"
RUN_SCHEMA = "redline.run/1"

# name -> pandas dtype. Nullable dtypes, since a censored attempt has no answer.
COLUMNS: dict[str, str] = {
    "call_id": "int64",
    "attempt": "int64",
    "worker": "string",
    "instance": "Int64",
    "phase": "string",
    "strategy": "string",
    "model": "string",
    "project": "string",
    "region": "string",
    "key_slot": "Int64",
    "planned_s": "float64",
    "sent_s": "float64",
    "first_token_s": "float64",
    "done_s": "float64",
    "status": "Int64",  # HTTP status; 0 where no answer came; missing while in flight (censored)
    "error": "string",  # one of ERROR_CLASSES, empty on success
    "quota_metric": "string",
    "quota_id": "string",
    "quota_value": "float64",
    "retry_delay_s": "float64",
    "prompt_tokens": "Int64",
    "output_tokens": "Int64",
    "thought_tokens": "Int64",
    "cached": "Int64",  # cached input tokens that the server reported
    "in_flight": "Int64",  # attempts of this worker in flight when this one was sent, itself included
    "server_date": "float64",  # the answer's Date header, seconds since the Unix epoch (1 s resolution)
}

# What a `sent` record carries; the rest arrives with `done`. Both carry call_id and attempt.
SENT_COLUMNS = (
    "call_id",
    "attempt",
    "worker",
    "instance",
    "phase",
    "strategy",
    "model",
    "project",
    "region",
    "key_slot",
    "planned_s",
    "sent_s",
    "prompt_tokens",
    "in_flight",
)

ERROR_CLASSES = (
    "throttled",  # 429 of a limit that recovers by itself
    "daily_quota",  # 429 of a quota per day: no use in retrying
    "overloaded",  # 503
    "server_error",  # other 5xx
    "deadline",  # 504
    "timeout",  # no answer within the client's own limit
    "connection",  # refused, reset, name not found
    "invalid",  # 400, 404, 413
    "auth",  # wrong key, 401, 403
    "billing",  # 402, spend cap, depleted credit
    "blocked",  # 200 without an answer, for reasons of content
    "malformed",  # 200 that could not be parsed
    "dropped",  # an arrival that the generator could not send
)

THROTTLED_CLASSES = frozenset({"throttled", "daily_quota"})
