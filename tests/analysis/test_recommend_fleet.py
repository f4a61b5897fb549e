"""A limit divided among clients that do not talk: less than an even part each, and nothing refused."""

from __future__ import annotations

import msgspec
import pytest

from analysis.estimate import Identified, Inference, Latency
from analysis.recommend import recommend
from analysis.recommend_fleet import split
from analysis.result import Limit
from mock_server.limits import Concurrency, FixedWindow

INFERENCE = Inference(
    (
        Identified(Limit(metric="requests", state="measured"), ((1.0, FixedWindow(60, 60.0)),)),
        Identified(Limit(metric="concurrency", state="measured", limit=14.0), ((1.0, Concurrency(14)),)),
    ),
    (),
    0.0,
    Latency(0.5, 0.6, 2.0, 400),
)


def test_one_client_keeps_its_settings() -> None:
    """Nothing to divide."""
    alone = recommend(INFERENCE)
    assert split(alone, INFERENCE, 1) is alone


def test_bursts_add_up() -> None:
    """Seven clients get 54 of 60 together, two places each, and warm up alike."""
    part = split(recommend(INFERENCE), INFERENCE, 7)
    assert (part.requests_per_minute or 0.0) * 7 == pytest.approx(54.0, rel=1e-4)
    assert part.max_concurrency == 2
    assert part.warmup is not None
    assert part.warmup.start_rpm == pytest.approx(5.4 / 7, rel=0.01)


def test_what_a_verification_lowered_stays_lowered() -> None:
    """Nine tenths of the rate and twelve places were left."""
    alone = recommend(INFERENCE)
    lowered = msgspec.structs.replace(
        alone, requests_per_minute=(alone.requests_per_minute or 0.0) * 0.9, max_concurrency=12
    )
    part = split(lowered, INFERENCE, 7)
    assert (part.requests_per_minute or 0.0) * 7 == pytest.approx(54.0 * 0.9, rel=1e-4)
    assert part.max_concurrency == 1


def test_without_a_rate_there_is_none_to_divide() -> None:
    """Only places are known."""
    inference = Inference(INFERENCE.identified[1:], (), 0.0, INFERENCE.latency)
    part = split(recommend(inference), inference, 2)
    assert (part.requests_per_minute, part.max_concurrency, part.warmup) == (None, 7, None)


@pytest.mark.parametrize(
    ("instances", "says"), [(0, "at least 1"), (61, "too many for this"), (15, "too many for this concurrency")]
)
def test_what_cannot_be_divided(instances: int, says: str) -> None:
    """One line that says what to do."""
    with pytest.raises(ValueError, match=says):
        split(recommend(INFERENCE), INFERENCE, instances)


def test_places_that_were_lowered_below_the_number_of_clients() -> None:
    """Fourteen places were found, ten are left, twelve clients want one each."""
    lowered = msgspec.structs.replace(recommend(INFERENCE), max_concurrency=10)
    with pytest.raises(ValueError, match="12 instances are too many for this concurrency"):
        split(lowered, INFERENCE, 12)
