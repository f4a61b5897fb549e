"""The settings in the words of what production runs: client libraries, a router, two proxies.

Pure: text out. Each format says the same limits, never more generous ones; where a tool cannot say all of it, its
text has a comment that says what is lost. `analysis.snippets` has the formats that the report shows too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from analysis import snippets
from analysis.wording import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from analysis.result import Settings

# Envoy refills a local bucket no more often than this (its own check at start-up).
ENVOY_FILL_LEAST_S = 0.05
GEMINI = "generativelanguage.googleapis.com"


def export(name: str, settings: Settings, *, model: str, instances: int = 1) -> str:
    """Return the settings as text of the format ``name``, a key of `FORMATS`, with a head that says whose they are.

    ``instances``: how many clients each run these settings; they are one client's already. Raises `KeyError` for
    an unknown name and `ValueError` where the settings hold nothing that the format can say.
    """
    body = FORMATS[name](settings, model)
    if not body:
        raise ValueError(f"the settings hold no limit that {name} could keep: none was found")
    return f"{_head(settings, model, instances)}\n{body}"


def _head(settings: Settings, model: str, instances: int) -> str:
    lines = [f"# redline: {model}, at most {settings.max_throttled:.3%} of calls throttled"]
    if instances > 1:
        rpm = settings.requests_per_minute
        together = "" if rpm is None else f"; {number(rpm * instances)} requests a minute together"
        lines.append(f"# one of {instances} instances, each paced by itself{together}")
    return "\n".join(lines)


def pyrate(settings: Settings, model: str) -> str:
    """Return Python for pyrate-limiter (4.x): its GCRA, since its default window lets all calls out at once."""
    del model
    rpm, slots = settings.requests_per_minute, settings.max_concurrency
    if not rpm:
        return ""
    # A thousand calls and their time in whole milliseconds: exact to a millionth, rounded to the slow side.
    rate = f"Rate(1000, {math.ceil(60_000_000 / rpm)}, burst={math.floor(settings.burst or 1.0)})"
    head = ["import asyncio", ""] if slots is not None else []
    made = [f"pace = Limiter(StateBucket([{rate}], GCRA()), buffer_ms=1)  # {number(rpm)} requests a minute"]
    call = ['await pace.try_acquire_async("gemini")', "return await client.aio.models.generate_content(**request)"]
    if slots is not None:
        made.insert(0, f"slots = asyncio.Semaphore({slots})")
        call = ["async with slots:", *(f"    {line}" for line in call)]
    lines = [*head, "from pyrate_limiter import GCRA, Limiter, Rate, StateBucket", "", *made, "", ""]
    return "\n".join([*lines, "async def generate(client, **request):", *(f"    {line}" for line in call)]) + "\n"


def litellm(settings: Settings, model: str) -> str:
    """Return a deployment for LiteLLM's router."""
    lines = [
        "# LiteLLM counts each clock minute and refuses what is beyond; it does not pace. Two minutes' calls can",
        "# meet at the turn of a minute, so put a pacing limiter in front where none may be throttled.",
        "model_list:",
        f"  - model_name: {model}",
        "    litellm_params:",
        f"      model: gemini/{model}",
        "      api_key: os.environ/GEMINI_API_KEY",
        f"      timeout: {settings.timeout_s:g}",
    ]
    if settings.requests_per_minute is not None:
        lines.append(f"      rpm: {math.floor(settings.requests_per_minute)}")
    if settings.input_tokens_per_minute is not None:
        lines.append(f"      tpm: {math.floor(settings.input_tokens_per_minute)}  # LiteLLM adds output tokens to it")
    if settings.max_concurrency is not None:
        lines.append(f"      max_parallel_requests: {settings.max_concurrency}")
    lines += [
        "router_settings:",
        "  enable_pre_call_checks: true  # without it rpm and tpm only steer the routing",
        f"  num_retries: {settings.retry.attempts - 1}",
        f"  retry_after: {math.ceil(settings.retry.initial_delay_s)}",
        f"  cooldown_time: {math.ceil(settings.circuit_breaker.open_s)}",
    ]
    return "\n".join(lines) + "\n"


def envoy(settings: Settings, model: str) -> str:
    """Return Envoy's local rate limit as an HTTP filter, and the cluster's circuit breaker for calls in flight."""
    del model
    rpm, places = settings.requests_per_minute, settings.max_concurrency
    lines = [
        "# Envoy answers 429 by itself where the limit is reached; it does not make calls wait. It refills its bucket",
        "# at most every 50 ms, so a high rate comes in bursts of that much.",
    ]
    if rpm:
        tokens = max(1, math.ceil(ENVOY_FILL_LEAST_S * rpm / 60.0))
        fill_s = math.ceil(tokens * 60.0 / rpm * 1e6) / 1e6
        lines += [
            "http_filters:",
            "  - name: envoy.filters.http.local_ratelimit",
            "    typed_config:",
            '      "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit',
            "      stat_prefix: gemini",
            "      token_bucket:",
            f"        max_tokens: {max(tokens, math.floor(settings.burst or 1.0))}",
            f"        tokens_per_fill: {tokens}",
            f"        fill_interval: {fill_s:.6f}s  # {number(rpm)} requests a minute",
            "      filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}}",
            "      filter_enforced: {default_value: {numerator: 100, denominator: HUNDRED}}",
        ]
    if places is not None:
        lines += [
            "circuit_breakers:  # of the cluster",
            "  thresholds:",
            f"    - {{max_requests: {places}, max_connections: {places}, max_pending_requests: {places}}}",
        ]
    return "\n".join(lines) + "\n" if rpm or places is not None else ""


def nginx(settings: Settings, model: str) -> str:
    """Return an nginx server that paces: calls wait for their turn, no longer than they would be waited for.

    nginx takes whole requests a minute and paces one by one (its ``burst`` is the waiting room).
    """
    del model
    rpm, places = math.floor(settings.requests_per_minute or 0.0), settings.max_concurrency
    if settings.requests_per_minute and rpm < 1:
        raise ValueError("nginx takes at least one request a minute, and the settings are below")
    waiting = math.floor(rpm / 60.0 * settings.timeout_s)
    zones, inside = [], []
    if rpm:
        zones.append(f"limit_req_zone $server_name zone=gemini_pace:1m rate={rpm}r/m;")
        inside += [f"limit_req zone=gemini_pace burst={waiting};" if waiting else "limit_req zone=gemini_pace;"]
        inside += ["limit_req_status 429;"]
    if places is not None:
        zones.append("limit_conn_zone $server_name zone=gemini_places:1m;")
        inside += [f"limit_conn gemini_places {places};  # nginx refuses beyond, it does not wait"]
        inside += ["limit_conn_status 429;"]
    if not zones:
        return ""
    inside += [
        f"proxy_pass https://{GEMINI};",
        f"proxy_set_header Host {GEMINI};",
        "proxy_ssl_server_name on;",
        f"proxy_read_timeout {math.ceil(settings.timeout_s)}s;",
    ]
    server = ["server {", "    listen 127.0.0.1:8080;", "    location / {", *(f"        {line}" for line in inside)]
    return "\n".join(["# inside http { }", *zones, *server, "    }", "}"]) + "\n"


FORMATS: dict[str, Callable[[Settings, str], str]] = {
    "aiolimiter": lambda settings, _: snippets.aiolimiter(settings),
    "env": lambda settings, _: snippets.environment(settings),
    "envoy": envoy,
    "litellm": litellm,
    "nginx": nginx,
    "pyrate": pyrate,
    "tenacity": lambda settings, _: snippets.tenacity(settings),
}
