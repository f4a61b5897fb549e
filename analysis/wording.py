"""The verdict in plain words: sentences for people, made from a `Result`. Pure; knows no HTML and no terminal.

Each question of the report's first screen has its function here: which limit (`headline`), how sure (`sureness`),
what to set (`setting`), did it hold (`held`). Every state of `analysis.result` has its own words.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analysis.result import Interval, Limit, Result, Settings, State, Verification

NONE = "\N{EN DASH}"
NB = "\N{NO-BREAK SPACE}"  # between a number and its unit
# A state's name and sign: colour is never the only signal.
STATES: Mapping[State, tuple[str, str]] = {
    "measured": ("●", "measured"),
    "at_least": ("≥", "at least"),
    "at_most": ("≤", "at most"),
    "declared": ("✎", "declared by the server"),
    "unresolved": ("?", "unresolved"),
    "not_tested": (NONE, "not tested"),
    "random": ("≈", "random refusals"),
}
METRICS = {
    "requests": "Requests",
    "input_tokens": "Input tokens",
    "concurrency": "Calls in flight",
    "requests_per_day": "Requests per day",
    "spend": "Spend",
}
_UNITS = {"requests": "requests", "input_tokens": "input tokens", "requests_per_day": "requests", "spend": "US dollars"}
FAMILIES = {
    "fixed_window": "fixed window",
    "anchored_window": "window from the first call",
    "sliding_log": "sliding window",
    "sliding_counter": "sliding counter",
    "token_bucket": "token bucket",
    "leaky_queue": "leaky queue",
    "concurrency": "calls in flight",
    "random": "random",
}
_HOW = {
    "fixed_window": "counted in windows of {window} that start {start}",
    "anchored_window": "counted in windows of {window}; each opens with the first call after the last one ended",
    "sliding_log": "counted over the last {window}, whatever the clock says",
    "sliding_counter": "counted in windows of {window}, of which the last one fades out while the next one fills",
    "token_bucket": "a bucket that refills with {rate} a second and holds {burst}",
    "leaky_queue": "a queue that serves {rate} a second and holds {burst}; calls wait in it before they are refused",
}
GATES = {
    "offered_vs_achieved": ("Sent what the plan asked for", "share"),
    "censored": ("Calls without an answer at the end", "share"),
    "lateness_p99_s": ("Lateness of a send, 99th percentile", "seconds"),
    "refused_at_start": ("Calls refused before the first probe", "count"),
}
_WIDE = 1.5  # an interval whose ends are further apart than this factor is told instead of its middle
_DOUBTS: Mapping[State, str] = {
    "at_least": "The limit lies above what was tried, if there is one.",
    "at_most": "The limit lies below what was tried.",
    "declared": "Only the server's word: no call was refused for it.",
    "unresolved": "No number is given, since it could be wrong.",
    "random": "The refusals do not depend on what was sent before them.",
    "not_tested": "Nothing was tried that could have met it.",
}
_ENDED = {
    "interrupted": "This run was interrupted. What follows is what its record allows to say.",
    "budget": "A budget ended this run before a conclusion. What follows was learnt until then.",
    "failed": "This run failed on the way. What follows is what its record allows to say.",
    None: "This run was killed or still goes on. What follows is what its record allows to say.",
}


def number(value: float | None) -> str:
    """Return a number with no more digits than it needs and a comma between thousands; a dash for none."""
    if value is None or math.isnan(value):
        return NONE
    if abs(value - round(value)) < 1e-9 or abs(value) >= 10_000:  # noqa: PLR2004 - a decimal would be noise
        return f"{round(value):,}"
    digits = 4 - math.floor(math.log10(abs(value))) - 1
    text = f"{value:,.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    """Return a share in percent; what is almost 0 or 1 does not round to it."""
    value = 100 * share
    if 0 < value < 0.01:  # noqa: PLR2004
        return f"<{NB}0.01{NB}%"
    if 99.9 < value < 100:  # noqa: PLR2004
        return f">{NB}99.9{NB}%"
    return f"{number(round(value, 1 if value >= 1 else 2))}{NB}%"


def seconds(value: float | None) -> str:
    """Return a duration in the unit that people would use."""
    if value is None or math.isnan(value):
        return NONE
    for unit_s, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if value >= 2 * unit_s and abs(value / unit_s - round(value / unit_s)) < 1e-6:  # noqa: PLR2004
            return f"{round(value / unit_s)}{NB}{unit}"
    return f"{number(value)}{NB}s" if value >= 1 else f"{number(value * 1000)}{NB}ms"


def span(value_s: float) -> str:
    """Return how long something took, to the second."""
    minutes, rest = divmod(round(value_s), 60)
    return f"{minutes}{NB}min {rest}{NB}s" if minutes else f"{rest}{NB}s"


def interval(bounds: Interval | None) -> str:
    """Return an interval; one without width is exact."""
    if bounds is None:
        return ""
    low, high = number(bounds[0]), number(bounds[1])
    return f"exactly {low}" if low == high else f"{low} to {high}"


# --------------------------------------------------------------------------------------------------- one limit


def amount(limit: Limit) -> str:
    """Return how much a limit allows, as a phrase: ``60 requests in 10 s (360 a minute)``."""
    if limit.metric == "concurrency":
        return f"{number(limit.limit)} {_plural(limit.limit, 'call')} at once"
    unit = _UNITS.get(limit.metric, limit.metric)
    if limit.window == "pacific_day" or limit.metric == "requests_per_day":
        return f"{number(limit.limit or limit.declared_limit)} {unit} a day"
    if limit.family in {"token_bucket", "leaky_queue"}:
        return f"{number(limit.rate_per_min)} {unit} a minute in bursts of up to {number(limit.burst)}"
    if limit.limit is not None and limit.window_s is not None and abs(limit.window_s - 60.0) > 1e-6:  # noqa: PLR2004
        per_minute = limit.rate_per_min or limit.limit * 60.0 / limit.window_s
        return f"{number(limit.limit)} {unit} in {seconds(limit.window_s)} ({number(per_minute)} a minute)"
    value = limit.rate_per_min or limit.limit or limit.declared_limit
    return f"{number(value)} {unit} a minute"


def explanation(limit: Limit) -> str:
    """Return how the limit counts, as a sentence; the reason where it is not measured."""
    if limit.state in {"unresolved", "not_tested", "random", "at_least", "at_most", "declared"} and limit.reason:
        return sentence(limit.reason)
    if limit.metric == "concurrency":
        return "A call is refused while this many others are on the server; how long they take does not matter."
    how = _HOW.get(limit.family or "")
    if how is None:
        return (sentence(limit.reason) if limit.reason else "") + _named(limit)
    rate = number(limit.rate_per_min / 60.0) if limit.rate_per_min else NONE
    start = _start(limit)
    text = how.format(window=seconds(limit.window_s), rate=rate, burst=number(limit.burst), start=start)
    told = sentence(text)
    if limit.family == "sliding_counter":
        told += f" They start {start}."
    return told + (" Refused calls count too." if limit.counts_refused else "") + _named(limit)


def _named(limit: Limit) -> str:
    """Return what the server names as the limit, held against what was measured."""
    if limit.declared_limit is None or limit.rate_per_min_ci95 is None:
        return ""
    low, high = limit.rate_per_min_ci95
    verdict = "which agrees" if 0.995 * low <= limit.declared_limit <= 1.005 * high else "which is not what it enforces"
    return f" The server names {number(limit.declared_limit)} a minute, {verdict}."


def _start(limit: Limit) -> str:
    """Return when a window that is aligned to the clock starts."""
    if limit.phase_s is None or not limit.window_s:
        return "at fixed moments of the server's clock"
    near = min(limit.phase_s, limit.window_s - limit.phase_s) < 0.05 * limit.window_s
    after = "on" if near else f"{number(round(limit.phase_s, 1))}{NB}s after"
    full = {60.0: "minute", 3600.0: "hour"}.get(limit.window_s, seconds(limit.window_s))
    return f"{after} every full {full} of the server's clock"


# ------------------------------------------------------------------------------------- the first screen's answers


def headline(result: Result) -> str:
    """Answer *which limit*, in one sentence."""
    spent = result.spent
    if spent.requests == 0:
        return "Nothing was sent, so nothing is known."
    if spent.throttled == spent.requests:
        return f"Every one of {number(spent.requests)} calls was refused: the quota is used up, or there is none."
    measured = [limit for limit in result.limits if limit.state == "measured"]
    rates = [limit for limit in measured if limit.metric != "concurrency"]
    if rates:
        return f"{_subject(result)} lets through {join([_found(limit) for limit in rates + _flight(measured)])}."
    others = [limit for limit in result.limits if limit.metric != "concurrency"]
    first = _unmeasured(others[0]) if others else "No limit was looked for"
    flight = _flight(measured)
    return (
        f"{first}, and {amount(flight[0])} {'is' if flight[0].limit == 1 else 'are'} let through."
        if flight
        else (f"{first}.")
    )


def _found(limit: Limit) -> str:
    """Return what a measured limit allows; of a record too thin for a number, the interval."""
    bounds = limit.rate_per_min_ci95
    if limit.metric == "concurrency" or bounds is None or bounds[1] <= _WIDE * bounds[0]:
        return amount(limit)
    return f"{interval(bounds)} {_UNITS.get(limit.metric, limit.metric)} a minute"


def _unmeasured(limit: Limit) -> str:
    unit = _UNITS.get(limit.metric, limit.metric)
    match limit.state:
        case "at_least":
            return f"No limit on {unit} was met: {amount(limit)} passed"
        case "at_most":
            return f"The limit on {unit} lies below {amount(limit)}"
        case "declared":
            return f"The server names a limit of {amount(limit)}, which was not met"
        case "random":
            return "Some calls are refused at any rate: that is no quota, so there is no number to stay under"
        case "not_tested":
            return f"The limit on {unit} was not tested"
        case _:
            return f"There is a limit on {unit}, but the record does not settle which"


def sureness(result: Result) -> str:
    """Answer *how sure*: intervals and probabilities, then what casts doubt."""
    parts = [_surety(limit) for limit in result.limits if limit.state == "measured"]
    if not parts:
        parts = [_DOUBTS.get(limit.state, "") for limit in result.limits if limit.metric != "concurrency"][:1]
    parts += [f"{_unmeasured(x)}." for x in result.limits if x.metric == "input_tokens" and x.state == "unresolved"]
    failed = [gate for gate in result.validity if not gate.passed]
    if failed:
        total = len(result.validity)
        parts.append(f"{len(failed)} of {total} validity checks failed: {join([_gate(g.gate) for g in failed])}.")
    return " ".join(part for part in parts if part) or "Nothing was measured."


def _surety(limit: Limit) -> str:
    if limit.metric == "concurrency":
        return f"Calls in flight: {interval(limit.limit_ci95)}." if limit.limit_ci95 else ""
    unit = _UNITS.get(limit.metric, limit.metric).capitalize()
    text = f"{unit}: {interval(limit.rate_per_min_ci95)} a minute with 95{NB}% confidence"
    if limit.family and limit.family_probability is not None:
        name = FAMILIES.get(limit.family, limit.family)
        sure = limit.family_probability > 0.995  # noqa: PLR2004 - what would round to 100 %
        text += f"; surely a {name}" if sure else f"; {percent(limit.family_probability)} likely a {name}"
    return text + "."


def setting(settings: Settings | None) -> str:
    """Answer *what to set*."""
    if settings is None:
        return "Nothing: the record supports no settings."
    told = knobs(settings)
    return sentence(join(told)) if told else "No limiter is needed up to what was tested."


def knobs(settings: Settings) -> list[str]:
    """Return each setting that is needed, as a phrase."""
    parts = [
        (settings.requests_per_minute, "{} requests a minute"),
        (settings.burst if settings.requests_per_minute else None, "bursts of {}"),
        (settings.max_concurrency, "at most {} in flight"),
        (settings.input_tokens_per_minute, "{} input tokens a minute"),
        (settings.requests_per_day, "{} requests a day"),
    ]
    told = [text.format(number(value)) for value, text in parts if value is not None]
    return ["evenly spaced" if text == "bursts of 1" else text for text in told]


def held(result: Result) -> str:
    """Answer *did it hold*."""
    seen = result.verification
    if seen is None:
        return "Not verified." if result.settings else "There was nothing to verify."
    return f"{'Yes' if seen.passed else 'No'}: {witnessed(seen)}"


def witnessed(seen: Verification) -> str:
    """Return what one verification saw."""
    refused = "none" if seen.throttled == 0 else number(seen.throttled)
    over = f" over {seen.window_edges} {_plural(seen.window_edges, 'window')}" if seen.window_edges else ""
    text = f"{refused} of {number(seen.offered)} calls refused{over}; the share "
    text += f"is at most {percent(seen.throttled_rate_upper95)} with 95{NB}% confidence."
    if seen.share_of_limit is not None:
        text += f" It carried {percent(seen.share_of_limit)} of the limit."
    return text


def caveat(ended: str | None) -> str:
    """Return what to say about a run that did not come to its end; empty for one that did."""
    return _ENDED.get(ended, "")


def _gate(name: str) -> str:
    return GATES.get(name, (name.replace("_", " "), ""))[0].lower()


def _subject(result: Result) -> str:
    if result.model and result.target:
        return f"{result.model} on {result.target}"
    return result.model or result.target or "The target"


def _flight(measured: Sequence[Limit]) -> list[Limit]:
    return [limit for limit in measured if limit.metric == "concurrency"]


def _plural(value: float | None, noun: str) -> str:
    return noun if value == 1 else f"{noun}s"


def sentence(text: str) -> str:
    """Return a phrase as a sentence: a capital first, a full stop last."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def join(parts: Sequence[str]) -> str:
    """Return phrases as a list in words: a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
