"""A mock profile: TOML in, frozen values out, and one clear line for whatever is wrong with it.

This file owns the spelling of a profile, and what each family takes. It knows no HTTP and applies no limit.
Profiles of our own are data in ``profiles/``.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mock_server.background import BackgroundTable
from mock_server.errors import REJECTIONS
from mock_server.limits import (
    FAMILIES,
    PACIFIC_DAY,
    AnchoredWindow,
    Concurrency,
    FixedWindow,
    LeakyQueue,
    Random,
    SlidingCounter,
    SlidingLog,
    Spec,
    TokenBucket,
)
from mock_server.names import quota_names
from mock_server.quota import HELD_METRICS, METRICS, SCOPES, STANDARD, Limit
from mock_server.service import Faults, Latency, Length, Outage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_Table = TypeVar("_Table", bound=msgspec.Struct)

_COMMON = frozenset({"metric", "family", "scope", "quota_id", "quota_metric", "models", "tier"})
_WINDOW = frozenset({"limit", "window_s", "count_refused", "replicas", "changes"})
TAKES: dict[str, frozenset[str]] = {
    "fixed_window": _WINDOW | {"window", "phase_s"},
    "anchored_window": _WINDOW,
    "sliding_log": _WINDOW,
    "sliding_counter": _WINDOW | {"phase_s"},
    "token_bucket": _WINDOW | {"burst"},
    "leaky_queue": _WINDOW | {"burst"},
    "concurrency": frozenset({"limit", "changes"}),
    "random": frozenset({"probability"}),
}
REFUSAL_SHAPES = (
    "full",
    "decimals",
    "mismatched",
    "help_only",
    "bare",
    "not_enough",
    "vertex",
    "vertex_errors",
    "vertex_fixed",
    "spend_cap",
    "prepaid",
    "prepaid_402",
)


class ProfileError(ValueError):
    """The profile cannot be used. The message is one line that names the key and what it takes."""


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit gets another number ``after_s`` seconds after the start."""

    after_s: float
    limit: float


class LimitTable(msgspec.Struct, frozen=True, omit_defaults=True):
    """One ``[[limits]]`` table as it is written. For a bucket ``limit`` per ``window_s`` is the rate."""

    metric: str
    family: str
    limit: float | None = None
    window_s: float | None = None
    window: str | None = None
    phase_s: float = 0.0
    burst: float | None = None
    probability: float | None = None
    count_refused: bool = False
    scope: tuple[str, ...] = ("project", "model")
    quota_id: str | None = None
    quota_metric: str | None = None
    models: tuple[str, ...] = ()
    tier: str = ""
    replicas: int = 1
    changes: tuple[Change, ...] = ()


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a 429 looks (`mock_server.refusals` has the bodies)."""

    shape: str = "full"

    def __post_init__(self) -> None:
        if self.shape not in REFUSAL_SHAPES:
            raise ValueError(f"shape must be one of {', '.join(REFUSAL_SHAPES)}, not {self.shape!r}")


class Keys(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which API keys are good, and whose they are. No ``valid`` list: any key that is not empty is good.

    ``projects``: key -> project (others are in ``default``). ``rejected``: key -> what is wrong with it.
    """

    valid: tuple[str, ...] = ()
    projects: dict[str, str] = {}
    rejected: dict[str, str] = {}

    def __post_init__(self) -> None:
        for reason in self.rejected.values():
            if reason not in REJECTIONS:
                raise ValueError(f"rejected takes key = reason, one of {', '.join(REJECTIONS)}, not {reason!r}")


