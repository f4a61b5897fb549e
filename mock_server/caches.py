"""Cached contents: what was stored, until when, and how many tokens a call may count from it. No HTTP, no clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from mock_server import errors, gemini

if TYPE_CHECKING:
    from mock_server.quota import Decision

DEFAULT_TTL_S = 3600.0
_DURATION = re.compile(r"\d{1,9}(?:\.\d{1,9})?s")


class Cache(msgspec.Struct):
    """One stored content. Moments are seconds since the Unix epoch. ``held``: what storage quota it takes."""

    name: str
    project: str
    model: str
    tokens: int
    created_s: float
    updated_s: float
    expires_s: float
    held: Decision
    display_name: str = ""

    def body(self) -> dict[str, Any]:
        """Return the resource as the service shows it: what was stored is never told."""
        body: dict[str, Any] = {
            "name": self.name,
            "model": f"models/{self.model}",
            "createTime": timestamp(self.created_s),
            "updateTime": timestamp(self.updated_s),
            "expireTime": timestamp(self.expires_s),
        }
        if self.display_name:
            body["displayName"] = self.display_name
        return body | {"usageMetadata": {"totalTokenCount": self.tokens}}


class Caches:
    """All that is stored, by name. A project sees its own."""

    def __init__(self) -> None:
        self._kept: dict[str, Cache] = {}

    def add(self, cache: Cache) -> None:
        """Store a new one."""
        self._kept[cache.name] = cache

    def get(self, name: str, project: str, now_s: float) -> Cache:
        """Return a living cache. Raises `ApiError` 403, as the service does for one that is not there."""
        found = self._kept.get(name)
        if found is None or found.project != project or found.expires_s <= now_s:
            raise errors.no_cache()
        return found

    def listed(self, project: str, now_s: float) -> list[Cache]:
        """Return the project's living caches, oldest first."""
        return [cache for cache in self._kept.values() if cache.project == project and cache.expires_s > now_s]

    def remove(self, cache: Cache) -> None:
        """Forget one."""
        del self._kept[cache.name]

    def expired(self, now_s: float) -> list[Cache]:
        """Return those whose time is up; whoever asks removes them."""
        return [cache for cache in self._kept.values() if cache.expires_s <= now_s]


def expiry_s(body: dict[str, Any], now_s: float) -> float | None:
    """Return the moment that ``ttl`` or ``expireTime`` asks for; None where neither does. Raises `ApiError` 400."""
    ttl, moment = gemini.text_field(body, "ttl"), gemini.text_field(body, "expireTime")
    if ttl:
        if not _DURATION.fullmatch(ttl):
            raise errors.invalid_json(
                "Invalid value at 'cached_content.ttl' (type.googleapis.com/google.protobuf.Duration)"
            )
        return now_s + float(ttl[:-1])
    if not moment:
        return None
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError):
        raise errors.invalid_json("Invalid value at 'cached_content.expire_time'") from None


def timestamp(moment_s: float) -> str:
    """Write a moment as protobuf's JSON does."""
    return datetime.fromtimestamp(moment_s, tz=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
