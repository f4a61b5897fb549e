"""Others on the quota: the limit is kept full until what passes tells its rate, and they show where they had not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from analysis.calls import Calls
from analysis.estimate import Identified, Inference
from analysis.recommend import recommend
from analysis.result import Finding, Limit
from analysis.saturation import SATURATED, SATURATING, Saturation, saturation
from analysis.shared_rate import beside_others, suspicious
from analysis.virtual import Background, Network, Service, VirtualLimit, World
from mock_server import limits
from redline import saturating
from redline.calibration import Calibration, CalibrationOptions, calibrate
from redline.prober import Prober
from redline.saturating import MOST_CALLS, check_s, saturate
from redline.simulated import SimulatedTraffic

if TYPE_CHECKING:
    from mock_server.limits import Spec
    from redline.traffic import Probe, ProbeReport

BUCKET = limits.TokenBucket(5.0, 30.0)


def calibrated(
    spec: Spec, others: Background | None, seed: int = 1, most: int = 50_000
) -> tuple[Calibration, SimulatedTraffic]:
    """Calibrate behind one limit that others may use, too."""
    world = World((VirtualLimit("requests", spec),), Network(0.02, 0.02), Service(0.4, 0.3), background=others)
    traffic = SimulatedTraffic(world, seed=seed, max_requests=most)
    return calibrate(traffic, CalibrationOptions(seed=seed)), traffic


def findings(found: Calibration) -> set[str]:
    """Return the kinds of what was found."""
    return {finding.kind for finding in found.inference.findings}


def kept_full(traffic: SimulatedTraffic) -> int:
    """Return how many calls were sent to keep the limit full."""
    return sum(a.phase in {SATURATING, SATURATED} for a in traffic.attempts)


@pytest.mark.parametrize(
    ("spec", "others"),
    [
        (BUCKET, Background(1.5)),
        pytest.param(limits.SlidingLog(60, 10.0), Background(1.8, group=9), marks=pytest.mark.acceptance),
        pytest.param(limits.SlidingCounter(60, 10.0), Background(1.8), marks=pytest.mark.acceptance),
        pytest.param(limits.AnchoredWindow(60, 10.0), Background(0.6, group=3), marks=pytest.mark.acceptance),
    ],
)
def test_the_whole_limit_is_told_beside_others(spec: Spec, others: Background) -> None:
    """Not what they leave: a bucket of 5 a second of which they use 1.5 looks like one of 3.5."""
    found, traffic = calibrated(spec, others)
    limit = found.inference.identified[0].limit
    true_per_min = 300.0 if spec is BUCKET else 360.0
    assert limit.state == "measured"
    assert limit.rate_per_min_ci95 is not None
    low, high = limit.rate_per_min_ci95
    assert low <= true_per_min <= high
    assert high / low < 1.6
    assert "background" in findings(found)
    assert 0 < kept_full(traffic) < MOST_CALLS


@pytest.mark.acceptance
@pytest.mark.parametrize("seed", range(1, 9))
def test_others_are_told_from_a_minute_that_moved(seed: int) -> None:
    """Those who take a third in bursts leave out a window or two: the limit of a minute is kept full for three then."""
    found, _ = calibrated(limits.SlidingLog(1200, 60.0), Background(6.0, group=110), seed)
    assert findings(found) & {"background", "replicas"}


def test_a_bucket_of_our_own_is_told_exactly() -> None:
    """It is looked whether others hide behind it, once the settings hold; none do."""
    found, traffic = calibrated(BUCKET, None)
    limit = found.inference.identified[0].limit
    assert limit.family == "token_bucket"
    assert limit.rate_per_min == pytest.approx(300.0, rel=0.01)
    assert not findings(found) & {"background", "replicas", "drift"}
    first = next(k for k, a in enumerate(traffic.attempts) if a.phase in {SATURATING, SATURATED})
    assert traffic.attempts[first - 1].phase.startswith("verify")


def test_a_budget_that_ends_in_this_check_takes_nothing_away() -> None:
    """What was known and verified before it stands."""
    whole, traffic = calibrated(BUCKET, None)
    cut, _ = calibrated(BUCKET, None, most=len(traffic.attempts) - kept_full(traffic) + 20)
    assert (cut.ended, cut.settings) == (whole.ended, whole.settings)
    assert cut.verification == whole.verification
    assert cut.inference.identified == whole.inference.identified


def test_a_window_that_people_choose_is_not_checked() -> None:
    """Others show in it without that."""
    _, traffic = calibrated(limits.FixedWindow(60, 10.0), None)
    assert kept_full(traffic) == 0


def probed(spec: Spec, *more: VirtualLimit) -> Prober:
    """Probe a limit, and stop there."""
    world = World((VirtualLimit("requests", spec), *more), Network(0.02, 0.02), Service(0.4, 0.3))
    prober = Prober(SimulatedTraffic(world, seed=2, max_requests=100_000), CalibrationOptions(seed=2), lambda _: None)
    prober.run()
    return prober


def test_nothing_is_sent_in_vain_where_refused_calls_count() -> None:
    """Then nothing passes while more is sent: it ends after a window and a half, and the longest stretch."""
    prober = probed(limits.SlidingLog(10, 5.0, count_refused=True))
    began_s = prober.traffic.now_s()
    saturate(prober, memory_s=12.0)
    assert prober.traffic.now_s() - began_s < 60.0


@pytest.mark.parametrize("places", [10, 20])
@pytest.mark.parametrize("seed", [2, 3])
def test_a_window_that_is_kept_full_is_not_taken_for_places(places: int, seed: int) -> None:
    """What passes begins and ends with the answers there, too; but most is refused while nothing is in flight."""
    world = World(
        (
            VirtualLimit("requests", limits.FixedWindow(200, 20.0)),
            VirtualLimit("concurrency", limits.Concurrency(places)),
        ),
        Network(0.02, 0.02),
        Service(0.3, 0.3),
    )
    traffic = SimulatedTraffic(world, seed=seed, max_requests=100_000)
    prober = Prober(traffic, CalibrationOptions(seed=seed), lambda _: None)
    prober.run()
    saturate(prober, memory_s=22.0)
    found = saturation(Calls.from_attempts(traffic.attempts))
    assert found is not None
    assert found.low <= 10.0 <= found.high


def test_it_ends_where_the_target_fails() -> None:
    """No faster, and not for long: what fails is not what passes."""
    prober = probed(limits.FixedWindow(60, 10.0))
    traffic = prober.traffic
    assert isinstance(traffic, SimulatedTraffic)
    run, first = traffic.run, len(traffic.attempts)

    def failing(probe: Probe) -> ProbeReport:
        report = run(probe)
        for attempt in traffic.attempts[report.first : report.last]:
            attempt.status = 503
        return report

    traffic.run = failing  # type: ignore[method-assign]
    saturate(prober, memory_s=12.0)
    assert len(traffic.attempts) - first < 400


def test_no_more_is_sent_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little that tells, and not one call more."""
    monkeypatch.setattr(saturating, "MOST_CALLS", 500)
    prober = probed(limits.FixedWindow(60, 10.0))
    first = len(prober.traffic.attempts)
    saturate(prober, memory_s=66.0)
    assert len(prober.traffic.attempts) - first == 500


