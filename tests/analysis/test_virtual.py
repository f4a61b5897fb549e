"""The target in virtual time against brute force: its decisions, its clock, its faults and its neighbours."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.virtual import (
    Answer,
    Background,
    Call,
    Faults,
    Network,
    ServerClock,
    Service,
    VirtualLimit,
    VirtualTarget,
    World,
)
from mock_server.limits import (
    ADMITTED,
    UNKNOWABLE,
    AnchoredWindow,
    Concurrency,
    FixedWindow,
    LeakyQueue,
    Random,
    SlidingCounter,
    SlidingLog,
    TokenBucket,
    Verdict,
)

if TYPE_CHECKING:
    from mock_server.limits import Spec

EPOCH_S = 1_000_000.0
STILL = Network(minimum_s=0.01)
AT_ONCE = Service(median_s=1e-6, sigma=0.0)

SPECS: list[Spec] = [
    FixedWindow(5, 10.0, phase_s=3.0),
    AnchoredWindow(4, 7.0),
    SlidingLog(6, 10.0),
    SlidingLog(3, 5.0, count_refused=True),
    SlidingCounter(6, 8.0),
    SlidingCounter(6, 8.0, count_refused=True),
    TokenBucket(0.8, 4.0),
]


@dataclass
class Told:
    """A limiter that notes what it is asked and told, and admits as often as it is bid."""

    admit: bool = True
    log: list[tuple[str, float, float]] = field(default_factory=list)

    def check(self, now_s: float, cost: float = 1) -> Verdict:
        """Answer as bid."""
        self.log.append(("check", now_s, cost))
        return ADMITTED if self.admit else UNKNOWABLE

    def commit(self, now_s: float, cost: float = 1) -> None:
        """Note it."""
        self.log.append(("commit", now_s, cost))

    def refused(self, now_s: float, cost: float = 1) -> None:
        """Note it."""
        self.log.append(("refused", now_s, cost))

    def release(self, now_s: float, cost: float = 1) -> None:
        """Note it."""
        self.log.append(("release", now_s, cost))


@dataclass(frozen=True)
class Telling:
    """The spec of a `Told`."""

    family: ClassVar[str] = "telling"
    state: Told

    def limiter(self, seed: int = 0) -> Told:
        """Give the one state that the test holds."""
        del seed
        return self.state


def world(*specs: Spec, **parts: object) -> World:
    """Give a world with limits on requests, a steady network and a server that takes no time."""
    limits = tuple(VirtualLimit("requests", spec) for spec in specs)
    settings: dict[str, object] = {"network": STILL, "service": AT_ONCE, "clock": ServerClock(EPOCH_S)} | parts
    return World(limits=limits, **settings)  # type: ignore[arg-type]


def play(target: World, sent_s: list[float], *, timeout_s: float = 1e6, seed: int = 1) -> list[Answer]:
    """Send calls at these moments and wait for all answers; returns them in the order of sending."""
    virtual = VirtualTarget(target, np.random.default_rng(seed))
    answers: list[Answer] = []
    for tag, moment_s in enumerate(sent_s):
        while (answer := virtual.step(moment_s)) is not None:
            answers.append(answer)
        virtual.send(Call(tag, moment_s + timeout_s), moment_s)
    end_s = sent_s[-1] + 2e6
    while len(answers) < len(sent_s):
        answer = virtual.step(end_s)
        assert answer is not None
        answers.append(answer)
    return sorted(answers, key=lambda answer: answer.tag)


def brute_force(spec: Spec, arrived_s: list[float]) -> list[bool]:
    """Ask one limiter alone, call by call."""
    state, admitted = spec.limiter(), []
    for moment_s in arrived_s:
        verdict = state.check(moment_s)
        (state.commit if verdict.admitted else state.refused)(moment_s)
        admitted.append(verdict.admitted)
    return admitted


@pytest.mark.parametrize("spec", SPECS, ids=repr)
@given(gaps_s=st.lists(st.floats(0.0, 6.0), min_size=1, max_size=60))
def test_decisions_are_those_of_the_limiter_in_the_order_of_arrival(spec: Spec, gaps_s: list[float]) -> None:
    """Without jitter a call arrives a fixed time after it was sent, on the server's clock."""
    sent_s = np.cumsum(gaps_s).tolist()
    seen = [answer.status == 200 for answer in play(world(spec), sent_s)]
    assert seen == brute_force(spec, [EPOCH_S + (moment_s + 0.01) for moment_s in sent_s])


