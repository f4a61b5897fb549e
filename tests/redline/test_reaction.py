"""A probe's stop conditions, as a story of sends and ends in made-up time."""

from __future__ import annotations

import math
from typing import Any

import pytest

from redline.reaction import Reaction
from redline.traffic import ADMITTED, OTHER, REFUSED, Probe


def watch(**conditions: Any) -> Reaction:  # noqa: ANN401 - any field of a probe
    """Watch a probe with these conditions."""
    return Reaction(Probe("p", (), **conditions))


@pytest.mark.parametrize(
    ("condition", "outcome"), [("stop_refused", REFUSED), ("stop_admitted", ADMITTED), ("stop_other", OTHER)]
)
def test_stops_at_the_nth_outcome_of_its_kind(condition: str, outcome: str) -> None:
    """Others do not count."""
    reaction = watch(**{condition: 2})
    story = [outcome, *({REFUSED, ADMITTED, OTHER} - {outcome}), outcome]
    for moment, what in enumerate(story):
        assert math.isinf(reaction.stop_s)
        reaction.sent(moment, moment)
        reaction.ended(moment, what, moment + 0.5)
    assert (reaction.reason, reaction.stop_s) == (outcome, 3.5)


def test_goes_on_for_as_long_as_it_was_told() -> None:
    """``keep_s`` counts from the moment at which the condition came true, and later ends do not move it."""
    reaction = watch(stop_refused=1, keep_s=2.0)
    for call in (1, 2):
        reaction.sent(call, 0.0)
        reaction.ended(call, REFUSED, float(call))
    assert (reaction.stop_s, reaction.wake_s()) == (3.0, 3.0)


def test_silence_counts_as_admitted_from_its_moment_on() -> None:
    """The moment is that of the promise, not that of looking."""
    reaction = watch(stop_admitted=2, admit_after_s=0.3)
    reaction.sent(1, 10.0)
    reaction.sent(2, 10.1)
    assert reaction.wake_s() == pytest.approx(10.3)
    reaction.advance(10.35)
    assert math.isinf(reaction.stop_s)
    reaction.advance(11.0)
    assert (reaction.reason, reaction.stop_s) == (ADMITTED, pytest.approx(10.4))


def test_a_late_refusal_takes_the_presumption_back() -> None:
    """A call that counted as admitted and was refused after all no longer counts."""
    reaction = watch(stop_admitted=2, admit_after_s=0.3)
    reaction.sent(1, 0.0)
    reaction.advance(0.5)
    reaction.ended(1, REFUSED, 0.6)
    reaction.sent(2, 1.0)
    reaction.ended(2, ADMITTED, 1.1)
    assert math.isinf(reaction.stop_s)
    assert reaction.in_flight == 0


def test_an_answered_call_is_not_counted_twice() -> None:
    """Presumed first, admitted later: one."""
    reaction = watch(stop_admitted=2, admit_after_s=0.3)
    reaction.sent(1, 0.0)
    reaction.advance(0.5)
    reaction.ended(1, ADMITTED, 0.6)
    assert math.isinf(reaction.stop_s)
    assert math.isinf(reaction.wake_s())
