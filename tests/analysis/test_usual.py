"""Where delays vary by much of a window the right limiter is contradicted, too: by about as much as it usually is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from analysis import again
from analysis.agreement import likelihood_of, recorded, replayed
from analysis.calls import ADMITTED, EXCUSED, Calls, arrival_offsets
from analysis.misfit import Misfit, misfit_of
from analysis.search import Hypothesis
from analysis.usual import usual
from mock_server import limits

if TYPE_CHECKING:
    from collections.abc import Callable

RIGHT = Hypothesis("anchored_window", 20.0, 20.0, 1.0, None, False, True, 0.0, 0.0)  # noqa: FBT003
SEEDS = range(4)


@pytest.fixture(scope="module")
def record(filled: Callable[..., Calls]) -> Callable[[int], Calls]:
    """Return what makes calls at a limit's own rate, whose delays vary by a third of its window."""
    return lambda seed: filled(limits.AnchoredWindow(20, 1.0), seed, per_s=20.0, times=60)


def left_over(h: Hypothesis, calls: Calls) -> Misfit:
    """Return what a limit does not account for, with what is usual still in it."""
    its = recorded(h, calls, arrival_offsets(calls))
    return replace(misfit_of(its, replayed(h, its), h.limit), loss=-likelihood_of(h, its))


def test_nobody_is_suspected_of_what_the_right_limit_leaves_over(record: Callable[[int], Calls]) -> None:
    """It looks like others on the quota, but is what this limit leaves over of its own answers."""
    for seed in SEEDS:
        calls = record(seed)
        seen, known = left_over(RIGHT, calls), usual(RIGHT, calls, arrival_offsets(calls))
        assert seen.kind() == "background"
        assert replace(seen, usual=known.missed, usual_loss=known.loss).kind() is None


@pytest.mark.parametrize("calls_too_many", [-3.0, 4.0])
def test_a_wrong_one_leaves_over_more(record: Callable[[int], Calls], calls_too_many: float) -> None:
    """Some calls more or less, and it would have answered otherwise."""
    wrong = msgspec.structs.replace(RIGHT, limit=20.0 + calls_too_many, rate_per_s=20.0 + calls_too_many)
    for seed in SEEDS:
        calls = record(seed)
        known = usual(wrong, calls, arrival_offsets(calls))
        seen = left_over(wrong, calls)
        assert seen.loss > known.loss
        assert replace(seen, usual=known.missed, usual_loss=known.loss).kind() is not None


def test_a_long_record_is_allowed_as_much_more(record: Callable[[int], Calls], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many calls only the first are sent again: the others are taken to be like them."""
    calls = record(1)
    whole = usual(RIGHT, calls, arrival_offsets(calls))
    monkeypatch.setattr(again, "FIRST", len(calls) // 3)
    assert usual(RIGHT, calls, arrival_offsets(calls)).loss == pytest.approx(whole.loss, rel=0.5)


def test_what_is_excused_stands_for_nothing(record: Callable[[int], Calls]) -> None:
    """Refusals of another limit are not sent again, and allow for no more."""
    calls = record(1)
    ours = np.arange(0, len(calls), 2)
    others = replace(calls, outcome=np.where(np.isin(np.arange(len(calls)), ours), calls.outcome, EXCUSED))
    offsets_s = arrival_offsets(calls)
    assert usual(RIGHT, others, offsets_s) == usual(RIGHT, calls.take(ours), offsets_s)


def test_what_is_sent_again_stays_a_record(record: Callable[[int], Calls]) -> None:
    """Every call keeps its moment, each is answered after it was sent, and other draws refuse others."""
    calls = record(2)
    first, second = again.resent(calls, RIGHT, 2)
    assert np.array_equal(first.sent_s, calls.sent_s)
    assert bool((first.done_s > first.sent_s).all())
    assert not np.array_equal(first.outcome, second.outcome)
    passed = [float(np.mean(c.outcome == ADMITTED)) for c in (calls, first, second)]
    assert passed[1:] == pytest.approx([passed[0]] * 2, abs=0.05)


def test_what_is_usual_is_not_counted() -> None:
    """Neither as contradictions, nor as a bad fit."""
    seen = Misfit(early=6, over=3, loss=90.0, refusals=40)
    assert (seen.total, seen.kind()) == (9, "background")
    blurred = replace(seen, usual=7, usual_loss=80.0)
    assert (blurred.total, blurred.kind()) == (2, "background")
    assert replace(blurred, usual_loss=95.0).kind() is None
    assert replace(seen, usual=12).total == 0
