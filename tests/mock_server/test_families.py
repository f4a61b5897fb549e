"""One conformance suite for all families: a family gets its tests by being registered."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server.limits import (
    FAMILIES,
    PACIFIC_DAY,
    AnchoredWindow,
    Concurrency,
    FixedWindow,
    LeakyQueue,
    Random,
    SlidingCounter,
    SlidingLog,
    Spec,
    TokenBucket,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Decides = Callable[[list[tuple[float, float]], float, float], bool]
    Oracle = Callable[[Spec], Decides]

# Steps of 1/64 s and powers of two are exact in floats, so the oracle's fractions and the state agree to the call.
GRID_S = 1 / 64
grid = st.integers(0, 40).map(lambda steps: steps * GRID_S)
limits = st.integers(0, 12)
windows = st.integers(1, 64).map(lambda steps: steps / 4)
dyadic_windows = st.integers(-1, 3).map(lambda power: 2.0**power)
phases = st.integers(0, 16).map(lambda steps: steps / 16)
dyadic_rates = st.integers(-2, 4).map(lambda power: 2.0**power)
epochs = st.sampled_from([0.0, 1_763_900_000.0])
counts = st.booleans()

SPECS: dict[str, st.SearchStrategy[Any]] = {
    "fixed_window": st.builds(FixedWindow, limits, windows, phases, counts),
    "anchored_window": st.builds(AnchoredWindow, limits, windows, counts),
    "sliding_log": st.builds(SlidingLog, limits, windows, counts),
    "sliding_counter": st.builds(SlidingCounter, limits, dyadic_windows, phases, counts),
    "token_bucket": st.builds(TokenBucket, dyadic_rates, limits, counts),
    "leaky_queue": st.builds(LeakyQueue, dyadic_rates, limits, counts),
    "concurrency": st.builds(Concurrency, limits),
    "random": st.builds(Random, st.floats(0, 1)),
}
# The same families with numbers that no float holds exactly: the promises must survive rounding.
ROUGH: dict[str, st.SearchStrategy[Any]] = {
    "fixed_window": st.builds(FixedWindow, limits, st.floats(0.01, 90), st.floats(0, 90)),
    "anchored_window": st.builds(AnchoredWindow, limits, st.floats(0.01, 90)),
    "sliding_log": st.builds(SlidingLog, limits, st.floats(0.01, 90)),
    "sliding_counter": st.builds(SlidingCounter, limits, st.floats(0.01, 90), st.floats(0, 90)),
    "token_bucket": st.builds(TokenBucket, st.floats(0.01, 50), st.floats(0, 12)),
    "leaky_queue": st.builds(LeakyQueue, st.floats(0.01, 50), st.floats(0, 12)),
}
TIMED = sorted(ROUGH)
calls = st.lists(st.tuples(grid, st.integers(1, 4)), max_size=80)
rough_calls = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 4)), min_size=1, max_size=40)


def test_every_family_is_under_test() -> None:
    """A family that is registered and missing here would go unproved."""
    assert set(SPECS) == set(FAMILIES)


def play(spec: Spec, moments: list[tuple[float, float]], epoch_s: float = 0.0) -> tuple[Any, float]:
    """Drive a fresh state through (gap, cost) calls as a server does; return it and the last moment."""
    state, now_s = spec.limiter(), epoch_s
    for gap_s, cost in moments:
        now_s += gap_s
        if state.check(now_s, cost).admitted:
            state.commit(now_s, cost)
        else:
            state.refused(now_s, cost)
    return state, now_s


def image(state: object) -> str:
    """Return everything that a state holds, as text."""
    names = [name for kind in type(state).__mro__ for name in getattr(kind, "__slots__", ())]
    values = {name: getattr(state, name) for name in names}
    return repr({n: v.getstate() if isinstance(v, random.Random) else v for n, v in values.items()})


def for_every_family(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test once for each registered family."""
    return pytest.mark.parametrize("family", sorted(FAMILIES))(test)


