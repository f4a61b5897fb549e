"""Limits applied together: all let a call in, or none counts it."""

from __future__ import annotations

import math

import pytest

from mock_server.background import Background, BackgroundTable
from mock_server.limits import Concurrency, FixedWindow, LeakyQueue, Random, SlidingLog, TokenBucket
from mock_server.quota import Call, Limit, Quota, retry_after_s


def call(tokens: float = 1, **who: str) -> Call:
    """Make a call of the usual costs."""
    costs = {"requests": 1, "input_tokens": tokens, "concurrency": 1}
    return Call(**({"model": "m", "costs": costs} | who))  # type: ignore[arg-type]


def test_none_commits_where_one_refuses() -> None:
    """A call that tokens refuse leaves no trace in the count of requests."""
    quota = Quota([Limit("requests", SlidingLog(2, 60)), Limit("input_tokens", SlidingLog(100, 60))])
    assert quota.decide(0, call(60)).admitted
    assert not quota.decide(1, call(60)).admitted
    assert quota.decide(2, call(40)).admitted
    assert [v.limit.metric for v in quota.decide(3, call(1)).violations] == ["requests", "input_tokens"]


def test_refusals_are_told_to_every_limit() -> None:
    """A limit that counts refusals counts those of the others too."""
    counting = Limit("requests", FixedWindow(3, 60, count_refused=True))
    quota = Quota([counting, Limit("input_tokens", SlidingLog(10, 60))])
    for moment in (0, 1, 2):
        assert [v.limit.metric for v in quota.decide(moment, call(50)).violations] == ["input_tokens"]
    assert [v.limit.metric for v in quota.decide(3, call(5)).violations] == ["requests"]


def test_the_retry_moment_is_the_last_of_all() -> None:
    """Whoever waits as told meets none of the limits that refused."""
    quota = Quota([Limit("requests", SlidingLog(1, 10)), Limit("requests", SlidingLog(1, 60))])
    quota.decide(5, call())
    decision = quota.decide(6, call())
    assert (decision.retry_at_s, retry_after_s(6, decision)) == (65, 59)


def test_no_delay_is_promised_that_is_not_known() -> None:
    """Neither concurrency nor an impossible call has a moment to wait for."""
    full = Quota([Limit("concurrency", Concurrency(1))])
    full.decide(0, call())
    assert retry_after_s(0, full.decide(0, call())) is None
    impossible = Quota([Limit("input_tokens", SlidingLog(10, 60))]).decide(0, call(11))
    assert impossible.retry_at_s == math.inf
    assert retry_after_s(0, impossible) is None


@pytest.mark.parametrize(
    ("scope", "other", "shared"),
    [
        (("project", "model"), {"key": "another"}, True),
        (("project", "model"), {"model": "another"}, False),
        (("project",), {"model": "another"}, True),
        (("project", "model"), {"project": "another"}, False),
        (("key",), {"key": "another"}, False),
        (("region",), {"region": "europe-west1"}, False),
        ((), {"project": "another", "model": "another", "key": "another"}, True),
    ],
)
def test_the_scope_says_who_shares_a_counter(scope: tuple[str, ...], other: dict[str, str], *, shared: bool) -> None:
    """Calls alike in every word of the scope count together, and no others."""
    quota = Quota([Limit("requests", FixedWindow(1, 60), scope=scope)])
    assert quota.decide(0, call()).admitted
    assert quota.decide(1, call(**other)).admitted is not shared


def test_a_metric_that_a_call_does_not_cost_does_not_apply() -> None:
    """Counting tokens, say, takes no request quota."""
    quota = Quota([Limit("requests", FixedWindow(0, 60))])
    assert quota.decide(0, Call(model="m", costs={"input_tokens": 5})).admitted


def test_release_gives_concurrency_back_and_nothing_else() -> None:
    """A finished call frees its place; the window still remembers it."""
    quota = Quota([Limit("requests", FixedWindow(2, 60)), Limit("concurrency", Concurrency(1))])
    first = quota.decide(0, call())
    assert [v.limit.metric for v in quota.decide(1, call()).violations] == ["concurrency"]
    quota.release(2, first)
    second = quota.decide(3, call())
    quota.release(4, second)
    assert [v.limit.metric for v in quota.decide(5, call()).violations] == ["requests"]


