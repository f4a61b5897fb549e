"""Exported text does what it says: code is executed, configuration is read by its own program or parser."""

from __future__ import annotations

import asyncio
import math
import selectors
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from analysis.estimate import Identified, Inference, Latency
from analysis.export import FORMATS, export
from analysis.recommend import recommend
from analysis.result import Limit, Settings
from mock_server.limits import Concurrency, SlidingLog, Spec, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = "gemini-3.8-flash"


def made(*specs: Spec) -> Settings:
    """Return the settings for limits that are known exactly."""
    metrics = {Concurrency: "concurrency"}
    found = tuple(
        Identified(Limit(metric=metrics.get(type(spec), "requests"), state="measured"), ((1.0, spec),))
        for spec in specs
    )
    return recommend(Inference(found, (), 0.035, Latency(0.5, 0.6, 6.0, 400)))


BOTH = made(TokenBucket(7.0, 20.0), Concurrency(3))
SLOW = made(SlidingLog(3, 600.0))
NOTHING = made()


class _Jumping(selectors.SelectSelector):
    """Instead of waiting, let the loop's clock jump. Each turn takes a microsecond, as it would in life."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += (timeout or 0.0) + 1e-6
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is only the sum of what was waited for."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time."""
        return self._jumping.now_s + 1000.0


def left_through(text: str, calls: int, takes_s: float) -> tuple[list[float], int]:
    """Execute exported code that defines ``generate``; return when calls left, and the most in flight at once."""
    space: dict[str, Any] = {}
    left_s: list[float] = []
    flying = [0, 0]

    async def generate_content(**_request: object) -> None:
        left_s.append(asyncio.get_running_loop().time())
        flying[0] += 1
        flying[1] = max(flying)
        await asyncio.sleep(takes_s)
        flying[0] -= 1

    client = SimpleNamespace(aio=SimpleNamespace(models=SimpleNamespace(generate_content=generate_content)))

    async def everybody() -> None:
        exec(text, space)  # noqa: S102 - this is the text that users are told to paste
        await asyncio.gather(*(space["generate"](client, contents="hello") for _ in range(calls)))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(everybody())
    return left_s, flying[1]


def assert_paced(left_s: list[float], settings: Settings) -> None:
    """Hold moments to the settings' promise, and to not being much slower."""
    burst, rate_per_s = settings.burst or 1.0, (settings.requests_per_minute or 0.0) / 60.0
    for first, start in enumerate(left_s):
        for last, end in enumerate(left_s[first:], first):
            assert last - first + 1 <= burst + rate_per_s * (end - start) + 1e-3
    needed_s = (len(left_s) - burst) / rate_per_s
    assert left_s[-1] - left_s[0] <= needed_s * 1.001 + 0.01


def test_aiolimiter_keeps_rate_burst_and_places() -> None:
    """The pasted code, run on a virtual clock, lets the calls go that the settings describe."""
    left_s, most = left_through(export("aiolimiter", BOTH, model=MODEL), calls=80, takes_s=0.01)
    assert most <= 3
    assert_paced(left_s, BOTH)
    _, most = left_through(export("aiolimiter", BOTH, model=MODEL), calls=20, takes_s=5.0)
    assert most == 3


@pytest.mark.parametrize("settings", [BOTH, SLOW])
def test_pyrate_paces_by_its_own_algorithm(settings: Settings) -> None:
    """The exported bucket, asked on a clock of milliseconds, keeps rate and burst."""
    from pyrate_limiter import RateItem  # noqa: PLC0415 - a user's library, not ours

    space: dict[str, Any] = {}
    exec(export("pyrate", settings, model=MODEL), space)  # noqa: S102 - what users paste
    (bucket,) = space["pace"].buckets()
    left_s, now_ms = [], 10_000_000
    while len(left_s) < 40:
        item = RateItem("gemini", now_ms)
        if bucket.put(item):
            left_s.append(now_ms / 1000.0)
        else:
            now_ms += bucket.waiting(item)
    assert_paced(left_s, settings)


def test_pyrate_code_runs_as_a_whole() -> None:
    """The exported coroutine sends, and holds to the places."""
    settings = msgspec.structs.replace(BOTH, requests_per_minute=60_000.0)
    left_s, most = left_through(export("pyrate", settings, model=MODEL), calls=12, takes_s=0.5)
    assert (len(left_s), most) == (12, 3)