@for_every_family
@given(data=st.data(), moments=calls, cost=st.integers(1, 20), ahead_s=grid)
def test_a_check_changes_nothing(
    family: str, data: st.DataObject, moments: list[tuple[float, float]], cost: int, ahead_s: float
) -> None:
    """Asking, also about the future, leaves the state as it was and gives the same answer twice."""
    state, now_s = play(data.draw(SPECS[family]), moments)
    before = image(state)
    first = state.check(now_s + ahead_s, cost)
    state.check(now_s + 1000.0, cost)
    assert image(state) == before
    assert state.check(now_s + ahead_s, cost) == first


@pytest.mark.parametrize("family", TIMED)
@given(data=st.data(), moments=rough_calls, cost=st.integers(1, 4), epoch_s=epochs)
def test_the_promised_moment_is_exact(
    family: str, data: st.DataObject, moments: list[tuple[float, float]], cost: int, epoch_s: float
) -> None:
    """A refused call passes at ``retry_at_s`` and not one float earlier."""
    state, now_s = play(data.draw(ROUGH[family]), moments, epoch_s)
    verdict = state.check(now_s, cost)
    if verdict.admitted or verdict.retry_at_s == math.inf:
        return
    assert verdict.retry_at_s > now_s
    assert state.check(verdict.retry_at_s, cost).admitted
    assert not state.check(math.nextafter(verdict.retry_at_s, -math.inf), cost).admitted


@pytest.mark.parametrize("family", TIMED)
@given(data=st.data(), moments=rough_calls)
def test_a_call_larger_than_the_limit_never_passes(
    family: str, data: st.DataObject, moments: list[tuple[float, float]]
) -> None:
    """Its promised moment is infinity, however long one waits."""
    state, now_s = play(data.draw(ROUGH[family]), moments)
    verdict = state.check(now_s, 100)
    assert verdict.retry_at_s == math.inf
    assert not state.check(now_s + 1e9, 100).admitted


@pytest.mark.parametrize("family", TIMED)
@given(data=st.data(), moments=st.lists(st.tuples(grid, st.integers(1, 4)), max_size=150), epoch_s=epochs)
def test_the_state_machine_agrees_with_brute_force(
    oracle: Oracle, family: str, data: st.DataObject, moments: list[tuple[float, float]], epoch_s: float
) -> None:
    """Call by call, the small state decides as the definition does over the whole history."""
    spec = data.draw(SPECS[family])
    agree(oracle(spec), spec, moments, epoch_s)


@pytest.mark.parametrize("family", TIMED)
def test_brute_force_agrees_over_thousands_of_calls(oracle: Oracle, family: str, rng: random.Random) -> None:
    """One long saturating history a family, with bursts and pauses; the oracle sees the last windows of it."""
    spec = {
        "fixed_window": FixedWindow(40, 4.0, 0.5),
        "anchored_window": AnchoredWindow(40, 4.0),
        "sliding_log": SlidingLog(40, 4.0),
        "sliding_counter": SlidingCounter(40, 4.0, 0.5),
        "token_bucket": TokenBucket(8.0, 32),
        "leaky_queue": LeakyQueue(8.0, 32),
    }[family]
    gaps = [rng.choice([0, 0, 0, 1, 1, 2, 3, 200 if rng.random() < 0.02 else 1]) * GRID_S for _ in range(2500)]
    agree(oracle(spec), spec, [(gap, rng.choice([1, 1, 1, 2, 3])) for gap in gaps], 0.0)


def agree(decides: Decides, spec: Spec, moments: list[tuple[float, float]], epoch_s: float) -> None:
    """Assert that state and oracle decide alike; what is decided is counted in both."""
    state, history = spec.limiter(), []
    now_s = epoch_s
    for gap_s, cost in moments:
        now_s += gap_s
        admitted = state.check(now_s, cost).admitted
        assert decides(history, now_s, cost) == admitted, (history[-20:], now_s, cost)
        (state.commit if admitted else state.refused)(now_s, cost)
        if admitted or getattr(spec, "count_refused", False):
            history.append((now_s, cost))


