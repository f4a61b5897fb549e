"""Several processes behind one port, their counters in one Redis.

The parent takes the port, starts the workers and waits; each worker listens on the same port (SO_REUSEPORT) and asks
Redis about every call. Where one worker ends by itself, the parent ends all: a server that is half there is worse
than none. A run has a prefix of its own in Redis, and takes its keys away at the end.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from mock_server.options import Options

_STOP_S = 5.0
_PARENT_POLL_S = 0.5


class WorkerError(Exception):
    """A worker would not start, or ended by itself. The message is one line."""


async def supervise(options: Options, arguments: list[str]) -> None:
    """Start the workers with these arguments, print the address, and return when a signal comes.

    Raises `WorkerError`, and `OSError` where the port cannot be had.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    watch = loop.create_task(watch_parent(options.parent, stop)) if options.parent else None
    with _reserve(options.host, options.port) as taken:
        address = taken.getsockname()
        shared = [*arguments, "--port", str(address[1]), "--prefix", f"mock:{secrets.token_hex(6)}"]
        workers = [await _start([*shared, "--worker", str(place)]) for place in range(options.workers)]
        try:
            lines = await asyncio.gather(*(_first_line(worker) for worker in workers))
            sys.stdout.write(lines[0])
            sys.stdout.flush()
            await _until_stopped(stop, workers)
        finally:
            if watch:
                watch.cancel()
            await _end(workers)


async def watch_parent(parent: int, stop: asyncio.Event) -> None:
    """Set ``stop`` when ``parent`` is no longer the parent of this process."""
    while os.getppid() == parent:  # noqa: ASYNC110 - a parent's death raises no event that a loop could wait for
        await asyncio.sleep(_PARENT_POLL_S)
    stop.set()


def _reserve(host: str, port: int) -> socket.socket:
    """Bind the port without listening, so that it is known and nobody else gets it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind((host, port))
    return taken


async def _start(arguments: list[str]) -> Process:
    command = [sys.executable, "-m", "mock_server", "--parent", str(os.getpid()), *arguments]
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, start_new_session=True)


async def _first_line(worker: Process) -> str:
    assert worker.stdout is not None  # noqa: S101 - the worker was given a pipe
    line = await worker.stdout.readline()
    if not line:
        raise WorkerError("a worker did not start; its own message is above")
    return line.decode()


async def _until_stopped(stop: asyncio.Event, workers: list[Process]) -> None:
    told = asyncio.ensure_future(stop.wait())
    ends = [asyncio.ensure_future(worker.wait()) for worker in workers]
    await asyncio.wait([told, *ends], return_when=asyncio.FIRST_COMPLETED)
    if not told.done():
        told.cancel()
        raise WorkerError("a worker ended by itself, so the others were stopped")


async def _end(workers: list[Process]) -> None:
    for worker in workers:
        with suppress(ProcessLookupError):
            worker.terminate()
    for worker in workers:
        try:
            await asyncio.wait_for(worker.wait(), _STOP_S)
        except TimeoutError:
            worker.kill()
            await worker.wait()
