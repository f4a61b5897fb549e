"""What a probe and a pacing mean, as tables in virtual time. The Locust sender is held to the same document."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.virtual import Network, Service, VirtualLimit, World
from mock_server.limits import Concurrency, Random, SlidingLog, TokenBucket
from redline.budget import Budget, Spending
from redline.simulated import SimulatedTraffic
from redline.traffic import BudgetEndedError, Pacing, Probe

WAY_S = 0.1  # one way: a refusal is known 0.2 s after it was sent
WORK_S = 1.0  # an admission 1.2 s after


def traffic(limit: float = 1e9, **options: object) -> SimulatedTraffic:
    """Give a sender to a target that admits ``limit`` calls and works a second on each."""
    world = World(
        (VirtualLimit("requests", SlidingLog(limit, 1e6)),),
        network=Network(minimum_s=WAY_S),
        service=Service(median_s=WORK_S, sigma=0.0),
    )
    return SimulatedTraffic(world, **options)  # type: ignore[arg-type]


def every(gap_s: float, count: int) -> tuple[float, ...]:
    """Give evenly spaced offsets."""
    return tuple(gap_s * k for k in range(count))


def test_all_offsets_are_sent_on_time_and_answered() -> None:
    """A probe with no stop rule sends everything and waits for the last answer."""
    sender = traffic()
    report = sender.run(Probe("p", (0.0, 0.5, 3.0), start_s=10.0))
    assert [attempt.sent_s for attempt in sender.attempts] == [10.0, 10.5, 13.0]
    assert [attempt.done_s for attempt in sender.attempts] == pytest.approx([11.2, 11.7, 14.2])
    assert (report.started_s, report.reason, report.first, report.last) == (10.0, "done", 0, 3)
    assert report.ended_s == sender.now_s() == pytest.approx(14.2)


def test_a_start_that_has_passed_is_now() -> None:
    """The zero of the second probe lies in the past."""
    sender = traffic()
    sender.run(Probe("p", (0.0,)))
    report = sender.run(Probe("q", (0.0, 1.0), start_s=0.5))
    assert report.started_s == pytest.approx(1.2)
    assert [attempt.sent_s for attempt in sender.attempts[1:]] == pytest.approx([1.2, 2.2])


@pytest.mark.parametrize(
    ("rule", "limit", "sent", "reason", "ended_s"),
    [
        # Refusals of the calls 3, 4, 5 (sent 0.3, 0.4, 0.5) are known at 0.5, 0.6, 0.7.
        ({"stop_refused": 1}, 3, 5, "refused", 0.5),
        ({"stop_refused": 3}, 3, 7, "refused", 0.7),
        ({"stop_refused": 1, "keep_s": 0.25}, 3, 8, "refused", 0.75),
        # The first admission is known at 1.2, and one more each tenth of a second.
        ({"stop_admitted": 1}, 99, 12, "admitted", 1.2),
        ({"stop_admitted": 3}, 99, 14, "admitted", 1.4),
        # Silence for 0.45 s counts as an admission: the call of 0.0 at 0.45.
        ({"stop_admitted": 1, "admit_after_s": 0.45}, 99, 5, "admitted", 0.45),
        ({"stop_admitted": 2, "admit_after_s": 0.45, "keep_s": 0.1}, 99, 7, "admitted", 0.65),
        # Refusals answer in time, so silence is counted for the calls that were let in only.
        ({"stop_admitted": 4, "admit_after_s": 0.45}, 3, 30, "done", 2.9),
        # What comes first decides.
        ({"stop_refused": 1, "stop_admitted": 1}, 3, 5, "refused", 0.5),
        ({"stop_other": 1}, 3, 30, "done", 2.9),
    ],
)
def test_a_stop_rule_reacts_to_what_has_come_back(
    rule: dict[str, float], limit: float, sent: int, reason: str, ended_s: float
) -> None:
    """Thirty calls, one each tenth of a second; the probe ends as soon as sending ends."""
    sender = traffic(limit)
    report = sender.run(Probe("p", every(0.1, 30), drain=False, **rule))  # type: ignore[arg-type]
    assert (len(sender.attempts), report.reason) == (sent, reason)
    assert report.ended_s == sender.now_s() == pytest.approx(ended_s)


def test_a_late_answer_of_a_silent_call_counts_once() -> None:
    """Each of five calls is counted by its silence; their answers must not bring the count to six."""
    sender = traffic()
    offsets = (*every(0.1, 5), 4.0)
    report = sender.run(Probe("p", offsets, stop_admitted=6, admit_after_s=0.45, drain=False))
    assert (report.reason, len(sender.attempts)) == ("done", 6)


def test_a_probe_that_stops_between_two_calls_ends_there() -> None:
    """The refusal is known at 0.2 s; the next call was due at 50 s."""
    sender = traffic(limit=0)
    report = sender.run(Probe("p", (0.0, 50.0), stop_refused=1))
    assert (report.reason, len(sender.attempts)) == ("refused", 1)
    assert report.ended_s == pytest.approx(0.2)


def test_answers_that_are_out_when_a_probe_ends_arrive_later() -> None:
    """Without drain the attempt is pending, and is filled in while time passes."""
    sender = traffic()
    sender.run(Probe("p", (0.0,), drain=False))
    attempt = sender.attempts[0]
    assert (attempt.status, attempt.outcome) == (None, "pending")
    assert math.isnan(attempt.done_s)
    sender.sleep_until(1.0)
    assert attempt.status is None
    sender.sleep_until(2.0)
    assert (attempt.outcome, sender.now_s()) == ("admitted", 2.0)
    assert attempt.done_s == pytest.approx(1.2)


def test_answers_to_an_earlier_probe_do_not_stop_a_later_one() -> None:
    """The first probe's refusals come back while the second one is sending."""
    sender = traffic(limit=0)
    sender.run(Probe("p", every(0.0, 5), drain=False))
    report = sender.run(Probe("q", every(0.05, 3), stop_refused=1, drain=False))
    assert (report.reason, report.first, report.last) == ("done", 5, 8)


