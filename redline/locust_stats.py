"""Tells Locust's own statistics and web UI about each call. A throttled call is data there, not a failure.

At most ten names in all: Locust keeps a table row for each, and its UI is read by people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from redline.client import Outcome
    from redline.record import Sent

NAME = "generateContent"


class CallFailedError(Exception):
    """What Locust's table of failures shows: the class of the error and the status."""


def observer(fire: Callable[..., Any]) -> Callable[[Sent, Outcome], None]:
    """Make an observer of calls that fires Locust's ``request`` event (``environment.events.request.fire``)."""

    def observe(sent: Sent, outcome: Outcome) -> None:
        answer = outcome.answer
        throttled = answer.status == 429  # noqa: PLR2004 - HTTP's own number
        failed = answer.error and not throttled
        fire(
            request_type="POST",
            name=f"{NAME} [429]" if throttled else NAME,
            response_time=(outcome.done_s - sent.sent_s) * 1000.0,
            response_length=answer.output_tokens or 0,
            exception=CallFailedError(f"{answer.error} (HTTP {answer.status})") if failed else None,
            context={},
        )

    return observe