def test_arrivals_are_spread_and_reordered_and_asked_in_order() -> None:
    """A uniform spread of 0.5 s: the delays fill it evenly, calls overtake, and the limiter's time never goes back."""
    told = Told()
    network = Network(minimum_s=0.1, spread_s=0.5)
    sent_s = [0.001 * k for k in range(4000)]
    answers = play(world(Telling(told), network=network, clock=ServerClock(0.0)), sent_s)
    asked = [moment_s for what, moment_s, _ in told.log if what == "check"]
    assert asked == sorted(asked)
    assert min(asked) >= 0.1
    assert max(asked) <= 4.0 + 0.6
    trips = np.array([answer.done_s - sent_s[answer.tag] for answer in answers])
    assert trips.min() >= 0.2
    assert trips.max() <= 1.2 + 1e-5
    assert np.mean(trips) == pytest.approx(0.7, abs=0.02)
    # Both ways are uniform on half a second: their sum has this deviation.
    assert np.std(trips) == pytest.approx(0.5 / math.sqrt(6), rel=0.05)
    assert sum(a.done_s > b.done_s for a, b in itertools.pairwise(answers)) > 1000


def test_background_arrivals_are_poisson() -> None:
    """A Poisson stream has as much variance as mean in each bin, groups have their size times as much."""
    for group in (1, 8):
        told = Told()
        target = world(Telling(told), background=Background(calls_per_s=20.0, group=group))
        virtual = VirtualTarget(target, np.random.default_rng(5))
        assert virtual.step(2000.0) is None
        moments = [moment_s - EPOCH_S for what, moment_s, _ in told.log if what == "check"]
        counts = np.histogram(moments, bins=400, range=(0.0, 2000.0))[0]
        assert np.mean(counts) == pytest.approx(100.0, rel=0.05)
        assert np.var(counts) / np.mean(counts) == pytest.approx(group, rel=0.3)


def test_all_limits_commit_or_all_hear_of_the_refusal() -> None:
    """One limit refuses: the other commits nothing, and both are told."""
    willing, unwilling = Told(), Told(admit=False)
    assert play(world(Telling(willing), Telling(unwilling)), [0.0])[0].status == 429
    assert [what for what, _, _ in willing.log] == ["check", "refused"]
    assert [what for what, _, _ in unwilling.log] == ["check", "refused"]
    unwilling.admit = True
    willing.log.clear()
    assert play(world(Telling(willing), Telling(unwilling)), [0.0])[0].status == 200
    assert [what for what, _, _ in willing.log] == ["check", "commit"]


def test_a_limit_on_tokens_counts_the_prompt() -> None:
    """A limit on input tokens sees the prompt's size, one on requests sees 1."""
    requests, tokens = Told(), Told()
    limits = (VirtualLimit("requests", Telling(requests)), VirtualLimit("input_tokens", Telling(tokens)))
    virtual = VirtualTarget(World(limits), np.random.default_rng(0))
    virtual.send(Call(0, 100.0, prompt_tokens=700.0), 0.0)
    assert virtual.step(100.0) is not None
    assert {cost for _, _, cost in requests.log} == {1.0}
    assert {cost for _, _, cost in tokens.log} == {700.0}


def test_a_slot_is_free_when_the_server_is_done_not_when_the_client_hears_of_it() -> None:
    """One slot, one second of work, 10 ms each way: a call that arrives right after the end passes."""
    limits = (VirtualLimit("concurrency", Concurrency(1)),)
    target = World(limits, network=STILL, service=Service(median_s=1.0, sigma=0.0))
    statuses = [answer.status for answer in play(target, [0.0, 0.5, 0.995, 1.005])]
    assert statuses == [200, 429, 429, 200]


def test_a_leaky_queue_answers_late() -> None:
    """Each waiting call is served one second after the one before; a full queue refuses."""
    answers = play(world(LeakyQueue(rate_per_s=1.0, burst=3)), [0.0, 0.0, 0.0, 0.0])
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.done_s for answer in answers[:3]] == pytest.approx([0.02, 1.02, 2.02], abs=1e-4)


def test_a_client_that_stops_waiting_leaves_the_server_at_work() -> None:
    """The call is timed out at its deadline, but its slot stays taken."""
    limits = (VirtualLimit("concurrency", Concurrency(1)),)
    target = World(limits, network=STILL, service=Service(median_s=30.0, sigma=0.0))
    first, second = play(target, [0.0, 10.0], timeout_s=5.0)
    assert (first.status, first.error, first.done_s) == (0, "timeout", 5.0)
    assert math.isnan(first.server_date)
    assert second.status == 429


@pytest.mark.parametrize(("before", "passing"), [(False, 0), (True, 3)])
def test_a_fault_spends_quota_unless_it_comes_before_admission(*, before: bool, passing: int) -> None:
    """Twenty calls at a limit of three, all of them failing."""
    told = Told()
    faults = Faults(overloaded=1.0, before_admission=before)
    answers = play(world(SlidingLog(3, 1000.0), Telling(told), faults=faults), [float(k) for k in range(20)])
    failed = sum(answer.status == 503 for answer in answers)
    assert failed == (20 if before else 3)
    assert sum(what == "commit" for what, _, _ in told.log) == 3 - passing


