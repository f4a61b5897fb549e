"""One call: what is asked of a transport, and what comes back. Two transports keep this contract.

`redline.fast` speaks HTTP itself; `redline.sdk` goes through google-genai as production does. This file holds the
values between them and the sender, the keys, and the choice. A key leaves this file only in a request header.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redline.wire import Answer

TRANSPORTS = ("fast", "sdk")
NO_KEY = "no-key"  # sent where no key is set; a mock does not mind, the real service answers 400
API_VERSION = "v1beta"


@dataclass(frozen=True, slots=True)
class Order:
    """One call to make. ``timeout_s`` bounds the whole of it, from the first byte out to the last byte in."""

    model: str
    prompt: str
    output_tokens: int = 1
    key_slot: int = 0
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: the answer (status 0 where none came) and the moment its last byte was in.

    ``refused``: the target turned the connection itself away (nothing listens there).
    """

    answer: Answer
    done_s: float
    refused: bool = False


class Transport(Protocol):
    """Sends calls for one target, as many at once as it is asked to."""

    def call(self, order: Order, on_sent: Callable[[float], None]) -> Outcome:
        """Make one call and wait for its end. Never raises for what the network or the server does.

        ``on_sent`` is told the moment just before the first byte is written; it is not called at all where no
        connection could be had.
        """

    def warm(self, connections: int) -> None:
        """Have this many idle connections open, without sending a request. Raises OSError if none can be had."""

    def count_tokens(self, model: str, prompt: str) -> int | None:
        """Ask the server how many tokens a prompt has; None where it does not say."""

    def close(self) -> None:
        """Close all connections."""


def keys_from(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys of ``GOOGLE_API_KEY`` or else ``GEMINI_API_KEY`` (a comma separates several), maybe none."""
    listed = environment.get("GOOGLE_API_KEY") or environment.get("GEMINI_API_KEY") or ""
    return tuple(key.strip() for key in listed.split(",") if key.strip())


def check_target(url: str, takes: str = "--target takes mock, sim, gemini, vertex or a URL") -> str:
    """Return the URL without a final slash. Raises ValueError, in one line, where it has no scheme or host.

    A user and a password in it would end up in every report, and a query has no meaning; the line repeats neither.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if fits and ("@" in parts.netloc or parts.query or parts.fragment):
        raise ValueError(f"{takes} such as http://127.0.0.1:8080, without user, password, query or fragment")
    if not fits:
        raise ValueError(f"{takes} such as http://127.0.0.1:8080, not {url!r}")
    return url.rstrip("/")


def base_and_version(url: str) -> tuple[str, str]:
    """Split a target's URL where it ends in an API version, as some write it; else the version is the usual one."""
    base, _, last = url.rstrip("/").rpartition("/")
    return (base, last) if last.startswith("v1") and base.count("/") > 1 else (url, API_VERSION)


def thinking_off(model: str) -> bool:
    """Whether a call may ask for no thinking: the pro models refuse that with a 400."""
    return "-pro" not in model


def open_transport(name: str, url: str, now_s: Callable[[], float], keys: tuple[str, ...] | None = None) -> Transport:
    """Make a transport for a target. ``keys`` default to the environment's; ``now_s`` is the run's clock."""
    keys = keys_from(os.environ) if keys is None else keys
    if name == "sdk":
        from redline.sdk import SdkTransport  # noqa: PLC0415 - half a second to import, only where it is used

        return SdkTransport(url, keys or (NO_KEY,), now_s)
    from redline.fast import FastTransport  # noqa: PLC0415 - loads gevent, which only a sending process needs

    return FastTransport(url, keys or (NO_KEY,), now_s)
