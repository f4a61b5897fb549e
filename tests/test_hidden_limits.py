"""The judge's pure parts: its limits against a recount of the past, its HTTP against torn bytes, its configurations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hidden import configurations
from hidden.http1 import BadRequestError, take_request
from hidden.judging import concurrency_counts, counted_rates
from hidden.limiters import Gate
from hidden.oracle import Past, bucket_admits_by_brute_force, used_by_brute_force
from hypothesis import given
from hypothesis import strategies as st

# Eighths of a second: sums stay exact, and many calls fall exactly on an edge.
histories = st.lists(st.integers(0, 24).map(lambda eighths: eighths / 8), min_size=1, max_size=150)
windowed = st.fixed_dictionaries(
    {
        "family": st.sampled_from(["fixed_window", "anchored_window", "sliding_log", "sliding_counter"]),
        "limit": st.integers(1, 12),
        "window_s": st.sampled_from([0.5, 1.0, 2.0, 8.0]),
        "counts_refused": st.booleans(),
    }
)
buckets = st.fixed_dictionaries(
    {
        "family": st.just("token_bucket"),
        "rate_per_s": st.sampled_from([0.25, 0.5, 1.0, 4.0]),
        "burst": st.integers(1, 9),
    }
)


@given(table=windowed, phase_eighths=st.integers(0, 7), gaps_s=histories)
def test_each_window_decides_as_its_definition_does(
    table: dict[str, Any], phase_eighths: int, gaps_s: list[float]
) -> None:
    """On any history the limiter and a recount of the whole past agree, call by call."""
    if table["family"] in {"fixed_window", "sliding_counter"}:
        table = table | {"phase_s": phase_eighths / 8}
    gate, past, at_s = Gate([table]), Past(), 1_000.0
    for gap_s in gaps_s:
        at_s += gap_s
        expected = used_by_brute_force(table, past, at_s) + 1 <= table["limit"]
        admitted = gate.enter(at_s, 1) is None
        assert admitted == expected
        past.append((at_s, admitted))


@given(table=buckets, gaps_s=histories)
def test_a_bucket_never_gives_more_than_its_burst_and_what_dripped_in(
    table: dict[str, Any], gaps_s: list[float]
) -> None:
    """It admits exactly when no interval of the past would then hold too many."""
    gate, past, at_s = Gate([table]), Past(), 1_000.0
    for gap_s in gaps_s:
        at_s += gap_s
        expected = bucket_admits_by_brute_force(table, past, at_s)
        admitted = gate.enter(at_s, 1) is None
        assert admitted == expected
        past.append((at_s, admitted))


def test_a_place_is_free_again_as_soon_as_a_call_ends() -> None:
    """Two places: the third call is refused, and admitted after one has left."""
    gate = Gate([{"family": "concurrency", "limit": 2}])
    assert [gate.enter(0.0, 1), gate.enter(0.0, 1), gate.enter(0.0, 1)] == [None, None, 0]
    gate.leave(1)
    assert gate.enter(0.0, 1) is None


def test_a_call_that_one_limit_refuses_costs_the_others_nothing() -> None:
    """The bucket keeps its tokens while the places are taken; a log that counts refused calls does not."""
    honest = {"family": "sliding_log", "limit": 2, "window_s": 10.0}
    places = {"family": "concurrency", "limit": 1}
    gate = Gate([honest, places])
    assert [gate.enter(0.0, 1), gate.enter(1.0, 1), gate.enter(2.0, 1)] == [None, 1, 1]
    gate.leave(1)
    assert gate.enter(3.0, 1) is None
    strict = Gate([honest | {"counts_refused": True}, places])
    strict.enter(0.0, 1)
    strict.enter(1.0, 1)
    strict.leave(1)
    assert strict.enter(3.0, 1) == 0


def test_a_limit_on_input_tokens_charges_tokens() -> None:
    """A hundred tokens a window are two calls of fifty."""
    gate = Gate([{"family": "fixed_window", "metric": "input_tokens", "limit": 100, "window_s": 10.0}])
    assert [gate.enter(0.0, 50), gate.enter(0.0, 50), gate.enter(0.0, 1)] == [None, None, 0]


@given(cuts=st.lists(st.integers(1, 40), max_size=12))
def test_a_request_may_arrive_in_any_pieces(cuts: list[int]) -> None:
    """Wherever the bytes are torn, the same two requests come out."""
    stream = (
        b"POST /v1/models/m:generateContent?key=k HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
        b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    buffer, requests, pieces, rest = bytearray(), [], [], stream
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    for piece in [*pieces, rest]:
        buffer += piece
        while (request := take_request(buffer)) is not None:
            requests.append((request.method, request.path, request.query, request.body))
    assert requests == [
        ("POST", "/v1/models/m:generateContent", {"key": "k"}, b"body"),
        ("GET", "/v1/models", {}, b""),
    ]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense", 400),
        (b"GET / HTTP/2", 400),
        (b"GET / HTTP/1.1\r\nno colon here", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", 411),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
    ],
)
def test_bytes_that_are_no_request_get_their_status(head: bytes, status: int) -> None:
    """Each is told apart, and none is taken for a request."""
    with pytest.raises(BadRequestError) as caught:
        take_request(bytearray(head + b"\r\n\r\n"))
    assert caught.value.status == status


def test_the_drawn_configurations_are_what_was_promised() -> None:
    """Sixty and more, each family at least eight times where it counts, in the ranges, and the same each time."""
    drawn = configurations.draw(1, 64)
    assert drawn == configurations.draw(1, 80)[:64]
    counts = Counter(table["family"] for each in drawn for table in counted_rates(each))
    assert all(counts[family] >= 8 for family in configurations.RATE_FAMILIES)
    assert sum(concurrency_counts(each) for each in drawn) >= 8
    assert {each.error_share for each in drawn} == {0.0, 0.01}
    assert {len(each.rates) for each in drawn} == {0, 1, 2}
    for table in (table for each in drawn for table in each.rates if "window_s" in table):
        assert 4 <= table["window_s"] <= 15
        assert 10 <= table["limit"] <= 600
    assert all(each.places is None or 2 <= each.places <= 50 for each in drawn)
