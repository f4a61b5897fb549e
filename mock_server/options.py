"""How to serve: the values that the command lines fill in and the serving processes read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve. ``port`` 0 picks a free one; ``parent``: end when this process is no longer the parent.

    ``tier`` and ``model`` pick what is known of a real one, in place of a profile. ``tls_cert``
    and ``tls_key`` are PEM files: with both, the server speaks https and wss. ``admin_token`` opens ``/__mock__/``,
    ``metrics`` opens ``/metrics``, ``access_log`` is a file that gets a line a call. With several ``workers`` the
    counters are in ``redis`` (a URL); ``worker`` and ``prefix`` are what a parent tells its workers.
    """

    profile: str = "demo"
    host: str = "127.0.0.1"
    port: int = 8899
    seed: int = 0
    parent: int | None = None
    tls_cert: str = ""
    tls_key: str = ""
    tier: str = ""
    model: str = ""
    admin_token: str = ""
    metrics: bool = False
    access_log: str = ""
    workers: int = 1
    redis: str = ""
    worker: str = ""
    prefix: str = ""