def test_a_queue_answers_late() -> None:
    """The delay of a leaky queue is handed on."""
    quota = Quota([Limit("requests", LeakyQueue(2.0, 10))])
    assert [quota.decide(0, call()).delay_s for _ in range(3)] == [0, 0.5, 1]


def test_counters_draw_from_streams_of_their_own() -> None:
    """Two projects do not share the luck of a random limit, and a seed replays it."""
    quota, again = (Quota([Limit("requests", Random(0.5))], seed=7) for _ in range(2))
    one = [quota.decide(t, call()).admitted for t in range(50)]
    two = [quota.decide(t, call(project="p")).admitted for t in range(50)]
    assert one != two
    assert [again.decide(t, call()).admitted for t in range(50)] == one


def test_a_limit_drifts_on_its_schedule() -> None:
    """Three a window, then one from second 100 on, then five; what was spent stays spent."""
    drifting = Limit("requests", SlidingLog(3, 1000), value=3, changes=((100, 1), (200, 5)))
    quota = Quota([drifting], start_s=0.0)
    assert [quota.decide(t, call()).admitted for t in (1, 2)] == [True, True]
    refused = quota.decide(101, call())
    assert [v.limit.value for v in refused.violations] == [1]
    assert [quota.decide(t, call()).admitted for t in (201, 202, 203, 204)] == [True, True, True, False]


def test_a_buckets_rate_and_burst_change_together() -> None:
    """Half the limit is half the rate and half the burst, from that moment on."""
    quota = Quota([Limit("requests", TokenBucket(1.0, 8), value=60, changes=((4, 30),))], start_s=0.0)
    for _ in range(8):
        assert quota.decide(0, call()).admitted
    refused = quota.decide(4, call())  # half of the water is left, and the bucket holds no more than that now
    assert refused.retry_at_s == pytest.approx(6)
    assert [quota.decide(6, call()).admitted for _ in range(2)] == [True, False]


def test_replicas_count_apart() -> None:
    """Four replicas of two each: the first refusal comes before the eighth call, and eight pass in the end."""
    quota = Quota([Limit("requests", FixedWindow(8, 1000), replicas=4)], seed=1)
    outcomes = [quota.decide(t, call()).admitted for t in range(100)]
    assert sum(outcomes) == 8
    assert not all(outcomes[:8])


def test_the_priority_tier_overflows_into_standard() -> None:
    """Its own limit never refuses; the general one does, and counts its calls."""
    quota = Quota([Limit("requests", FixedWindow(3, 60)), Limit("requests", FixedWindow(1, 60), tier="priority")])
    assert [quota.decide(t, call(tier="priority")).tier for t in range(3)] == ["priority", "standard", "standard"]
    assert not quota.decide(4, call(tier="priority")).admitted
    assert not quota.decide(5, call()).admitted


def test_spend_is_counted_after_the_call() -> None:
    """A call is asked to cost nothing, charged afterwards, and the next one finds the limit passed."""
    quota = Quota([Limit("spend", SlidingLog(1.0, 600), scope=("project",))])
    free = Call(model="m", costs={"spend": 0})
    assert quota.decide(0, free).admitted
    quota.charge(0, free, "spend", 0.7)
    assert quota.decide(1, free).admitted
    quota.charge(1, free, "spend", 0.7)
    assert retry_after_s(2, quota.decide(2, free)) == 598


def test_a_limit_may_be_for_some_models() -> None:
    """Others pass it by."""
    quota = Quota([Limit("requests", FixedWindow(0, 60), models=("m",))])
    assert not quota.decide(0, call()).admitted
    assert quota.decide(0, call(model="n")).admitted


def test_background_uses_the_quota_up() -> None:
    """Others send 120 a minute: of 60 in a minute, none is left before long; a seed replays it."""
    table = BackgroundTable(requests_per_minute=120)
    runs = []
    for _ in range(2):
        others, quota = Background(table, 0.0, seed=5), Quota([Limit("requests", SlidingLog(60, 60))])
        outcomes = []
        for moment in range(0, 60, 5):
            for when, other in others.calls_until(moment, call()):
                quota.decide(when, other)
            outcomes.append(quota.decide(moment, call()).admitted)
        runs.append(outcomes)
    assert runs[0] == runs[1]
    assert runs[0][0]
    assert not any(runs[0][-4:])
