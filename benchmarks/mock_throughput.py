"""How fast is the mock with its limits on? Beside it, in one run: bare aiohttp, and FastAPI doing the same.

Four servers take turns on one core, the load comes from another: a bare aiohttp application whose one route returns
constant bytes, the mock under three limits that admit everything, the mock when nearly everything is refused, and a
FastAPI app that parses the same body, asks one limiter and answers with the same bytes. Rounds alternate, so that
a busy machine disturbs all alike. The figure is requests per second of the *server's own CPU time*: it says what
one core serves when it has nothing else to do, also on a machine that has. The rate by the wall clock is beside it.

Two more figures of the mock alone. Timing: 500 calls in flight whose starts are spread over a second, each asked to
take 200 ms; how far is the median off? It needs a quiet machine. Memory: a sliding log of 1000 a minute is asked a
million times; how much does the server grow in the second half of that?

    python benchmarks/mock_throughput.py --json throughput.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import uvloop

MODEL = "gemini-3.8-flash"
BODY = json.dumps(
    {
        "contents": [{"parts": [{"text": "what does the fast brown fox do"}], "role": "user"}],
        "generationConfig": {"maxOutputTokens": 24},
    }
).encode()
REQUEST = (
    f"POST /v1beta/models/{MODEL}:generateContent HTTP/1.1\r\nHost: localhost\r\nx-goog-api-key: k\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY
CALM = "[latency]\nfirst_token_s = 0\nsigma = 0\nper_token_s = 0\n[length]\ntokens = 24\nsigma = 0\n"
LIMITS = """
[[limits]]
metric = "requests"
family = "sliding_log"
limit = {limit}
window_s = 60
[[limits]]
metric = "input_tokens"
family = "fixed_window"
limit = 1000000000
window_s = 60
[[limits]]
metric = "concurrency"
family = "concurrency"
limit = 1000
"""
STEADY = "[latency]\nfirst_token_s = 0.2\nsigma = 0\nper_token_s = 0\n"
SMALL_LOG = '[[limits]]\nmetric = "requests"\nfamily = "sliding_log"\nlimit = 1000\nwindow_s = 60\n'
SERVERS = ("bare", "mock", "mock_refusing", "fastapi")


def main() -> None:
    """Run the rounds, print a table, write JSON where asked."""
    options = _options()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {name: stack.enter_context(_Server(name, folder)) for name in SERVERS}
        os.sched_setaffinity(0, {options.load_core})
        for server in servers.values():
            os.sched_setaffinity(server.pid, {options.server_core})
        rounds = [
            {name: server.round(options.seconds, options.connections) for name, server in servers.items()}
            for _ in range(options.rounds)
        ]
        result = summary(rounds)
        result["timing"] = timing(stack.enter_context(_Server("timing", folder)), options.in_flight)
        result["memory"] = memory(stack.enter_context(_Server("memory", folder)), options.calls)
    for name, figures in result["servers"].items():
        print(f"{name:14} {figures['per_cpu_s']:9.0f} calls/CPU s   {figures['per_s']:9.0f} calls/s")
    print(f"mock / bare    {result['mock_to_bare']:9.3f}   (target: at least 0.75)")
    print(f"mock / fastapi {result['mock_to_fastapi']:9.3f}   (target: at least 3)")
    print(f"timing         median {result['timing']['median_off_ms']:+.2f} ms off 200 ms   (target: under 3)")
    print(
        f"memory         {result['memory']['growth_mb']:+.2f} MB in the later half of {result['memory']['calls']} calls"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


def summary(rounds: list[dict[str, tuple[float, float]]]) -> dict[str, Any]:
    """Return medians over rounds; the ratios are medians of the rounds' own ratios, as they are paired."""

    def ratio(other: str) -> float:
        return statistics.median(one["mock"][0] / one[other][0] for one in rounds)

    return {
        "schema": "redline.benchmark/1",
        "benchmark": "mock_throughput",
        "rounds": len(rounds),
        "servers": {
            name: {
                "per_cpu_s": statistics.median(one[name][0] for one in rounds),
                "per_s": statistics.median(one[name][1] for one in rounds),
            }
            for name in SERVERS
        },
        "mock_to_bare": ratio("bare"),
        "mock_to_fastapi": ratio("fastapi"),
    }


def timing(server: _Server, in_flight: int) -> dict[str, float]:
    """Return how far the median answer is off 200 ms, in milliseconds, with so many calls in flight."""
    took_s = server.answer_times(in_flight, seconds=5.0, spread_s=1.0)
    return {
        "in_flight": in_flight,
        "calls": len(took_s),
        "median_off_ms": (statistics.median(took_s) - 0.2) * 1000,
        "p99_off_ms": (statistics.quantiles(took_s, n=100)[98] - 0.2) * 1000,
    }


