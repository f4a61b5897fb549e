"""The words that the thinking process and the sending process say to each other: JSON lines, pure.

Parent to child: ``{"do": "start" | "run" | "pace" | "warm" | "stop", ...}``. Child to parent: the ledger's own lines as
they are written (``record``), and ``{"is": "ready" | "ended" | "failed", ...}``. Both ends are redline's own and of one
version, so there is no negotiation. A socket that closes means that the other side is gone.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from redline.traffic import Attempt, Pacing, Probe, ProbeReport

if TYPE_CHECKING:
    from collections.abc import Mapping

# In the environment of a process that finds the other end of its channel already there: the number of its own end.
CHANNEL_VARIABLE = "REDLINE_CHANNEL"  # a sender's
SENDER_VARIABLE = "REDLINE_SENDER"  # a thinker's
_TOLD_LATE = ("done_s", "status", "error", "prompt_tokens", "output_tokens", "quota_id", "quota_metric")
_TOLD_MAYBE = ("quota_value", "retry_delay_s", "server_date")


def line(message: Mapping[str, Any]) -> bytes:
    """Encode one message."""
    return msgspec.json.encode(message) + b"\n"


def read(encoded: bytes) -> dict[str, Any]:
    """Decode one message. Raises `msgspec.DecodeError` on a torn line."""
    message = msgspec.json.decode(encoded)
    if not isinstance(message, dict):
        raise msgspec.DecodeError("a message is an object")
    return message


def order(probe: Probe | Pacing) -> dict[str, Any]:
    """Wrap what is to be carried out."""
    if isinstance(probe, Probe):
        return {"do": "run", "what": asdict(probe) | {"offsets_s": [float(x) for x in probe.offsets_s]}}
    return {"do": "pace", "what": asdict(probe)}


def ordered(message: Mapping[str, Any]) -> Probe | Pacing:
    """Unwrap it again."""
    return Probe(**message["what"]) if message["do"] == "run" else Pacing(**message["what"])


def report(message: Mapping[str, Any], first: int, last: int) -> ProbeReport:
    """Read how a probe ended; the reader knows which attempts were its own."""
    return ProbeReport(
        message["started_s"], message["ended_s"], message["reason"], first, last, message.get("skipped", 0)
    )


def attempt(record: Mapping[str, Any]) -> Attempt:
    """Make an attempt from a ``sent`` record."""
    return Attempt(
        record["call_id"],
        record["phase"],
        record["planned_s"],
        record["sent_s"],
        record["prompt_tokens"],
        key_slot=record.get("key_slot", 0),
        model=record.get("model", ""),
    )


def complete(unfinished: Attempt, record: Mapping[str, Any]) -> None:
    """Fill an attempt in from its ``done`` record. ``status`` comes last: who sees it may read the rest."""
    for name in (*_TOLD_LATE, *_TOLD_MAYBE):
        value = record.get(name)
        if value is not None and name != "status":
            setattr(unfinished, name, value)
    unfinished.status = record["status"]