def test_tenacity_tries_as_often_and_waits_as_long_as_it_says() -> None:
    """Refused and overloaded calls are tried again, within the caps; a wrong key is not."""
    from google.genai import errors  # noqa: PLC0415 - a user's library, not ours

    space: dict[str, Any] = {}
    exec(export("tenacity", BOTH, model=MODEL), space)  # noqa: S102 - what users paste
    waits_s: list[float] = []

    def tries(code: int) -> int:
        count = [0]

        @space["patient"]
        def call() -> None:
            count[0] += 1
            raise errors.ClientError(code, {"error": {"code": code, "message": "no", "status": "X"}})

        call.retry.sleep = waits_s.append
        with pytest.raises(errors.ClientError):
            call()
        return count[0]

    assert tries(400) == 1
    assert not waits_s
    assert tries(429) == BOTH.retry.attempts
    caps = [min(BOTH.retry.max_delay_s, BOTH.retry.initial_delay_s * 2.0**k) for k in range(len(waits_s))]
    assert all(0.0 <= wait <= cap for wait, cap in zip(waits_s, caps, strict=True))


def test_env_is_read_by_a_shell(tmp_path: Path) -> None:
    """A shell sources the file and knows the rate."""
    path = tmp_path / "limits.env"
    path.write_text(export("env", BOTH, model=MODEL))
    command = f"set -eu; . {path}; echo $GEMINI_REQUESTS_PER_MINUTE $GEMINI_MAX_CONCURRENCY"
    run = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(BOTH.requests_per_minute), "3"]


def test_litellm_is_yaml_with_whole_numbers_below_the_settings() -> None:
    """Rounded to the slow side."""
    yaml = pytest.importorskip("yaml", reason="needs a YAML parser")
    settings = msgspec.structs.replace(BOTH, input_tokens_per_minute=9999.9)
    read = yaml.safe_load(export("litellm", settings, model=MODEL))
    (deployment,) = read["model_list"]
    assert deployment["model_name"] == MODEL
    keys = deployment["litellm_params"]
    assert (keys["rpm"], keys["tpm"], keys["max_parallel_requests"]) == (419, 9999, 3)
    assert read["router_settings"]["num_retries"] == BOTH.retry.attempts - 1


@pytest.mark.parametrize("rpm", [0.5, 60.0, 3000.0, 90_000.0])
def test_envoy_is_yaml_and_refills_no_faster_than_it_can(rpm: float) -> None:
    """At least 50 ms between refills, and never a higher rate than the settings'."""
    yaml = pytest.importorskip("yaml", reason="needs a YAML parser")
    settings = msgspec.structs.replace(BOTH, requests_per_minute=rpm, burst=2.0)
    read = yaml.safe_load(export("envoy", settings, model=MODEL))
    bucket = read["http_filters"][0]["typed_config"]["token_bucket"]
    fill_s = float(bucket["fill_interval"].removesuffix("s"))
    assert fill_s >= 0.05
    assert 0.999 * rpm / 60.0 <= bucket["tokens_per_fill"] / fill_s <= rpm / 60.0
    assert bucket["max_tokens"] == max(2, bucket["tokens_per_fill"])
    assert read["circuit_breakers"]["thresholds"][0]["max_requests"] == 3


def test_nginx_accepts_its_own_configuration(tmp_path: Path, require_program: Callable[..., str]) -> None:
    """`nginx -t` reads it."""
    nginx = require_program("nginx")
    text = export("nginx", BOTH, model=MODEL).replace("https://generativelanguage.googleapis.com", "http://127.0.0.1:1")
    paths = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/error.log;\nevents {{}}\nhttp {{ access_log off; {paths}\n{text}}}\n"
    )
    run = subprocess.run(
        [nginx, "-t", "-p", str(tmp_path), "-c", str(config)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "rate=419r/m" in text
    assert f"burst={math.floor(419 / 60 * BOTH.timeout_s)};" in text


def test_a_format_that_has_nothing_to_say_says_so() -> None:
    """No limit was found: no limiter to write; nginx cannot go below one a minute."""
    for name in ("aiolimiter", "pyrate", "envoy", "nginx"):
        with pytest.raises(ValueError, match=f"no limit that {name} could keep"):
            export(name, NOTHING, model=MODEL)
    with pytest.raises(ValueError, match="at least one request a minute"):
        export("nginx", SLOW, model=MODEL)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_head_says_whose_settings_these_are(name: str) -> None:
    """The model, the accepted share, and the fleet where there is one."""
    text = export(name, BOTH, model=MODEL, instances=4)
    assert text.startswith(f"# redline: {MODEL}, at most 0.100% of calls throttled\n# one of 4 instances")
    assert "together" in text.splitlines()[1]
    assert "instances" not in export(name, BOTH, model=MODEL)


def test_settings_with_places_alone() -> None:
    """Proxies keep what there is to keep."""
    settings = made(Concurrency(4))
    assert "limit_conn gemini_places 4;" in export("nginx", settings, model=MODEL)
    assert "limit_req" not in export("nginx", settings, model=MODEL)
    assert "http_filters" not in export("envoy", settings, model=MODEL)
    assert "rpm:" not in export("litellm", settings, model=MODEL)
    assert "one of 2 instances, each paced by itself\n" in export("env", settings, model=MODEL, instances=2)