def memory(server: _Server, calls: int) -> dict[str, float]:
    """Return how much the server grows over the second half of so many calls, in megabytes."""
    sizes = []
    done = 0
    for half in (calls // 2, calls):
        while done < half:
            done += server.calls(seconds=2.0, connections=32)
        sizes.append(server.resident_mb())
    return {"calls": done, "half_mb": sizes[0], "end_mb": sizes[1], "growth_mb": sizes[1] - sizes[0]}


class _Server:
    """A server in a process of its own, and one round of load against it."""

    def __init__(self, name: str, folder: Path) -> None:
        limit = 1 if name == "mock_refusing" else 10_000_000
        profiles = {"timing": STEADY, "memory": SMALL_LOG + CALM}
        path = folder / f"{name}.toml"
        path.write_text(profiles.get(name, LIMITS.format(limit=limit) + CALM))
        mock = ["-m", "mock_server", "--profile", str(path), "--port", "0"]
        command = mock if name not in {"bare", "fastapi"} else [str(Path(__file__)), "--serve", name]
        self._process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own programs

    def __enter__(self) -> Self:
        assert self._process.stdout is not None  # noqa: S101 - Popen was given a pipe
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a server did not start")
        self._port = int(line.rstrip().rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def round(self, seconds: float, connections: int) -> tuple[float, float]:
        """Return (calls per CPU second of the server, calls per second)."""
        cpu_s, wall_s = self._cpu_s(), time.perf_counter()
        calls = self.calls(seconds, connections)
        return calls / (self._cpu_s() - cpu_s), calls / (time.perf_counter() - wall_s)

    def calls(self, seconds: float, connections: int) -> int:
        """Return how many calls were answered."""
        return len(self.answer_times(connections, seconds))

    def answer_times(self, connections: int, seconds: float, spread_s: float = 0.0) -> list[float]:
        """Return how long each answer took, as the caller's socket sees it."""
        return uvloop.run(_load(self._port, seconds, connections, spread_s))

    def resident_mb(self) -> float:
        """Return how much memory the server has."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Caller(asyncio.Protocol):
    """One connection that sends the next request as soon as an answer is complete."""

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        head = self._rest.find(b"\r\n\r\n")
        if head < 0:
            return
        start = self._rest.lower().find(b"content-length:") + 15
        length = int(self._rest[start : self._rest.find(b"\r\n", start)])
        if len(self._rest) < head + 4 + length:
            return
        self._rest = self._rest[head + 4 + length :]
        self.took_s.append(time.perf_counter() - self._sent_s)
        self._send()

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(REQUEST)  # type: ignore[attr-defined] - a TCP transport writes


async def _load(port: int, seconds: float, connections: int, spread_s: float = 0.0) -> list[float]:
    """Keep so many calls in flight; they begin over ``spread_s``, so that they do not come as one burst for ever."""
    loop = asyncio.get_running_loop()
    pairs = []
    for _ in range(connections):
        pairs.append(await loop.create_connection(_Caller, "127.0.0.1", port))
        await asyncio.sleep(spread_s / connections)
    await asyncio.sleep(seconds)
    for transport, _ in pairs:
        transport.close()
    return [took_s for _, caller in pairs for took_s in caller.took_s]


def _serve_bare() -> None:
    """Serve constant bytes with as little as aiohttp can do."""
    from aiohttp import web  # noqa: PLC0415 - only the process that serves it needs it

    answer = b"x" * 600

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=answer, content_type="application/json")

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1beta/models/{model}", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()

    uvloop.run(serve())


def _serve_fastapi() -> None:
    """Serve the same route with FastAPI on uvicorn: a parsed body, one limiter, an answer of the same size."""
    import socket  # noqa: PLC0415 - likewise

    import uvicorn  # noqa: PLC0415 - likewise
    from fastapi import FastAPI, HTTPException  # noqa: PLC0415 - likewise
    from pydantic import BaseModel  # noqa: PLC0415 - likewise

    from mock_server.limits import SlidingLog  # noqa: PLC0415 - likewise

    class Part(BaseModel):
        text: str

    class Content(BaseModel):
        parts: list[Part]
        role: str | None = None

    class Body(BaseModel):
        contents: list[Content]
        generationConfig: dict[str, int] | None = None  # noqa: N815 - the wire's own spelling

    app = FastAPI()
    limiter = SlidingLog(10_000_000, 60).limiter()

    @app.post("/v1beta/models/{model}:generateContent")
    async def generate(model: str, body: Body) -> dict[str, object]:
        now_s = time.time()
        if not limiter.check(now_s).admitted:
            raise HTTPException(429)
        limiter.commit(now_s)
        words = sum(len(part.text.split()) for content in body.contents for part in content.parts)
        return {"candidates": [{"content": {"parts": [{"text": "x" * 400}]}}], "model": model, "tokens": words}

    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listener])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Throughput of the mock, beside bare aiohttp and FastAPI.")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--in-flight", type=int, default=500, help="calls in flight for the timing")
    parser.add_argument("--calls", type=int, default=1_000_000, help="calls for the memory")
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--load-core", type=int, default=cores[-1])
    parser.add_argument("--serve", choices=("bare", "fastapi"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    match _options().serve:
        case "bare":
            _serve_bare()
        case "fastapi":
            _serve_fastapi()
        case _:
            main()
