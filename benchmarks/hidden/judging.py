"""Hold a calibration's result against the truth. Pure: a `Configuration` and a parsed result.json, verdicts out.

What counts is decided by the truth alone, never by what the tool says of itself: a rate limit where the places
let a client reach it, a concurrency limit where a burst meets it before the rate limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hidden.configurations import burst, rate_per_s

if TYPE_CHECKING:
    from hidden.configurations import Configuration

RATE_WITHIN = 0.02
GOODPUT_AT_LEAST = 0.9
BINDING_SHARE = 0.6
SPREAD_S = 0.005  # what the formulas are given for the spread between sending and arrival
EDGE = 1.0 - 1e-6  # just inside a condition that holds with equality


@dataclass(frozen=True, slots=True)
class Check:
    """One question about one configuration. ``detail`` says what was found where it failed."""

    measure: str
    passed: bool
    detail: str = ""


def counted_rates(configuration: Configuration) -> list[dict[str, Any]]:
    """List the rate limits that a client can reach: below what the places let through."""
    places = configuration.places
    if places is None:
        return list(configuration.rates)
    most_per_s = places / configuration.mean_latency_s
    return [table for table in configuration.rates if rate_per_s(table) < most_per_s]


def concurrency_counts(configuration: Configuration) -> bool:
    """Tell whether a burst meets the concurrency limit well before a rate limit refuses."""
    places = configuration.places
    if places is None:
        return False
    return all(places < BINDING_SHARE * burst(table) for table in configuration.rates)


def safe_rate_per_s(table: dict[str, Any], spread_s: float = SPREAD_S) -> float:
    """Return the highest rate, paced one by one, that a limit never refuses whatever its phase."""
    if table["family"] == "token_bucket":
        gap_s = 1.0 / float(table["rate_per_s"])
        return EDGE / max(gap_s, (gap_s + spread_s) / float(table["burst"]))
    room = float(table["limit"]) - (1 if table["family"] == "sliding_counter" else 0)
    return EDGE * room / (float(table["window_s"]) + spread_s)


def optimum_per_s(configuration: Configuration) -> float:
    """Return the goodput that the formulas reach when they are given the truth."""
    rates = [safe_rate_per_s(table) for table in configuration.rates]
    places = configuration.places
    return min([*rates, *([] if places is None else [places / configuration.mean_latency_s])])


def settings_per_s(configuration: Configuration, settings: dict[str, Any]) -> float:
    """Return the goodput that the settings allow on this server; a bound on calls in flight by Little's law."""
    rpm, places = settings["requests_per_minute"], settings["max_concurrency"]
    bounds = [] if rpm is None else [rpm / 60.0]
    bounds += [] if places is None else [places / configuration.mean_latency_s]
    return min(bounds, default=float("inf"))


def judge(configuration: Configuration, result: dict[str, Any]) -> list[Check]:
    """Ask everything that can be asked of this configuration."""
    checks = [*_rates(configuration, result), *_concurrency(configuration, result)]
    return [*checks, _invented(configuration, result), _verified(result), _goodput(configuration, result)]


def _rates(configuration: Configuration, result: dict[str, Any]) -> list[Check]:
    found = _measured(result, "requests")
    checks = []
    for table in counted_rates(configuration):
        best = min(found, key=lambda limit: _distance(limit, table), default=None)
        said = "nothing measured: " + _told(result) if best is None else _short(best)
        right_family = best is not None and best["family"] == table["family"]
        checks.append(Check("family right", right_family, said))
        checks.append(Check("rate within 2 %", best is not None and _error(best, table) <= RATE_WITHIN, said))
    return checks


def _concurrency(configuration: Configuration, result: dict[str, Any]) -> list[Check]:
    if not concurrency_counts(configuration):
        return []
    right = any(limit["limit"] == configuration.places for limit in _measured(result, "concurrency"))
    told = [_short(limit) for limit in result["limits"] if limit["metric"] == "concurrency"]
    return [Check("concurrency exact", right, "; ".join(told) or "none")]


def _invented(configuration: Configuration, result: dict[str, Any]) -> Check:
    """Hold what was measured to what there is: no limit too many, and none in place of one out of reach."""
    rates, places = _measured(result, "requests"), _measured(result, "concurrency")
    spare = rates if len(rates) > len(configuration.rates) else []
    if not counted_rates(configuration):
        spare = [limit for limit in rates if all(_error(limit, table) > RATE_WITHIN for table in configuration.rates)]
    spare += places if configuration.places is None else []
    return Check("nothing invented", not spare, "; ".join(map(_short, spare)))


def _measured(result: dict[str, Any], metric: str) -> list[dict[str, Any]]:
    return [limit for limit in result["limits"] if limit["metric"] == metric and limit["state"] == "measured"]


def _verified(result: dict[str, Any]) -> Check:
    seen = result["verification"]
    if seen is None:
        return Check("verified, nothing throttled", passed=False, detail="no verification")
    said = f"{seen['throttled']} of {seen['offered']} throttled, passed {seen['passed']}, attempt {seen['attempts']}"
    return Check("verified, nothing throttled", seen["passed"] and seen["throttled"] == 0, said)


def _goodput(configuration: Configuration, result: dict[str, Any]) -> Check:
    if result["settings"] is None:
        return Check("goodput of the optimum", passed=False, detail="no settings")
    share = settings_per_s(configuration, result["settings"]) / optimum_per_s(configuration)
    return Check("goodput of the optimum", share >= GOODPUT_AT_LEAST, f"{share:.3f}")


def _error(limit: dict[str, Any], table: dict[str, Any]) -> float:
    truth = rate_per_s(table)
    return abs(float(limit["rate_per_min"] or 0.0) / 60.0 - truth) / truth


def _distance(limit: dict[str, Any], table: dict[str, Any]) -> tuple[float, bool]:
    return round(_error(limit, table), 2), limit["family"] != table["family"]


def _short(limit: dict[str, Any]) -> str:
    words = [limit["metric"], limit["state"], limit["family"], limit["limit"], limit["window_s"], limit["burst"]]
    return " ".join(f"{word:g}" if isinstance(word, float) else str(word) for word in words if word is not None)


def _told(result: dict[str, Any]) -> str:
    told = [f"{_short(limit)} ({limit['reason']})" for limit in result["limits"] if limit["metric"] == "requests"]
    return "; ".join(told) or "no request limit in the result"
