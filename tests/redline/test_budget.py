"""Budgets: no call leaves that one of them does not cover, and what a call really cost replaces what it might."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.budget import Budget, Spending
from redline.commands.calibrate import calls_to_push
from redline.prices import Price, price_of


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (Budget(max_requests=0), "--max-requests 0"),
        (Budget(max_input_tokens=9), "--max-input-tokens 9"),
        (Budget(max_output_tokens=4), "--max-output-tokens 4"),
        (Budget(max_usd=0.00001), "--max-usd 1e-05"),
        (Budget(max_duration_s=99), "--max-duration 99"),
        (Budget(max_throttled_calls=0), "--max-throttled-calls 0"),
    ],
)
def test_the_call_that_would_exceed_is_refused_by_name(budget: Budget, name: str) -> None:
    """Ten input and five output tokens, at second 100."""
    spending = Spending(budget, Price(1.0, 1.0))
    assert spending.exceeded(100.0, 10, 5) == f"{name} is used up"


def test_a_budget_that_just_covers_a_call_lets_it_go() -> None:
    """Bounds are included."""
    budget = Budget(1, 10, 5, 15e-6, 100, 1)
    assert Spending(budget, Price(1.0, 1.0)).exceeded(100.0, 10, 5) is None


def test_money_without_a_price_is_refused_at_once() -> None:
    """A bound that cannot be kept is no bound."""
    with pytest.raises(ValueError, match="--max-usd needs a model whose price is known"):
        Spending(Budget(max_usd=1.0), None)


@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_negative_budget_is_refused_by_name(value: float) -> None:
    """And so is one that is no number."""
    with pytest.raises(ValueError, match="--max-usd takes a number"):
        Budget(max_usd=value)


calls = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50), st.sampled_from(["ok", "refused", "lost", "open"])))


@given(calls, st.integers(0, 300), st.integers(0, 300))
def test_reserved_and_spent_never_pass_the_bounds(calls: list[tuple[int, int, str]], inputs: int, outputs: int) -> None:
    """Whatever happens to the calls that went out, in whatever order."""
    spending = Spending(Budget(max_input_tokens=inputs, max_output_tokens=outputs))
    for call_id, (prompt, output, end) in enumerate(calls):
        if spending.exceeded(0.0, prompt, output):
            continue
        spending.sent(call_id, prompt, output)
        if end == "ok":
            spending.ended(call_id, prompt, output - 1, throttled=False)
        elif end == "refused":
            spending.ended(call_id, None, None, throttled=True)
        elif end == "lost":
            spending.ended(call_id, None, None, throttled=False)
    assert spending.input_tokens <= inputs
    assert spending.output_tokens <= outputs


def test_settling_takes_what_the_server_counted() -> None:
    """A refusal costs a request and no tokens; an answer costs what was counted."""
    spending = Spending(Budget(), Price(2.0, 4.0))
    spending.sent(1, 100, 50)
    spending.sent(2, 100, 50)
    spending.ended(1, 120, 10, throttled=False)
    spending.ended(2, None, None, throttled=True)
    counted = (spending.requests, spending.throttled, spending.input_tokens, spending.output_tokens)
    assert counted == (2, 1, 120, 10)
    assert spending.usd == pytest.approx((120 * 2 + 10 * 4) / 1e6)


def test_prices_change_on_their_day() -> None:
    """Promotions end; an unknown model has no price."""
    assert price_of("gemini-3.8-flash", date(2026, 12, 31)) == Price(0.75, 3.75)
    assert price_of("gemini-3.8-flash", date(2027, 1, 1)) == Price(1.50, 7.50)
    assert price_of("gemini-4-argon", date(2026, 12, 1)) == Price(4.00, 20.00)
    assert price_of("gemini-2.0-flash", date(2026, 12, 1)) is None


@pytest.mark.parametrize(("most", "calls"), [(None, None), (20_000, 12_000), (1, 1)])
def test_a_push_takes_no_more_than_its_share_of_a_budget(most: int | None, calls: int | None) -> None:
    """And one call at least: none tells nothing."""
    assert calls_to_push(Budget(max_requests=most)) == calls
