"""Who conducts a run and who takes part: orders, reports, budgets that are shared out, and workers that vanish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.budget import Budget
from redline.execution import Ending, Share
from redline.plan import Phase
from redline.record import read_run_file
from redline.session import Conductor, Order, Report, Wanted, _divided

if TYPE_CHECKING:
    from pathlib import Path

PHASES = (Phase(shape="constant", duration="10s", rpm=60),)


def conduct(folder: Path, workers: list[str], budget: Budget | None = None) -> tuple[Conductor, dict[str, Order]]:
    """Start a conductor; give it and the orders that the workers got."""
    orders: dict[str, Order] = {}

    def tell(name: str, data: dict[str, Any]) -> None:
        orders[name] = msgspec.convert(data, Order)

    wanted = Wanted("ramp", "http://x", "m", "fast", 7, str(folder), budget or Budget(), PHASES)
    conductor = Conductor(wanted, workers, tell)
    conductor.start()
    return conductor, orders


def reported(worker: int, ended: str, why: str = "") -> dict[str, Any]:
    """Make a worker's report as it arrives."""
    clock = {"wall_s": 1.0, "monotonic_s": 2.0}
    report = Report(worker, ended, why, clock, [("constant", 0.0, 10.0 + worker, "done")])
    data: dict[str, Any] = msgspec.to_builtins(report)
    return data


def test_each_worker_gets_its_place_and_all_one_start(tmp_path: Path) -> None:
    """Everything that a worker needs is in its order."""
    conductor, orders = conduct(tmp_path, ["a", "b"])
    assert [(orders[name].worker, orders[name].workers) for name in "ab"] == [(0, 2), (1, 2)]
    assert len({order.starts_wall_s for order in orders.values()}) == 1
    assert orders["a"].phases == list(PHASES)
    assert orders["a"].run_dir == str(conductor.run_dir)


@pytest.mark.parametrize(
    ("first", "second", "ended"),
    [
        ("completed", "completed", "completed"),
        ("completed", "budget", "budget"),
        ("failed", "budget", "failed"),
        ("interrupted", "completed", "interrupted"),
    ],
)
def test_a_run_ends_as_its_worst_part_did(tmp_path: Path, first: str, second: str, ended: str) -> None:
    """`run.json` holds that, the clocks of both, and the time that the longer one took."""
    conductor, _ = conduct(tmp_path, ["a", "b"])
    conductor.heard(reported(1, second, "because"))
    conductor.heard(reported(0, first, "because"))
    assert conductor.follow(lambda: 2) == Ending(ended, "because")
    run = read_run_file(conductor.run_dir)
    assert (run["ended"], run["wall_s"], run["clocks"].keys()) == (ended, 11.0, {"0", "1"})
    assert run["phases"] == [{"name": "constant", "start_s": 0.0, "end_s": 10.0, "reason": "done"}]


def test_a_worker_that_vanished_is_not_waited_for(tmp_path: Path) -> None:
    """What the other one did is kept, and the run has failed."""
    conductor, _ = conduct(tmp_path, ["a", "b"])
    conductor.heard(reported(0, "completed"))
    assert conductor.follow(lambda: 0) == Ending("failed", "1 of 2 workers vanished")
    assert read_run_file(conductor.run_dir)["ended"] == "failed"


def test_only_the_first_end_counts(tmp_path: Path) -> None:
    """An interruption that was written stays."""
    conductor, _ = conduct(tmp_path, ["a"])
    conductor.finish("interrupted")
    conductor.finish("completed")
    assert read_run_file(conductor.run_dir)["ended"] == "interrupted"


@given(st.integers(1, 9), st.integers(0, 500), st.floats(0, 100))
def test_budgets_are_shared_out_exactly(workers: int, requests: int, usd: float) -> None:
    """Together the parts are the whole; the time is everybody's."""
    budget = Budget(max_requests=requests, max_usd=usd, max_duration_s=9.0)
    parts = [_divided(budget, Share(worker, workers)) for worker in range(workers)]
    assert sum(part.max_requests or 0 for part in parts) == requests
    assert sum(part.max_usd or 0 for part in parts) == pytest.approx(usd)
    assert {part.max_duration_s for part in parts} == {9.0}
    assert all(part.max_input_tokens is None for part in parts)
