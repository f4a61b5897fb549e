"""The hidden configurations, drawn from a seed, and what is true of each. Pure; standard library only.

Five rate families take turns, so that each comes up in every fifth configuration. Half of them also limit
concurrency; every eighth has a second rate limit with a longer window; every twelfth limits concurrency alone.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any

RATE_FAMILIES = ("fixed_window", "anchored_window", "sliding_log", "sliding_counter", "token_bucket")
SLIDING = frozenset({"sliding_log", "sliding_counter"})
WINDOW_S = (4.0, 15.0)
SHORT_WINDOW_S = (4.0, 6.0)  # where a second, longer window must fit above it
CALLS = (10, 600)
PLACES = (2, 50)

PLACES_ALONE_EVERY = 12
TWO_RATES_EVERY = 8
WITH_PLACES = 0.5
SERVICE_S = (0.03, 0.5)
RATE_FIRST = 0.75  # of those with both: the places let a client reach the rate limit
RATE_FIRST_BELOW, PLACES_FIRST_ABOVE = 0.6, 1.3  # of the service time at which both are met at once
COUNTS_REFUSED = 0.4
ERRORS = (0.0, 0.01)
ERRORS_BEFORE = 0.25


@dataclass(frozen=True, slots=True)
class Configuration:
    """One hidden server. ``limits`` are the tables that `server.py` takes; the rest is its other settings."""

    name: str
    limits: tuple[dict[str, Any], ...]
    median_s: float
    sigma: float
    per_token_s: float
    error_share: float
    errors_before: bool
    seed: int

    def server_config(self) -> dict[str, Any]:
        """Return what ``server.py --config`` takes."""
        return {
            "name": self.name,
            "limits": list(self.limits),
            "median_s": self.median_s,
            "sigma": self.sigma,
            "per_token_s": self.per_token_s,
            "error_share": self.error_share,
            "errors_before": self.errors_before,
            "seed": self.seed,
        }

    @property
    def rates(self) -> tuple[dict[str, Any], ...]:
        """The limits that are rates."""
        return tuple(table for table in self.limits if table["family"] != "concurrency")

    @property
    def places(self) -> int | None:
        """The concurrency limit, if there is one."""
        return next((int(table["limit"]) for table in self.limits if table["family"] == "concurrency"), None)

    @property
    def mean_latency_s(self) -> float:
        """Mean service time of a call that asks for one output token."""
        return self.median_s * math.exp(self.sigma**2 / 2.0) + self.per_token_s


def rate_per_s(table: dict[str, Any]) -> float:
    """Return the sustained rate that a rate limit lets through."""
    return float(table["rate_per_s"] if table["family"] == "token_bucket" else table["limit"] / table["window_s"])


def burst(table: dict[str, Any]) -> float:
    """Return how many calls a rested rate limit admits at once."""
    return float(table["burst"] if table["family"] == "token_bucket" else table["limit"])


def draw(seed: int, count: int) -> list[Configuration]:
    """Draw ``count`` configurations; the same seed gives the same ones, whatever the count."""
    return [_one(seed, index) for index in range(count)]


def quick(configuration: Configuration, factor: float) -> Configuration:
    """Return the configuration with its windows shortened; service times stay."""
    return replace(configuration, limits=tuple(_quick(table, factor) for table in configuration.limits))


def _quick(table: dict[str, Any], factor: float) -> dict[str, Any]:
    times = {name: round(table[name] / factor, 2) for name in ("window_s", "phase_s") if name in table}
    rates = {name: round(table[name] * factor, 3) for name in ("rate_per_s",) if name in table}
    return table | times | rates


def _one(seed: int, index: int) -> Configuration:
    rng = random.Random(f"{seed}/{index}")
    family = RATE_FAMILIES[index % len(RATE_FAMILIES)]
    if (index + 1) % PLACES_ALONE_EVERY == 0:
        rates = []
    elif (index + 1) % TWO_RATES_EVERY == 0:
        rates = _two_rates(rng, family)
    else:
        rates = [_rate(rng, family, rng.uniform(*WINDOW_S), round(_log_uniform(rng, *CALLS)))]
    places = round(_log_uniform(rng, *PLACES)) if not rates or rng.random() < WITH_PLACES else None
    sigma, per_token_s = round(rng.uniform(0.1, 0.5), 2), round(_log_uniform(rng, 0.002, 0.01), 4)
    return Configuration(
        name=f"{seed}-{index:03d}",
        limits=(*rates, *([] if places is None else [{"family": "concurrency", "limit": places}])),
        median_s=_median_s(rng, rates, places),
        sigma=sigma,
        per_token_s=per_token_s,
        error_share=rng.choice(ERRORS),
        errors_before=rng.random() < ERRORS_BEFORE,
        seed=rng.randrange(2**32),
    )


def _rate(rng: random.Random, family: str, window_s: float, calls: int) -> dict[str, Any]:
    window_s = round(window_s, rng.choice((0, 1, 2)))
    if family == "token_bucket":
        # A burst of one would be another family's twin: nothing could tell them apart.
        return {
            "family": family,
            "rate_per_s": round(calls / window_s, 3),
            "burst": max(2, round(calls * rng.uniform(0.05, 1.0))),
        }
    table: dict[str, Any] = {"family": family, "limit": calls, "window_s": window_s}
    if family in {"fixed_window", "sliding_counter"}:
        table["phase_s"] = round(rng.choice((0.0, rng.uniform(0.0, window_s))), 2)
    if family in SLIDING and rng.random() < COUNTS_REFUSED:
        table["counts_refused"] = True
    return table


def _two_rates(rng: random.Random, family: str) -> list[dict[str, Any]]:
    """Draw a tight short limit and a looser long one, so that the first stops a burst and the second a steady flow."""
    short_s = rng.uniform(*SHORT_WINDOW_S)
    long_s = rng.uniform(2.2 * SHORT_WINDOW_S[1], WINDOW_S[1])
    calls = round(_log_uniform(rng, 12, 200))
    more = round(calls * rng.uniform(1.3, 0.8 * long_s / short_s))
    return [_rate(rng, family, short_s, calls), _rate(rng, rng.choice(RATE_FAMILIES[:4]), long_s, more)]


def _median_s(rng: random.Random, rates: list[dict[str, Any]], places: int | None) -> float:
    """Draw a service time that leaves no doubt which of places and rate a steady client meets."""
    shortest_s, longest_s = SERVICE_S
    if rates and places is not None:
        even_s = places / min(rate_per_s(table) for table in rates)  # both are met at once
        rate_first = RATE_FIRST_BELOW * even_s > shortest_s
        places_first = PLACES_FIRST_ABOVE * even_s < longest_s
        if rate_first and (not places_first or rng.random() < RATE_FIRST):
            longest_s = min(longest_s, RATE_FIRST_BELOW * even_s)
        else:
            shortest_s = max(shortest_s, PLACES_FIRST_ABOVE * even_s)
    return round(_log_uniform(rng, shortest_s, longest_s), 4)


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