def test_a_drain_waits_for_its_own_calls_only() -> None:
    """A call of the first probe, two seconds from its end, does not hold the second one."""
    world = World(
        (VirtualLimit("requests", SlidingLog(1, 1e6)),), network=Network(WAY_S), service=Service(30.0, sigma=0.0)
    )
    sender = SimulatedTraffic(world)
    sender.run(Probe("p", (0.0,), drain=False))
    report = sender.run(Probe("q", (0.0,)))
    assert report.ended_s == pytest.approx(0.2)


def test_calls_beyond_max_in_flight_are_skipped_not_queued() -> None:
    """Two slots; a call takes 1.2 s. Sent at 0 and 0.5; then the first slot is free at 1.2."""
    sender = traffic()
    report = sender.run(Probe("p", every(0.5, 5), max_in_flight=2))
    assert [attempt.sent_s for attempt in sender.attempts] == [0.0, 0.5, 1.5, 2.0]
    assert report.skipped == 1


def test_a_call_without_an_answer_ends_at_its_timeout() -> None:
    """It counts as another failure, and the drain waits no longer than for it."""
    sender = traffic()
    report = sender.run(Probe("p", (0.0, 9.0), timeout_s=0.7, stop_other=1))
    attempt = sender.attempts[0]
    assert (attempt.status, attempt.error, attempt.outcome) == (0, "timeout", "other")
    assert (report.reason, len(sender.attempts)) == ("other", 1)
    assert report.ended_s == pytest.approx(0.7)


def test_an_attempt_tells_what_the_refusal_named() -> None:
    """Quota id, metric, value and delay reach the attempt; an admitted one has its output tokens."""
    limit = VirtualLimit("requests", SlidingLog(1, 60.0), quota_id="PerMinute", quota_value=1.0)
    sender = SimulatedTraffic(World((limit,), network=Network(WAY_S), service=Service(WORK_S, sigma=0.0)))
    sender.run(Probe("p", (0.0, 1.5), prompt_tokens=7, output_tokens=3))
    passed, refused = sender.attempts
    assert (passed.prompt_tokens, passed.output_tokens, passed.quota_id) == (7, 3, "")
    assert (refused.quota_id, refused.quota_metric, refused.quota_value) == ("PerMinute", "requests", 1.0)
    assert (refused.retry_delay_s, refused.output_tokens) == (58.0, 0)


