"""Where a search looks first: what the structure of a record suggests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import decisions
from analysis.calls import Calls, arrival_offsets
from analysis.proposals import proposals, structure
from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server import limits
from redline.simulated import SimulatedTraffic
from redline.traffic import Probe


def emptied_twice(rate_per_s: float, burst: int, rest: float, seed: int) -> Calls:
    """Empty a bucket at four times its rate, rest for so much of what it takes to fill up, and at eight times."""
    world = World(
        (VirtualLimit("requests", limits.TokenBucket(rate_per_s, burst)),), Network(0.001, 0.0002), Service(0.2, 0.1)
    )
    traffic = SimulatedTraffic(world, seed=seed)
    for times in (4.0, 8.0):
        offsets = np.arange(2 * burst) / (times * rate_per_s)
        traffic.run(Probe("fill", offsets.tolist(), stop_refused=3))
        traffic.sleep_until(traffic.now_s() + rest * burst / rate_per_s)
    return Calls.from_attempts(traffic.attempts, now_s=traffic.now_s(), answer_s=2.0)


@settings(max_examples=40, deadline=None)
@given(
    rate_per_s=st.floats(0.5, 40.0),
    burst=st.integers(20, 300),
    rest=st.sampled_from([0.3, 0.6, 1.5, 3.0]),
    seed=st.integers(0, 99),
)
def test_a_bucket_that_was_full_in_between_is_proposed_as_one_that_was_not(
    rate_per_s: float, burst: int, rest: float, seed: int
) -> None:
    """Either way the true rate is among the first shapes, to about a call of what came in."""
    calls = emptied_twice(rate_per_s, burst, rest, seed)
    record = decisions.prepare(calls, arrival_offsets(calls))
    rates = np.array([shape[0] for shape in proposals(record, "token_bucket", structure(record))])
    came_in = (1 / 3 - 1 / 7) * burst  # more in the slower fill than in the faster one
    assert np.abs(rates / rate_per_s - 1.0).min() < 1.5 / came_in


@pytest.mark.parametrize("outcomes", ["refused at once", "never refused"])
def test_a_record_without_two_blocks_proposes_rates_all_the_same(outcomes: str) -> None:
    """One block, or none, says nothing of the rate: what came in on average does."""
    burst = 1 if outcomes == "refused at once" else 100
    world = World(
        (VirtualLimit("requests", limits.TokenBucket(0.01, burst)),), Network(0.001, 0.0002), Service(0.2, 0.1)
    )
    traffic = SimulatedTraffic(world, seed=1)
    traffic.run(Probe("fill", [0.1 * k for k in range(20)]))
    calls = Calls.from_attempts(traffic.attempts, now_s=traffic.now_s(), answer_s=2.0)
    record = decisions.prepare(calls, arrival_offsets(calls))
    rates = [shape[0] for shape in proposals(record, "token_bucket", structure(record))]
    assert len(rates) >= 80
    assert min(rates) > 0.0
