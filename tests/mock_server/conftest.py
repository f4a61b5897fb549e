"""What the mock's tests share: a brute-force oracle of each family, and a server on a real socket.

The oracle: each family told again from its definition, over the whole history.

Shares no line with `mock_server.limits`. An oracle is a function (history, now, cost) -> admitted, where history
is a list of (when, cost) of everything that was counted. Slow on purpose. The tests that use it choose times and
rates that floats hold exactly, so there is no rounding to differ by.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from mock_server.app import App
from mock_server.core import Core
from mock_server.journal import Journal
from mock_server.limits import (
    AnchoredWindow,
    FixedWindow,
    LeakyQueue,
    SlidingCounter,
    SlidingLog,
    Spec,
    TokenBucket,
)
from mock_server.profile import Profile, parse
from mock_server.serving import make_runner, url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    History = list[tuple[float, float]]


def decides(spec: Spec) -> Callable[[History, float, float], bool]:
    """Return the decision function of a time-based spec."""
    if isinstance(spec, FixedWindow):
        return lambda history, now, cost: _fixed(spec, history, now) + cost <= spec.limit
    if isinstance(spec, AnchoredWindow):
        return lambda history, now, cost: _anchored(spec, history, now) + cost <= spec.limit
    if isinstance(spec, SlidingLog):
        return lambda history, now, cost: (
            sum(c for when, c in history if when > now - spec.window_s) + cost <= spec.limit
        )
    if isinstance(spec, SlidingCounter):
        return lambda history, now, cost: _counter(spec, history, now) + cost <= spec.limit
    if isinstance(spec, TokenBucket | LeakyQueue):
        return lambda history, now, cost: _level(spec, history, now) + cost <= spec.burst
    raise TypeError(spec)


@pytest.fixture(scope="session")
def oracle() -> Callable[[Spec], Callable[[History, float, float], bool]]:
    """Give the maker of decision functions."""
    return decides


def _index(spec: FixedWindow | SlidingCounter, when: float) -> int:
    return math.floor((when - spec.phase_s) / spec.window_s)


def _fixed(spec: FixedWindow, history: History, now: float) -> float:
    return sum(cost for when, cost in history if _index(spec, when) == _index(spec, now))


def _anchored(spec: AnchoredWindow, history: History, now: float) -> float:
    end, used = -math.inf, 0.0
    for when, cost in history:
        if when >= end:
            end, used = when + spec.window_s, 0.0
        used += cost
    return used if now < end else 0.0


def _counter(spec: SlidingCounter, history: History, now: float) -> float:
    place = _index(spec, now)
    here = sum(cost for when, cost in history if _index(spec, when) == place)
    before = sum(cost for when, cost in history if _index(spec, when) == place - 1)
    start = spec.phase_s + place * spec.window_s
    return here + before * (1 - (now - start) / spec.window_s)


def _level(spec: TokenBucket | LeakyQueue, history: History, now: float) -> float:
    level, at = 0.0, 0.0
    for when, cost in [*history, (now, 0.0)]:
        level = max(0.0, level - spec.rate_per_s * (when - at)) + cost
        at = when
    return level


@contextmanager
def serving(profile: Profile, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Serve a profile from a thread of this process on a free port; yield the URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
    if context and tls:
        context.load_cert_chain(*tls)
    started, done = threading.Event(), asyncio.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        core = Core(profile, seed=1)
        core.journal = Journal(core.start_s)
        runner = make_runner(App(core, admin_token="t", metrics=True))  # noqa: S106 - no secret
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        found.update(url=url(runner, tls=tls is not None), loop=asyncio.get_running_loop())
        started.set()
        await done.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield found["url"]
    finally:
        found["loop"].call_soon_threadsafe(done.set)
        thread.join(30)


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[str]]:
    """Give a function: TOML of a profile in, a context manager that serves it out. No latency unless it says so."""

    def serve_text(text: str, tls: tuple[Path, Path] | None = None) -> AbstractContextManager[str]:
        calm = "[latency]\nfirst_token_s = 0\nsigma = 0\nper_token_s = 0\n"
        return serving(parse(text if "[latency]" in text else text + "\n" + calm, "test"), tls)

    return serve_text
