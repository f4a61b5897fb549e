"""Batch jobs: what was handed in, and how far it is at any moment. No HTTP, no clock, no threads.

A job's state is a function of time: it waits, works on one request after the other, and is done. So nothing runs in
the background, and a job in virtual time is a job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mock_server import errors, gemini
from mock_server.caches import timestamp

if TYPE_CHECKING:
    from mock_server.profile import Batch
    from mock_server.quota import Decision

_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main."
PENDING, RUNNING, SUCCEEDED, CANCELLED = (
    f"BATCH_STATE_{word}" for word in ("PENDING", "RUNNING", "SUCCEEDED", "CANCELLED")
)


class Line(msgspec.Struct, frozen=True):
    """One request of a job: its answer is known from the start, and shown when its time has come."""

    metadata: dict[str, Any]
    response: dict[str, Any]
    tokens: int


class Job(msgspec.Struct):
    """One job. Moments are seconds since the Unix epoch; ``kind`` is the message type of its metadata."""

    name: str
    project: str
    model: str
    kind: str
    display_name: str
    lines: list[Line]
    created_s: float
    pace: Batch
    held: Decision
    cancelled_s: float | None = None

    def begins_s(self) -> float:
        """Return when the first request is taken up."""
        return self.created_s + self.pace.pending_s

    def ends_s(self) -> float:
        """Return when the last one is answered, or when the job was cancelled."""
        end_s = self.begins_s() + self.pace.per_request_s * len(self.lines)
        return end_s if self.cancelled_s is None else min(end_s, self.cancelled_s)

    def state(self, now_s: float) -> str:
        """Return the state at a moment."""
        if now_s >= self.ends_s():
            return SUCCEEDED if self.cancelled_s is None or self.cancelled_s > self.ends_s() else CANCELLED
        return PENDING if now_s < self.begins_s() else RUNNING

    def cancel(self, now_s: float) -> None:
        """Stop the job, unless it has ended."""
        if now_s < self.ends_s():
            self.cancelled_s = now_s

    def body(self, now_s: float) -> dict[str, Any]:
        """Return the operation that stands for the job. Counts are strings, as on the service."""
        state = self.state(now_s)
        metadata: dict[str, Any] = {
            "@type": f"{_TYPE}{self.kind}",
            "model": f"models/{self.model}",
            "displayName": self.display_name,
            "createTime": timestamp(self.created_s),
            "updateTime": timestamp(min(now_s, self.ends_s())),
            "batchStats": self._stats(now_s),
            "state": state,
            "name": self.name,
        }
        body: dict[str, Any] = {"name": self.name, "metadata": metadata}
        if state in {SUCCEEDED, CANCELLED}:
            metadata["endTime"] = timestamp(self.ends_s())
            body["done"] = True
        if state == SUCCEEDED:
            answers = [{"metadata": line.metadata, "response": line.response} for line in self.lines]
            output = {"inlinedResponses": {"inlinedResponses": answers}}
            metadata["output"] = output
            body["response"] = {"@type": f"{_TYPE}{self.kind}Output"} | output
        elif state == CANCELLED:
            body["error"] = {"code": 1, "message": "The operation was cancelled."}
        return body

    def _stats(self, now_s: float) -> dict[str, str]:
        total = len(self.lines)
        until_s = min(now_s, self.ends_s())
        done = total if not self.pace.per_request_s else int((until_s - self.begins_s()) / self.pace.per_request_s)
        done = total if self.state(now_s) == SUCCEEDED else max(0, min(done, total))
        counts = {"requestCount": total, "successfulRequestCount": done, "pendingRequestCount": total - done}
        return {name: str(count) for name, count in counts.items() if count}


class Jobs:
    """All jobs, by name. A project sees its own."""

    def __init__(self) -> None:
        self._kept: dict[str, Job] = {}

    def add(self, job: Job) -> None:
        """Take in a new one."""
        self._kept[job.name] = job

    def get(self, name: str, project: str) -> Job:
        """Return a job. Raises `ApiError` 404."""
        job = self._kept.get(name)
        if job is None or job.project != project:
            raise errors.unknown_path()
        return job

    def listed(self, project: str) -> list[Job]:
        """Return the project's jobs, newest first."""
        return [job for job in reversed(self._kept.values()) if job.project == project]

    def remove(self, job: Job) -> None:
        """Forget one."""
        del self._kept[job.name]

    def ended(self, now_s: float) -> list[Job]:
        """Return those that have ended and still hold quota; the caller gives it back and clears ``held``."""
        return [job for job in self._kept.values() if job.held.held and now_s >= job.ends_s()]


def parse_job(body: dict[str, Any]) -> tuple[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
    """Read a request for a job: its display name, and (request, metadata) of each line. Raises `ApiError` 400."""
    batch = _message(body, "batch")
    source = _message(batch, "inputConfig")
    if gemini.field(source, "fileName"):
        raise errors.no_file(gemini.text_field(source, "fileName"))
    lines = _message(source, "requests").get("requests")
    if not isinstance(lines, list) or not lines or not all(isinstance(line, dict) for line in lines):
        raise errors.invalid("* BatchGenerateContentRequest.batch.input_config.requests: requests is not specified\n")
    return gemini.text_field(batch, "displayName"), [(_message(line, "request"), _metadata(line)) for line in lines]


def _message(outer: dict[str, Any], name: str) -> dict[str, Any]:
    found = gemini.field(outer, name)
    if not isinstance(found, dict):
        raise errors.invalid_json(f"Invalid value at '{name}'", name)
    return found


def _metadata(line: dict[str, Any]) -> dict[str, Any]:
    found = line.get("metadata", {})
    return found if isinstance(found, dict) else {}
