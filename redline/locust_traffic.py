"""`Traffic` over a Locust process: the parent's end. Starts the child, asks, listens, and never leaves it behind.

This process thinks; the child sends. They share the machine's steady clock, so their seconds are the same. The key
reaches the child through the environment alone. This file imports neither Locust nor gevent.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import msgspec

from redline import channel, locust_process
from redline.budget import Budget
from redline.clock import SystemClock
from redline.errors import RedlineError
from redline.traffic import Attempt, BudgetEndedError, Pacing, Probe, ProbeReport, TargetError

if TYPE_CHECKING:
    import subprocess
    from types import TracebackType

    from redline.record import RunFile

START_TIMEOUT_S = 90.0  # importing Locust takes a second on a quiet machine, many on a busy one
STOP_TIMEOUT_S = 2.0


class SenderLostError(RedlineError):
    """The sending process ended by itself: a defect, or somebody killed it."""


class LocustTraffic:
    """Implements `redline.traffic.Traffic` on real HTTP. A context manager: leaving it ends the child.

    ``url`` is the target's base URL. The clocks and the phases as executed are written to ``run_file``; the child's
    ledger is ``requests/0.jsonl`` beside it. Entering raises TargetError where the target cannot be reached.
    """

    def __init__(
        self,
        url: str,
        run_file: RunFile,
        *,
        model: str,
        transport: str = "fast",
        seed: int = 0,
        budget: Budget | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.attempts: list[Attempt] = []
        self._url = url
        self._run_file = run_file
        self._start_message = {
            "do": "start",
            "model": model,
            "transport": transport,
            "seed": seed,
            "budget": asdict(budget or Budget()),
            "ledger": str(run_file.path.parent / "requests" / "0.jsonl"),
        }
        self._max_duration_s = (budget or Budget()).max_duration_s
        self._environment = dict(os.environ) if environment is None else environment
        self._clock = SystemClock()
        self._in_flight: dict[int, Attempt] = {}
        self._answers: list[dict[str, Any]] = []
        self._heard = threading.Condition()
        self._gone = False
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    # ---------------------------------------------------------------------------------------- life of the child

    def __enter__(self) -> Self:
        """Start the child and wait until it has reached the target."""
        there_already = self._environment.get(channel.SENDER_VARIABLE)
        if there_already:  # plain `locust` started us
            ours = socket.socket(fileno=int(there_already))
            ours.settimeout(None)  # gevent made it, and gevent's sockets never block
        else:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = locust_process.spawn(
                    "calibrate",
                    self._run_file.path.parent,
                    url=self._url,
                    environment=self._environment | {channel.CHANNEL_VARIABLE: str(theirs.fileno())},
                    descriptors=(theirs.fileno(),),
                )
        self._socket = ours
        threading.Thread(target=self._listen, args=(ours,), name="redline-attempts", daemon=True).start()
        clocks = {"0": {"wall_s": time.time() - self._clock.now_s(), "monotonic_s": self._clock.anchor_s}}
        self._run_file.update(clocks=clocks)
        try:
            self._ask(self._start_message | {"anchor_s": self._clock.anchor_s}, START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End the child, whatever happened."""
        self.close()

    def close(self) -> None:
        """Ask the child to stop, then make it; safe to call twice. The ledger is complete afterwards."""
        if self._socket is None:
            return
        channel_socket, self._socket = self._socket, None
        try:
            channel_socket.sendall(channel.line({"do": "stop"}))
            channel_socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the child is gone already
        if self._process:
            locust_process.end(self._process, STOP_TIMEOUT_S)
        channel_socket.close()

    # ------------------------------------------------------------------------------------------- Traffic

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return self._clock.now_s()

    def run(self, probe: Probe) -> ProbeReport:
        """Carry out a probe; raises BudgetEndedError, TargetError or SenderLostError."""
        return self._carry_out(probe)

    def pace(self, pacing: Pacing) -> ProbeReport:
        """Drive traffic through the recommended limiter; raises as `run` does."""
        return self._carry_out(pacing)

    def sleep_until(self, moment_s: float) -> None:
        """Send nothing until this moment; raises BudgetEndedError at once where the run may not last so long."""
        if self._max_duration_s is not None and moment_s > self._max_duration_s:
            raise BudgetEndedError(f"--max-duration {self._max_duration_s:g} is used up")
        self._clock.sleep(moment_s - self.now_s())

    def warm(self, connections: int) -> None:
        """Have this many connections stand ready, without spending a call."""
        self._ask({"do": "warm", "connections": connections})

    # ------------------------------------------------------------------------------------------- asking

    def _carry_out(self, wanted: Probe | Pacing) -> ProbeReport:
        first = len(self.attempts)
        started_s = self.now_s()
        reason = "stopped"
        try:
            answer = self._ask(channel.order(wanted))
            reason = answer["reason"]
            return channel.report(answer, first, len(self.attempts))
        except BudgetEndedError:
            reason = "budget"
            raise
        finally:
            self._run_file.phase(wanted.phase, started_s, self.now_s(), reason)
            self._run_file.write()

    def _ask(self, message: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        """Send one order and wait for its answer."""
        if self._socket is None:
            raise SenderLostError("the sending process was not started")
        try:
            self._socket.sendall(channel.line(message))
        except OSError as error:
            raise SenderLostError(self._last_words()) from error
        with self._heard:
            if not self._heard.wait_for(lambda: self._answers or self._gone, timeout_s) or not self._answers:
                raise SenderLostError(self._last_words())
            answer = self._answers.pop(0)
        if answer["is"] != "failed":
            return answer
        kinds = {"target": TargetError, "budget": BudgetEndedError}
        raise kinds.get(answer["why"], SenderLostError)(answer["text"])

    def _last_words(self) -> str:
        """Tell where the child's own output is, with its last line."""
        run_dir = self._run_file.path.parent
        last = next(reversed(locust_process.log_lines(run_dir)), "nothing")
        return f"the sending process ended or does not answer; {run_dir / locust_process.LOG} ends with: {last}"

    # ------------------------------------------------------------------------------------------- listening

    def _listen(self, channel_socket: socket.socket) -> None:
        """Body of the listening thread: attempts into the list, answers to whoever waits."""
        with channel_socket.makefile("rb") as lines:
            try:
                for encoded in lines:
                    self._hear(channel.read(encoded))
            except (OSError, ValueError, msgspec.DecodeError):
                pass  # the socket was closed under us, or the child died in mid-line
        with self._heard:
            self._gone = True
            self._heard.notify_all()

    def _hear(self, message: dict[str, Any]) -> None:
        kind = message.get("record")
        if kind == "sent":
            attempt = channel.attempt(message)
            self._in_flight[attempt.call_id] = attempt
            self.attempts.append(attempt)
        elif kind == "done":
            channel.complete(self._in_flight.pop(message["call_id"]), message)
        elif "is" in message:
            with self._heard:
                self._answers.append(message)
                self._heard.notify_all()
