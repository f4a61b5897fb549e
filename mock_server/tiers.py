"""Profiles of real tiers and models, made from the dated data in ``tiers.toml``. Nothing is invented.

What nobody has published is left out of the profile and named in its ``unknown``. How a limit is enforced is
published for none; the windows are aligned ones, which fits the evidence (hints that count down to one moment).
"""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Any

from mock_server.catalogue import embeds
from mock_server.limits import PACIFIC_DAY
from mock_server.names import FREE, embed_names, predict_names, quota_names
from mock_server.profile import LimitTable, Prices, Profile, ProfileError, Refusal

# By the organization's spend in 30 days: Vertex has tiers of its own.
_VERTEX = ("vertex-1", "vertex-2", "vertex-3", "vertex-4")
TIERS = (FREE, "1", "2", "3", *_VERTEX)
_PAID = ("1", "2", "3")
_PRIORITY_TIERS = ("2", "3")
NO_LIMIT = "none"
# The key in the data -> what it counts, how long the window is (None: a Pacific day), and what people call it.
_RATES: dict[str, tuple[str, float | None, str]] = {
    "requests_per_minute": ("requests", 60.0, "requests per minute"),
    "input_tokens_per_minute": ("input_tokens", 60.0, "input tokens per minute"),
    "requests_per_day": ("requests", None, "requests per day"),
}
_HELD = {
    "live_sessions": "concurrent live sessions",
    "batch_jobs": "concurrent batch jobs",
    "enqueued_tokens": "enqueued batch tokens",
    "cached_tokens": "stored tokens of cached contents",
}
_SPEND_WINDOW_S = 600.0
_PREDICTED = ("imagen-", "veo-")  # asked for by another method, whose quotas have other names


def models(tier: str) -> list[str]:
    """Return the models of which a limit is known on this tier, sorted."""
    if tier in _VERTEX:
        return sorted(model for family in _data()["vertex"]["families"] for model in family["models"])
    found = {model for table in _data()["tables"] for model, by_tier in table["models"].items() if tier in by_tier}
    found |= {model for row in _data()["seen"] if row["tier"] == tier for model in row["models"]}
    if tier in _PAID:
        place = _PAID.index(tier)
        found |= {model for model, row in _data()["enqueued_tokens"]["models"].items() if place < len(row)}
        found |= set(_data()["prices"]["models"])  # the limit on spend binds whatever has a price
    return sorted(found)


def tier_profile(tier: str, model: str) -> Profile:
    """Return what is known of a model's limits on a tier. Raises `ProfileError`."""
    if tier not in TIERS:
        raise ProfileError(f"--tier must be one of {', '.join(TIERS)}, not {tier!r}")
    if model not in models(tier):
        raise ProfileError(f"--model must be one of {', '.join(models(tier))} on tier {tier}, not {model!r}")
    if tier in _VERTEX:
        return _vertex_profile(tier, model)
    rates = {key: _newest(key, tier, model) for key in _RATES}
    limits = [_rate(key, tier, model, value) for key, (value, _) in rates.items() if isinstance(value, int)]
    unknown = [words for key, (_, _, words) in _RATES.items() if rates[key][0] is None]
    if tier in _PRIORITY_TIERS:
        limits += [_priority(limit) for limit in limits if limit.window is None]
    sources = {source for _, source in rates.values() if source}
    if any(limit.tier == "priority" for limit in limits):
        sources.add(_dated("priority"))
    for metric, words in _HELD.items():
        value = _held(metric, tier, model)
        if value is None:
            unknown.append(words)
        else:
            limits.append(LimitTable(metric, "concurrency", limit=value))
            sources.add(_dated(metric))
    prices = _data()["prices"]["models"].get(model)
    spend = _data()["spend"].get(tier)
    if spend is not None and prices is not None:
        limits.append(LimitTable("spend", "sliding_log", limit=spend, window_s=_SPEND_WINDOW_S, scope=("project",)))
        sources |= {_dated("spend"), _dated("prices")}
    elif tier != FREE:
        unknown.append("spend in ten minutes (no price is known)")
    return Profile(
        name=f"tier-{tier}-{model}",
        description=f"{model} on {'the free tier' if tier == FREE else f'tier {tier}'}, as far as is known",
        date=max(source.partition(": ")[0] for source in sources),
        source="; ".join(sorted(sources)),
        unknown=(*unknown, "the shape of the windows (aligned ones are assumed)"),
        models=(model,),
        limits=tuple(limits),
        prices=Prices(*prices) if prices else Prices(),
    )


