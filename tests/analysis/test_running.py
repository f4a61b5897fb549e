"""A record that is read while it grows is the one that is read at its end."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.calls import Calls
from analysis.running import RunningCalls


@dataclass
class Sent:
    """An attempt without an answer yet."""

    sent_s: float
    done_s: float = nan
    status: int | None = None
    prompt_tokens: int = 1
    server_date: float = nan
    retry_delay_s: float = nan
    quota_value: float = nan
    quota_id: str = ""
    phase: str = "fill"


STEPS = st.lists(st.tuples(st.booleans(), st.floats(0.0, 1.0), st.sampled_from([200, 429, 503])), max_size=40)


@given(STEPS)
def test_each_look_says_what_a_fresh_one_says(steps: list[tuple[bool, float, int]]) -> None:
    """Whatever was sent or answered between two looks, in whatever order."""
    attempts: list[Sent] = []
    running, now_s = RunningCalls(attempts), 0.0
    for send, where, status in steps:
        now_s += 0.5
        waiting = [a for a in attempts if a.status is None]
        if send or not waiting:
            attempts.append(Sent(now_s - where))  # sent a little before, it may stand behind a later one
        else:
            answered = waiting[int(where * (len(waiting) - 1))]
            answered.done_s, answered.quota_id, answered.status = now_s, "per minute", status
        for answer_s in (0.0, 1.0, inf):
            fresh = Calls.from_attempts(attempts, now_s=now_s, answer_s=answer_s)
            seen = running.calls(now_s, answer_s)
            for name in ("sent_s", "done_s", "outcome", "tokens"):
                np.testing.assert_array_equal(getattr(seen, name), getattr(fresh, name))
            assert (seen.quota_id, seen.phase) == (fresh.quota_id, fresh.phase)
