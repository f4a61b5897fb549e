"""The vectorised statistics decide as the state machines do, and order within the spread is nobody's fault."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import decisions, judging, likelihood, replay
from analysis.calls import ADMITTED, PENDING, REFUSED, Calls
from mock_server import limits

if TYPE_CHECKING:
    from analysis.decisions import Record

EXACT = np.zeros(7)


def record_of(spec: limits.Spec, sent_s: list[float], *, counts_refused: bool = False) -> tuple[Record, Calls]:
    """Let the state machine decide, and prepare what it decided."""
    state = spec.limiter()
    outcome = []
    for t in sent_s:
        admitted = state.check(t).admitted
        (state.commit if admitted else state.refused)(t)
        outcome.append(ADMITTED if admitted else REFUSED)
    n = len(sent_s)
    sent = np.array(sent_s)
    calls = Calls(
        sent, sent + 0.01, np.array(outcome), np.ones(n), sent, *(np.full(n, np.nan),) * 2, ("",) * n, ("",) * n
    )
    return decisions.prepare(calls, EXACT, counts_refused=counts_refused, thin=False), calls


CASES = {
    "fixed_window": (limits.FixedWindow(5, 3.1, 0.4), (3.1, 0.4)),
    "anchored_window": (limits.AnchoredWindow(5, 3.1), (3.1,)),
    "sliding_log": (limits.SlidingLog(5, 3.1), (3.1,)),
    "sliding_counter": (limits.SlidingCounter(5, 3.1, 0.4), (3.1, 0.4)),
    "token_bucket": (limits.TokenBucket(1.7, 5), (1.7,)),
}


@pytest.mark.parametrize("family", CASES)
@given(gaps=st.lists(st.integers(1, 900), min_size=1, max_size=200))
def test_statistic_agrees_with_the_state_machine(family: str, gaps: list[int]) -> None:
    """On any history both forms of a family decide alike, call by call."""
    spec, shape = CASES[family]
    # Odd fractions of a second, so that no call falls on a boundary to the last bit.
    times = list(np.cumsum(np.array(gaps) / 997.0) + 0.000137)
    record, _ = record_of(spec, times)
    statistic = judging.statistic(record, family, [shape], 5.0)
    assert likelihood.agreement(record, statistic, 5.0).min() == 1.0


@given(st.lists(st.integers(1, 900), min_size=1, max_size=200), st.floats(0.4, 9.0), st.floats(0.0, 1.0))
def test_a_counter_is_made_of_what_is_counted(gaps: list[int], window_s: float, part: float) -> None:
    """Both forms of it agree at any window and boundary, not only at the true ones."""
    record, _ = record_of(CASES["sliding_counter"][0], list(np.cumsum(np.array(gaps) / 997.0) + 0.000137))
    passed, number, current, last = replay.counted(record, window_s, part * window_s)
    statistic = judging.statistic(record, "sliding_counter", [(window_s, part * window_s)], 5.0)
    np.testing.assert_allclose(statistic[0], current + last * (1.0 - (passed - number)), atol=1e-9)


@pytest.mark.parametrize("family", ["sliding_log", "sliding_counter"])
def test_refused_calls_count_where_they_do(family: str) -> None:
    """With refused calls in the history, the statistic follows the limiter that counts them."""
    rng = random.Random(4)  # noqa: S311 - arrivals, not a secret
    times = list(np.cumsum([rng.expovariate(4.0) for _ in range(400)]))
    spec = (
        limits.SlidingLog(5, 3.1, count_refused=True)
        if family == "sliding_log"
        else limits.SlidingCounter(5, 3.1, 0.4, count_refused=True)
    )
    shape = (3.1,) if family == "sliding_log" else (3.1, 0.4)
    record, _ = record_of(spec, times, counts_refused=True)
    statistic = judging.statistic(record, family, [shape], 5.0)
    assert likelihood.agreement(record, statistic, 5.0).min() == 1.0


def test_a_refusal_may_have_come_after_calls_sent_within_the_spread() -> None:
    """Ten calls sent at once, five admitted in an order that nobody saw: five is the limit, and four is not."""
    n = 10
    sent = np.arange(n) * 0.002
    outcome = np.array([1, 0, 1, 0, 0, 1, 1, 0, 1, 0])
    blank = np.full(n, np.nan)
    calls = Calls(sent, sent + 0.2, outcome, np.ones(n), blank, blank, blank, ("",) * n, ("",) * n)
    record = decisions.prepare(calls, np.linspace(-0.05, 0.05, 7), thin=False)
    statistic = judging.statistic(record, "sliding_log", [(60.0,)], 5.0)
    ll = likelihood.log_likelihood(record, statistic, np.array([[4.0, 5.0, 6.0]]))[0]
    assert ll.argmax() == 1
    assert ll[1] == pytest.approx(0.0, abs=1e-6)


def test_silence_is_admission_and_a_fresh_call_is_open() -> None:
    """A call out for longer than refusals take was let in; one just sent says nothing yet."""

    class Sent:
        def __init__(self, sent_s: float) -> None:
            self.sent_s, self.done_s, self.status = sent_s, float("nan"), None
            self.prompt_tokens, self.quota_id, self.phase = 1, "", ""
            self.server_date = self.retry_delay_s = self.quota_value = float("nan")

    calls = Calls.from_attempts([Sent(0.0), Sent(9.9)], now_s=10.0, answer_s=1.0)
    assert calls.outcome.tolist() == [ADMITTED, PENDING]


def test_a_window_that_refused_has_no_room_until_it_ends() -> None:
    """Where a boundary lies among dense calls is one unknown for all: not late for one call and early for another."""
    sent_s = np.array([*(5.0 + 0.002 * np.arange(100)), 20.0, 40.0, 41.0])
    outcome = np.array([*(ADMITTED,) * 100, REFUSED, ADMITTED, REFUSED])
    n, nothing = len(sent_s), np.full(len(sent_s), np.nan)
    calls = Calls(sent_s, sent_s + 0.1, outcome, np.ones(n), nothing, nothing, nothing, ("",) * n, ("",) * n)
    record = decisions.prepare(calls, np.linspace(-0.05, 0.05, 7), thin=False)
    statistic = replay.fixed_window(record, np.array([60.0]), np.array([5.1]))
    for limit in range(1, 102):
        agrees = likelihood.agreement(record, statistic, float(limit))
        assert agrees[-3] == 0.0 or agrees[-2] == 0.0
