"""The dispatcher on a transport made of plain code: what is sent, skipped, dropped, reserved and given up."""

from __future__ import annotations

import json
import time
from random import Random
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from redline import sender as sender_module
from redline.budget import Budget, Spending
from redline.client import Order, Outcome
from redline.execution import BUDGET, COMPLETED, FAILED, INTERRUPTED, Ending, Share, execute, schedules
from redline.plan import Phase
from redline.prompts import SAMPLE_WORDS, Prompts
from redline.record import Ledger
from redline.sender import Sender
from redline.traffic import BudgetEndedError, Pacing, Probe, TargetError
from redline.wire import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Scripted:
    """A transport that answers from a list of statuses (the last one again and again) after a while."""

    def __init__(self, *statuses: int, latency_s: float = 0.0, errors: str = "") -> None:
        self.statuses = list(statuses) or [200]
        self.latency_s = latency_s
        self.errors = errors
        self.orders: list[Order] = []
        self.out = self.most_out = 0
        self.warmed: list[int] = []

    def call(self, order: Order, on_sent: Callable[[float], None]) -> Outcome:
        """Answer with the next status."""
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        self.orders.append(order)
        on_sent(time.monotonic())
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        gevent.sleep(self.latency_s)
        self.out -= 1
        error = self.errors or {200: "", 429: "throttled", 403: "auth"}.get(status, "server_error")
        return Outcome(Answer(status, error, "told so", output_tokens=0), time.monotonic())

    def warm(self, connections: int) -> None:
        """Remember what was asked for."""
        self.warmed.append(connections)

    def count_tokens(self, model: str, prompt: str) -> int | None:
        """Count two tokens a word."""
        del model
        return 2 * len(prompt.split())

    def close(self) -> None:
        """Nothing is open."""


class Bench:
    """A sender with its ledger, on a scripted transport."""

    def __init__(self, path: Path, transport: Scripted, budget: Budget | None = None) -> None:
        self.path = path
        self.ledger = Ledger(self.path)
        self.transport = transport
        self.sender = Sender(
            transport,
            self.ledger,
            time.monotonic,
            url="http://x",
            model="m",
            prompts=Prompts(Random(1)),  # noqa: S311 - words, not secrets
            spending=Spending(budget or Budget()),
        )

    def records(self) -> list[dict[str, Any]]:
        """Read the ledger as it is now."""
        self.ledger.flush()
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def count(self, kind: str) -> int:
        """Count the records of a kind."""
        return sum(record["record"] == kind for record in self.records())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Give a function that makes benches of this test, each with a ledger of its own."""
    made: list[Bench] = []

    def make(transport: Scripted, budget: Budget | None = None) -> Bench:
        made.append(Bench(tmp_path / f"{len(made)}.jsonl", transport, budget))
        return made[-1]

    yield make
    for one in made:
        one.ledger.close()


def test_every_arrival_is_sent_and_ends(bench: Callable[..., Bench]) -> None:
    """In order, each with its planned moment; the refused ones too."""
    rig = bench(Scripted(200, 429, 200, 429))
    report = rig.sender.run(Probe("p", [0.0, 0.0, 0.01, 0.02, 0.02]))
    sent = [record for record in rig.records() if record["record"] == "sent"]
    assert (report.reason, report.skipped) == ("done", 0)
    assert (rig.count("sent"), rig.count("done")) == (5, 5)
    assert [record["call_id"] for record in sent] == [0, 1, 2, 3, 4]
    assert all(record["sent_s"] >= record["planned_s"] for record in sent)
    assert [record["sent_s"] for record in sent] == sorted(record["sent_s"] for record in sent)


def test_in_flight_counts_the_call_itself(bench: Callable[..., Bench]) -> None:
    """Three at once see one, two and three."""
    rig = bench(Scripted(latency_s=0.05))
    rig.sender.run(Probe("p", [0.0, 0.0, 0.0]))
    assert [record["in_flight"] for record in rig.records() if record["record"] == "sent"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("statuses", "conditions", "reason"),
    [
        ((200, 429, 429, 200), {"stop_refused": 2}, "refused"),
        ((429, 200, 200, 429), {"stop_admitted": 2}, "admitted"),
        ((200, 503, 500, 200), {"stop_other": 2}, "other"),
    ],
)
def test_a_stop_condition_ends_the_sending(
    bench: Callable[..., Bench], statuses: tuple[int, ...], conditions: dict[str, int], reason: str
) -> None:
    """Far from the end of the offsets."""
    rig = bench(Scripted(*statuses))
    report = rig.sender.run(Probe("p", [0.01 * k for k in range(1000)], **conditions))
    assert report.reason == reason
    assert rig.count("sent") < 1000
    assert rig.count("sent") == rig.count("done")


def test_calls_that_hang_count_as_admitted_and_are_not_awaited(bench: Callable[..., Bench]) -> None:
    """Without ``drain`` the probe ends while its calls are out; the ledger shows them as censored."""
    rig = bench(Scripted(latency_s=30))
    offsets = [0.005 * k for k in range(500)]
    report = rig.sender.run(Probe("p", offsets, stop_admitted=3, admit_after_s=0.02, drain=False))
    assert report.reason == "admitted"
    assert rig.count("sent") >= 3
    assert rig.count("done") == 0


def test_a_report_never_overtakes_its_own_sends(bench: Callable[..., Bench]) -> None:
    """Whoever hears that a probe has ended has heard of each of its calls before."""
    rig = bench(Scripted(latency_s=30))
    rig.sender.run(Probe("p", [0.0], drain=False))
    assert rig.count("sent") == 1


def test_no_more_in_flight_than_allowed_and_the_rest_is_skipped(bench: Callable[..., Bench]) -> None:
    """Scheduled is sent and skipped; nothing is queued."""
    rig = bench(Scripted(latency_s=0.05))
    report = rig.sender.run(Probe("p", [0.001 * k for k in range(100)], max_in_flight=2))
    assert rig.transport.most_out == 2
    assert rig.count("sent") + report.skipped == 100
    assert rig.transport.warmed == [2]


def test_what_cannot_be_sent_is_recorded_as_dropped(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scheduled is sent and dropped, and nothing blocks."""
    monkeypatch.setattr(sender_module, "MAX_OPEN_CALLS", 4)
    rig = bench(Scripted(latency_s=0.2))
    rig.sender.run(Probe("p", [0.0] * 10))
    assert (rig.count("sent"), rig.count("dropped"), rig.count("done")) == (4, 6, 4)


