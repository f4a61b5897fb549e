"""A server with hidden limits that speaks Gemini's wire format: the judge of a calibration over real sockets.

    python benchmarks/hidden/server.py --config FILE|JSON --port 0 [--log FILE]

It prints its address, listens on the loopback address only, and ends on SIGINT, on SIGTERM and when its parent
dies. It shares no code with the mock server: own limits, own service times, own HTTP. Its refusals name no
quota. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import signal
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from http1 import Reply, Request, listen
from limiters import Gate
from wire import (
    KEY_MISSING,
    BodyError,
    answer,
    encode,
    error,
    model_card,
    overloaded,
    read_request,
    refused,
    token_count,
    unknown_model,
    wrong_key,
)

ROUTE = re.compile(r"/(?P<version>v1|v1beta|v1alpha)/models(?:/(?P<model>[^/:]+)(?::(?P<method>\w+))?)?")
WATCH_EVERY_S = 0.5
REFUSAL_TAKES_S = 0.001
NOT_FOUND = Reply(404, error(404, "NOT_FOUND", "Requested entity was not found."))


@dataclass(frozen=True, slots=True)
class Config:
    """What a hidden server does. Service time is lognormal around ``median_s``, and ``per_token_s`` for each token.

    ``error_share`` of the calls end with a 503: after they were admitted and charged, or, with
    ``errors_before``, before any limit has seen them.
    """

    limits: list[dict[str, Any]]
    median_s: float = 0.1
    sigma: float = 0.3
    per_token_s: float = 0.0
    error_share: float = 0.0
    errors_before: bool = False
    seed: int = 0
    key: str = "hidden-key"
    model: str = "gemini-3.8-flash"
    name: str = "hidden"


class Service:
    """Decides on every request at the moment of its arrival; pure but for the clock that it is given."""

    def __init__(self, config: Config, log: list[dict[str, Any]]) -> None:
        self._config = config
        self._gate = Gate(config.limits)
        self._random = random.Random(config.seed)
        self._log = log
        self._answered = 0
        # One clock for windows, log and Date header: it starts at the wall's time and is never set back.
        self._epoch_at_zero_s = time.time() - time.monotonic()

    def epoch_s(self) -> float:
        """Seconds since the Unix epoch on the server's clock."""
        return self._epoch_at_zero_s + time.monotonic()

    def handle(self, request: Request) -> Reply:
        """Route, check the key and the model, and answer or refuse."""
        route = ROUTE.fullmatch(request.path)
        if route is None:
            return NOT_FOUND
        stranger = self._stranger(request)
        if stranger is not None:
            return stranger
        version, model, method = route["version"], route["model"], route["method"]
        if request.method == "GET" and method is None:
            return self._models(version, model)
        if request.method != "POST" or method not in {"generateContent", "countTokens"}:
            return NOT_FOUND
        if model != self._config.model:
            return Reply(404, unknown_model(version, model or "", method))
        return self._call(method, request.body)

    def _stranger(self, request: Request) -> Reply | None:
        key = request.headers.get("x-goog-api-key") or request.query.get("key")
        if not key:
            return Reply(403, error(403, "PERMISSION_DENIED", KEY_MISSING))
        return None if key == self._config.key else Reply(400, wrong_key())

    def _models(self, version: str, model: str | None) -> Reply:
        if model is None:
            return Reply(200, encode({"models": [model_card(self._config.model)]}))
        if model != self._config.model:
            return Reply(404, unknown_model(version, model, "getModel"))
        return Reply(200, encode(model_card(model)))

    def _call(self, method: str, body: bytes) -> Reply:
        try:
            asked = read_request(body)
        except BodyError as problem:
            return Reply(400, error(400, "INVALID_ARGUMENT", str(problem)))
        if method == "countTokens":
            return Reply(200, token_count(asked))
        at_s = self.epoch_s()
        fails = self._random.random() < self._config.error_share
        if fails and self._config.errors_before:
            return self._failed(at_s, asked.input_tokens, entered=False)
        full = self._gate.enter(at_s, asked.input_tokens)
        if full is not None:
            self._note(at_s, "refused", asked.input_tokens, REFUSAL_TAKES_S, full)
            return Reply(429, refused(), REFUSAL_TAKES_S)
        if fails:
            return self._failed(at_s, asked.input_tokens, entered=True)
        self._answered += 1
        text, spent = answer(self._config.model, asked, f"hidden{self._answered:08d}")
        takes_s = self._takes_s(spent)
        self._note(at_s, "admitted", asked.input_tokens, takes_s)
        return Reply(200, text, takes_s, lambda: self._gate.leave(asked.input_tokens))

    def _failed(self, at_s: float, input_tokens: int, *, entered: bool) -> Reply:
        takes_s = self._takes_s(0)
        self._note(at_s, "failed" if entered else "failed_before", input_tokens, takes_s)
        done = (lambda: self._gate.leave(input_tokens)) if entered else None
        return Reply(503, overloaded(), takes_s, done)

    def _takes_s(self, output_tokens: int) -> float:
        think_s = self._config.median_s * math.exp(self._config.sigma * self._random.gauss(0.0, 1.0))
        return think_s + self._config.per_token_s * output_tokens

    def _note(self, at_s: float, outcome: str, input_tokens: int, takes_s: float, by: int | None = None) -> None:
        self._log.append({"at_s": at_s, "outcome": outcome, "input_tokens": input_tokens, "takes_s": takes_s, "by": by})


def read_config(text: str) -> Config:
    """Read a configuration from a JSON object or from a file that holds one. Raises `ValueError` in one line."""
    if not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError as problem:
            raise ValueError(f"--config takes a file or a JSON object: {problem}") from None
    try:
        table = json.loads(text)
    except ValueError as problem:
        raise ValueError(f"--config is no JSON: {problem}") from None
    known = {each.name for each in fields(Config)}
    unknown = sorted(set(table) - known)
    if unknown or "limits" not in table:
        raise ValueError(f"--config needs limits and takes {', '.join(sorted(known))}; not {', '.join(unknown)}")
    config = Config(**table)
    Gate(config.limits)
    return config


async def serve(config: Config, port: int, log_file: Path | None) -> None:
    """Serve until a signal comes or the parent is gone; write the log while running."""
    log: list[dict[str, Any]] = []
    service = Service(config, log)
    server = await listen(service.handle, service.epoch_s, port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    host, bound_port = server.sockets[0].getsockname()[:2]
    parent = os.getppid()  # before the address is told: whoever waits for it may be killed at once
    print(f"http://{host}:{bound_port}", flush=True)
    while not stop.is_set() and os.getppid() == parent:
        _write_log(log, log_file)
        try:
            await asyncio.wait_for(stop.wait(), WATCH_EVERY_S)
        except TimeoutError:
            continue
    server.close()
    _write_log(log, log_file)


def _write_log(log: list[dict[str, Any]], log_file: Path | None) -> None:
    if log_file is not None and log:
        with log_file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in log)
    log.clear()


def main() -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="Serve Gemini's wire format behind hidden limits.")
    parser.add_argument("--config", required=True, help="a JSON object, or a file that holds one")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--log", type=Path, default=None, help="append every decision to this file, a JSON line each")
    options = parser.parse_args()
    try:
        config = read_config(options.config)
        asyncio.run(serve(config, options.port, options.log))
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