def test_an_hour_is_not_waited_for() -> None:
    """Such a window remembers longer than anybody waits, and what passes meanwhile is not its rate."""
    prober = probed(limits.FixedWindow(60, 10.0))
    first = len(prober.traffic.attempts)
    saturate(prober, memory_s=3600.0)
    assert len(prober.traffic.attempts) == first


def test_calls_in_flight_stay_below_their_own_limit() -> None:
    """What is refused is the rate's doing."""
    prober = probed(limits.FixedWindow(60, 10.0), VirtualLimit("concurrency", limits.Concurrency(12)))
    assert prober.fit.concurrency == 12
    first = len(prober.traffic.attempts)
    saturate(prober, memory_s=12.0)
    sent = prober.traffic.attempts[first:]
    out = [sum(b.sent_s <= a.sent_s < b.done_s for b in sent) for a in sent]
    assert max(out) <= 8
    assert sum(a.status == 429 for a in sent) > 20


def said(limit: Limit, *kinds: str) -> Inference:
    """Say one thing."""
    told = tuple(Finding(kind=kind, value=None) for kind in kinds)
    return Inference((Identified(limit),), told, 0.01, None)


FOUND = Saturation(
    rate_per_s=2.0, low=1.9, high=2.2, error=0.02, parts=8, lasted_s=60.0, at_once=1, ever_at_once=9, waited=0.1
)
COUNTER = Limit(
    metric="requests", state="measured", family="sliding_counter", limit=20.0, window_s=17.3,
    rate_per_min=69.4, rate_per_min_ci95=(69.0, 69.8), burst=20.0,
)  # fmt: skip


