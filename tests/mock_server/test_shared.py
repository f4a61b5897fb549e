"""Counters in Redis: the Lua form decides as the state machines do, and survives the loss of the store."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mock_server.limits import (
    AnchoredWindow,
    Concurrency,
    FixedWindow,
    LeakyQueue,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
)
from mock_server.quota import Call, Limit, Quota
from mock_server.shared import SharedQuota, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

MODEL = "gemini-3.8-flash"
HELLO = {"contents": [{"parts": [{"text": "say it"}]}]}
CALM = "[latency]\nfirst_token_s = 0\nsigma = 0\nper_token_s = 0\n"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def start_redis(program: str, port: int) -> subprocess.Popen[bytes]:
    """Start a Redis that keeps nothing on disk, and wait until it answers."""
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with redis.Redis(port=port) as client:
        for _ in range(600):
            try:
                client.ping()
            except redis.ConnectionError:
                time.sleep(0.05)
            else:
                return server
    pytest.fail("Redis does not answer")


@pytest.fixture(scope="session")
def store(require_program: Callable[..., str]) -> Iterator[str]:
    """Run a Redis; give its URL."""
    port = free_port()
    server = start_redis(require_program("redis-server"), port)
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait()


limits = st.integers(0, 12)
windows = st.floats(0.1, 90)
SPECS: dict[str, st.SearchStrategy[Any]] = {
    "fixed_window": st.builds(FixedWindow, limits, windows, st.floats(0, 90), st.booleans())
    | st.builds(FixedWindow, limits, calendar=st.just("pacific_day")),
    "anchored_window": st.builds(AnchoredWindow, limits, windows, st.booleans()),
    "sliding_log": st.builds(SlidingLog, limits, windows, st.booleans()),
    "sliding_counter": st.builds(SlidingCounter, limits, windows, st.floats(0, 90), st.booleans()),
    "token_bucket": st.builds(TokenBucket, st.floats(0.01, 50), st.floats(0, 12), st.booleans()),
    "leaky_queue": st.builds(LeakyQueue, st.floats(0.01, 50), st.floats(0, 12), st.booleans()),
    "concurrency": st.builds(Concurrency, limits),
}
moments = st.lists(st.tuples(st.floats(-1, 20), st.integers(1, 4)), min_size=1, max_size=60)


def both(url: str, work: Callable[[SharedQuota], Coroutine[Any, Any, None]], specs: list[Limit]) -> None:
    """Run something with counters of its own in the store."""

    async def run() -> None:
        shared = SharedQuota(connect(url), specs, prefix=f"test:{time.monotonic_ns()}", worker="0")
        try:
            await work(shared)
        finally:
            await shared.forget()
            await shared.close()

    asyncio.run(run())


@pytest.mark.parametrize("family", sorted(SPECS))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), gaps=moments)
def test_the_lua_form_decides_alike(
    store: str, family: str, data: st.DataObject, gaps: list[tuple[float, int]]
) -> None:
    """Call by call: the same admissions, delays and moments, also when the clock steps back."""
    metric = "concurrency" if family == "concurrency" else "requests"
    specs = [Limit(metric, data.draw(SPECS[family])), Limit("requests", SlidingLog(40, 60))]
    local = Quota(specs)

    async def work(shared: SharedQuota) -> None:
        now_s = 1_763_900_000.0
        for place, (gap_s, cost) in enumerate(gaps):
            now_s += gap_s
            call = Call(model="m", costs={metric: cost} | {"requests": cost})
            one, two = local.decide(now_s, call), await shared.decide(now_s, call)
            assert one.admitted == two.admitted
            assert one.violations == two.violations
            assert one.delay_s == two.delay_s
            if place % 3 == 0:
                local.release(now_s, one)
                await shared.release(two)

    both(store, work, specs)


def test_spend_is_charged_afterwards(store: str) -> None:
    """As with the counters of one process."""
    free = Call(model="m", costs={"spend": 0})

    async def work(shared: SharedQuota) -> None:
        assert (await shared.decide(0, free)).admitted
        await shared.charge(0, free, "spend", 1.4)
        assert (await shared.decide(2, free)).retry_at_s == 600

    both(store, work, [Limit("spend", SlidingLog(1.0, 600), scope=("project",))])


def test_a_limit_shared_by_replicas_and_scopes(store: str) -> None:
    """Replicas and scopes have keys of their own."""

    async def work(shared: SharedQuota) -> None:
        outcomes = [(await shared.decide(t, Call(model="m", costs={"requests": 1}))).admitted for t in range(60)]
        assert sum(outcomes) == 8
        assert (await shared.decide(70, Call(model="n", costs={"requests": 1}))).admitted

    both(store, work, [Limit("requests", FixedWindow(8, 1000), replicas=4)])


@contextmanager
def serving(tmp_path: Path, profile: str, *options: str) -> Iterator[str]:
    """Run the mock with these options; yield its URL."""
    path = tmp_path / "profile.toml"
    path.write_text(profile + CALM)
    command = [sys.executable, "-m", "mock_server", "--port", "0", "--profile", str(path), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()
            server.wait(30)


def generate(url: str) -> int:
    """Send one call; return its status."""
    path = f"{url}/v1beta/models/{MODEL}:generateContent?key=k"
    return httpx2.post(path, json=HELLO, timeout=30).status_code


@pytest.mark.parametrize(("on_loss", "meanwhile"), [("refuse", 503), ("admit", 200)])
def test_the_store_goes_and_comes_back(
    tmp_path: Path, require_program: Callable[..., str], on_loss: str, meanwhile: int
) -> None:
    """Without it calls are refused or admitted as configured; with it the limit holds again."""
    program, port = require_program("redis-server"), free_port()
    limit = '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 2\nwindow_s = 3600\n'
    profile = f'on_store_loss = "{on_loss}"\n{limit}'
    server = start_redis(program, port)
    with serving(tmp_path, profile, "--redis", f"redis://127.0.0.1:{port}/0") as url:
        assert [generate(url) for _ in range(3)] == [200, 200, 429]
        server.terminate()
        server.wait()
        assert generate(url) == meanwhile
        server = start_redis(program, port)
        assert [generate(url) for _ in range(3)] == [200, 200, 429]
    server.terminate()
    server.wait()


def test_workers_need_a_store(tmp_path: Path) -> None:
    """One line that says which option is missing."""
    command = [sys.executable, "-m", "mock_server", "--workers", "2"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "error: --workers needs --redis, the URL of a Redis that holds the counters\n"


@pytest.mark.acceptance
def test_four_workers_admit_not_one_call_too_many(tmp_path: Path, store: str) -> None:
    """Saturated for 20 s from several connections: a total, a sliding window and a limit in flight all hold."""
    total, window, in_flight = 3000, 200, 6
    profile = (
        f'[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = {total}\nwindow_s = 3600\n'
        f'[[limits]]\nmetric = "requests"\nfamily = "sliding_log"\nlimit = {window}\nwindow_s = 2\n'
        f'[[limits]]\nmetric = "concurrency"\nfamily = "concurrency"\nlimit = {in_flight}\n'
    )
    admitted: list[tuple[float, float]] = []
    refused = 0

    async def saturate(url: str) -> None:
        nonlocal refused
        path = f"{url}/v1beta/models/{MODEL}:generateContent?key=k"
        end_s = time.monotonic() + 20

        async def one() -> None:
            nonlocal refused
            async with httpx2.AsyncClient(timeout=60) as client:
                while time.monotonic() < end_s:
                    sent_s = time.monotonic()
                    status = (await client.post(path, json=HELLO)).status_code
                    if status == 200:
                        admitted.append((sent_s, time.monotonic()))
                    else:
                        assert status == 429
                        refused += 1

        await asyncio.gather(*(one() for _ in range(16)))

    with serving(tmp_path, profile, "--workers", "4", "--redis", store) as url:
        asyncio.run(saturate(url))
    assert refused > 0
    assert window < len(admitted) <= total
    # A call was decided between its sending and its answer, so those wholly inside two seconds are in one window.
    admitted.sort()
    for start_s, _ in admitted:
        inside = sum(1 for sent_s, done_s in admitted if sent_s >= start_s and done_s < start_s + 2)
        assert inside <= window