def test_the_budget_ends_a_probe_before_the_call_that_would_exceed_it() -> None:
    """Three calls are paid for: they go out and are answered, the fourth is not sent."""
    sender = traffic(max_requests=3)
    with pytest.raises(BudgetEndedError, match="3 calls"):
        sender.run(Probe("p", every(0.1, 9)))
    assert [attempt.outcome for attempt in sender.attempts] == ["admitted"] * 3
    late = traffic(max_duration_s=0.25)
    with pytest.raises(BudgetEndedError, match=r"0\.25 s"):
        late.run(Probe("p", every(0.1, 9)))
    assert len(late.attempts) == 3


def test_every_kind_of_budget_is_kept() -> None:
    """Prompts of forty tokens under a budget of a hundred: two go out. Refused calls give theirs back."""
    sender = traffic(spending=Spending(Budget(max_input_tokens=100)))
    with pytest.raises(BudgetEndedError, match="max-input-tokens"):
        sender.run(Probe("p", every(0.1, 9), prompt_tokens=40))
    assert len(sender.attempts) == 2
    refused = traffic(limit=0, spending=Spending(Budget(max_input_tokens=100, max_throttled_calls=20)))
    refused.run(Probe("p", every(0.5, 9), prompt_tokens=40))
    assert len(refused.attempts) == 9


def test_pacing_sends_what_the_limiter_lets_go() -> None:
    """Rate 2 per s and burst 3 under an offer of 10 per s: three at once as they come, then one each half second."""
    sender = traffic()
    report = sender.pace(Pacing(2.0, 3.0, None, duration_s=3.0, offered_per_s=10.0))
    sent = [attempt.sent_s for attempt in sender.attempts]
    assert sent == pytest.approx([0.0, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 2.5])
    assert [attempt.planned_s for attempt in sender.attempts] == pytest.approx([0.1 * k for k in range(8)])
    assert report.ended_s == pytest.approx(3.7)  # the last answer
    assert all(attempt.outcome == "admitted" for attempt in sender.attempts)


def test_pacing_waits_for_a_slot() -> None:
    """One slot: the next call leaves when the answer of the one before has come."""
    sender = traffic()
    sender.pace(Pacing(None, 1.0, 1, duration_s=4.0, offered_per_s=10.0, start_s=1.0))
    assert [attempt.sent_s for attempt in sender.attempts] == pytest.approx([1.0, 2.2, 3.4, 4.6])


def test_pacing_below_the_offer_follows_the_offer() -> None:
    """A limiter that is never full holds nothing back."""
    sender = traffic()
    sender.pace(Pacing(100.0, 10.0, 50, duration_s=2.0, offered_per_s=4.0))
    assert [attempt.sent_s for attempt in sender.attempts] == pytest.approx([0.25 * k for k in range(8)])


@given(
    rate=st.floats(0.5, 20.0),
    burst=st.integers(1, 8),
    slots=st.none() | st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_pacing_never_breaks_its_own_limits(rate: float, burst: int, slots: int | None, seed: int) -> None:
    """Whatever the latency: never more than burst + rate x in an interval of x, never more than the slots."""
    world = World(
        (VirtualLimit("requests", TokenBucket(5.0, 10.0)),),
        network=Network(0.01, 0.05),
        service=Service(0.3, 0.8),
    )
    sender = SimulatedTraffic(world, seed=seed)
    sender.pace(Pacing(rate, float(burst), slots, duration_s=5.0, offered_per_s=30.0))
    sent = np.array([attempt.sent_s for attempt in sender.attempts])
    done = np.array([attempt.done_s for attempt in sender.attempts])
    for first in range(len(sent)):
        counts = np.arange(1, len(sent) - first + 1)
        assert np.all(counts <= burst + rate * (sent[first:] - sent[first]) + 1e-6)
    if slots is not None:
        assert all(np.sum((sent <= moment_s) & (done > moment_s)) <= slots for moment_s in sent)


def test_equal_seeds_give_equal_runs() -> None:
    """Two runs alike, attempt by attempt; another seed differs."""

    def run(seed: int) -> str:
        limits = (VirtualLimit("requests", Random(0.2)), VirtualLimit("concurrency", Concurrency(4)))
        sender = SimulatedTraffic(World(limits, network=Network(0.01, 0.2), service=Service(0.5, 0.6)), seed=seed)
        sender.run(Probe("p", every(0.1, 50), stop_refused=12, keep_s=0.5))
        sender.pace(Pacing(3.0, 2.0, 3, duration_s=10.0, offered_per_s=5.0))
        return str(sender.attempts)

    assert run(3) == run(3)
    assert run(3) != run(4)