def test_what_contradicts_a_limit_is_told_with_the_rate_that_passed() -> None:
    """As others on the quota, with neither family nor window."""
    told = beside_others(said(COUNTER), FOUND)
    limit = told.identified[0].limit
    assert suspicious(said(COUNTER))
    assert [finding.kind for finding in told.findings] == ["background"]
    assert "42%" in told.findings[0].text
    assert told.findings[0].value is None  # settings that were verified leave it to them already
    assert (limit.family, limit.window_s, limit.limit) == (None, None, None)
    assert limit.rate_per_min == pytest.approx(120.0)
    assert limit.rate_per_min_ci95 == pytest.approx((114.0, 132.0))


@pytest.mark.parametrize(
    "inference",
    [
        said(COUNTER, "random"),
        said(Limit(metric="requests", state="at_least", rate_per_min=30.0)),
        said(Limit(metric="requests", state="random")),
    ],
)
def test_what_it_says_nothing_about_stays(inference: Inference) -> None:
    """Refusals by chance, and limits that were not met."""
    assert not suspicious(inference)
    assert beside_others(inference, FOUND) == inference


def test_two_limits_that_do_not_let_so_much_through_are_one() -> None:
    """Two of which the lower one lets that much through stay."""
    slow = msgspec.structs.replace(COUNTER, rate_per_min=63.0)
    fast = msgspec.structs.replace(COUNTER, rate_per_min=400.0)
    two = Inference((Identified(fast), Identified(slow)), (), 0.01, None)
    assert suspicious(two)
    told = beside_others(two, FOUND)
    assert [(x.limit.metric, x.limit.family, x.limit.rate_per_min) for x in told.identified] == [
        ("requests", None, 120.0)
    ]
    right = Inference(
        (two.identified[0], Identified(msgspec.structs.replace(COUNTER, rate_per_min=121.0))), (), 0.01, None
    )
    assert beside_others(right, FOUND) == right


def test_a_number_that_agrees_keeps_its_family() -> None:
    """With the interval of what passed, and of the calls in a window; never without the number itself."""
    fixed = Limit(
        metric="requests", state="measured", family="fixed_window", limit=19.0, limit_ci95=(18.0, 21.0), window_s=10.0,
        window_s_ci95=(9.9, 10.1), rate_per_min=114.2, rate_per_min_ci95=(104.0, 123.0), burst=19.0,
    )  # fmt: skip
    limit = beside_others(said(fixed, "background"), FOUND).identified[0].limit
    assert (limit.family, limit.window_s, limit.rate_per_min) == ("fixed_window", 10.0, 114.2)
    assert limit.limit_ci95 == (18.0, 22.0)
    assert limit.rate_per_min_ci95 == pytest.approx((114.0, 132.0))


def test_a_counter_may_keep_a_call_back() -> None:
    """Of three calls it lets in two a window while it is kept full."""
    small = Identified(COUNTER, ((1.0, limits.SlidingCounter(3.0, 1.5, 0.0)),))
    plain = said(COUNTER, "background")
    wide = beside_others(Inference((small,), plain.findings, 0.01, None), FOUND).identified[0].limit.rate_per_min_ci95
    assert wide is not None
    assert wide[1] == pytest.approx(1.5 * 132.0)
    assert math.isclose(wide[0], 114.0)


def test_settings_are_not_discounted_twice() -> None:
    """A bucket beside others was measured as what they leave; that they were found changes nothing in that."""
    bucket = Limit(
        metric="requests", state="measured", family="token_bucket", burst=20.0, rate_per_min=100.0,
        rate_per_min_ci95=(99.0, 101.0),
    )  # fmt: skip
    alone = Inference((Identified(bucket, ((1.0, limits.TokenBucket(100.0 / 60.0, 20.0)),)),), (), 0.01, None)
    told = beside_others(alone, FOUND)
    assert told.identified[0].limit.rate_per_min == pytest.approx(120.0)
    assert [finding.kind for finding in told.findings] == ["background"]
    assert recommend(told).requests_per_minute == recommend(alone).requests_per_minute


