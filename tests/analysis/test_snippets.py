"""What people paste says what was verified, and runs."""

from __future__ import annotations

import ast
import re
import tomllib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import snippets
from analysis.result import Breaker, Retry, Settings, Warmup

SETTINGS = Settings(
    requests_per_minute=357.9,
    burst=3.0,
    max_concurrency=8,
    input_tokens_per_minute=None,
    requests_per_day=None,
    max_throttled=0.001,
    timeout_s=30.0,
    retry=Retry(attempts=6, initial_delay_s=8.0, max_delay_s=60.0, honour_retry_delay=True),
    circuit_breaker=Breaker(error_rate=0.5, window_s=60.0, min_calls=20, open_s=60.0, false_trips_per_hour=0.001),
    warmup=Warmup(start_rpm=35.8, duration_s=120.0),
)
SOURCE = {"run": 'a "run"', "target": "mock", "model": "m", "date": "2026-11-23"}


def without_none(value: object) -> object:
    """Leave out what TOML cannot say."""
    if isinstance(value, dict):
        return {key: without_none(inner) for key, inner in value.items() if inner is not None}
    return value


@pytest.mark.parametrize("settings", [SETTINGS, msgspec.structs.replace(SETTINGS, warmup=None, max_concurrency=None)])
def test_settings_toml_is_the_settings_key_for_key(settings: Settings) -> None:
    """Read back it is the same object, with where it came from; what is not needed is a comment."""
    text = snippets.settings_toml(settings, SOURCE)
    read = tomllib.loads(text)
    assert read.pop("source") == SOURCE
    assert read == without_none(msgspec.to_builtins(settings))
    assert "# input_tokens_per_minute: none was found" in text


def test_the_environment_has_every_number() -> None:
    """One line a key, tables joined by an underscore."""
    lines = dict(line.split("=") for line in snippets.environment(SETTINGS).splitlines())
    assert lines["GEMINI_REQUESTS_PER_MINUTE"] == "357.9"
    assert lines["GEMINI_RETRY_HONOUR_RETRY_DELAY"] == "true"
    assert "GEMINI_INPUT_TOKENS_PER_MINUTE" not in lines


@pytest.mark.parametrize("rate", [None, 357.9])
@pytest.mark.parametrize("slots", [None, 8])
def test_the_limiter_is_python_that_names_what_is_needed(rate: float | None, slots: int | None) -> None:
    """With either limit, with both, or with none (then there is nothing to paste)."""
    code = snippets.aiolimiter(msgspec.structs.replace(SETTINGS, requests_per_minute=rate, max_concurrency=slots))
    ast.parse(code)
    assert ("AsyncLimiter(3, " in code) == (rate is not None)
    assert ("asyncio.Semaphore(8)" in code) == (slots is not None)
    assert bool(code) == (rate is not None or slots is not None)


@given(st.floats(0.01, 1e6), st.integers(1, 5000))
def test_the_limiter_is_never_faster_than_the_settings(rate: float, burst: int) -> None:
    """Rounding lengthens the period."""
    settings = msgspec.structs.replace(SETTINGS, requests_per_minute=rate, burst=float(burst))
    found = re.search(r"AsyncLimiter\((\S+), (\S+)\)", snippets.aiolimiter(settings))
    assert found is not None
    assert float(found[1]) / float(found[2]) * 60.0 <= rate * (1 + 1e-12)
    assert float(found[1]) == burst


def test_the_retry_is_python() -> None:
    """Full jitter up to the cap, as many attempts as set."""
    code = snippets.tenacity(SETTINGS)
    ast.parse(code)
    assert "stop_after_attempt(6)" in code
    assert "multiplier=8, max=60, exp_base=2" in code
