"""What the documents promise is there: commands, options, targets, files, exit codes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from analysis.result import State
from mock_server import profile as profiles
from redline import cli
from redline.errors import ExitCode

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SHOWN = re.compile(r"^\$ (.+?)(?:\s+#.*)?$", re.MULTILINE)
COMMANDS = [(path.name, line) for path in DOCUMENTS for line in SHOWN.findall(path.read_text(encoding="utf-8"))]


def options_of(name: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return the options that a command's own help lists."""
    assert cli.run([name, "--help"]) == 0
    return set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_each_command_that_is_shown_exists(document: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line after a prompt is a make target or a redline command with options that it has."""
    words = shlex.split(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", MAKEFILE, re.MULTILINE), document
    elif Path(words[0]).name == "redline":
        assert words[1] in cli.COMMANDS, document
        known = options_of(words[1], capsys)
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in known, f"{document}: {line}"
    else:
        assert words[0] in {"export", "locust"}, f"{document}: {line}"


def test_each_option_that_is_named_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """An option in the README's prose belongs to some command."""
    known = {option for name in cli.COMMANDS for option in options_of(name, capsys)}
    for option in re.findall(r"(?<=`)--[a-z][a-z-]*", README):
        assert option in known, option


def test_each_profile_that_is_named_exists() -> None:
    """So do the profiles."""
    for name in re.findall(r"--profile ([a-z-]+)", README):
        assert name in profiles.bundled()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_link_into_the_repository_leads_somewhere(document: Path) -> None:
    """Links and pictures with a relative address are files."""
    for address in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not address.startswith(("http://", "https://")):
            assert (document.parent / address).exists(), address


def test_the_readme_tells_each_exit_code() -> None:
    """The table has the codes that exist, and no other."""
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE) for code in row.split(",")}
    assert told == {code.value for code in ExitCode}


def test_the_readme_tells_each_state() -> None:
    """The table has the states that a limit can be in, and no other."""
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == set(State.__args__)


def test_make_help_tells_each_target() -> None:
    """A target that people call has its sentence."""
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    for target in phony.split():
        assert re.search(rf"^{target}:.*## \S", MAKEFILE, re.MULTILINE), target
