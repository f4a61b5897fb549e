"""Have the compiled loops of the inference ready before a run that must not wait for them."""

from __future__ import annotations

import numpy as np

from analysis import again, counters, decisions, replay, slopes
from analysis.calls import ADMITTED, REFUSED, Calls
from analysis.fit import fit

WINDOW_S, PASSED, REFUSALS, WINDOWS = 10.0, 4, 3, 6


def get_ready() -> None:
    """Explain a few calls of a made-up limit in every way there is.

    Takes some seconds the first time on a machine, and a moment from then on: see `analysis.kernels`.
    """
    each = np.arange(PASSED + REFUSALS) * 0.5
    sent_s = np.concatenate([window * WINDOW_S + each for window in range(WINDOWS)])
    outcome = np.tile([ADMITTED] * PASSED + [REFUSED] * REFUSALS, WINDOWS)
    blank, ones, names = np.full(len(sent_s), np.nan), np.ones(len(sent_s)), ("",) * len(sent_s)
    calls = Calls(sent_s, sent_s + 0.1, outcome, ones, blank, blank, blank, names, names)
    fitted = fit(calls)
    record = decisions.at_middle(decisions.prepare(calls, fitted.offsets_s))
    replay.passed(record, "anchored_window", [(WINDOW_S,)], float(PASSED))
    counters.feasible(record, (WINDOW_S, 0.0), float(PASSED))
    again.beside_chance(calls, fitted.hypotheses[0], 0.1)
    again.surprise_of_places(calls, PASSED, 0.1, np.ones(len(calls), bool))
    slopes.rough(slopes.counts(np.tile(each, WINDOWS), outcome == ADMITTED))