class Prices(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a million tokens cost, for limits on spend."""

    input_usd_per_million: float = 0.0
    output_usd_per_million: float = 0.0

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return the cost of one answer."""
        return (self.input_usd_per_million * input_tokens + self.output_usd_per_million * output_tokens) / 1e6


class Batch(msgspec.Struct, frozen=True, omit_defaults=True):
    """How long a batch job waits, and then works on each of its requests."""

    pending_s: float = 2.0
    per_request_s: float = 0.5


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that the mock does, as frozen values.

    ``models``: names to serve; none: the catalogue's. ``unknown``: what nobody has published, in words.
    ``on_store_loss``: refuse or admit calls while the counters that processes share cannot be reached.
    """

    name: str
    description: str = ""
    source: str = ""
    date: str = ""
    unknown: tuple[str, ...] = ()
    on_store_loss: str = "refuse"
    models: tuple[str, ...] = ()
    limits: tuple[LimitTable, ...] = ()
    refusal: Refusal = Refusal()
    latency: Latency = Latency()
    length: Length = Length()
    faults: Faults = Faults()
    outages: tuple[Outage, ...] = ()
    background: BackgroundTable = BackgroundTable()
    prices: Prices = Prices()
    batch: Batch = Batch()
    keys: Keys = Keys()

    def __post_init__(self) -> None:
        if self.on_store_loss not in {"refuse", "admit"}:
            raise ValueError(f"on_store_loss must be refuse or admit, not {self.on_store_loss!r}")

    def quota_limits(self) -> tuple[Limit, ...]:
        """Return the limits as `mock_server.quota` takes them."""
        return tuple(_limit(table) for table in self.limits)


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "refusal": Refusal,
    "latency": Latency,
    "length": Length,
    "faults": Faults,
    "background": BackgroundTable,
    "prices": Prices,
    "batch": Batch,
    "keys": Keys,
}


def bundled() -> list[str]:
    """Return the names of the profiles that come with the mock, sorted."""
    folder = resources.files("mock_server") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(name: str) -> Profile:
    """Read a bundled profile by name, or a file whose name ends in ``.toml``. Raises `ProfileError`."""
    if name.endswith(".toml"):
        path = Path(name)
        try:
            return parse(path.read_text(encoding="utf-8"), path.stem)
        except OSError as error:
            raise ProfileError(f"profile {name}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ProfileError(f"profile {name}: is no UTF-8 text") from None
    if name not in bundled():
        raise ProfileError(f"profile must be one of {', '.join(bundled())}, or the path of a .toml file, not {name!r}")
    return parse((resources.files("mock_server") / "profiles" / f"{name}.toml").read_text(encoding="utf-8"), name)


def parse(text: str, name: str) -> Profile:
    """Read a profile from TOML. Raises `ProfileError`."""
    try:
        return _profile(tomllib.loads(text), name)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {name}: is no valid TOML: {error}") from None
    except _KeyProblemError as problem:
        raise ProfileError(f"profile {name}: {problem}") from None


def render(profile: Profile) -> str:
    """Write a profile as TOML that `parse` reads back as the same value."""
    raw = msgspec.to_builtins(profile)
    raw.pop("name")
    lists = {section: raw.pop(section, []) for section in ("limits", "outages")}
    lines = [*_pairs((key, value) for key, value in raw.items() if not isinstance(value, dict))]
    for section, tables in lists.items():
        for table in tables:
            lines += ["", f"[[{section}]]", *_pairs(table.items())]
    for section, table in raw.items():
        if isinstance(table, dict):
            lines += ["", f"[{section}]", *_pairs(table.items())]
    return "\n".join(lines).lstrip() + "\n"


class _KeyProblemError(ValueError):
    """A problem with one key; `parse` adds which profile it is in."""


def _profile(raw: dict[str, Any], name: str) -> Profile:
    _check_keys(raw, set(Profile.__struct_fields__) - {"name"}, "")
    limits = [_limit_table(table, place) for place, table in enumerate(_tables(raw, "limits"))]
    outages = [_convert(table, Outage, f"outages[{place}]") for place, table in enumerate(_tables(raw, "outages"))]
    values = dict(raw, name=name, limits=limits, outages=outages)
    for section, kind in _SECTIONS.items():
        if section in raw:
            values[section] = _convert(raw[section], kind, section)
    return _build(values, Profile, "")


def _tables(raw: dict[str, Any], section: str) -> list[object]:
    tables = raw.get(section, [])
    if not isinstance(tables, list):
        raise _KeyProblemError(f"{section} takes tables, each written under [[{section}]]")
    return tables


def _limit_table(raw: object, place: int) -> LimitTable:
    where = f"limits[{place}]"
    table = _convert(raw, LimitTable, where)
    assert isinstance(raw, dict)  # noqa: S101 - _convert has just said so; this tells the type checker
    if table.metric not in METRICS:
        raise _KeyProblemError(f"{where}.metric must be one of {', '.join(METRICS)}, not {table.metric!r}")
    if table.family not in FAMILIES:
        raise _KeyProblemError(f"{where}.family must be one of {', '.join(FAMILIES)}, not {table.family!r}")
    if stray := sorted(set(raw) - _COMMON - TAKES[table.family]):
        takes = ", ".join(sorted(TAKES[table.family]))
        raise _KeyProblemError(f"{where}.{stray[0]} means nothing to the family {table.family}, which takes {takes}")
    if bad := [name for name in table.scope if name not in SCOPES]:
        raise _KeyProblemError(f"{where}.scope takes a list of {', '.join(SCOPES)}, not {bad[0]!r}")
    if (table.metric in HELD_METRICS) != (table.family == "concurrency"):
        held = ", ".join(HELD_METRICS)
        raise _KeyProblemError(f"{where}.metric must be one of {held} where the family is concurrency, and only there")
    if table.tier not in {"", STANDARD, "priority", "flex"}:
        raise _KeyProblemError(f"{where}.tier must be one of standard, priority, flex, not {table.tier!r}")
    if table.replicas < 1:
        raise _KeyProblemError(f"{where}.replicas must be at least 1, not {table.replicas}")
    try:
        _limit(table)
    except ValueError as error:
        raise _KeyProblemError(f"{where}.{error}") from None
    return table


def _limit(table: LimitTable) -> Limit:
    """Make the limit that a table describes. Raises `ValueError` that begins with the key."""
    spec = _spec(table)
    window_s = None if table.family in {"concurrency", "random"} else table.window_s
    quota_id, quota_metric = quota_names(table.metric, window_s, day=table.window == PACIFIC_DAY)
    return Limit(
        metric=table.metric,
        spec=spec,
        scope=table.scope,
        quota_id=quota_id if table.quota_id is None else table.quota_id,
        quota_metric=quota_metric if table.quota_metric is None else table.quota_metric,
        value=table.limit,
        models=table.models,
        tier=table.tier,
        replicas=table.replicas,
        changes=tuple((change.after_s, change.limit) for change in table.changes),
    )


def _spec(table: LimitTable) -> Spec:
    if table.family == "random":
        return Random(_needed(table, "probability"))
    limit = _needed(table, "limit")
    if table.family == "concurrency":
        return Concurrency(limit)
    if table.window is not None:
        if table.window_s is not None:
            raise ValueError("window_s cannot be set beside window")
        return FixedWindow(limit, count_refused=table.count_refused, calendar=table.window)
    return _windowed(table, limit, _needed(table, "window_s"))


def _windowed(table: LimitTable, limit: float, window_s: float) -> Spec:
    refused = table.count_refused
    match table.family:
        case "fixed_window":
            return FixedWindow(limit, window_s, table.phase_s, refused)
        case "anchored_window":
            return AnchoredWindow(limit, window_s, refused)
        case "sliding_log":
            return SlidingLog(limit, window_s, refused)
        case "sliding_counter":
            return SlidingCounter(limit, window_s, table.phase_s, refused)
    SlidingLog(limit, window_s)  # a bucket's limit and window obey the same bounds, and are named alike
    kind = TokenBucket if table.family == "token_bucket" else LeakyQueue
    return kind(limit / window_s, limit if table.burst is None else table.burst, refused)


def _needed(table: LimitTable, key: str) -> float:
    value: float | None = getattr(table, key)
    if value is None:
        raise ValueError(f"{key} is missing; the family {table.family} needs it")
    return value


def _convert(raw: object, kind: type[_Table], where: str) -> _Table:
    if not isinstance(raw, dict):
        raise _KeyProblemError(f"{where} takes a table, not {raw!r}")
    _check_keys(raw, kind.__struct_fields__, f"{where}.")
    return _build(raw, kind, f"{where}.")


def _build(values: Mapping[str, Any], kind: type[_Table], prefix: str) -> _Table:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        path = path.rstrip("`").lstrip(".")
        problem = problem.replace("`", "")
        raise _KeyProblemError(f"{prefix}{path}: {problem}" if path else f"{prefix}{problem}") from None


def _check_keys(raw: Mapping[str, Any], known: Iterable[str], prefix: str) -> None:
    known = sorted(known)
    for key in raw:
        if key not in known:
            guess = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {guess[0]}?)" if guess else ""
            raise _KeyProblemError(f"{prefix}{key} is no known key{hint}; known are {', '.join(known)}")


def _pairs(items: Iterable[tuple[str, Any]]) -> list[str]:
    """Write TOML lines; what JSON and TOML spell alike goes through JSON."""
    return [f"{key} = {_inline(value)}" for key, value in items]


def _inline(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_inline(k)} = {_inline(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # DEL: JSON takes it raw, TOML does not
