"""For whoever watches: the admin API under ``/__mock__/`` (ground truth) and Prometheus ``/metrics``.

A calibration never uses either. Both are off unless asked for, and the admin API takes a token.
"""

from __future__ import annotations

import hmac
import math
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from mock_server import errors, gemini
from mock_server.journal import BUCKETS_S

if TYPE_CHECKING:
    from mock_server.core import Core
    from mock_server.journal import Journal

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


async def admin(core: Core, request: web.BaseRequest, token: str, path: str) -> web.StreamResponse:
    """Answer on a path below ``/__mock__/``. Raises `ApiError` 403 without the token, 404 for no such path."""
    given = request.headers.get("Authorization", "").partition(" ")[2]
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise errors.ApiError(403, "the admin API takes the token of --admin-token as Authorization: Bearer TOKEN")
    match request.method, path.split("/"):
        case "GET", ["config"]:
            return _json({"profile": msgspec.to_builtins(core.profile), "start_s": core.start_s})
        case "GET", ["counters"]:
            return _json({"counters": counters(core)})
        case "GET", ["decisions"]:
            return _json({"decisions": _decisions(core, request.query.get("n", "100"))})
        case "POST", ["reset"]:
            await core.reset()
            return _json({})
        case "POST", ["limits", place]:
            return _json(_change(core, place, gemini.decode(await request.read())))
    raise errors.unknown_path()


def metrics(core: Core) -> web.Response:
    """Return everything that is counted, in Prometheus' text format."""
    return web.Response(text="".join(_lines(core)), headers={"Content-Type": _TEXT})


def counters(core: Core) -> list[dict[str, Any]]:
    """Return how full each counter is, by limit and by who shares it."""
    now_s = core.clock()
    return [
        {
            "place": place,
            "metric": counter.limit.metric,
            "family": counter.limit.spec.family,
            "quota_id": counter.limit.quota_id,
            "scope": dict(zip(counter.limit.scope, map(str, who), strict=True)),
            "used": counter.state.used(now_s),
            "limit": counter.limit.value,
        }
        for (place, *who), counter in core.quota.counters()
    ]


def _change(core: Core, place: str, body: dict[str, Any]) -> dict[str, Any]:
    """Give a limit another number while the server runs."""
    limits = core.quota.limits
    if not place.isdigit() or int(place) >= len(limits):
        raise errors.ApiError(404, f"there is no limit {place[:20]}; the profile has {len(limits)}, counted from 0")
    if core.shared is not None:
        raise errors.invalid("with several workers a limit changes by the profile's schedule alone")
    value = body.get("limit")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise errors.invalid('limit takes a number, as in {"limit": 30}')
    try:
        core.quota.change(core.clock(), int(place), value)
    except ValueError as error:
        raise errors.invalid(str(error)) from None
    return {"place": int(place), "limit": value}


def _decisions(core: Core, wanted: str) -> list[dict[str, Any]]:
    if not (wanted.isascii() and wanted.isdigit()):
        raise errors.invalid("n takes a number of decisions")
    kept = core.journal.decisions if core.journal else ()
    return list(kept)[max(0, len(kept) - int(wanted[:9])) :]


def _json(body: object) -> web.Response:
    return web.Response(body=gemini.pretty(body), content_type="application/json")


def _lines(core: Core) -> list[str]:
    journal = core.journal
    lines = _journal_lines(journal) if journal else []
    lines += _metric("mock_limit_used", "gauge", "How much of a limit is taken.")
    lines += [_sample("mock_limit_used", _labels(one), one["used"]) for one in counters(core)]
    lines += _metric("mock_limit", "gauge", "The limit itself.")
    return lines + [_sample("mock_limit", _labels(one), one["limit"] or 0) for one in counters(core)]


def _journal_lines(journal: Journal) -> list[str]:
    lines = _metric("mock_answers_total", "counter", "Answers by model and HTTP status; 0: a broken connection.")
    lines += [
        _sample("mock_answers_total", {"model": model, "status": str(status)}, count)
        for (model, status), count in journal.answers.items()
    ]
    lines += _metric("mock_refusals_total", "counter", "Refusals by the limit that refused.")
    lines += [
        _sample("mock_refusals_total", {"metric": metric, "quota_id": quota_id}, count)
        for (metric, quota_id), count in journal.refusals.items()
    ]
    lines += _metric("mock_tokens_total", "counter", "Tokens in and out.")
    lines += [_sample("mock_tokens_total", {"direction": way}, count) for way, count in journal.tokens.items()]
    lines += _metric("mock_in_flight", "gauge", "Requests being answered.")
    lines += [_sample("mock_in_flight", {}, journal.in_flight)]
    return lines + _histogram(journal)


def _histogram(journal: Journal) -> list[str]:
    name = "mock_answer_seconds"
    lines = _metric(name, "histogram", "From arrival to the end of the answer.")
    total = 0
    for bound, count in zip((*BUCKETS_S, math.inf), journal.histogram, strict=True):
        total += count
        lines.append(_sample(f"{name}_bucket", {"le": "+Inf" if bound == math.inf else f"{bound:g}"}, total))
    return [*lines, _sample(f"{name}_sum", {}, journal.seconds), _sample(f"{name}_count", {}, total)]


def _metric(name: str, kind: str, words: str) -> list[str]:
    return [f"# HELP {name} {words}\n", f"# TYPE {name} {kind}\n"]


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value:g}\n" if inside else f"{name} {value:g}\n"


def _labels(counter: dict[str, Any]) -> dict[str, str]:
    known: dict[str, str] = {
        "place": str(counter["place"]),
        "metric": counter["metric"],
        "quota_id": counter["quota_id"],
    }
    known.update(counter["scope"])
    return known


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