def test_odd_windows_are_looked_at_for_longer() -> None:
    """What such a counter remembers must have gone first; others take three quarters of a minute."""
    assert check_s([60.0, 1.0]) == check_s([]) == 45.0
    assert check_s([42.0, 60.0]) == pytest.approx(168.0)
    assert check_s([599.0]) == 280.0


@pytest.mark.parametrize(("window_s", "expected"), [(1.14, True), (1.0, False), (27.0, False)])
def test_a_window_that_is_nearly_a_common_one_is_suspicious(window_s: float, *, expected: bool) -> None:
    """It may be the common one, of a limit that moved; others are contradicted soon enough."""
    limit = msgspec.structs.replace(COUNTER, family="fixed_window", window_s=window_s)
    assert suspicious(said(limit)) is expected


def test_where_nothing_is_known_a_counter_of_few_calls_is_allowed_for() -> None:
    """Two calls passed together before; kept full, such a counter lets in one in a window."""
    unknown = Limit(metric="requests", state="unresolved", reason="something else uses it")
    places = Limit(metric="concurrency", state="at_least", limit=2.0)
    told = replace(said(unknown, "background"), identified=(Identified(unknown), Identified(places)))
    assert beside_others(told, FOUND).identified[0].limit.rate_per_min_ci95 == pytest.approx((114.0, 264.0))
    together = replace(FOUND, at_once=2)
    assert beside_others(told, together).identified[0].limit.rate_per_min_ci95 == pytest.approx((114.0, 132.0))
    apart = replace(told, findings=(Finding(kind="replicas", value=2.0, ci95=(2.0, 4.0)),))
    on_each = beside_others(apart, replace(together, waited=0.0))  # one on each of them, and each keeps one back
    assert on_each.identified[0].limit.rate_per_min_ci95 == pytest.approx((114.0, 264.0))
    lone = replace(FOUND, at_once=8, waited=0.0)  # of many calls, two servers let in several each
    places = msgspec.structs.replace(places, limit=8.0)
    several = replace(apart, identified=(Identified(unknown), Identified(places)))
    assert beside_others(several, lone).identified[0].limit.rate_per_min_ci95 == pytest.approx((114.0, 132.0))


def test_others_who_came_are_told_from_a_limit_that_moved_by_what_passes() -> None:
    """What was told to have fallen still lets in as much as before: it did not move."""
    now = msgspec.structs.replace(COUNTER, family="fixed_window", window_s=60.0, limit=69.0)
    moved = said(now, "drift", "background")
    others = beside_others(moved, FOUND)
    assert others.identified[0].limit.rate_per_min_ci95 == pytest.approx((114.0, 132.0))
    assert [finding.kind for finding in others.findings] == ["background", "drift"]
    agreed = beside_others(moved, replace(FOUND, rate_per_s=1.16, low=1.1, high=1.2))
    assert agreed.identified == moved.identified
    assert [finding.kind for finding in agreed.findings] == ["drift"]
    risen = replace(moved, findings=(Finding(kind="drift", value=0.3), moved.findings[1]))
    assert beside_others(risen, replace(FOUND, rate_per_s=1.16, low=1.1, high=1.2)) == risen  # or others have left it


@pytest.mark.parametrize(("ever_at_once", "high"), [(4, 146.7), (9, 146.7), (30, 132.0)])
def test_room_on_servers_that_count_apart_waits_for_a_call_on_each(ever_at_once: int, high: float) -> None:
    """Unless each of them lets in several at once."""
    unknown = Limit(metric="requests", state="unresolved", reason="servers count apart")
    apart = Finding(kind="replicas", value=8.0, ci95=(6.0, 10.0))
    told = Inference((Identified(unknown),), (apart,), 0.01, None)
    limit = beside_others(told, replace(FOUND, ever_at_once=ever_at_once)).identified[0].limit
    assert limit.rate_per_min_ci95 == pytest.approx((114.0, high), abs=0.1)