def test_a_budget_ends_before_the_call_that_it_does_not_cover(bench: Callable[..., Bench]) -> None:
    """Exactly as many calls leave as are paid for, and their answers are awaited."""
    rig = bench(Scripted(latency_s=0.05), Budget(max_requests=3))
    with pytest.raises(BudgetEndedError, match="--max-requests 3 is used up"):
        rig.sender.run(Probe("p", [0.0] * 10))
    assert (rig.count("sent"), rig.count("done")) == (3, 3)


def test_a_day_whose_quota_is_used_up_ends_the_run(bench: Callable[..., Bench]) -> None:
    """No call after the one that said so, in either loop."""
    rig = bench(Scripted(429, errors="daily_quota"))
    for send in (
        lambda: rig.sender.run(Probe("p", [0.01 * k for k in range(1000)])),
        lambda: rig.sender.pace(Pacing(100.0, 1, None, duration_s=5, offered_per_s=100.0)),
        lambda: rig.sender.closed(Probe("p", ()), 2, time.monotonic() + 5),
    ):
        with pytest.raises(BudgetEndedError, match="for the day is used up"):
            send()
    assert rig.count("sent") == rig.count("done") < 20


def test_a_refused_key_ends_the_run(bench: Callable[..., Bench]) -> None:
    """The next call is not tried."""
    rig = bench(Scripted(403))
    with pytest.raises(TargetError, match=r"refused the key \(HTTP 403\): told so"):
        rig.sender.run(Probe("p", [0.01 * k for k in range(1000)]))
    assert rig.count("sent") < 1000


def test_a_defect_of_a_transport_is_an_outcome(bench: Callable[..., Bench]) -> None:
    """The call is in the ledger, as sent when it was tried and as lost."""
    rig = bench(Scripted())
    rig.transport.call = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
    rig.sender.run(Probe("p", [0.0]))
    assert [record["record"] for record in rig.records()] == ["sent", "done"]
    assert rig.records()[1]["error"] == "connection"


