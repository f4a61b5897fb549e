"""What a person sees while a run goes on: a view that redraws itself on a terminal, else a plain line now and then.

It draws on stderr, so that stdout keeps the verdict (or the JSON) alone. The plan reports what it does and what it
has learnt; the counts, the clock and the time left of a paced phase are read from the traffic, so that they move in
between. It knows no plan.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from redline.traffic import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redline.traffic import Attempt, Pacing, Probe, ProbeReport, Traffic

STARTING = "starting"  # what a board and a follower (redline.follow) call the time before the first phase
LINE_EVERY_S = 10.0  # without a terminal: one line in this time, and one for each new phase
_FRAMES_PER_S = 4
_SECONDS_PER_MINUTE = 60
_OK, _THROTTLED = 200, 429


@contextlib.contextmanager
def view(stream: TextIO, title: str) -> Iterator[Board]:
    """Show a board on a stream while the block runs. On a terminal the view is taken away at the end; lines stay."""
    if not stream.isatty():
        with _lines(stream) as board:
            yield board
        return
    board = Board()
    console = Console(file=stream, highlight=False)
    with Live(Panel(title, board), console=console, refresh_per_second=_FRAMES_PER_S, transient=True):
        yield board


@contextlib.contextmanager
def _lines(stream: TextIO) -> Iterator[Board]:
    """Write a line for each report of a new phase, and one each `LINE_EVERY_S` from a thread."""
    lines = Lines(stream)
    board = Board(lines)
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(LINE_EVERY_S):
            lines.show(board.now(), again=True)

    thread = threading.Thread(target=tick, name="redline-progress", daemon=True)
    thread.start()
    try:
        yield board
    finally:
        ended.set()
        thread.join()


class Board:
    """The last report, brought up to date from the traffic. Reports come from one thread, readers from another."""

    def __init__(self, lines: Lines | None = None) -> None:
        self._lines = lines
        self._progress = Progress(phase=STARTING)
        self._traffic: Traffic | None = None
        self._ends_s: float | None = None

    def watch(self, traffic: Traffic) -> Watched:
        """Take counts and time from this traffic from now on; returns it, so wrapped that pacing tells its end."""
        self._traffic = traffic
        return Watched(traffic, self)

    def report(self, progress: Progress) -> None:
        """Take a report of the plan."""
        self._progress = progress
        self.ends_in(progress.eta_s)
        if self._lines:
            self._lines.show(self.now())

    def ends_in(self, left_s: float | None) -> None:
        """Say how long what is going on will still take; None where nobody knows."""
        self._ends_s = None if left_s is None or self._traffic is None else self._traffic.now_s() + left_s

    def now(self) -> Progress:
        """Return the last report with the counts, the clock and the time left as they are now."""
        if self._traffic is None:
            return self._progress
        now_s = self._traffic.now_s()
        statuses = [attempt.status for attempt in self._traffic.attempts]
        return replace(
            self._progress,
            sent=len(statuses),
            admitted=statuses.count(_OK),
            throttled=statuses.count(_THROTTLED),
            elapsed_s=now_s,
            eta_s=None if self._ends_s is None else max(0.0, self._ends_s - now_s),
        )


class Watched:
    """A `Traffic` that tells the board how long a pacing will take. Everything else is passed on."""

    def __init__(self, traffic: Traffic, board: Board) -> None:
        self.attempts: list[Attempt] = traffic.attempts  # the traffic's own list
        self._traffic = traffic
        self._board = board

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return self._traffic.now_s()

    def run(self, probe: Probe) -> ProbeReport:
        """Carry out a probe."""
        return self._traffic.run(probe)

    def pace(self, pacing: Pacing) -> ProbeReport:
        """Drive traffic through a limiter; the board shows how long is left."""
        self._board.ends_in(pacing.duration_s)
        try:
            return self._traffic.pace(pacing)
        finally:
            self._board.ends_in(None)

    def sleep_until(self, moment_s: float) -> None:
        """Send nothing until this moment."""
        self._traffic.sleep_until(moment_s)


class Lines:
    """Writes progress as lines of text; a phase that is reported twice has one line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._phase = ""

    def show(self, progress: Progress, *, again: bool = False) -> None:
        """Write a line if the phase is new, or where one is wanted ``again``; that it starts is no news."""
        if progress.phase in {self._phase, STARTING} and not again:
            return
        self._phase = progress.phase
        parts = [clock_text(progress.elapsed_s), progress.phase, calls_text(progress)]
        if progress.estimate:
            parts.append(progress.estimate)
        if progress.eta_s is not None:
            parts.append(f"about {clock_text(progress.eta_s)} left")
        self._stream.write(" · ".join(parts) + "\n")
        self._stream.flush()


class Panel:
    """The view on a terminal; rich asks it for its lines a few times a second."""

    def __init__(self, title: str, board: Board) -> None:
        self._title = title
        self._board = board

    def __rich__(self) -> Table:
        progress = self._board.now()
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("redline", style="bold red"), Text(self._title, style="bold"))
        table.add_row("doing", Text(progress.phase))
        table.add_row("so far", Text(progress.estimate or "nothing known yet"))
        table.add_row("calls", Text(calls_text(progress)))
        table.add_row("time", _time_row(progress.elapsed_s, progress.eta_s))
        for note in progress.notes:
            table.add_row(Text("note", style="yellow"), Text(note))
        return table


def calls_text(progress: Progress) -> str:
    """Return the counts as words."""
    return f"{progress.sent} sent, {progress.admitted} admitted, {progress.throttled} throttled"


def clock_text(duration_s: float) -> str:
    """Return a duration as minutes and seconds: ``1:05``."""
    minutes, seconds = divmod(round(duration_s), _SECONDS_PER_MINUTE)
    return f"{minutes}:{seconds:02d}"


def _time_row(elapsed_s: float, left_s: float | None) -> Table | Text:
    if left_s is None:
        return Text(clock_text(elapsed_s))
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(elapsed_s + left_s, 1e-9), completed=elapsed_s, width=24)
    row.add_row(clock_text(elapsed_s), bar, f"about {clock_text(left_s)} left")
    return row
