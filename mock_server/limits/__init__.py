"""The limiter families: what may pass, as pure functions of time.

This package owns the definition of every rate-limit family. The mock server enforces it, the simulator runs it
in virtual time, and the inference replays recorded traffic through it (or through a vectorised statistic that a
property test holds to it). It knows no HTTP, no profile and no clock: the caller passes ``now_s``.

A family is two things. A frozen *spec* holds the parameters; ``spec.limiter()`` makes the small mutable *state*.
The state answers ``check`` (a question, free of effects) and is told what happened: ``commit`` (let in),
``refused`` (turned away), ``release`` (ended). Registering a spec in ``FAMILIES`` has it served, simulated and
put under the conformance tests.

Sources for the algorithms: ITU-T I.371 (GCRA, the token bucket's virtual-scheduling twin); Cloudflare, "How we
built rate limiting capable of scaling to millions of domains" (2017, the sliding counter); RFC 2697 (token
bucket).
"""

from __future__ import annotations

from mock_server.limits.buckets import LeakyQueue, TokenBucket
from mock_server.limits.contract import ADMITTED, NEVER, UNKNOWABLE, Limiter, Spec, Verdict
from mock_server.limits.sliding import SlidingCounter, SlidingLog
from mock_server.limits.stateless import Concurrency, Random
from mock_server.limits.windows import PACIFIC, PACIFIC_DAY, AnchoredWindow, FixedWindow

FAMILIES: dict[str, type[Spec]] = {
    spec.family: spec
    for spec in (
        FixedWindow,
        AnchoredWindow,
        SlidingLog,
        SlidingCounter,
        TokenBucket,
        LeakyQueue,
        Concurrency,
        Random,
    )
}

__all__ = [
    "ADMITTED",
    "FAMILIES",
    "NEVER",
    "PACIFIC",
    "PACIFIC_DAY",
    "UNKNOWABLE",
    "AnchoredWindow",
    "Concurrency",
    "FixedWindow",
    "LeakyQueue",
    "Limiter",
    "Random",
    "SlidingCounter",
    "SlidingLog",
    "Spec",
    "TokenBucket",
    "Verdict",
]
