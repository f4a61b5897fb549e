"""Which calls of a record are evidence on which limit, and what they say together.

Probes are; a verification is where it met what probing had not. What a limit on tokens, a second limit on requests or a
quota of the day refused is set aside for the others. What may be said of each is `analysis.conclude`'s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from analysis.calls import REFUSED
from analysis.chance import foretold
from analysis.conclude import FEWEST_PROVEN, conclude_both, conclude_limits, token_limit
from analysis.estimate import Identified
from analysis.fit import fit
from analysis.promises import of_the_day, with_promises
from analysis.result import Limit
from analysis.saturation import saturation, without_saturation
from analysis.shared_rate import beside_others
from analysis.tokens import blamed, fit_tokens, for_requests, sized
from analysis.two_limits import BESIDE, LOOKING, SUSPECT, VERIFYING, explained, pair

if TYPE_CHECKING:
    from analysis.calls import Bools, Calls
    from analysis.estimate import Inference
    from analysis.fit import Fit
    from analysis.two_limits import Pair

ACCEPTED = 0.001  # share of refusals that the settings are made for


def infer(calls: Calls, *, settled: bool = False) -> Inference:
    """Explain a finished record and say what follows. ``settled``: probing has ended, and a verification follows.

    Phases named ``verify…`` are left out, with two exceptions. A verification that met a limit which probing had not
    met was followed by more probes: what it spent is part of what these met. And calls that were refused although the
    settings kept to every limit are evidence of what probing did not see. What the server says is told beside it.
    """
    evidence = without_saturation(calls)
    said = _inferred(evidence.set_aside(of_the_day(evidence)), settled=settled)
    said = with_promises(said, calls, evidence.where(~_verifying(evidence)[0]))
    found = saturation(calls)
    return said if found is None else beside_others(said, found)


def _inferred(calls: Calls, *, settled: bool) -> Inference:
    verifying, until = _verifying(calls)
    used = ~verifying
    if verifying[:until].any():
        probed = calls.take(np.arange(until))
        if met_no_rate(calls):
            used[:until] = True
        elif (both := pair(for_requests(probed))) is not None and (told := _beside_both(both, probed)):
            return told
    probes = calls.where(used)
    evidence, fitted, tokens = _explained(probes)
    proof = _proof(calls)
    if contradicted(calls) and not foretold(calls.where(proof), fitted):
        proven = calls.where(used | proof)
        _, fitted, tokens = _explained(proven)
        return _with_tokens(conclude_limits(fitted, FEWEST_PROVEN), fitted, proven, tokens)
    # Probing that takes a record for that of two limits goes on for both before anything is verified; what comes up
    # in a look for others is no second one either.
    over = (settled or bool(verifying.any())) and not verifying[:until].any()
    one = (over and BESIDE not in probes.phase) or LOOKING in probes.phase
    both = pair(evidence, fitted) if fitted.missed >= SUSPECT and not one else None
    if both is not None and (told := _beside_both(both, probes)):
        return told
    return _with_tokens(conclude_limits(fitted), fitted, probes, tokens)


def _verifying(calls: Calls) -> tuple[Bools, int]:
    """Return which calls are a verification's, and how many had been sent when probing ended.

    What looks for others after a verification is evidence as probes are, but they ended before.
    """
    verifying = np.array([phase.startswith(VERIFYING) for phase in calls.phase], bool)
    probes = ~verifying & np.array([phase != LOOKING for phase in calls.phase], bool)
    return verifying, int(np.max(np.flatnonzero(probes), initial=-1)) + 1


def _proof(calls: Calls) -> Bools:
    """Return which calls are of the first verification since probing ended."""
    verifying, until = _verifying(calls)
    attempt = calls.phase[until].rpartition("-")[0] if until < len(calls) else None
    return verifying & [phase.rpartition("-")[0] == attempt for phase in calls.phase]


def met_no_rate(calls: Calls) -> bool:
    """Return whether what was sent before the first verification met no limit on the rate of requests."""
    verifying, _ = _verifying(calls)
    first = int(np.argmax(verifying)) if verifying.any() else len(calls)
    return fit(for_requests(calls.take(np.arange(first)))).best is None


def _explained(record: Calls) -> tuple[Calls, Fit, Fit | None]:
    """Return the record as evidence on requests, what explains it, and the limit on tokens where one was met.

    A limit on tokens is believed where it explains, together with one on requests, more than requests alone.
    """
    alone = fit(record)
    met = _met(record)
    if not met.any():
        return record, alone, None
    requests = fit(for_requests(record))
    tokens = fit_tokens(record, requests)
    if tokens is None or tokens.best is None or tokens.score + requests.score < alone.score:
        return record, alone, None
    evidence = record.set_aside(met | blamed(record, tokens))
    return evidence, fit(evidence), tokens


def _met(record: Calls) -> Bools:
    """Return which calls with large prompts were refused."""
    return np.asarray(sized(record) & (record.outcome == REFUSED))


def _beside_both(both: Pair, record: Calls) -> Inference | None:
    """Return what two limits on requests allow to say, and the limit on tokens beside them; None where one is in doubt.

    Something else that disturbs a record is explained a little better by two limits than by one.
    """
    requests = conclude_both(both)
    if any(found.limit.state != "measured" for found in requests.identified[:2]):
        return None
    left = record.excuse(explained(record, both.long))
    tokens = fit_tokens(left, both.short) if _met(left).any() else None
    return _with_tokens(requests, both.short, record, tokens)


def _with_tokens(said_so_far: Inference, requests: Fit, record: Calls, tokens: Fit | None) -> Inference:
    found = token_limit(requests, record, tokens)
    if said_so_far.findings and found.limit.state == "measured":
        reason = "large prompts were refused, but so were small ones that no limit on requests explains"
        found = Identified(Limit(metric="input_tokens", state="unresolved", reason=reason))
    return replace(said_so_far, identified=(*said_so_far.identified, found))


def contradicted(calls: Calls) -> bool:
    """Return whether more was refused than settings allow, at 95 %, of the first verification since probing ended."""
    proof = calls.where(_proof(calls))
    refused = int(np.sum(proof.outcome == REFUSED))
    return refused > 0 and float(special.betaincinv(refused, len(proof) - refused + 1, 0.05)) > ACCEPTED
