"""The sending side of the channel: a Locust process that does what its parent says and reports each attempt.

The parent is the thinking process (`redline.locust_traffic`). When its end of the channel closes, for whatever
reason, this process stops sending at once. It decides nothing and infers nothing. Imported only under gevent.
"""

from __future__ import annotations

import gc
import os
from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
from gevent.event import Event
from gevent.queue import SimpleQueue

from redline import channel
from redline.budget import Budget, Spending
from redline.client import open_transport
from redline.clock import SystemClock
from redline.prices import price_of
from redline.prompts import Prompts
from redline.record import Ledger
from redline.sender import Sender
from redline.traffic import BudgetEndedError, Probe, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redline.client import Outcome
    from redline.record import Sent

_READ_BYTES = 1 << 16


class Channel:
    """The child's end: messages in through a queue, lines out through a buffer that no sender ever waits for."""

    def __init__(self, descriptor: int) -> None:
        self._socket = gevent.socket.socket(fileno=os.dup(descriptor))
        os.close(descriptor)
        self._out: deque[bytes] = deque()
        self._filled = Event()
        self.incoming: SimpleQueue[dict[str, Any] | None] = SimpleQueue()  # None: the parent is gone
        self._writer = gevent.spawn(self._write)
        gevent.spawn(self._read)

    def tell(self, line: bytes) -> None:
        """Queue one line for the parent; returns at once."""
        self._out.append(line)
        self._filled.set()

    def finish(self, timeout_s: float) -> None:
        """Write what is queued, then close."""
        give_up = gevent.Timeout.start_new(timeout_s)
        try:
            while self._out and not self._writer.dead:
                gevent.sleep(0.005)
        except gevent.Timeout as raised:
            if raised is not give_up:
                raise
        finally:
            give_up.close()
        self._socket.close()

    def _write(self) -> None:
        while True:
            self._filled.wait()
            self._filled.clear()
            lines = b"".join(self._out)
            self._out.clear()
            try:
                self._socket.sendall(lines)
            except OSError:
                return

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except OSError:
                data = b""
            if not data:
                self.incoming.put(None)
                return
            *lines, rest = (rest + data).split(b"\n")
            for encoded in lines:
                self.incoming.put(channel.read(encoded))


class Child:
    """Carries out the parent's orders one after the other, until told to stop or the parent is gone."""

    def __init__(self, descriptor: int, url: str, observe: Callable[[Sent, Outcome], None]) -> None:
        self._url = url
        self._observe = observe
        self._channel = Channel(descriptor)
        self._sender: Sender | None = None
        self._ledger: Ledger | None = None
        self._flusher: gevent.Greenlet[[], None] | None = None

    def serve(self) -> bool:
        """Obey until the end; leaves the ledger flushed. False where the parent vanished without a word."""
        orders: SimpleQueue[dict[str, Any]] = SimpleQueue()
        worker = gevent.spawn(self._work, orders)
        while (message := self._channel.incoming.get()) is not None and message["do"] != "stop":
            orders.put(message)
        if self._sender:
            self._sender.stop()
        worker.kill()
        self.close()
        return message is not None

    def close(self) -> None:
        """Flush the ledger and the channel; safe to call twice."""
        if self._flusher:
            self._flusher.kill()
        if self._ledger:
            self._ledger.close()
        self._channel.finish(timeout_s=0.5)

    def _work(self, orders: SimpleQueue[dict[str, Any]]) -> None:
        while True:
            message = orders.get()
            try:
                answer = self._start(message) if message["do"] == "start" else self._obey(message)
            except TargetError as error:
                answer = {"is": "failed", "why": "target", "text": str(error)}
            except BudgetEndedError as error:
                answer = {"is": "failed", "why": "budget", "text": str(error)}
            except Exception as error:  # noqa: BLE001 - the parent must hear of a defect here, else it waits for ever
                answer = {"is": "failed", "why": "defect", "text": f"{type(error).__name__}: {error}"}
            self._channel.tell(channel.line(answer))

    def _start(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Build the sender that the parent describes and open a first connection."""
        clock = SystemClock(told["anchor_s"])
        self._ledger = Ledger(Path(told["ledger"]), tee=self._channel.tell)
        transport = open_transport(told["transport"], self._url, clock.now_s)
        price = price_of(told["model"], datetime.now(UTC).date())
        self._sender = Sender(
            transport,
            self._ledger,
            clock.now_s,
            url=self._url,
            model=told["model"],
            prompts=Prompts(Random(told["seed"])),  # noqa: S311 - prompts, not secrets
            spending=Spending(Budget(**told["budget"]), price),
            observe=self._observe,
        )
        self._flusher = gevent.spawn(self._sender.flush_for_ever)
        self._sender.warm(1)
        gc.collect()
        gc.freeze()  # what start-up made stays; a later collection then takes well under a millisecond
        return {"is": "ready"}

    def _obey(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._sender is not None, "the parent starts the sender first"  # noqa: S101 - our own protocol
        if message["do"] == "warm":
            self._sender.warm(message["connections"])
            return {"is": "ready"}
        wanted = channel.ordered(message)
        report = self._sender.run(wanted) if isinstance(wanted, Probe) else self._sender.pace(wanted)
        return {"is": "ended"} | asdict(report)
