"""The service: drawn, seeded, and exact where nothing is drawn."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest

from mock_server.service import Course, Faults, Latency, Length, Outage, Service

STEADY = Latency(first_token_s=0.5, sigma=0.0, per_token_s=0.01)
TEN = Length(tokens=10, sigma=0.0)


def service(latency: Latency = STEADY, faults: Faults | None = None, length: Length = TEN, seed: int = 1) -> Service:
    """Make a service with its own seeded stream."""
    return Service(latency, faults or Faults(), length, random.Random(seed))  # noqa: S311 - repeatable, not secret


def test_without_spread_the_course_is_exact() -> None:
    """Half a second to the first token, then nine more at the pace."""
    assert service().course(100.0) == Course(100.5, 100.59, 10, cut=False)


def test_a_maximum_cuts_the_answer_short() -> None:
    """Fewer tokens, less time, and it is said."""
    assert service().course(0.0, max_tokens=1) == Course(0.5, 0.5, 1, cut=True)
    assert not service().course(0.0, max_tokens=10).cut


def test_a_held_back_call_starts_later() -> None:
    """The delay of a queue comes first."""
    assert service().course(0.0, max_tokens=1, delay_s=2.0).done_at_s == 2.5


def test_the_median_is_what_was_asked_for() -> None:
    """Lognormal: half of the draws on either side."""
    spread = service(Latency(first_token_s=0.4, sigma=0.5, per_token_s=0.0))
    firsts = [spread.course(0.0).first_token_at_s for _ in range(4000)]
    assert statistics.median(firsts) == pytest.approx(0.4, rel=0.05)
    assert statistics.stdev(firsts) > 0.1


def test_slots_make_calls_wait_for_each_other() -> None:
    """Two servers, four calls at once: the second pair starts when the first pair ends."""
    crowded = service(Latency(first_token_s=1.0, sigma=0.0, per_token_s=0.0, slots=2))
    assert [crowded.course(0.0, max_tokens=1).done_at_s for _ in range(4)] == [1, 1, 2, 2]


def test_faults_come_as_often_as_asked() -> None:
    """Each kind by its own share."""
    faulty = service(faults=Faults(overloaded_503=0.2, reset=0.1))
    kinds = [faulty.course(0.0).fault for _ in range(5000)]
    assert kinds.count("overloaded_503") == pytest.approx(1000, abs=120)
    assert kinds.count("reset") == pytest.approx(500, abs=90)
    assert set(kinds) == {"", "overloaded_503", "reset"}


def test_a_seed_replays_and_faults_do_not_shift_the_latency() -> None:
    """With and without faults, the same calls take the same first-token time."""
    spread = Latency(sigma=0.4)
    calm, faulty = service(spread), service(spread, Faults(internal_500=0.5))
    assert [calm.course(0.0).first_token_at_s for _ in range(50)] == [
        faulty.course(0.0).first_token_at_s for _ in range(50)
    ]


def test_an_outage_comes_and_goes_on_its_schedule() -> None:
    """From second 10 on for 5 s, and again every 60 s; in between nothing fails."""
    outage = Outage("overloaded_503", after_s=10, for_s=5, every_s=60)
    late = Service(STEADY, Faults(), TEN, random.Random(1), outages=[outage], start_s=1000.0)  # noqa: S311 - repeatable
    moments = (1000, 1009.9, 1010, 1014.9, 1015, 1069.9, 1070, 1074.9, 1075)
    assert [bool(late.course(moment).fault) for moment in moments] == [0, 0, 1, 1, 0, 0, 1, 1, 0]


def test_thinking_comes_first_and_counts_against_the_maximum() -> None:
    """A small maximum is spent in thought; with thinking off the answer has it for itself."""
    thinker = service(length=Length(tokens=10, sigma=0.0, thought_tokens=20))
    course = thinker.course(0.0)
    assert (course.thought_tokens, course.output_tokens, course.cut) == (20, 10, False)
    assert course.first_token_at_s == pytest.approx(0.7)
    starved = thinker.course(0.0, max_tokens=15)
    assert (starved.thought_tokens, starved.output_tokens, starved.cut) == (15, 0, True)
    assert thinker.course(0.0, max_tokens=15, thinks=False).output_tokens == 10


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"fault": "fire"}, "fault must be one of overloaded_503"),
        ({"fault": "hang", "after_s": -1}, "after_s must be at least 0"),
        ({"fault": "hang", "share": 2}, "share must be a probability"),
    ],
)
def test_an_impossible_outage_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    """The key is named."""
    with pytest.raises(ValueError, match=words):
        Outage(**fields)
