"""The verdict's sentences: one meaning each, and never surer than the record."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from analysis import wording
from analysis.estimate import Identified, Inference
from analysis.recommend import recommend
from analysis.result import Limit, Result, Spent
from mock_server.limits import FixedWindow

NB = wording.NB
LIMIT = Limit(
    metric="requests",
    state="measured",
    family="fixed_window",
    limit=60,
    window_s=10.0,
    rate_per_min=360.0,
    rate_per_min_ci95=(359.6, 360.4),
)


@dataclass(frozen=True)
class Start:
    """How a window lies on the clock, and how that is said."""

    window_s: float
    phase_s: float | None
    said: str


STARTS = (
    Start(10.0, None, "at fixed moments of the server's clock."),
    Start(10.0, 0.1, f"on every full 10{NB}s of the server's clock."),
    Start(10.0, 9.8, f"on every full 10{NB}s of the server's clock."),
    Start(10.0, 3.21, f"3.2{NB}s after every full 10{NB}s of the server's clock."),
    Start(60.0, 0.0, "on every full minute of the server's clock."),
)


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.said[:24])
def test_an_aligned_window_says_when_it_starts(start: Start) -> None:
    """The clock is named once, with the moment; a sliding counter has the same windows."""
    limit = msgspec.structs.replace(LIMIT, window_s=start.window_s, phase_s=start.phase_s)
    window = wording.seconds(start.window_s)
    assert wording.explanation(limit) == f"Counted in windows of {window} that start {start.said}"
    counter = msgspec.structs.replace(limit, family="sliding_counter")
    assert wording.explanation(counter).endswith(f". They start {start.said}")


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((359.6, 360.4), f"60 requests in 10{NB}s (360 a minute)"),
        ((200.0, 700.0), "200 to 700 requests a minute"),
        (None, f"60 requests in 10{NB}s (360 a minute)"),
    ],
)
def test_a_headline_is_as_sure_as_its_record(bounds: tuple[float, float] | None, said: str) -> None:
    """Where the rate is known to a factor only, the interval is told and not its middle."""
    limit = msgspec.structs.replace(LIMIT, rate_per_min_ci95=bounds)
    spent = Spent(requests=90, admitted=60, throttled=30, input_tokens=60, output_tokens=60, usd=0.0, wall_s=5.0)
    result = Result(run="r", target="mock", model="m", limits=(limit,), settings=None, verification=None, spent=spent)
    assert wording.headline(result) == f"m on mock lets through {said}."


def test_calls_that_are_paced_may_still_overlap() -> None:
    """A burst of one spaces the starts of calls; it does not mean that one waits for the other."""
    found = Inference((Identified(LIMIT, ((1.0, FixedWindow(60, 10.0)),)),), (), spread_s=0.0, latency=None)
    settings = recommend(found, max_throttled=0.001)
    assert settings is not None
    assert "evenly spaced" in wording.setting(msgspec.structs.replace(settings, burst=1.0, max_concurrency=12))


def test_a_rate_alone_says_why_no_more_is_known() -> None:
    """Beside others on the quota a family is not told."""
    limit = Limit(metric="requests", state="measured", rate_per_min=300.0, reason="others hide the rest")
    assert wording.explanation(limit) == "Others hide the rest."
