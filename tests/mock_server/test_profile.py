"""Profiles: what is written is what is served, and one line for whatever is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server import limits, refusals
from mock_server.profile import (
    REFUSAL_SHAPES,
    TAKES,
    Change,
    LimitTable,
    Profile,
    ProfileError,
    bundled,
    load,
    parse,
    render,
)
from mock_server.quota import SCOPES

if TYPE_CHECKING:
    from pathlib import Path

numbers = st.one_of(st.integers(1, 10**6).map(float), st.floats(0.001, 1e6))


@st.composite
def limit_tables(draw: st.DrawFn) -> LimitTable:
    """Draw a table that uses any of the keys that its family takes."""
    family = draw(st.sampled_from(sorted(limits.FAMILIES)))
    takes = TAKES[family] - {"window"}
    drawn = {key: draw(numbers) for key in ("limit", "window_s") if key in takes}
    if "burst" in takes:
        drawn["burst"] = draw(st.none() | numbers)
    if "phase_s" in takes:
        drawn["phase_s"] = draw(numbers)
    if "probability" in takes:
        drawn["probability"] = draw(st.floats(0, 1))
    metric = "concurrency" if family == "concurrency" else draw(st.sampled_from(["requests", "input_tokens"]))
    return LimitTable(
        metric=metric,
        family=family,
        count_refused="count_refused" in takes and draw(st.booleans()),
        scope=tuple(draw(st.lists(st.sampled_from(SCOPES), unique=True))),
        quota_id=draw(st.none() | st.text(max_size=8)),
        models=tuple(draw(st.lists(st.text(max_size=5), max_size=2))),
        replicas=draw(st.integers(1, 4)) if "replicas" in takes else 1,
        changes=(Change(5, 7.5),) if "changes" in takes and draw(st.booleans()) else (),
        **drawn,
    )


@given(st.lists(limit_tables(), max_size=4), st.text(max_size=20))
def test_a_profile_survives_the_way_through_toml(tables: list[LimitTable], description: str) -> None:
    """Render and parse give the same values and the same limits back, for every family."""
    profile = Profile(name="x", description=description, limits=tuple(tables))
    again = parse(render(profile), "x")
    assert again == profile
    assert again.quota_limits() == profile.quota_limits()


def test_every_family_says_what_it_takes() -> None:
    """The registry and the table of keys name the same families."""
    assert set(TAKES) == set(limits.FAMILIES)


def test_every_shape_of_a_refusal_can_be_asked_for() -> None:
    """A profile takes the names of the bodies there are."""
    assert set(REFUSAL_SHAPES) == set(refusals.SHAPES)


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_profile_is_valid_dated_and_sourced(name: str) -> None:
    """Data without a date and a source is not data."""
    profile = load(name)
    assert profile.quota_limits() is not None
    assert profile.description
    assert profile.source
    assert profile.date


def test_the_guides_profiles_are_the_ends_of_its_ranges() -> None:
    """60 and 120 requests a minute, 5 and 10 in flight."""
    specs = {name: [limit.spec for limit in load(name).quota_limits()] for name in ("guide-basic", "guide-high")}
    assert specs["guide-basic"] == [limits.FixedWindow(60, 60), limits.Concurrency(5)]
    assert specs["guide-high"] == [limits.FixedWindow(120, 60), limits.Concurrency(10)]


LIMIT = '[[limits]]\nmetric = "requests"\nfamily = "fixed_window"\nlimit = 5\nwindow_s = 60\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('nmae = "x"', "profile p: nmae is no known key; known are background, batch, date"),
        ("[latncy]", "profile p: latncy is no known key (did you mean latency?)"),
        ("[latency]\nsigm = 1", "profile p: latency.sigm is no known key (did you mean sigma?)"),
        ("[latency]\nsigma = -1", "profile p: latency.sigma must be at least 0, not -1"),
        ('[latency]\nslots = "many"', "profile p: latency.slots: Expected int, got str"),
        ("[faults]\nhang = 2", "profile p: faults.hang must be a probability from 0 to 1, not 2"),
        ("[faults]\nhang = 0.6\nreset = 0.6", "must not add up to more than 1"),
        ('[refusal]\nshape = "round"', "profile p: refusal.shape must be one of full, decimals"),
        ("latency = 3", "profile p: latency takes a table, not 3"),
        ("limits = 3", "profile p: limits takes tables, each written under [[limits]]"),
        (LIMIT.replace("= 5", "= -5"), "profile p: limits[0].limit must be at least 0, not -5"),
        (LIMIT.replace("= 60", "= 0"), "profile p: limits[0].window_s must be greater than 0, not 0"),
        (LIMIT.replace("limit = 5\n", ""), "profile p: limits[0].limit is missing; the family fixed_window needs it"),
        (LIMIT + "limmit = 3", "profile p: limits[0].limmit is no known key (did you mean limit?)"),
        (
            LIMIT + "burst = 3",
            "limits[0].burst means nothing to the family fixed_window, which takes changes, count_refused",
        ),
        (LIMIT.replace("fixed_window", "leaky"), "profile p: limits[0].family must be one of fixed_window, anchored"),
        (LIMIT.replace('"requests"', '"calls"'), "profile p: limits[0].metric must be one of requests, input_tokens"),
        (LIMIT.replace("window_s = 60", 'window = "moon"'), "limits[0].window must be 'pacific_day', not 'moon'"),
        (LIMIT + 'window = "pacific_day"', "limits[0].window_s cannot be set beside window"),
        (LIMIT + 'scope = ["planet"]', "limits[0].scope takes a list of project, model, key, region, not 'planet'"),
        (LIMIT + 'tier = "gold"', "limits[0].tier must be one of standard, priority, flex, not 'gold'"),
        (LIMIT + "replicas = 0", "limits[0].replicas must be at least 1, not 0"),
        (LIMIT + "changes = [{ after = 3 }]", "limits[0].changes[0]: Object contains unknown field after"),
        ('[[outages]]\nfault = "fire"', "profile p: outages[0].fault must be one of overloaded_503"),
        ("[background]\nrequests_per_minute = -1", "background.requests_per_minute must be at least 0, not -1"),
        (LIMIT.replace('"requests"', '"concurrency"'), "limits[0].metric must be one of concurrency, live_sessions"),
        ("limits = [", "profile p: is no valid TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(text: str, words: str) -> None:
    """The line says which key, and what it takes."""
    with pytest.raises(ProfileError) as caught:
        parse(text, "p")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_names_those_there_are() -> None:
    """The user sees what to type instead."""
    with pytest.raises(ProfileError, match=r"profile must be one of demo, .*guide-basic.*not 'dmeo'"):
        load("dmeo")


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    """A name that ends in .toml is a path; what is wrong with the file is one line too."""
    path = tmp_path / "mine.toml"
    path.write_text(LIMIT)
    assert load(str(path)).quota_limits()[0].spec == limits.FixedWindow(5, 60)
    with pytest.raises(ProfileError, match="cannot be read: No such file"):
        load(str(tmp_path / "none.toml"))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="is no UTF-8 text"):
        load(str(path))


def test_quotas_are_named_as_google_names_them() -> None:
    """A profile that sets no names gets the real ones for its metric and period."""
    text = LIMIT + LIMIT.replace("window_s = 60", 'window = "pacific_day"') + LIMIT.replace("requests", "input_tokens")
    names = [(limit.quota_id, limit.quota_metric.split("/")[1]) for limit in parse(text, "p").quota_limits()]
    assert names == [
        ("GenerateRequestsPerMinutePerProjectPerModel", "generate_requests_per_model"),
        ("GenerateRequestsPerDayPerProjectPerModel", "generate_requests_per_model_per_day"),
        ("GenerateContentPaidTierInputTokensPerModelPerMinute", "generate_content_paid_tier_input_token_count"),
    ]
