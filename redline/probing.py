"""The probes that a calibration is made of: fills that meet a limit, and watches that see it recover.

Builders of `redline.traffic.Probe` values. They know how traffic is shaped and nothing of hypotheses.
"""

from __future__ import annotations

import numpy as np

from redline.traffic import Probe

FEW_POINTS = 4  # at which a recovery that is expected is looked for, at least


def burst(
    phase: str,
    n: int,
    *,
    rate_per_s: float,
    cap: int | None = None,
    stop_refused: int | None = None,
    tokens: int = 1,
    output_tokens: int = 1,
    drain: bool = False,
) -> Probe:
    """Return ``n`` calls as dense as the sender's rate allows."""
    return Probe(
        phase=phase,
        offsets_s=tuple(np.arange(n) / rate_per_s),
        max_in_flight=cap,
        stop_refused=stop_refused,
        drain=drain,
        prompt_tokens=tokens,
        output_tokens=output_tokens,
    )


def at_times(phase: str, offsets_s: tuple[float, ...], *, stop_refused: int | None, cap: int | None = None) -> Probe:
    """Return calls at the given times, whatever is in flight, or up to a cap."""
    return Probe(phase=phase, offsets_s=offsets_s, max_in_flight=cap, stop_refused=stop_refused, drain=False)


def stream(
    phase: str, *, rate_per_s: float, duration_s: float, cap: int | None, most: int | None = None, tokens: int = 1
) -> Probe:
    """Return a steady stream that ends at the first refusal; with a cap it becomes a closed loop at the cap."""
    return Probe(
        phase=phase,
        offsets_s=tuple(np.arange(int(duration_s * rate_per_s)) / rate_per_s),
        max_in_flight=cap,
        stop_refused=1,
        max_sent=most,
        drain=False,
        prompt_tokens=tokens,
    )


def watch(
    offsets_s: tuple[float, ...], *, admit_after_s: float, cap: int | None, tokens: int = 1, phase: str = "watch"
) -> Probe:
    """Return single calls at the given times, until one is admitted."""
    return Probe(
        phase=phase,
        offsets_s=offsets_s,
        max_in_flight=cap,
        stop_admitted=1,
        admit_after_s=admit_after_s,
        drain=False,
        prompt_tokens=tokens,
    )


def polling_times(
    since_block_s: float,
    horizon_s: float,
    focus: list[tuple[float, float]],
    *,
    first_gap_s: float,
    growth: float = 0.12,
    least_gap_s: float = 0.01,
    most_focused: int = 24,
) -> tuple[float, ...]:
    """Return offsets from now: gaps that grow with the time since the block, denser around each focus.

    ``focus``: rows of (moment from now, half width), both in seconds. A recovery seen between two polls is
    known to their gap, so the gap is kept a constant share of the wait.
    """
    times, at = [], 0.0
    while at < horizon_s:
        times.append(at)
        at += max(first_gap_s, growth * (since_block_s + at))
    for centre, half in focus:
        points = int(np.clip(2.0 * half / least_gap_s, FEW_POINTS, most_focused))
        if 2.0 * half / (points - 1) > growth * (since_block_s + max(0.0, centre - half)):
            continue  # so wide that the usual polls are closer already
        close = centre + half * np.linspace(-1.0, 1.0, points)
        times = [t for t in times if abs(t - centre) > half] + [float(t) for t in close if t >= 0]
    ordered = sorted(times)
    kept = ordered[:1]
    for t in ordered[1:]:
        if t - kept[-1] >= 0.5 * least_gap_s:
            kept.append(t)
    return tuple(kept)
