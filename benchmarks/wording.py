"""A world and an answer in words, one line each: for the eyes of whoever reads the failures. It judges nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worlds import Case

    from analysis.result import Limit
    from redline.calibration import Calibration


def describe(case: Case) -> str:
    """Return the truth on one line."""
    world = case.world
    parts = [
        f"{t.metric} {t.family} "
        + (f"N={t.limit:g} W={t.window_s:.6g}" if t.limit and t.window_s else f"B={t.burst:g}")
        + f" {t.rate_per_s * 60:.6g}/min"
        + (" counts refused" if t.count_refused else "")
        + ("" if t.counts else " (hidden)")
        for t in case.rates
    ]
    if case.concurrency is not None:
        parts.append(f"C={case.concurrency}" + ("" if case.concurrency_counts else " (hidden)"))
    if case.random_probability is not None:
        parts.append(f"random {case.random_probability:.2%}")
    parts += [f"a quota a day of which {x.used:g} are used" for x in world.limits if x.used]
    if world.faults.hang:
        parts.append(f"{world.faults.hang:.1%} never answered")
    if world.background:
        parts.append(f"others {case.background_share:.0%} in groups of {world.background.group}")
    if world.limits[0].replicas > 1:
        parts.append(f"{world.limits[0].replicas} replicas")
    if case.change:
        starts_s, before, after = case.change
        kind = "steps" if len(world.limits[0].changes) == 1 else "slides"
        parts.append(f"{kind} at {starts_s:.1f} s by {after.rate_per_s / before.rate_per_s - 1:+.0%}")
    network = world.network
    parts.append(
        f"L={world.service.median_s:.2f}±{world.service.sigma:.2f} "
        f"way {network.minimum_s * 1e3:.0f}+{network.spread_s * 1e3:.0f} ms 5xx {world.faults.overloaded:.1%}"
    )
    return "; ".join(parts)


def answer_of(calibration: Calibration | None) -> str:
    """Return what the calibration said, on one line."""
    if calibration is None:
        return "nothing"
    parts = [_limit_words(found.limit) for found in calibration.inference.identified]
    parts += [f"{finding.kind}={finding.value}" for finding in calibration.inference.findings]
    if calibration.settings:
        parts.append(
            f"set {calibration.settings.requests_per_minute} rpm b={calibration.settings.burst} "
            f"C={calibration.settings.max_concurrency}"
        )
    parts.append(f"{calibration.ended} after {calibration.probed_s:.1f} s, {calibration.probed_calls} calls")
    return "; ".join(parts)


def _limit_words(limit: Limit) -> str:
    words = [limit.metric, limit.state]
    if limit.family:
        words.append(f"{limit.family} ({limit.family_probability or 0:.3f})")
    for name, value, interval in (
        ("N", limit.limit, limit.limit_ci95),
        ("W", limit.window_s, limit.window_s_ci95),
        ("B", limit.burst, limit.burst_ci95),
        ("rpm", limit.rate_per_min, limit.rate_per_min_ci95),
    ):
        if value is not None:
            words.append(f"{name}={value:.6g}" + (f"[{interval[0]:.6g},{interval[1]:.6g}]" if interval else ""))
    if limit.counts_refused:
        words.append("counts refused")
    if limit.reason:
        words.append(f"({limit.reason})")
    return " ".join(words)
