"""Compiled loops against the same thing said plainly, with numpy and scipy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from analysis.kernels import compiling, likelihoods, limiters, places, selection, separation
from analysis.likelihood import OUTLIER
from mock_server import limits

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = st.integers(0, 2**32 - 1)
LOG_SHARE = np.log(OUTLIER + (1.0 - OUTLIER) * np.arange(6) / 5)


@given(st.lists(st.integers(-5, 5) | st.floats(-1e6, 1e6), min_size=1, max_size=40), st.data())
def test_what_stands_at_a_rank_is_what_sorting_puts_there(values: list[float], data: st.DataObject) -> None:
    """And what is before it is no larger."""
    rank = data.draw(st.integers(0, len(values) - 1))
    jumbled = np.array(values, float)
    assert selection.selected(jumbled, rank) == sorted(values)[rank]
    assert sorted(jumbled.tolist()) == sorted(values)
    assert max(jumbled[:rank], default=-np.inf) <= jumbled[rank]


@given(SEEDS)
def test_a_call_is_let_in_where_a_place_is_free(seed: int) -> None:
    """Each keeps its place until its work is done; a refused one takes none."""
    rng = np.random.default_rng(seed)
    arrived_s = np.sort(rng.integers(0, 40, size=60)).astype(float)
    busy_s = rng.integers(0, 9, size=60).astype(float)
    limit = int(rng.integers(1, 8))
    ends_s: list[float] = []
    for at_s, lasts_s, admitted in zip(arrived_s, busy_s, places.let_in(arrived_s, busy_s, limit), strict=True):
        assert admitted == (sum(end_s > at_s for end_s in ends_s) < limit)
        ends_s += [at_s + lasts_s] if admitted else []


@given(SEEDS, st.booleans())
def test_limiters_decide_as_the_state_machines_do(seed: int, counts_refused: bool) -> None:  # noqa: FBT001 - a parameter
    """Call by call, in every family."""
    rng = np.random.default_rng(seed)
    many, window_s, phase_s = int(rng.integers(1, 12)), float(rng.uniform(0.5, 5.0)), float(rng.uniform(0.0, 5.0))
    at_s = np.cumsum(rng.exponential(window_s / many / rng.uniform(0.5, 3.0), 80))
    for spec in (
        limits.FixedWindow(many, window_s, phase_s, counts_refused),
        limits.AnchoredWindow(many, window_s, counts_refused),
        limits.SlidingLog(many, window_s, counts_refused),
        limits.SlidingCounter(many, window_s, phase_s, counts_refused),
        limits.TokenBucket(many / window_s, many, counts_refused),
    ):
        state, admitted = spec.limiter(), []
        for now_s in at_s.tolist():
            admitted.append(state.check(now_s).admitted)
            (state.commit if admitted[-1] else state.refused)(now_s)
        code = limiters.CODES[spec.family]
        found = limiters.let_in(code, at_s, float(many), window_s, phase_s, counts_refused)
        assert found.tolist() == admitted


@given(SEEDS)
def test_thresholds_stand_where_admissions_end_and_refusals_begin(seed: int) -> None:
    """Beside the highest and third highest admission, and the median and the tenth part of the refusals, if any."""
    rng = np.random.default_rng(seed)
    admitted = rng.random(rng.integers(1, 40)) < rng.choice([0.0, 0.6, 1.0])
    need = rng.integers(0, 30, size=(3, len(admitted))) + rng.random((3, len(admitted)))
    found = likelihoods.thresholds(need, admitted)
    for row, kept in zip(need, found, strict=True):
        refused, passed = np.sort(row[~admitted]), np.sort(row[admitted])
        marks = [refused[(len(refused) - 1) // part] - 1 for part in (2, 10) if len(refused)]
        marks += [passed[-1], passed[max(0, len(passed) - 3)]] if len(passed) else []
        wanted = {max(1.0, np.floor(m + 1e-9) + d) for m in marks for d in (0, 1)}
        assert set(kept[kept > 0].tolist()) == wanted


@given(SEEDS)
def test_the_likelihood_averages_each_episode_over_the_offsets(seed: int) -> None:
    """Where neighbouring offsets agree in part, a decision is worth the share of these."""
    rng = np.random.default_rng(seed)
    decisions, offsets = int(rng.integers(1, 30)), 7
    statistic = rng.integers(0, 6, size=(2, offsets, decisions)).astype(float)
    cost, admitted = np.ones(decisions), rng.random(decisions) < 0.5
    starts = np.unique(np.concatenate([[0], rng.integers(0, decisions, size=3)]))
    limits = rng.integers(1, 7, size=(2, 3)).astype(float)
    found = likelihoods.log_likelihood(statistic, cost, admitted, starts, limits, LOG_SHARE, -np.inf)
    near = np.clip(np.arange(offsets)[:, None] + np.arange(-2, 3), 0, offsets - 1)
    for s, k in np.ndindex(*limits.shape):
        agree = (statistic[s] + cost <= limits[s, k] + 1e-9) == admitted
        shares = LOG_SHARE[agree[near].sum(axis=1)]
        episodes = np.add.reduceat(shares, starts, axis=1)
        assert found[s, k] == pytest.approx(np.log(np.exp(episodes).mean(axis=0)).sum(), abs=1e-6)


def plain_loss(at: np.ndarray, bound: np.ndarray, sign: np.ndarray, margin: float, rate: float, offset: float) -> float:
    """Return by how much points stand on the wrong side of a line, in all."""
    return float(np.maximum(0.0, margin - sign * (rate * at - offset - bound)).sum())


@given(SEEDS, st.integers(3, 60), st.sampled_from([0.0, 0.02, 0.3]))
def test_the_line_that_parts_best_is_that_of_the_linear_programme(seed: int, many: int, wrong: float) -> None:
    """No other line within the same bounds has less on its wrong side."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(-50.0, 50.0, many))
    admitted = rng.random(many) < rng.uniform(0.1, 0.9)
    sign = np.where(admitted, 1.0, -1.0)
    bound = 0.1 * at - 0.4 - sign * rng.uniform(0.0, 0.3, many) * np.where(rng.random(many) < wrong, -1.0, 1.0)
    margin, rates = 0.01, (0.07, 0.13)
    ends = np.array([[t, 0.1 * t - 0.4 - 0.3, 0.1 * t - 0.4 + 0.3] for t in (at[0], at[-1])])
    slowest = max(rates[0], (ends[1, 1] - ends[0, 2]) / (at[-1] - at[0]))
    fastest = min(rates[1], (ends[1, 2] - ends[0, 1]) / (at[-1] - at[0]))
    rate, offset = separation.separated(at, bound, admitted, margin, (slowest, fastest), ends)
    solved = optimize.linprog(
        np.concatenate([np.ones(many), [0.0, 0.0]]),
        A_ub=np.vstack(
            [
                np.column_stack([-np.eye(many), -sign * at, sign]),
                *(
                    np.concatenate([np.zeros(many), d * np.array([t, -1.0])])[None]
                    for t in at[[0, -1]]
                    for d in (1, -1)
                ),
            ]
        ),
        b_ub=np.concatenate([-margin - sign * bound, *([end[2], -end[1]] for end in ends)]),
        bounds=[(0.0, None)] * many + [rates, (None, None)],
    )
    assert slowest <= rate <= fastest
    assert all(end[1] - 1e-9 <= rate * end[0] - offset <= end[2] + 1e-9 for end in ends)
    assert plain_loss(at, bound, sign, margin, rate, offset) == pytest.approx(solved.fun, rel=1e-4, abs=1e-4)


def test_where_nothing_can_be_kept_each_process_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numba says it in a container that cannot be written to, with no home."""
    njit = numba.njit

    def nowhere(*, error_model: Literal["python", "numpy"], cache: bool = False) -> Callable[..., Any]:
        if cache:
            raise RuntimeError("cannot cache function 'doubled': no locator available for file")
        return njit(error_model=error_model)

    monkeypatch.setattr(compiling.numba, "njit", nowhere)
    doubled = compiling.compiled(lambda x: 2.0 * x)
    assert doubled(1.5) == 3.0
    assert len(doubled.signatures) == 1  # it was compiled
