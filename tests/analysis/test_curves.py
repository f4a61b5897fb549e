"""Curves from logs whose truth is known by construction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import curves
from analysis.load import to_table
from mock_server.limits import AnchoredWindow, FixedWindow, SlidingCounter, SlidingLog, TokenBucket

if TYPE_CHECKING:
    import pandas as pd


def log(*rows: tuple[float, float | None, int | None], phase: str = "fill") -> pd.DataFrame:
    """Make a table from (sent, done, status)."""
    return to_table(
        {"call_id": i, "phase": phase, "planned_s": s, "sent_s": s, "done_s": d, "status": c}
        for i, (s, d, c) in enumerate(rows)
    )


def saturated(limit: int, window_s: float, per_s: float, seconds: float) -> pd.DataFrame:
    """Make the log of a steady overload against a fixed window that is aligned to the record's zero."""
    limiter = FixedWindow(limit, window_s).limiter()
    rows: list[tuple[float, float | None, int | None]] = []
    for i in range(int(per_s * seconds)):
        now_s = (i + 0.5) / per_s
        admitted = limiter.check(now_s).admitted
        if admitted:
            limiter.commit(now_s)
        rows.append((now_s, now_s + (0.2 if admitted else 0.01), 200 if admitted else 429))
    return log(*rows)


def test_each_call_is_counted_once_in_the_second_of_its_sending() -> None:
    """Offered is the sum of its parts; a bin without calls is there with zeros."""
    table = log((0.1, 0.2, 200), (0.9, 3.0, 429), (2.0, None, None), (2.5, 2.6, 503))
    table.loc[len(table) - 1, "phase"] = "verify-1-rested"
    bins = curves.per_bin(table)
    assert bins["start_s"].tolist() == [0.0, 1.0, 2.0]
    assert bins["offered"].tolist() == [2, 0, 2]
    assert bins["admitted"].tolist() == [1, 0, 0]
    assert bins["throttled"].tolist() == [1, 0, 0]
    assert bins["censored"].tolist() == [0, 0, 1]
    assert bins["failed"].tolist() == [0, 0, 1]
    assert bins["verification"].tolist() == [False, False, True]


def test_a_dropped_arrival_is_offered_but_was_never_sent() -> None:
    """What the generator could not send counts where it was due."""
    table = to_table([{"call_id": 1, "planned_s": 4.5, "error": "dropped"}])
    bins = curves.per_bin(table)
    assert bins[["start_s", "offered", "dropped"]].to_numpy().tolist() == [[4.0, 1.0, 1.0]]


def test_empty_tables_give_empty_curves() -> None:
    """A run without a call breaks nothing."""
    empty = to_table([])
    assert curves.per_bin(empty).empty
    assert curves.throughput_curve(empty, 10.0).empty
    assert curves.error_curve(empty, 10.0).empty
    assert curves.latency_by_load(empty).empty
    assert curves.by_in_flight(empty).empty
    assert curves.used(FixedWindow(3, 1.0), empty).empty
    assert curves.edges_s(FixedWindow(3, 1.0), empty) == []


def test_the_throughput_curve_follows_the_identity_and_then_the_limit() -> None:
    """Ten windows offered from 10 to 100 calls against 60 a window: admitted is the smaller of the two."""
    rows: list[tuple[float, float | None, int | None]] = []
    for window in range(10):
        for i in range(10 * (window + 1)):
            sent_s = 10.0 * window + i * 0.05
            rows.append((sent_s, sent_s + 0.1, 200 if i < 60 else 429))
    rows.append((100.0, 100.1, 200))
    curve = curves.throughput_curve(log(*rows), 10.0)
    assert curve["offered_per_min"].tolist() == [60.0 * (w + 1) for w in range(10)]
    assert curve["admitted_per_min"].tolist() == [min(360.0, 60.0 * (w + 1)) for w in range(10)]


def test_a_bin_cut_short_is_no_point_of_the_throughput_curve() -> None:
    """The record ends in mid-bin: its rate was never offered for a whole bin."""
    assert curves.throughput_curve(log((0.0, 0.1, 200), (3.0, 3.1, 200)), 10.0).empty


def test_the_error_curve_has_the_share_and_its_band() -> None:
    """A call a second passes; a burst of 60 on top of it, of which 30 are throttled, has rates of its own."""
    rows = [(float(i), i + 0.5, 200) for i in range(60)]
    rows += [(60.0 + 0.001 * i, 60.5, 200 if i < 30 else 429) for i in range(60)]
    curve = curves.error_curve(log(*rows), 10.0)
    assert curve["throttled"].sum() == 30
    assert curve["calls"].sum() == 120
    assert curve["share"].iloc[0] == 0.0
    assert curve["share"].iloc[-1] == 1.0
    assert curve["offered_per_min"].is_monotonic_increasing
    assert (curve["low95"] <= curve["share"]).all()
    assert (curve["share"] <= curve["high95"]).all()


def test_in_aligned_windows_the_share_is_what_the_limit_leaves() -> None:
    """Offered 20 to 100 a window against 60: the share throttled is 1 - 60 / offered; a cut window is left out."""
    places = [(window, i) for window in range(5) for i in range(20 * (window + 1))]
    rows = [(3.0 + 10.0 * window + i * 0.09, None, 200 if i < 60 else 429) for window, i in places]
    curve = curves.error_curve(log(*rows, (53.0, None, 200)), 10.0, origin_s=3.0)
    rates = curve["offered_per_min"]
    assert rates.tolist() == pytest.approx([120.0, 240.0, 360.0, 480.0, 600.0])
    assert curve["share"].tolist() == pytest.approx([max(0.0, 1 - 360.0 / rate) for rate in rates])