def test_pacing_keeps_to_its_limiter(bench: Callable[..., Bench]) -> None:
    """In any stretch no more leave than burst and rate allow, and no more are out than the semaphore lets."""
    rig = bench(Scripted(latency_s=0.03))
    rig.sender.pace(Pacing(50.0, 2, 2, duration_s=0.6, offered_per_s=500.0))
    moments = [record["sent_s"] for record in rig.records() if record["record"] == "sent"]
    assert rig.transport.most_out <= 2
    assert 3 <= len(moments) <= 2 + 50 * 0.6 + 1
    assert rig.count("done") == len(moments)


def test_pacing_never_sends_before_a_call_is_offered(bench: Callable[..., Bench]) -> None:
    """A limiter that would let more through has nothing to let through."""
    rig = bench(Scripted())
    rig.sender.pace(Pacing(None, 1, None, duration_s=0.2, offered_per_s=20.0))
    assert rig.count("sent") <= 4


def test_large_prompts_are_sized_by_the_server_and_begin_differently(bench: Callable[..., Bench]) -> None:
    """The server counts two tokens a word, so a prompt of 100 tokens has 50 words; small ones are not worth asking."""
    rig = bench(Scripted())
    rig.sender.run(Probe("p", [0.0] * 20, prompt_tokens=100))
    prompts = [order.prompt.split() for order in rig.transport.orders]
    assert {len(words) for words in prompts} == {50}
    assert len({tuple(words[:4]) for words in prompts}) == 20
    assert SAMPLE_WORDS > 50


def test_a_closed_loop_keeps_its_callers_busy_and_rests_after_a_refusal(bench: Callable[..., Bench]) -> None:
    """Never more out than callers; a server that refuses at once is not flooded."""
    rig = bench(Scripted(latency_s=0.01))
    rig.sender.closed(Probe("p", ()), 3, time.monotonic() + 0.2)
    assert rig.transport.most_out == 3
    refused = bench(Scripted(429))
    refused.sender.closed(Probe("p", ()), 3, time.monotonic() + 0.2)
    assert refused.count("sent") <= 3 * 5


def run_plan(rig: Bench, *phases: Phase, share: Share = Share()) -> tuple[Ending, list[str]]:  # noqa: B008 - frozen
    """Carry out phases; give the ending and how each phase ended."""
    reasons: list[str] = []
    ending = execute(
        rig.sender,
        phases,
        schedules(phases, 0, share),
        time.monotonic(),
        share=share,
        on_phase=lambda _name, _start, _end, reason: reasons.append(reason),
        now_s=time.monotonic,
    )
    return ending, reasons


def test_phases_follow_each_other(bench: Callable[..., Bench]) -> None:
    """Open and closed, each named in the ledger; idle ones send nothing."""
    rig = bench(Scripted())
    phases = (
        Phase(name="a", shape="constant", duration=0.1, rpm=3000),
        Phase(shape="idle", duration=0.05),
        Phase(name="c", shape="burst", duration=0.05, in_flight=4),
        Phase(name="d", shape="closed", duration=0.05, in_flight=1),
    )
    ending, reasons = run_plan(rig, *phases)
    names = [record["phase"] for record in rig.records() if record["record"] == "sent"]
    assert (ending, reasons) == (Ending(COMPLETED), ["done"] * 4)
    assert (names.count("a"), names.count("c"), names.count("idle")) == (5, 4, 0)
    assert names.count("d") >= 1


@pytest.mark.parametrize(
    ("status", "budget", "ended"), [(200, Budget(max_requests=2), BUDGET), (403, Budget(), FAILED)]
)
def test_a_plan_that_cannot_go_on_says_why(
    bench: Callable[..., Bench], status: int, budget: Budget, ended: str
) -> None:
    """And its phase carries the reason."""
    rig = bench(Scripted(status), budget)
    ending, reasons = run_plan(rig, Phase(shape="constant", duration=5, rpm=6000))
    assert (ending.ended, reasons) == (ended, [ended])
    assert ending.why


def test_a_plan_that_is_stopped_ends_at_once(bench: Callable[..., Bench]) -> None:
    """Calls that are out stay censored."""
    rig = bench(Scripted(latency_s=30))
    gevent.spawn_later(0.1, rig.sender.stop)
    ending, _ = run_plan(rig, Phase(shape="constant", duration=60, rpm=6000))
    assert ending.ended == INTERRUPTED
    assert rig.count("sent") > rig.count("done")
