"""The life of a serving process: listen, say where, stop when told or when the parent has gone.

It owns sockets and signals. What is served is `mock_server.app`'s.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import signal
import ssl
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

import uvloop
from aiohttp import ClientConnectionResetError, web
from aiohttp.http_exceptions import BadHttpMessage

from mock_server.app import MAX_BODY_BYTES, App
from mock_server.core import Core
from mock_server.journal import Journal
from mock_server.profile import Profile, ProfileError, load
from mock_server.store import StoreLostError
from mock_server.tiers import tier_profile
from mock_server.workers import WorkerError, supervise, watch_parent

if TYPE_CHECKING:
    from mock_server.options import Options
    from mock_server.shared import SharedQuota

_SHUTDOWN_S = 0.5
_FLUSH_S = 0.1
_BACKLOG = 4096
_GC_THRESHOLD = 20_000  # a call makes little garbage in cycles; look for it less often than every 700 objects
MAX_PORT = 65535


class ListenError(Exception):
    """The server cannot listen as asked. The message is one line that names the options."""


def run(options: Options) -> None:
    """Serve until SIGINT or SIGTERM. Raises `ProfileError` and `ListenError`, each with one line for the user."""
    tls = _tls(options)
    profile = choose(options)
    if not options.worker:
        for words in profile.unknown:
            sys.stderr.write(f"nobody has published: {words}\n")
    if options.workers > 1 and not options.redis:
        raise ListenError("--workers needs --redis, the URL of a Redis that holds the counters")
    try:
        if options.workers > 1:
            uvloop.run(supervise(options, _for_workers(options)))
        else:
            uvloop.run(_serve(profile, options, tls))
    except WorkerError as error:
        raise ListenError(f"--workers {options.workers}: {error}") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise ListenError(f"cannot listen on --host {options.host} --port {options.port}: {reason}") from None


async def _serve(profile: Profile, options: Options, tls: ssl.SSLContext | None) -> None:
    core = Core(profile, seed=options.seed)
    with ExitStack() as stack:
        if options.admin_token or options.metrics or options.access_log:
            core.journal = Journal(core.start_s, _access_log(options, stack))
        if options.redis:
            core.shared = _shared(core, options)
        try:
            await serve(core, options, tls)
        finally:
            if core.shared is not None:
                with suppress(StoreLostError):
                    await core.shared.forget()
                await core.shared.close()


def _shared(core: Core, options: Options) -> SharedQuota:
    """Return counters in Redis. Raises `ListenError` where the extra is not installed or the URL is none."""
    try:
        from mock_server.shared import SharedQuota, connect  # noqa: PLC0415 - needs the extra
    except ImportError:
        raise ListenError("--redis needs the Redis client: pip install 'redline[redis]'") from None
    try:
        client = connect(options.redis)
    except ValueError as error:
        raise ListenError(f"--redis takes a URL like redis://127.0.0.1:6379/0: {error}") from None
    return SharedQuota(
        client,
        core.profile.quota_limits(),
        prefix=options.prefix or f"mock:{secrets.token_hex(6)}",
        worker=options.worker or "0",
        seed=options.seed,
        start_s=core.start_s,
    )


def _for_workers(options: Options) -> list[str]:
    """Return the options that every worker gets, as the command line writes them."""
    told = asdict(options)
    for own in ("port", "workers", "worker", "prefix", "parent"):
        del told[own]
    words = ["--metrics"] if told.pop("metrics") else []
    for name, value in told.items():
        if value not in {"", None}:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def choose(options: Options) -> Profile:
    """Return the profile that the options name. Raises `ProfileError`."""
    if not options.tier and not options.model:
        return load(options.profile)
    if not (options.tier and options.model):
        raise ProfileError("--tier and --model go together")
    return tier_profile(options.tier, options.model)


async def serve(core: Core, options: Options, tls: ssl.SSLContext | None = None) -> None:
    """Listen, print the address, and return when a signal comes or the parent has gone. Raises `OSError`."""
    gc.freeze()  # what start-up made stays; no collection has to look at it again
    gc.set_threshold(_GC_THRESHOLD)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    runner = make_runner(App(core, admin_token=options.admin_token, metrics=options.metrics))
    await runner.setup()
    tasks = [loop.create_task(watch_parent(options.parent, stop))] if options.parent else []
    if core.journal:
        tasks.append(loop.create_task(_flush(core.journal)))
    shares = bool(options.worker) or None
    try:
        await web.TCPSite(
            runner, options.host, options.port, backlog=_BACKLOG, ssl_context=tls, reuse_port=shares
        ).start()
        sys.stdout.write(f"mock_server listening on {url(runner, tls=tls is not None)}\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()


async def _flush(journal: Journal) -> None:
    """Let the access log lag by no more than 100 ms."""
    while True:
        await asyncio.sleep(_FLUSH_S)
        journal.flush()


def _access_log(options: Options, stack: ExitStack) -> IO[bytes] | None:
    """Open the access log; each worker has one of its own."""
    name = options.access_log + (f".{options.worker}" if options.worker else "")
    if not options.access_log:
        return None
    try:
        return stack.enter_context(Path(name).open("ab"))
    except OSError as error:
        raise ListenError(f"--access-log {name}: {error.strerror}") from None


def _own_fault(record: logging.LogRecord) -> bool:
    """Return whether a record of aiohttp's tells of something else than a client that speaks no HTTP or has gone."""
    return not (record.exc_info and isinstance(record.exc_info[1], BadHttpMessage | ClientConnectionResetError))


_LOG = logging.getLogger("mock_server.http")
_LOG.addFilter(_own_fault)


def make_runner(app: App) -> web.ServerRunner:
    """Return a runner that cancels a handler when its client goes away, so that what the call held comes free."""
    loop = asyncio.get_running_loop()
    server = web.Server(
        app,
        request_factory=lambda message, payload, protocol, writer, task: web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            loop,
            client_max_size=MAX_BODY_BYTES,
        ),
        handler_cancellation=True,
        access_log=None,
        logger=_LOG,
    )
    return web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)


def url(runner: web.ServerRunner, *, tls: bool = False) -> str:
    """Return the address of the first socket."""
    host, port = runner.addresses[0][:2]
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def _tls(options: Options) -> ssl.SSLContext | None:
    """Return what the files of a certificate and its key make. Raises `ListenError`."""
    if not options.tls_cert and not options.tls_key:
        return None
    if not (options.tls_cert and options.tls_key):
        raise ListenError("--tls-cert and --tls-key go together: a PEM file each")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:
        reason = error.strerror or error
        raise ListenError(f"--tls-cert {options.tls_cert}, --tls-key {options.tls_key}: {reason}") from None
    return context
