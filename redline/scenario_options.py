"""How a scenario declares its options to Locust, and reads them back from its command line or its web form.

Locust keeps the names that it has taken for itself (``--profile``, ``--json``, ``--processes`` and more), so a scenario
offers only others. Knows Locust's parser by its methods alone and imports nothing of Locust.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from redline.budget import Budget
from redline.plan import seconds

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable


class Duration(str):
    """A length of time as people write it: ``90``, ``90s``, ``10m``, ``1h30m``."""

    __slots__ = ()


_TAKES = {float: "a number from 0", int: "a whole number from 0", str: "a text"}
_TAKES[Duration] = "seconds or a text such as 90s, 10m, 1h30m"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a scenario: ``--name``, what it takes, its default (None: may be left out), and its help."""

    name: str
    kind: type[float | int | str]
    default: float | str | None
    help: str

    @property
    def key(self) -> str:
        """The attribute that holds its value."""
        return self.name.lstrip("-").replace("-", "_")

    def read(self, value: Any) -> Any:  # noqa: ANN401 - whatever Locust or its web form gives
        """Convert a value; the web form gives texts, and an empty one for nothing. Raises ValueError."""
        if value is None or value == "":
            return None
        try:
            read = self.kind(value)
        except (TypeError, ValueError, OverflowError):
            read = None
        size = seconds(str(read)) if self.kind is Duration and read is not None else read
        if size is None or (not isinstance(size, str) and not 0 <= size < float("inf")):
            raise ValueError(f"{self.name} takes {_TAKES[self.kind]}, not {value!r}")
        return str(read) if self.kind is Duration else read


SENDING = (
    Option("--model", str, "gemini-3.8-flash", "The model to call"),
    Option("--transport", str, "fast", "fast: raw HTTP; sdk: google-genai, what production feels"),
    Option("--seed", int, 0, "For everything that is drawn at random"),
    Option("--out", str, "reports", "Where the run directory is made"),
)
BUDGET = (
    Option("--max-requests", int, None, "Send no more calls than this"),
    Option("--max-input-tokens", int, None, "Spend no more input tokens"),
    Option("--max-output-tokens", int, None, "Spend no more output tokens"),
    Option("--max-usd", float, None, "Spend no more, by the price table"),
    Option("--max-duration", Duration, None, "Send for no longer than this: 90s, 10m, 1h30m"),
    Option("--max-throttled-calls", int, None, "Stop after this many refused calls"),
)
CALL = (
    Option("--arrivals", str, "constant", "constant, poisson, or a CSV file with a column sent_s"),
    Option("--prompt-tokens", int, 1, "Input tokens of a call, about"),
    Option("--output-tokens", int, 1, "Output tokens of a call, at most"),
)


def offer(parser: Any, options: Iterable[Option]) -> None:  # noqa: ANN401 - Locust's parser, which has no types
    """Add options to ``--help`` and to the web UI's start form (but for the folder, which is the machine's affair)."""
    for option in options:
        parser.add_argument(
            option.name,
            default=option.default,
            type=str if option.default is None else option.kind,
            help=option.help,
            include_in_web_ui=option.key != "out",
        )


def values(parsed: Namespace | None, options: Iterable[Option]) -> SimpleNamespace:
    """Read all options. Raises ValueError in one line that names the option."""
    given = vars(parsed) if parsed else {}
    return SimpleNamespace(**{o.key: o.read(given.get(o.key, o.default)) for o in options})


def budget_of(options: SimpleNamespace) -> Budget:
    """Return the budget that the options set."""
    return Budget(
        options.max_requests,
        options.max_input_tokens,
        options.max_output_tokens,
        options.max_usd,
        None if options.max_duration is None else seconds(options.max_duration),
        options.max_throttled_calls,
    )
