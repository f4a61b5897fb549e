"""Where an option's value comes from when no flag gives it: the environment first, then ``redline.toml``.

``REDLINE_MAX_RPM=600`` is ``--max-rpm 600`` of each command that has it. In ``redline.toml`` (the current folder's)
``max_rpm = 600`` at the top holds for each command that has it, and under ``[calibrate]`` for that command alone.
What is misspelt is refused: a ceiling that silently does not hold is worse than none. This file knows names and
shapes; it knows no option's meaning.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from redline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FILE = "redline.toml"
PREFIX = "REDLINE_"
_ALIKE = 0.8  # how near a variable's name must be to an option's to be a slip; others are somebody else's

Shape = Literal["flag", "one", "several"]  # how many values an option takes


@dataclass(frozen=True, slots=True)
class Default:
    """A value from outside the command line, and the words that name its place."""

    value: Any
    source: str


def read_file(path: Path, commands: Iterable[str]) -> dict[str, Any]:
    """Read the file; empty where there is none. Raises `UsageError` naming the table that is no command's."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{FILE} cannot be read: {error}") from None
    known = set(commands)
    for key, value in content.items():
        if isinstance(value, dict) and key not in known:
            raise UsageError(f"{FILE}: [{key}] is no command; it takes {', '.join(sorted(known))}")
        if key in known and not isinstance(value, dict):
            raise UsageError(f"{FILE}: {key} is a command; its options go under [{key}]")
    return content


def defaults(
    command: str, options: Mapping[str, Shape], *, environment: Mapping[str, str], file: Mapping[str, Any]
) -> dict[str, Default]:
    """Return the values for a command's options (``max-rpm``, …) that the environment or the file gives.

    Raises `UsageError` naming a key under the command's own table that is none of its options, and a value that has
    not the option's shape.
    """
    found: dict[str, Default] = {}
    own = file.get(command, {})
    _refuse_unknown(command, own, {_key(name) for name in options})
    for name, shape in options.items():
        key = _key(name)
        variable = f"{PREFIX}{key.upper()}"
        if variable in environment:
            found[name] = Default(_shaped(environment[variable], shape, variable), variable)
        elif key in own:
            source = f"{FILE}, [{command}] {key}"
            found[name] = Default(_shaped(own[key], shape, source), source)
        elif key in file and not isinstance(file[key], dict):
            source = f"{FILE}, {key}"
            found[name] = Default(_shaped(file[key], shape, source), source)
    return found


def unclaimed(options: Iterable[str], *, environment: Mapping[str, str], file: Mapping[str, Any]) -> bool:
    """Return whether anything is set that is none of these options, and so another command's or a slip."""
    keys = {_key(name) for name in options}
    variables = {f"{PREFIX}{key.upper()}" for key in keys}
    return any(key not in keys for key, value in file.items() if not isinstance(value, dict)) or any(
        name.startswith(PREFIX) and name not in variables for name in environment
    )


def refuse_slips(options: Iterable[str], *, environment: Mapping[str, str], file: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a top-level key of the file that is no command's option, and for a variable's slip.

    ``options``: those of all commands. A variable that resembles none of them may be another program's.
    """
    keys = {_key(name) for name in options}
    for key, value in file.items():
        if not isinstance(value, dict) and key not in keys:
            raise UsageError(f"{FILE}: {key} is no option; {_hint(key, keys, 'redline COMMAND --help lists them')}")
    for variable in environment:
        key = variable.removeprefix(PREFIX).lower()
        near = difflib.get_close_matches(key, keys, n=1, cutoff=_ALIKE)
        if variable.startswith(PREFIX) and key not in keys and near:
            raise UsageError(f"{variable} is no option; did you mean {PREFIX}{near[0].upper()}?")


def _key(name: str) -> str:
    return name.replace("-", "_")


def _shaped(value: object, shape: Shape, source: str) -> object:
    """Return the value as its option takes it; a text stands for several, with commas between them."""
    if shape == "several":
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UsageError(f"{source} takes a list of texts, not {value!r}")
        return [text.strip() for text in texts if text.strip()]
    if not isinstance(value, str | int | float) or (isinstance(value, bool) and shape != "flag"):
        raise UsageError(f"{source} takes one value, not {value!r}")
    return value


def _refuse_unknown(command: str, own: Mapping[str, Any], known: set[str]) -> None:
    for key in own:
        if key not in known:
            hint = _hint(key, known, f"redline {command} --help lists its options")
            raise UsageError(f"{FILE}: [{command}] has no key {key}; {hint}")


def _hint(key: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise
