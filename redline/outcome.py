"""A result in a few lines for the terminal, and as an exit code. Pure; the words are `analysis.wording`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis import wording
from redline.errors import ExitCode, worst

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analysis.result import Result

# A limit in one of these states leaves nothing open; `declared` and `not_tested` were not asked about.
_CONCLUDED = {"measured", "at_least", "random", "declared", "not_tested"}


def exit_code(result: Result) -> ExitCode:
    """Return what the result alone says: 0, 1 where the settings did not pass, 5 where a limit is unresolved.

    A limit on tokens that is in doubt leaves settings for requests to stand on: the verdict names it.
    """
    codes = []
    if any(limit.state not in _CONCLUDED and limit.metric != "input_tokens" for limit in result.limits):
        codes.append(ExitCode.UNRESOLVED)
    verified = result.verification is not None and result.verification.passed
    if result.settings is not None and not verified:
        codes.append(ExitCode.FAILED)
    return worst(*codes)


def lines(result: Result) -> Iterator[str]:
    """Yield the verdict: which limit, how sure, what to set, did it hold, and what it cost."""
    yield wording.headline(result)
    yield f"  how sure   {wording.sureness(result)}"
    for finding in result.findings:
        yield f"  found      {finding.text}"
    yield f"  set        {wording.setting(result.settings)}"
    yield f"  held       {_held(result)}"
    spent = result.spent
    money = f", US$ {spent.usd:.4f}" if spent.usd else ""
    calls = f"{wording.number(spent.requests)} calls, {wording.number(spent.throttled)} of them refused"
    yield f"  spent      {calls}, in {wording.span(spent.wall_s)}{money}"


def _held(result: Result) -> str:
    seen = result.verification
    if seen is None:
        return "Not verified." if result.settings else "There was nothing to verify."
    return f"{'Yes' if seen.passed else 'No'}: {wording.witnessed(seen)}"