def _vertex_profile(tier: str, model: str) -> Profile:
    """Return the baseline of an organization on Vertex, enforced as if no capacity were left above it."""
    table, place = _data()["vertex"], _VERTEX.index(tier)
    baselines = next(one["tokens_per_minute"] for one in table["families"] if model in one["models"])
    unknown = ["how much above the baseline is served (here: nothing)", "whether output tokens count on the baseline"]
    limits = [
        LimitTable(
            "requests",
            "fixed_window",
            limit=table["requests_per_minute"],
            window_s=60.0,
            scope=("model", "region"),
        )
    ]
    if place < len(baselines):
        # The tier is the organization's, so its projects share the counter.
        limits.append(
            LimitTable("input_tokens", "fixed_window", limit=baselines[place], window_s=60.0, scope=("model",))
        )
    else:
        unknown = ["the baseline of tokens per minute"]
    spend = table["spend_usd_in_30_days"][place]
    return Profile(
        name=f"tier-{tier}-{model}",
        description=f"{model} on Vertex, spend in 30 days: {spend} dollars; the baseline as a limit",
        date=table["date"],
        source=_dated("vertex"),
        unknown=(*unknown, "the shape of the windows (aligned ones are assumed)"),
        models=(model,),
        limits=tuple(limits),
        refusal=Refusal("vertex"),
    )


def _newest(key: str, tier: str, model: str) -> tuple[int | str | None, str]:
    """Return the value of a rate with the latest date, and where it is from."""
    place = list(_RATES).index(key)
    found: list[tuple[str, str, int | str]] = []
    for table in _data()["tables"]:
        row = table["models"].get(model, {}).get(tier)
        if row:
            found.append((table["date"], table["source"], row[place]))
    found += [
        (row["date"], row["source"], row[key])
        for row in _data()["seen"]
        if row["tier"] == tier and model in row["models"] and key in row
    ]
    if not found:
        return None, ""
    date, source, value = max(found, key=lambda one: one[0])
    return value, f"{date}: {source}"


def _rate(key: str, tier: str, model: str, value: int) -> LimitTable:
    metric, window_s, _ = _RATES[key]
    quota_id, quota_metric = quota_names(metric, window_s, day=window_s is None, tier=tier)
    period = "Day" if window_s is None else "Minute"
    if embeds(model) and metric == "requests":
        quota_id, quota_metric = embed_names(period, tier)
    if model.startswith(_PREDICTED):
        quota_id, quota_metric = predict_names(period, tier, long_running=model.startswith("veo-"))
    return LimitTable(
        metric,
        "fixed_window",
        limit=value,
        window_s=window_s,
        window=PACIFIC_DAY if window_s is None else None,
        quota_id=quota_id,
        quota_metric=quota_metric,
    )


def _priority(standard: LimitTable) -> LimitTable:
    """Return the limit that the priority tier has of its own; its calls count on the standard one too."""
    assert standard.limit is not None  # noqa: S101 - every rate has one
    return LimitTable(
        standard.metric,
        standard.family,
        limit=standard.limit * _data()["priority"]["share"],
        window_s=standard.window_s,
        tier="priority",
    )


def _held(metric: str, tier: str, model: str) -> int | None:
    table = _data()[metric]
    if "models" in table:
        values = table["models"].get(model, [])
        place = _PAID.index(tier) if tier in _PAID else len(values)
        value: int | None = values[place] if place < len(values) else None
        return value
    known: int | None = table.get(tier)
    return known


def _dated(name: str) -> str:
    """Return the date and the source of a table of the data."""
    table = _data()[name]
    return f"{table['date']}: {table['source']}"


@functools.cache
def _data() -> dict[str, Any]:
    return tomllib.loads((resources.files("mock_server") / "tiers.toml").read_text(encoding="utf-8"))
