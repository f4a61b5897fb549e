"""Counts a run's calls while its ledgers grow, so that a person sees how a scenario goes. Sends and decides nothing."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from redline import channel
from redline.traffic import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Follower:
    """Reads the ledgers of a run directory bit by bit; ``now_s`` is the watcher's clock."""

    def __init__(self, run_dir: Path, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._folder = run_dir / "requests"
        self._read_to: dict[Path, int] = {}
        self._phase = "starting"
        self._sent = 0
        self._statuses: Counter[int] = Counter()

    def progress(self) -> Progress:
        """Take in what was written since the last time, and say how the run stands."""
        for path in sorted(self._folder.glob("*.jsonl")):
            self._read(path)
        return Progress(
            phase=self._phase,
            sent=self._sent,
            admitted=self._statuses[HTTPStatus.OK],
            throttled=self._statuses[HTTPStatus.TOO_MANY_REQUESTS],
            elapsed_s=self._now_s(),
        )

    def _read(self, path: Path) -> None:
        """Take in the whole lines that are new; half a line is left for later."""
        begins = self._read_to.get(path, 0)
        with path.open("rb") as file:
            file.seek(begins)
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self._read_to[path] = begins + len(whole) + 1
            for encoded in whole.split(b"\n"):
                self._take(encoded)

    def _take(self, encoded: bytes) -> None:
        try:
            record = channel.read(encoded)
        except msgspec.DecodeError:
            return  # not ours to judge: the analysis reads the ledger again
        if record["record"] == "sent":
            self._sent += 1
            self._phase = record["phase"]
        elif record["record"] == "done":
            self._statuses[record["status"]] += 1
