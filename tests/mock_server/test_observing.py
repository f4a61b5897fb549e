"""Ground truth and observation: the admin API, the metrics, the access log."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from analysis.foreign import load_log
from analysis.schema import COLUMNS, ERROR_CLASSES
from mock_server.journal import Row, _error
from mock_server.limits import AnchoredWindow, FixedWindow, SlidingCounter, SlidingLog, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mock_server.limits import Spec

    Serve = Callable[..., AbstractContextManager[str]]
    Oracle = Callable[[Spec], Callable[[list[tuple[float, float]], float, float], bool]]

MODEL = "gemini-3.8-flash"
HELLO = {"contents": [{"parts": [{"text": "say it"}]}]}
LIMIT = '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 2\nwindow_s = 3600\n'
TOKEN = {"authorization": "Bearer t"}


def generate(url: str) -> int:
    """Send one call; return its status."""
    path = f"{url}/v1beta/models/{MODEL}:generateContent?key=k"
    return httpx2.post(path, json=HELLO, timeout=30).status_code


def admin(url: str, path: str, body: object = None) -> dict[str, Any]:
    """Ask the admin API, with its token."""
    request = httpx2.get if body is None else httpx2.post
    more = {} if body is None else {"json": body}
    found: dict[str, Any] = request(f"{url}/__mock__/{path}", headers=TOKEN, **more).json()
    return found


def test_the_admin_api_tells_and_changes(serve: Serve) -> None:
    """Configuration, counters and decisions; a reset and a new limit take effect at once."""
    with serve(LIMIT) as url:
        assert [generate(url) for _ in range(3)] == [200, 200, 429]
        assert admin(url, "config")["profile"]["limits"][0]["limit"] == 2
        counter = admin(url, "counters")["counters"][0]
        assert (counter["used"], counter["limit"], counter["scope"]["model"]) == (2, 2, MODEL)
        last = admin(url, "decisions?n=2")["decisions"]
        assert [one["admitted"] for one in last] == [True, False]
        assert last[1]["refused_by"] == ["GenerateRequestsPerHourPerProjectPerModel"]
        assert admin(url, "limits/0", {"limit": 3}) == {"place": 0, "limit": 3}
        assert [generate(url) for _ in range(2)] == [200, 429]
        admin(url, "reset", {})
        assert generate(url) == 200
        assert admin(url, "limits/7", {"limit": 3})["error"]["code"] == 404
        assert admin(url, "limits/0", {"limit": "many"})["error"]["code"] == 400
        assert admin(url, "limits/0", {"limit": -1})["error"]["message"].startswith("limit must be at least 0")


def test_the_admin_api_takes_its_token(serve: Serve) -> None:
    """Without it, or with another, nothing is told."""
    with serve("") as url:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            assert httpx2.get(f"{url}/__mock__/config", headers=headers).status_code == 403


def test_metrics_are_in_prometheus_format(serve: Serve) -> None:
    """Every line is a comment or a sample; the counts are those of the calls."""
    with serve(LIMIT) as url:
        for _ in range(3):
            generate(url)
        text = httpx2.get(f"{url}/metrics").text
    sample = re.compile(r'[a-z_]+(\{([a-z_]+="[^"]*",?)*\})? [0-9.e+-]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in text.splitlines())
    assert f'mock_answers_total{{model="{MODEL}",status="200"}} 2' in text
    assert f'mock_answers_total{{model="{MODEL}",status="429"}} 1' in text
    assert 'mock_answer_seconds_bucket{le="+Inf"} 3' in text
    assert 'quota_id="GenerateRequestsPerHourPerProjectPerModel"} 1' in text


def test_the_access_log_has_the_ledgers_columns() -> None:
    """The mock may not import the schema, so this compares them."""
    assert set(Row.__struct_fields__) == set(COLUMNS)
    statuses = (200, 400, 401, 402, 403, 404, 413, 429, 499, 500, 503, 504, 0)
    assert {_error(Row(1, 0.0), status) for status in statuses} <= {"", *ERROR_CLASSES}


def test_the_access_log_can_be_analysed(tmp_path: Path) -> None:
    """A server writes it, the analysis reads it as any log."""
    log, profile = tmp_path / "access.jsonl", tmp_path / "profile.toml"
    profile.write_text(LIMIT + "[latency]\nfirst_token_s = 0\nsigma = 0\nper_token_s = 0\n")
    command = [sys.executable, "-m", "mock_server", "--port", "0", "--profile", str(profile), "--access-log", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        statuses = [generate(url) for _ in range(4)]
        for path in ("__mock__/config", "metrics"):
            assert httpx2.get(f"{url}/{path}").status_code == 404
        server.send_signal(signal.SIGTERM)
    assert statuses == [200, 200, 429, 429]
    assert all(set(json.loads(line)) == set(COLUMNS) for line in log.read_text().splitlines())
    _, table = load_log(log)
    assert table["status"].tolist() == statuses
    assert table["prompt_tokens"].tolist() == [2] * 4
    assert table["error"].tolist() == ["", "", "throttled", "throttled"]
    assert table["retry_delay_s"].iloc[2] == pytest.approx(3600, abs=60)


def as_toml(spec: Spec) -> str:
    """Write a spec as a limit on requests."""
    assert is_dataclass(spec)
    values = {one.name: getattr(spec, one.name) for one in fields(spec)}
    if isinstance(spec, TokenBucket):
        values = {"limit": spec.rate_per_s, "window_s": 1, "burst": spec.burst}
    values = {name: value for name, value in values.items() if value is not None and value is not False}
    lines = "".join(f"{name} = {value}\n" for name, value in values.items())
    return f'[[limits]]\nmetric = "requests"\nfamily = "{spec.family}"\n{lines}'


@pytest.mark.parametrize(
    "spec",
    [
        FixedWindow(4, 0.25),
        AnchoredWindow(4, 0.25),
        SlidingLog(4, 0.25),
        SlidingCounter(4, 0.25),
        TokenBucket(16.0, 4),
    ],
)
def test_a_saturating_run_is_decided_as_brute_force_would(serve: Serve, oracle: Oracle, spec: Spec) -> None:
    """Over HTTP, call by call, on the server's own arrival times."""

    async def saturate(url: str) -> None:
        path = f"{url}/v1beta/models/{MODEL}:generateContent?key=k"
        async with httpx2.AsyncClient(timeout=60) as client:

            async def one() -> None:
                for _ in range(40):
                    await client.post(path, json=HELLO)

            await asyncio.gather(*(one() for _ in range(8)))

    with serve(as_toml(spec)) as url:
        asyncio.run(saturate(url))
        decisions = admin(url, "decisions?n=1000")["decisions"]
    assert len(decisions) == 320
    decides, history = oracle(spec), []
    for one in decisions:
        assert decides(history, one["at_s"], 1) == one["admitted"]
        if one["admitted"]:
            history.append((one["at_s"], 1))
    assert 0 < len(history) < 320