@for_every_family
@given(data=st.data(), moments=calls, back_s=st.floats(0.001, 1e6), cost=st.integers(1, 4))
def test_a_clock_that_steps_back_stands_still(
    family: str, data: st.DataObject, moments: list[tuple[float, float]], back_s: float, cost: int
) -> None:
    """Whatever is asked or told in the past is taken as asked and told at the last counted moment."""
    spec = data.draw(SPECS[family])
    state, now_s = spec.limiter(), 100.0
    for gap_s, spent in moments:
        now_s += gap_s
        state.commit(now_s, spent)
    twin = copy.deepcopy(state)
    last_s = now_s if moments else now_s - back_s
    assert state.check(now_s - back_s, cost) == twin.check(last_s, cost)
    state.commit(now_s - back_s, cost)
    twin.commit(last_s, cost)
    assert state.check(now_s + 1.0, cost) == twin.check(now_s + 1.0, cost)


@for_every_family
@given(data=st.data(), moments=calls, seed=st.integers(0, 9))
def test_a_seed_replays_the_same_decisions(
    family: str, data: st.DataObject, moments: list[tuple[float, float]], seed: int
) -> None:
    """Two states of one spec and one seed decide alike."""
    spec = data.draw(SPECS[family])
    one, two = spec.limiter(seed), spec.limiter(seed)
    now_s = 0.0
    for gap_s, cost in moments:
        now_s += gap_s
        verdict = one.check(now_s, cost)
        assert verdict == two.check(now_s, cost)
        for state in (one, two):
            (state.commit if verdict.admitted else state.refused)(now_s, cost)


@pytest.mark.parametrize("family", [name for name in TIMED if name != "leaky_queue"])
@given(data=st.data(), moments=calls)
def test_a_state_takes_new_parameters_while_it_runs(
    family: str, data: st.DataObject, moments: list[tuple[float, float]]
) -> None:
    """A limit may drift: with a limit of 0 in place of the old one, nothing passes any more."""
    spec = data.draw(SPECS[family])
    state, now_s = play(spec, moments)
    state.spec = replace(spec, burst=0) if family == "token_bucket" else replace(spec, limit=0)
    assert not state.check(now_s, 1).admitted


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FixedWindow(-1, 60), "limit must be at least 0"),
        (lambda: FixedWindow(1, 0), "window_s must be greater than 0"),
        (lambda: FixedWindow(1, calendar="lunar_day"), "window must be 'pacific_day'"),
        (lambda: AnchoredWindow(1, math.nan), "window_s must be greater than 0"),
        (lambda: SlidingLog(math.inf, 1), "limit must be at least 0"),
        (lambda: SlidingCounter(1, -3), "window_s must be greater than 0"),
        (lambda: TokenBucket(0, 1), "rate_per_s must be greater than 0"),
        (lambda: LeakyQueue(1, -1), "burst must be at least 0"),
        (lambda: Concurrency(-2), "limit must be at least 0"),
        (lambda: Random(1.5), "probability must be from 0 to 1"),
    ],
)
def test_impossible_parameters_are_refused_by_name(make: Callable[[], Spec], words: str) -> None:
    """A spec cannot be made with parameters that mean nothing."""
    with pytest.raises(ValueError, match=words):
        make()


def test_memory_of_a_sliding_log_is_bounded_by_its_limit() -> None:
    """A quarter of a million calls, most refused, and a counted flood: the log holds no more than the limit."""
    for count_refused in (False, True):
        state: Any = SlidingLog(50, 60.0, count_refused).limiter()
        for place in range(250_000 // 8):
            now_s = place * 0.001
            (state.commit if state.check(now_s).admitted else state.refused)(now_s)
        assert len(state._whens) <= 51


def test_the_calendar_day_is_not_asked_of_other_families() -> None:
    """The name is a constant that profiles share."""
    assert PACIFIC_DAY == "pacific_day"
