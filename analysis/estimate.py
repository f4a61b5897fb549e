"""What the inference hands on: plain frozen values, between `infer` and everything after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.result import Finding, Limit
    from mock_server.limits import Spec


@dataclass(frozen=True, slots=True)
class Identified:
    """One limit: how it is told to people, and the weighted specs that still explain the record.

    ``particles``: (weight, spec), weights sum to 1, best first; empty where nothing was identified (then only
    the bound in ``limit`` is known). Specs are those of `mock_server.limits`, in seconds.
    """

    limit: Limit
    particles: tuple[tuple[float, Spec], ...] = ()

    @property
    def unknown(self) -> bool:
        """Whether nothing is known that settings could keep to: in doubt, and no specs that may be in force.

        Tokens in doubt take nothing away from what is known of requests: cheap calls keep to that.
        """
        return self.limit.state == "unresolved" and not self.particles and self.limit.metric != "input_tokens"


@dataclass(frozen=True, slots=True)
class Latency:
    """Of admitted calls, seconds; None where no call was answered."""

    median_s: float
    mean_s: float
    p999_s: float
    n: int


@dataclass(frozen=True, slots=True)
class Inference:
    """Everything that a record says about the limits in force.

    ``spread_s``: J, the spread between sending and arrival (high quantile less the minimum, an upper confidence
    bound). ``spread_at``: a few (share, seconds) points of the same distribution, so that settings can trade an
    accepted share of refusals for rate. ``error_rate``: share of attempts that failed otherwise (not 429).
    """

    identified: tuple[Identified, ...]
    findings: tuple[Finding, ...]
    spread_s: float
    latency: Latency | None
    error_rate: float = 0.0
    spread_at: tuple[tuple[float, float], ...] = ()
