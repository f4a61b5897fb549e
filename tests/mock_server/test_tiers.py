"""Profiles of real tiers: each value has a source, and what is not known is said, not made up."""

from __future__ import annotations

import pytest

from mock_server.limits import PACIFIC_DAY, FixedWindow, SlidingLog
from mock_server.profile import ProfileError, parse, render
from mock_server.tiers import TIERS, models, tier_profile

EVERY = [(tier, model) for tier in TIERS for model in models(tier)]


@pytest.mark.parametrize(("tier", "model"), EVERY)
def test_every_tier_and_model_is_a_valid_profile_with_a_source(tier: str, model: str) -> None:
    """It survives TOML, and says where its values are from and what it does not know."""
    profile = tier_profile(tier, model)
    assert profile.quota_limits()
    assert parse(render(profile), profile.name) == profile
    assert profile.source
    assert profile.date >= "2025-11"
    assert profile.unknown


def test_the_latest_value_wins() -> None:
    """Tier 1 of 2.5 Flash-Lite: 4000 a minute, 4 million tokens, and no daily limit any more."""
    specs = [limit.spec for limit in tier_profile("1", "gemini-2.5-flash-lite").quota_limits()]
    assert FixedWindow(4000, 60) in specs
    assert FixedWindow(4_000_000, 60) in specs
    assert not [spec for spec in specs if isinstance(spec, FixedWindow) and spec.calendar]
    free = [limit.spec for limit in tier_profile("free", "gemini-2.5-flash").quota_limits()]
    assert FixedWindow(10, 60) in free
    assert FixedWindow(20, calendar=PACIFIC_DAY) in free


def test_what_nobody_published_is_listed() -> None:
    """Tier 2 of 3.8 Flash: tokens are known, requests are not."""
    profile = tier_profile("2", "gemini-3.8-flash")
    assert {"requests per minute", "requests per day", "enqueued batch tokens"} <= set(profile.unknown)
    metrics = [(limit.metric, limit.tier) for limit in profile.quota_limits()]
    assert ("input_tokens", "") in metrics
    assert ("input_tokens", "priority") in metrics
    assert ("requests", "") not in metrics


def test_a_model_without_a_published_rate_has_the_limits_that_are_known() -> None:
    """Argon on tier 1 is limited in spend and in batches; no rate is made up for it."""
    profile = tier_profile("1", "gemini-4-argon")
    assert {"requests per minute", "input tokens per minute", "requests per day"} <= set(profile.unknown)
    assert {limit.metric for limit in profile.limits} == {"spend", "live_sessions", "batch_jobs"}


def test_every_value_has_its_source() -> None:
    """Not the rates alone: what is held, the spend and the prices under it are dated too."""
    source = tier_profile("2", "gemini-2.5-flash").source
    for words in ("a share of the standard limit", "rolling ten minutes", "/pricing", "tiers 1, 2, 3", "2025-11: "):
        assert words in source
    assert "rolling ten minutes" not in tier_profile("free", "gemini-2.5-flash").source


def test_limits_carry_the_tiers_names() -> None:
    """The free tier and each paid one name their quotas differently."""
    ids = {tier: tier_profile(tier, "gemini-2.5-flash").quota_limits()[1].quota_id for tier in TIERS[:4]}
    assert ids == {
        "free": "GenerateContentInputTokensPerModelPerMinute-FreeTier",
        "1": "GenerateContentPaidTierInputTokensPerModelPerMinute",
        "2": "GenerateContentPaidTierInputTokensPerModelPerMinute-PaidTier2",
        "3": "GenerateContentPaidTierInputTokensPerModelPerMinute-PaidTier3",
    }


def test_spend_is_limited_in_a_rolling_ten_minutes() -> None:
    """Ten dollars on tier 1, over the whole project."""
    spend = [limit for limit in tier_profile("1", "gemini-3.8-flash").quota_limits() if limit.metric == "spend"]
    assert [(limit.spec, limit.scope) for limit in spend] == [(SlidingLog(10, 600), ("project",))]


@pytest.mark.parametrize(
    ("tier", "model", "words"),
    [("4", "gemini-2.5-pro", "--tier must be one of free, 1, 2, 3"), ("1", "gpt", "--model must be one of gemini-2.0")],
)
def test_an_unknown_tier_or_model_names_those_there_are(tier: str, model: str, words: str) -> None:
    """The user sees what to type instead."""
    with pytest.raises(ProfileError, match=words):
        tier_profile(tier, model)


@pytest.mark.parametrize(
    ("tier", "model", "minute", "day", "name"),
    [
        ("1", "imagen-4.0-generate-001", 10, 70, "predict_requests_per_model_per_day_paid_tier_1"),
        ("3", "imagen-4.0-generate-001", 20, 15_000, "predict_requests_per_model_per_day_paid_tier_3"),
        ("1", "imagen-4.0-ultra-generate-001", 5, 30, "predict_requests_per_model_per_day_paid_tier_1"),
        ("2", "veo-3.1-generate-preview", 4, 50, "predict_long_running_requests_per_model_per_day"),
    ],
)
def test_pictures_and_films_have_limits_of_their_own(tier: str, model: str, minute: int, day: int, name: str) -> None:
    """Requests alone, no tokens; under the names of the method that makes them."""
    limits = [one for one in tier_profile(tier, model).quota_limits() if one.metric == "requests" and not one.tier]
    assert [one.spec for one in limits] == [FixedWindow(minute, 60), FixedWindow(day, calendar=PACIFIC_DAY)]
    assert limits[1].quota_metric == f"generativelanguage.googleapis.com/{name}"
    assert not [one for one in tier_profile(tier, model).limits if one.metric == "input_tokens"]


def test_what_of_pictures_and_films_nobody_copied_is_absent() -> None:
    """Ultra above tier 1, all of them on the free tier."""
    assert "imagen-4.0-ultra-generate-001" not in models("2")
    assert not [model for model in models("free") if model.startswith(("imagen", "veo"))]


@pytest.mark.parametrize(("tier", "sessions", "tokens"), [("1", 50, 4_000_000), ("3", 1_000, 10_000_000)])
def test_live_has_sessions_and_tokens(tier: str, sessions: int, tokens: int) -> None:
    """And no known number of requests."""
    profile = tier_profile(tier, "gemini-live")
    values = {limit.metric: limit.limit for limit in profile.limits if not limit.tier}
    assert (values["live_sessions"], values["input_tokens"]) == (sessions, tokens)
    assert {"requests per minute", "requests per day"} <= set(profile.unknown)


def test_vertex_has_baselines_by_spend() -> None:
    """An organization shares them; a refusal names no quota; what the page does not say is listed."""
    profile = tier_profile("vertex-3", "gemini-2.5-pro")
    values = {limit.metric: (limit.limit, limit.scope) for limit in profile.limits}
    assert values == {"requests": (30_000, ("model", "region")), "input_tokens": (2_000_000, ("model",))}
    assert profile.refusal.shape == "vertex"
    assert "2,000 to 50,000 dollars" in profile.description
    assert "how much above the baseline is served (here: nothing)" in profile.unknown
    flash = [
        [limit.limit for limit in tier_profile(tier, "gemini-3.8-flash").limits if limit.metric == "input_tokens"]
        for tier in TIERS[4:]
    ]
    assert flash == [[2_000_000], [4_000_000], [10_000_000], []]
    assert "the baseline of tokens per minute" in tier_profile("vertex-4", "gemini-3.8-flash").unknown
