"""The calibration: probe, infer, choose the next probe, until the limits are known; then recommend and verify.

It talks to a `Traffic` and knows neither HTTP nor Locust nor virtual time, so the same plan runs against a real
service, the mock and the simulator. It never reads the target's configuration: all it sees are answers.

The plan. A first call measures latency. Bursts that double meet either limit: the calls admitted in one dense
burst are the calls in flight that the server allows, unless the rate limit was full. Then a cycle repeats: *watch*
the recovery with single calls, *fill* to the next refusal, fit. Each fill is shaped by what the surviving
hypotheses still disagree on, and each watch looks hardest where they expect the recovery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis import replay
from analysis.infer import infer
from analysis.recommend import recommend
from analysis.replay import Calls
from redline.prober import CalibrationOptions, Prober
from redline.token_probe import TokenProbe
from redline.traffic import BudgetEndedError, Progress
from redline.verification import verify_and_lower

if TYPE_CHECKING:
    from collections.abc import Callable

    from analysis.estimate import Inference
    from analysis.result import Settings, Verification
    from redline.traffic import Traffic
    from redline.verification import Story

__all__ = ["Calibration", "CalibrationOptions", "calibrate"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came out. ``ended``: completed | budget | unresolved."""

    inference: Inference
    settings: Settings | None
    verification: Verification | None
    ended: str
    settings_tried: tuple[Settings, ...] = ()
    probed_s: float = 0.0  # when probing ended, on the run's clock
    probed_calls: int = 0


def calibrate(
    traffic: Traffic, options: CalibrationOptions, on_progress: Callable[[Progress], None] = lambda _: None
) -> Calibration:
    """Run the whole plan. Raises `redline.traffic.TargetError`; a budget that ends is an outcome, not an error."""
    prober = Prober(traffic, options, on_progress)
    tokens = TokenProbe(prober, options.probe_tokens)
    prober.on_room = tokens.look
    ended = "completed"
    try:
        prober.run()
        tokens.run()
    except BudgetEndedError:
        ended = "budget"
    probed_s, probed_calls = traffic.now_s(), len(traffic.attempts)
    # The same function of the record that `redline analyze` applies later, so that both say the same.
    inference = infer(Calls.from_attempts(traffic.attempts, now_s=probed_s, answer_s=replay.SILENCE_S))
    states = {found.limit.state for found in inference.identified}
    if ended == "completed" and "unresolved" in states:
        ended = "unresolved"
    passed = any(a.outcome == "admitted" for a in traffic.attempts)
    if ended != "completed" or not passed:
        return Calibration(inference, None, None, ended, (), probed_s, probed_calls)
    settings = recommend(inference, max_throttled=options.max_throttled)
    if not options.verify:
        return Calibration(inference, settings, None, ended, (settings,), probed_s, probed_calls)
    story, ended = _verified(traffic, inference, settings, options, prober)
    if story is None:
        return Calibration(inference, settings, None, ended, (settings,), probed_s, probed_calls)
    tried = tuple(shown for shown, _ in story.tried)
    return Calibration(inference, story.settings, story.verification, ended, tried, probed_s, probed_calls)


def _verified(
    traffic: Traffic, inference: Inference, settings: Settings, options: CalibrationOptions, prober: Prober
) -> tuple[Story | None, str]:
    """Let the recommended limiter drive the traffic; returns the story and how it ended."""
    try:
        story = verify_and_lower(
            traffic,
            inference,
            settings,
            verify_for_s=options.verify_for_s,
            on_attempt=lambda attempt, _: prober.note(f"verification {attempt}"),
        )
    except BudgetEndedError:
        return None, "budget"
    return story, "completed"