def test_a_call_that_hangs_ends_at_its_deadline() -> None:
    """The server never answers; the quota is spent."""
    answers = play(world(SlidingLog(2, 1000.0), faults=Faults(hang=1.0)), [0.0, 1.0, 2.0], timeout_s=9.0)
    assert [(answer.status, answer.done_s) for answer in answers[:2]] == [(0, 9.0), (0, 10.0)]
    assert answers[2].status == 429


def test_replicas_count_apart() -> None:
    """Four replicas of five: no more than twenty pass, and the first refusal comes before the twentieth call."""
    limits = (VirtualLimit("requests", SlidingLog(5, 1000.0), replicas=4),)
    statuses = [a.status for a in play(World(limits, network=STILL, service=AT_ONCE), [0.1 * k for k in range(200)])]
    assert statuses.count(200) == 20
    assert statuses.index(429) < 20


def test_a_limit_that_changes_keeps_what_was_spent() -> None:
    """A sliding log of four becomes one of six: two more pass at once."""
    limit = VirtualLimit("requests", SlidingLog(4, 1000.0), changes=((5.0, SlidingLog(6, 1000.0)),))
    statuses = [a.status for a in play(World((limit,), network=STILL, service=AT_ONCE), [float(k) for k in range(10)])]
    assert statuses == [200] * 4 + [429] + [200] * 2 + [429] * 3


def test_a_bucket_drains_at_the_old_rate_until_the_change() -> None:
    """Full at 0 s with nothing coming back; the new rate counts from the change on."""
    limit = VirtualLimit("requests", TokenBucket(1e-9, 2), changes=((100.0, TokenBucket(1.0, 2)),))
    statuses = [a.status for a in play(World((limit,), network=STILL, service=AT_ONCE), [0.0, 0.1, 99.0, 100.5, 101.5])]
    assert statuses == [200, 200, 429, 429, 200]


def test_quota_that_was_spent_before_the_run_is_gone() -> None:
    """A day's quota near its end, with details in the refusal; the promised delay is rounded down."""
    limit = VirtualLimit(
        "requests", FixedWindow(1000, 86_400.0), used=998, quota_id="RequestsPerDayPerProject", quota_value=1000
    )
    answers = play(World((limit,), network=STILL, service=AT_ONCE, clock=ServerClock(86_400.0)), [0.0, 0.5, 1.5])
    assert [answer.status for answer in answers] == [200, 200, 429]
    refusal = answers[2]
    assert (refusal.error, refusal.limit) == ("daily_quota", limit)
    assert refusal.retry_delay_s == 86_398.0


def test_a_bare_refusal_names_nothing() -> None:
    """No quota id: no limit, no delay."""
    refusal = play(world(SlidingLog(0, 60.0)), [0.0])[0]
    assert (refusal.status, refusal.error, refusal.limit) == (429, "throttled", None)
    assert math.isnan(refusal.retry_delay_s)


def test_the_date_header_is_the_servers_clock_in_whole_seconds() -> None:
    """Offset and drift: after 1000 s a clock that gains a part in a hundred is 10 s ahead."""
    clock = ServerClock(epoch_s=500.3, drift=0.01)
    early, late = play(world(Random(0.0), clock=clock), [0.0, 1000.0])
    assert early.server_date == 500.0
    assert late.server_date == 1510.0


def test_windows_follow_the_servers_clock() -> None:
    """A clock that runs twice as fast ends its windows twice as early."""
    answers = play(world(FixedWindow(1, 10.0), clock=ServerClock(0.0, drift=1.0)), [0.0, 4.9, 5.1])
    assert [answer.status for answer in answers] == [200, 429, 200]


def test_random_refusals_come_at_their_rate() -> None:
    """A tenth of 5000 calls, give or take four standard deviations."""
    refused = sum(a.status == 429 for a in play(world(Random(0.1)), [0.1 * k for k in range(5000)]))
    assert abs(refused - 500) < 4 * math.sqrt(5000 * 0.1 * 0.9)


def test_equal_seeds_give_equal_answers() -> None:
    """The whole world is a function of the seed; another seed gives another one."""
    target = world(
        SlidingLog(10, 5.0),
        network=Network(0.01, 0.05, 1.5, 6.0),
        service=Service(0.4, 0.5),
        faults=Faults(0.05, 0.02),
        background=Background(1.0, 3),
    )
    sent_s = [0.2 * k for k in range(300)]
    once, again, other = (str(play(target, sent_s, timeout_s=60.0, seed=seed)) for seed in (7, 7, 8))
    assert once == again
    assert once != other
