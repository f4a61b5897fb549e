"""When a target is given up: at once where no further call would help, else only after many failures in a row."""

from __future__ import annotations

import pytest

from redline.client import Outcome
from redline.health import LOST_IN_A_ROW, REFUSED_IN_A_ROW, STRANGE_IN_A_ROW, Health
from redline.wire import Answer


def saw(*outcomes: Outcome) -> str | None:
    """Tell a fresh judge of these outcomes."""
    health = Health("http://x", "m")
    for outcome in outcomes:
        health.ended(outcome)
    return health.fatal


def ended(status: int, error: str = "", *, refused: bool = False) -> Outcome:
    """Make an outcome."""
    return Outcome(Answer(status, error, "its\n words"), 0.0, refused=refused)


GOOD, THROTTLED = ended(200), ended(429, "throttled")
LOST = ended(0, "connection")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (ended(400, "auth"), "http://x refused the key (HTTP 400): its words"),
        (ended(403, "auth"), "http://x refused the key (HTTP 403): its words"),
        (ended(402, "billing"), "http://x asks for payment (HTTP 402): its words"),
        (ended(404, "invalid"), "http://x has no model 'm' (--model): its words"),
        (ended(400, "invalid"), "http://x rejects the calls (HTTP 400): its words"),
    ],
)
def test_hopeless_answers_end_the_run_at_once_in_one_line(outcome: Outcome, said: str) -> None:
    """The server's words stay on one line."""
    assert saw(outcome) == said


@pytest.mark.parametrize("outcome", [ended(404, "invalid"), ended(400, "invalid")])
def test_a_target_that_has_answered_may_reject_a_call(outcome: Outcome) -> None:
    """Then it is that call which is wrong, as a prompt that is too long."""
    assert saw(GOOD, outcome) is None
    assert saw(THROTTLED, outcome) is None


@pytest.mark.parametrize(
    ("failure", "count"),
    [
        (ended(0, "connection", refused=True), REFUSED_IN_A_ROW),
        (LOST, LOST_IN_A_ROW),
        (ended(200, "malformed"), STRANGE_IN_A_ROW),
    ],
)
def test_failures_must_come_in_a_row(failure: Outcome, count: int) -> None:
    """One good answer between, and the count starts anew."""
    assert saw(*[failure] * (count - 1)) is None
    assert saw(*[failure] * count) is not None
    assert saw(*[failure] * (count - 1), GOOD, *[failure] * (count - 1)) is None


@pytest.mark.parametrize("failure", [ended(503, "overloaded"), ended(500, "server_error"), ended(0, "timeout")])
def test_an_overloaded_server_is_not_given_up(failure: Outcome) -> None:
    """That is for the plan to judge."""
    assert saw(*[failure] * 200) is None


def test_a_quota_of_the_day_that_is_used_up_is_told_with_its_name() -> None:
    """Not a failure of the target: what was learnt until then counts."""
    health = Health("http://x", "m")
    health.ended(THROTTLED)
    assert health.day_over is None
    health.ended(Outcome(Answer(429, "daily_quota", quota_id="RequestsPerDay"), 0.0))
    assert (health.fatal, health.day_over) == (None, "the quota of 'm' for the day is used up (RequestsPerDay)")
