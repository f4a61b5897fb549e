"""Settings as text to paste: `settings.toml`, environment variables, aiolimiter, tenacity.

Pure. Each snippet says the same thing as the `Settings` that it is made from, never more generous: what is rounded
is rounded to the slow side.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from analysis.wording import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from analysis.result import Settings


def settings_toml(settings: Settings, source: Mapping[str, str]) -> str:
    """Return `settings.toml`: the settings key for key, and a ``[source]`` table. What is not needed is a comment."""
    plain: dict[str, object] = msgspec.to_builtins(settings)
    tables = {name: value for name, value in plain.items() if isinstance(value, dict)}
    lines = ["# Made by redline. What production's limiter is to be set to.", ""]
    lines += [_pair(name, value) for name, value in plain.items() if name not in tables]
    for name, table in {**tables, "source": dict(source)}.items():
        lines += ["", f"[{name}]", *(_pair(key, value) for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _pair(name: str, value: object) -> str:
    if value is None:
        return f"# {name}: none was found"
    if isinstance(value, bool):
        return f"{name} = {'true' if value else 'false'}"
    # a JSON string is a TOML basic string
    return f"{name} = {msgspec.json.encode(value).decode() if isinstance(value, str) else repr(value)}"


def environment(settings: Settings) -> str:
    """Return the settings as lines for a ``.env`` file."""
    plain: dict[str, object] = msgspec.to_builtins(settings)
    return "\n".join(f"{name}={value}" for name, value in _flat(plain)) + "\n"


def _flat(plain: Mapping[str, object], prefix: str = "GEMINI_") -> Iterator[tuple[str, object]]:
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name.upper()}_")
        elif value is not None:
            yield prefix + name.upper(), str(value).lower() if isinstance(value, bool) else value


def aiolimiter(settings: Settings) -> str:
    """Return Python for aiolimiter and a semaphore.

    `AsyncLimiter(b, t)` is a bucket of b that drains b every t seconds, so a burst b at rate r is t = b / r.
    """
    rate, burst, slots = settings.requests_per_minute, settings.burst or 1.0, settings.max_concurrency
    if not rate and slots is None:
        return ""
    imports = ["import asyncio"] if slots is not None else []
    imports += ["", "from aiolimiter import AsyncLimiter"] if rate else []
    made = []
    if slots is not None:
        made.append(f"slots = asyncio.Semaphore({slots})")
    if rate:
        period_s = _up(60.0 * burst / rate)
        made.append(f"pace = AsyncLimiter({burst:g}, {period_s!r})  # {number(rate)} requests a minute")
    held = ", ".join((["slots"] if slots is not None else []) + (["pace"] if rate else []))
    call = [
        "async def generate(client, **request):",
        f"    async with {held}:",
        "        return await client.aio.models.generate_content(**request)",
    ]
    return "\n".join([*imports, "", *made, "", "", *call]).lstrip() + "\n"


def tenacity(settings: Settings) -> str:
    """Return Python for tenacity: full jitter, refused and overloaded calls only."""
    retry = settings.retry
    return f"""\
from google.genai import errors
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential


def worth_another_try(error):
    return isinstance(error, errors.APIError) and error.code in {{429, 503}}


patient = retry(
    retry=retry_if_exception(worth_another_try),
    wait=wait_random_exponential(
        multiplier={retry.initial_delay_s:g}, max={retry.max_delay_s:g}, exp_base={retry.exp_base:g}
    ),
    stop=stop_after_attempt({retry.attempts}),
    reraise=True,
)
"""


def _up(value: float) -> float:
    """Round up to six digits: a longer period is a slower pace."""
    scale = 10.0 ** (5 - math.floor(math.log10(value)))
    return math.ceil(value * scale) / scale