def test_all_throttled_is_a_share_of_one() -> None:
    """A log of nothing but refusals, which breaks other tools."""
    curve = curves.error_curve(log(*((0.1 * i, 0.1 * i + 0.01, 429) for i in range(40))), 1.0)
    assert curve["share"].tolist() == [1.0] * len(curve)
    assert curves.latency_by_load(log((0.0, 0.1, 429))).empty


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_holds_the_share_and_stays_between_0_and_1(hits: int, more: int) -> None:
    """For any counts; none at all says nothing."""
    low, high = curves.wilson([hits], [hits + more])
    share = hits / (hits + more) if hits + more else 0.5
    assert 0.0 <= low[0] <= share + 1e-12
    assert share - 1e-12 <= high[0] <= 1.0


def test_wilson_has_the_known_value() -> None:
    """0 of 10 is at most 27.75 % (Newcombe 1998, method 3)."""
    low, high = curves.wilson([0], [10])
    assert low[0] == 0.0
    assert high[0] == pytest.approx(0.2775, abs=1e-4)


def test_calls_in_flight_are_counted_from_the_record() -> None:
    """The third call finds one other still out; a censored call never comes back."""
    table = log((0.0, 1.0, 200), (0.5, None, None), (1.5, 2.0, 200))
    assert curves.in_flight(table).tolist() == [1.0, 2.0, 2.0]


def test_outcomes_by_calls_in_flight_show_a_concurrency_limit() -> None:
    """Two slots: the third in flight is refused."""
    counts = curves.by_in_flight(log((0.0, 9.0, 200), (0.1, 9.0, 200), (0.2, 0.21, 429), (0.3, 0.31, 429)))
    assert counts["in_flight"].tolist() == [1.0, 2.0, 3.0]
    assert counts["admitted"].tolist() == [1, 1, 0]
    assert counts["throttled"].tolist() == [0, 0, 2]


def test_latency_grows_with_load_and_rare_percentiles_are_missing() -> None:
    """Forty calls one at a time are too few for a 99 % quantile, enough for 95 %."""
    table = log(*((float(i), i + 0.25, 200) for i in range(40)))
    row = curves.latency_by_load(table).iloc[0]
    assert row["p50_s"] == pytest.approx(0.25)
    assert row["p95_s"] == pytest.approx(0.25)
    assert math.isnan(row["p99_s"])


@pytest.mark.parametrize("spec", [FixedWindow(60, 10.0), SlidingCounter(60, 10.0)])
def test_edges_of_aligned_windows_lie_on_their_grid(spec: FixedWindow | SlidingCounter) -> None:
    """The record spans 25 s from half a second on."""
    assert curves.edges_s(spec, log((0.5, 1.0, 200), (25.5, 26.0, 200))) == [10.0, 20.0]


def test_edges_of_anchored_windows_are_their_opening_calls() -> None:
    """A refused call opens nothing; a family without windows has no edges."""
    table = log((1.0, 1.1, 200), (2.0, 2.1, 429), (11.5, 11.6, 429), (12.0, 12.1, 200), (13.0, 13.1, 200))
    assert curves.edges_s(AnchoredWindow(5, 10.0), table) == [1.0, 12.0]
    assert curves.edges_s(TokenBucket(1.0, 3), table) == []


@pytest.mark.parametrize(
    "spec",
    [FixedWindow(60, 10.0), AnchoredWindow(60, 10.0), SlidingLog(60, 10.0), SlidingCounter(60, 10.0)],
)
def test_the_limit_is_full_exactly_when_the_true_limiter_refuses(spec: FixedWindow) -> None:
    """Replayed over its own log, a limiter is full at each refusal and has room at each admission."""
    limiter = spec.limiter()
    rows: list[tuple[float, float | None, int | None]] = []
    for now_s in np.cumsum(np.random.default_rng(5).exponential(0.1, 400)):
        admitted = limiter.check(now_s).admitted
        if admitted:
            limiter.commit(now_s)
        rows.append((float(now_s), float(now_s) + 0.01, 200 if admitted else 429))
    full = curves.used(spec, log(*rows))
    assert (full["used"][full["outcome"] == "throttled"] > 59.0).all()
    assert (full["used"][full["outcome"] == "admitted"] <= 59.0 + 0.1).all()


def test_a_bucket_holds_what_did_not_yet_drain() -> None:
    """Three calls at once into a bucket of three, then one after a second's drain."""
    table = log((0.0, 0.1, 200), (0.0, 0.1, 200), (0.0, 0.1, 200), (0.0, 0.01, 429), (1.0, 1.1, 200))
    assert curves.used(TokenBucket(1.0, 3), table)["used"].tolist() == pytest.approx([0, 1, 2, 3, 2], abs=0.01)


def test_a_long_record_is_sampled() -> None:
    """No more points than asked for, over the whole length."""
    full = curves.used(FixedWindow(60, 10.0), saturated(60, 10.0, 20.0, 60.0), most=100)
    assert len(full) <= 100
    assert full["sent_s"].max() > 58.0


def test_the_bin_of_a_chart_grows_with_the_run() -> None:
    """A minute by the second; a day by the five minutes."""
    assert curves.chart_bin_s(60.0) == 1.0
    assert curves.chart_bin_s(86400.0) == 300.0


def test_a_limit_on_tokens_fills_by_the_size_of_the_prompts() -> None:
    """Two prompts of 40 tokens leave 20 of 100."""
    table = log((0.0, 0.1, 200), (0.1, 0.2, 200), (0.2, 0.21, 429))
    table["prompt_tokens"] = 40
    full = curves.used(FixedWindow(100, 10.0), table, by_tokens=True)
    assert full["used"].tolist() == pytest.approx([0, 40, 80], abs=0.2)
