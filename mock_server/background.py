"""Other clients of the same quota: a Poisson stream of calls that nobody sees but the counters.

Pure: the moments come out, the caller plays them. A stream runs apart for each project and model that is called.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

from mock_server.quota import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_CATCH_UP_S = 3600.0


class BackgroundTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The ``[background]`` section: how much of the quota others use."""

    requests_per_minute: float = 0.0
    input_tokens_per_request: float = 1.0

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "input_tokens_per_request"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)!r}")

    @property
    def calls_per_s(self) -> float:
        """The rate of the stream."""
        return self.requests_per_minute / 60


class Background:
    """The streams, each begun with the server. A pause longer than an hour is caught up with one hour of it."""

    def __init__(self, table: BackgroundTable, start_s: float, seed: int) -> None:
        self._table = table
        self._start_s = start_s
        self._rng = random.Random(f"background {seed}")  # noqa: S311 - a simulation, not a secret
        self._next_s: dict[tuple[str, str], float] = {}

    def calls_until(self, now_s: float, seen: Call) -> Iterator[tuple[float, Call]]:
        """Yield (moment, call) of what the others did on the quota of ``seen`` since they were last asked."""
        stream = (seen.project, seen.model)
        costs = {"requests": 1.0, "input_tokens": self._table.input_tokens_per_request}
        other = Call(seen.model, costs, seen.project, "background", seen.region)
        moment_s = self._next_s.get(stream, self._start_s)
        moment_s = max(moment_s, now_s - _MAX_CATCH_UP_S)
        while moment_s <= now_s:
            yield moment_s, other
            moment_s += self._rng.expovariate(self._table.calls_per_s)
        self._next_s[stream] = moment_s
