"""The calibration: probe, infer, choose the next probe, until the limits are known; then recommend and verify.

It talks to a `Traffic` and knows neither HTTP nor Locust nor virtual time, so the same plan runs against a real
service, the mock and the simulator. It never reads the target's configuration: all it sees are answers.

The plan. A first call measures latency. Bursts that double meet either limit: the calls admitted in one dense
burst are the calls in flight that the server allows, unless the rate limit was full. Then a cycle repeats: *watch*
the recovery with single calls, *fill* to the next refusal, fit. Each fill is shaped by what the surviving
hypotheses still disagree on, and each watch looks hardest where they expect the recovery.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from analysis.calls import SILENCE_S, Calls
from analysis.conclude import SHARED
from analysis.infer import contradicted, infer
from analysis.promises import of_the_day
from analysis.recommend import recommend
from analysis.recommend_rates import memory_s as forgets_after_s
from analysis.shared_rate import suspicious
from redline.knowledge import CalibrationOptions
from redline.looking import look
from redline.prober import Prober
from redline.saturating import LONGEST_S, SETTLED, check_s, saturate
from redline.second_limit import LimitMet, probe_further
from redline.token_probe import TokenProbe
from redline.traffic import BudgetEndedError, Progress, TargetError
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
    """What came out. ``ended``: completed | budget | unresolved (nothing is known that settings could keep to)."""

    inference: Inference
    settings: Settings | None
    verification: Verification | None
    ended: str
    settings_tried: tuple[Settings, ...] = ()
    probed_s: float = 0.0  # when probing ended, on the run's clock
    probed_calls: int = 0


def calibrate(
    traffic: Traffic,
    options: CalibrationOptions,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_settled: Callable[[tuple[Settings, ...]], None] = lambda _: None,
) -> Calibration:
    """Run the whole plan. Raises `redline.traffic.TargetError`; a budget that ends is an outcome, not an error.

    ``on_settled`` is told the settings that were tried, once they are final; more is only measured after that. Where
    that finds others whom the verification had met as well, it is told once more.
    """
    run = _Run(traffic, options, Prober(traffic, options, on_progress))
    tokens = TokenProbe(run.prober, options.probe_tokens)
    run.prober.on_room = tokens.look
    run.probe(run.prober.run)
    pair = run.prober.doubt.settle(run.prober.fit) if run.ended == "completed" else None
    if pair is None:
        run.probe(tokens.run)
    else:
        run.probe(lambda: probe_further(run.prober, pair))
    run.conclude()
    if run.settings is None or not options.verify:
        run.tell_what_passes(check=False)
        return run.calibration()
    told = any(finding.kind != "retry_delay" for finding in run.inference.findings)
    # Two that were suspected while one was little known may have been one, and its verification meets the other.
    both = sum(found.limit.metric == "requests" for found in run.inference.identified) > 1
    met = LimitMet(traffic, possible=not both and not told)
    run.verify(met)
    if met.found:
        second = met.pair
        run.probe(run.prober.go_on if second is None else lambda: probe_further(run.prober, second))
        run.conclude()
        if run.settings is not None:
            run.verify()
    on_settled(run.settings_tried())
    if run.look_for_others() and run.passed_by_luck():
        run.settings = recommend(run.inference, max_throttled=options.max_throttled)
        run.verify()
        on_settled(run.settings_tried())
    run.tell_what_passes(check=True)
    return run.calibration()


@dataclass(slots=True)
class _Run:
    """A calibration on its way. ``verifying_s`` and ``verifying_calls``: what verifications took of its time."""

    traffic: Traffic
    options: CalibrationOptions
    prober: Prober
    ended: str = "completed"
    settings: Settings | None = None
    story: Story | None = None
    verifying_s: float = 0.0
    verifying_calls: int = 0
    probed_s: float = 0.0
    probed_calls: int = 0
    inference: Inference = field(init=False)

    def probe(self, plan: Callable[[], None]) -> None:
        """Carry out a plan of probes, unless a budget has ended."""
        if self.ended != "completed":
            return
        try:
            plan()
        except BudgetEndedError:
            self.ended = "budget"

    def conclude(self) -> None:
        """Say what the record says so far, and recommend settings where it supports any."""
        now_s, attempts = self.traffic.now_s(), self.traffic.attempts
        self.probed_s, self.probed_calls = now_s - self.verifying_s, len(attempts) - self.verifying_calls
        supported = self.ended == "completed" and any(a.outcome == "admitted" for a in attempts)
        self.inference = infer(self._calls(), settled=supported and self.options.verify)
        if supported and self._unresolved():
            self.inference = self._inferred()  # nothing is verified then, unless two limits explain it after all
        if self.ended == "completed" and self._unresolved():
            self.ended, supported = "unresolved", False
        self.settings = recommend(self.inference, max_throttled=self.options.max_throttled) if supported else None

    def _unresolved(self) -> bool:
        return any(found.unknown for found in self.inference.identified)

    def verify(self, met: LimitMet | None = None) -> None:
        """Let the recommended limiter drive the traffic."""
        if self.settings is None:
            return
        began_s, began = self.traffic.now_s(), len(self.traffic.attempts)
        again: list[Inference] = []

        def rethink() -> Settings:
            again.append(self._inferred())
            return recommend(again[0], max_throttled=self.options.max_throttled)

        try:
            self.story = verify_and_lower(
                self.traffic,
                self.inference,
                self.settings,
                verify_for_s=self.options.verify_for_s,
                on_attempt=lambda attempt, _: self.prober.note(f"verification {attempt}"),
                tried_before=self.story,
                enough=met or (lambda: False),
                rethink=rethink,
            )
            self.settings = self.story.settings
        except BudgetEndedError:
            self.ended = "budget"
        if of_the_day(self._calls()).any():
            self._keep_to_the_day()
        elif contradicted(self._calls()) and (met is None or not met.found):
            self.inference = again[0] if again else self._inferred()
        self.verifying_s += self.traffic.now_s() - began_s
        self.verifying_calls += len(self.traffic.attempts) - began

    def look_for_others(self) -> bool:
        """Look whether others use a limit of so few calls that probing may have missed them; return whether some do."""
        requests = [x.limit for x in self.inference.identified if x.limit.metric == "requests"]
        exact = len(requests) == 1 and requests[0].state == "measured" and requests[0].family is not None
        told = {finding.kind for finding in self.inference.findings} & {*SHARED, "drift", "random"}
        if self.ended != "completed" or not exact or told:
            return False
        sent, whole = len(self.traffic.attempts), False
        with contextlib.suppress(BudgetEndedError, TargetError):
            look(self.prober)
            whole = True
        if len(self.traffic.attempts) > sent:
            self._hear()
        return whole and any(finding.kind in SHARED for finding in self.inference.findings)

    def passed_by_luck(self) -> bool:
        """Return whether the verification met a refusal: beside others, settings that pass so are far too high."""
        return self.story is not None and self.story.verification.throttled > 0

    def tell_what_passes(self, *, check: bool) -> None:
        """Measure the rate of a limit that others use; ``check``: also look for others who may hide behind it.

        It comes last: the settings stand, since they were verified beside the others, and so does what is known where a
        budget or the target ends this.
        """
        kinds = {finding.kind for finding in self.inference.findings}
        told = not kinds.isdisjoint(SHARED)
        if self.ended == "budget" or not (told or (check and suspicious(self.inference))):
            return
        requests = [x for x in self.inference.identified if x.limit.metric == "requests"]
        if any(x.limit.counts_refused for x in requests):  # then nothing passes, neither of ours nor of theirs
            return
        windows_s = [x.limit.window_s or 0.0 for x in requests]
        if len(requests) > 1:  # until a bucket is empty it is the other that refuses
            windows_s = [forgets_after_s(spec) for x in requests for _, spec in x.particles[:1]]
        memory_s = SETTLED[0] * max(windows_s, default=0.0)
        if told:  # what refused a verification may count over longer than what is known
            memory_s = max(memory_s, SETTLED[1])
        longest_s = LONGEST_S if told or "drift" in kinds else check_s(windows_s)
        sent = len(self.traffic.attempts)
        with contextlib.suppress(BudgetEndedError, TargetError):
            saturate(self.prober, memory_s=memory_s, longest_s=longest_s)
        if len(self.traffic.attempts) == sent:
            return
        self._hear()

    def _hear(self) -> None:
        """Say what the record says now; the settings stand, but for a quota of the day that it met."""
        if of_the_day(self._calls()).any():
            self._keep_to_the_day()
        else:
            self.inference = self._inferred()

    def _keep_to_the_day(self) -> None:
        """Add the quota of the day that the verification met to what is told and to the settings."""
        self.inference = self._inferred()
        if self.settings is not None:
            per_day = recommend(self.inference, max_throttled=self.options.max_throttled).requests_per_day
            self.settings = msgspec.structs.replace(self.settings, requests_per_day=per_day)

    def _inferred(self) -> Inference:
        """Explain the record so far, by the function that `redline analyze` applies later: both say the same."""
        return infer(self._calls())

    def _calls(self) -> Calls:
        return Calls.from_attempts(self.traffic.attempts, now_s=self.traffic.now_s(), answer_s=SILENCE_S)

    def settings_tried(self) -> tuple[Settings, ...]:
        """Return the settings that were verified, the final ones last."""
        tried = tuple(shown for shown, _ in self.story.tried) if self.story else ()
        return tried or ((self.settings,) if self.settings else ())

    def calibration(self) -> Calibration:
        """Return what came out."""
        return Calibration(
            inference=self.inference,
            settings=self.settings,
            verification=self.story.verification if self.story else None,
            ended=self.ended,
            settings_tried=self.settings_tried(),
            probed_s=self.probed_s,
            probed_calls=self.probed_calls,
        )
