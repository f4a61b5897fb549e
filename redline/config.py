"""Where an option's value comes from when no flag gives it: the environment first, then ``redline.toml``.

``REDLINE_MAX_RPM=600`` is ``--max-rpm 600`` of each command that has it. In ``redline.toml`` (the current folder's)
``max_rpm = 600`` at the top holds for each command that has it, and under ``[calibrate]`` for that command alone.
This file knows names and texts; it converts nothing and knows no option's meaning.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

FILE = "redline.toml"


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
    return content


def defaults(
    command: str, options: Iterable[str], *, environment: Mapping[str, str], file: Mapping[str, Any]
) -> dict[str, Default]:
    """Return the values for a command's options (``max-rpm``, …) that the environment or the file gives.

    Raises `UsageError` naming a key under the command's own table that is none of its options.
    """
    found: dict[str, Default] = {}
    names = list(options)
    own = file.get(command, {})
    _refuse_unknown(command, own, {name.replace("-", "_") for name in names})
    for name in names:
        key = name.replace("-", "_")
        variable = f"REDLINE_{key.upper()}"
        if variable in environment:
            found[name] = Default(environment[variable], variable)
        elif key in own:
            found[name] = Default(own[key], f"{FILE}, [{command}] {key}")
        elif key in file and not isinstance(file[key], dict):
            found[name] = Default(file[key], f"{FILE}, {key}")
    return found


def _refuse_unknown(command: str, own: Mapping[str, Any], known: set[str]) -> None:
    for key in own:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"redline {command} --help lists its options"
            raise UsageError(f"{FILE}: [{command}] has no key {key}; {hint}")
