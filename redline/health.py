"""When to give up on a target: what no further call would mend. Pure.

A refused key, a missing model, an unpaid bill or a day's quota that is used up stop a run at the first answer. A
lost connection or a strange answer may be a fault of the moment, so those must come in a row, with no good answer
between.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redline.client import Outcome

REFUSED_IN_A_ROW = 5  # nothing listens any more
LOST_IN_A_ROW = 50  # far beyond what a faulty network does at a few per cent
STRANGE_IN_A_ROW = 3  # before the first good answer: not a Gemini server


class Health:
    """Reads outcomes in the order of their ends. Each of its two verdicts is one line for the user, None until then.

    ``fatal``: no call can succeed. ``day_over``: none can before the quota of the day is back.
    """

    def __init__(self, url: str, model: str) -> None:
        self._url = url
        self._model = model
        self._answered = False  # a 200 or a 429 was seen: the target speaks Gemini and knows us
        self._refused = self._lost = self._strange = 0
        self.fatal: str | None = None
        self.day_over: str | None = None

    def ended(self, outcome: Outcome) -> None:
        """Judge one more outcome."""
        answer = outcome.answer
        if answer.error == "daily_quota" and self.day_over is None:
            named = f" ({answer.quota_id})" if answer.quota_id else ""
            self.day_over = f"the quota of {self._model!r} for the day is used up{named}"
        if self.fatal is None:
            self.fatal = self._at_once(outcome) or self._in_a_row(outcome)

    def _at_once(self, outcome: Outcome) -> str | None:
        answer = outcome.answer
        if answer.error == "auth":
            return f"{self._url} refused the key (HTTP {answer.status}): {_short(answer.message)}"
        if answer.error == "billing":
            return f"{self._url} asks for payment (HTTP {answer.status}): {_short(answer.message)}"
        if answer.status == HTTPStatus.NOT_FOUND and not self._answered:
            return f"{self._url} has no model {self._model!r} (--model): {_short(answer.message)}"
        if answer.error == "invalid" and not self._answered:
            return f"{self._url} rejects the calls (HTTP {answer.status}): {_short(answer.message)}"
        return None

    def _in_a_row(self, outcome: Outcome) -> str | None:
        error = outcome.answer.error
        good = error in {"", "throttled", "daily_quota", "blocked"}
        self._answered = self._answered or good
        self._refused = self._refused + 1 if outcome.refused else 0
        self._lost = self._lost + 1 if error == "connection" else 0
        self._strange = self._strange + 1 if error == "malformed" else 0
        if self._refused >= REFUSED_IN_A_ROW:
            return f"nothing listens at {self._url} any more"
        if self._lost >= LOST_IN_A_ROW:
            return f"{self._url} loses every connection: {_short(outcome.answer.message)}"
        if self._strange >= STRANGE_IN_A_ROW and not self._answered:
            return f"{self._url} does not speak Gemini's wire format: {_short(outcome.answer.message)}"
        return None


def _short(message: str) -> str:
    """Keep one line of the server's words."""
    line = " ".join(message.split())
    return line if len(line) <= 160 else line[:157] + "..."  # noqa: PLR2004 - one line on a terminal
