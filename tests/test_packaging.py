"""What is installed: pins that fit what the project asks for, and a wheel that works away from the checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PIN = re.compile(r"^([a-z0-9._-]+)(?:\[([a-z0-9,._-]+)\])?==(\S+)(?: ; .*)? \\$", re.MULTILINE)


def pins(name: str) -> dict[str, Version]:
    """Return the pinned versions of a requirements file."""
    return {found[0]: Version(found[2]) for found in PIN.findall((ROOT / name).read_text(encoding="utf-8"))}


def pinned_extras() -> dict[str, set[str]]:
    """Return the extras that the two files pin, by package."""
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "requirements-dev.txt"))
    found: dict[str, set[str]] = {}
    for name, extras, _ in PIN.findall(text):
        found.setdefault(name, set()).update(extras.split(",") if extras else ())
    return found


def asked(group: list[str]) -> list[Requirement]:
    """Parse requirements as pyproject.toml writes them."""
    return [Requirement(text) for text in group]


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("requirements.txt", PROJECT["project"]["dependencies"]),
        ("requirements.txt", PROJECT["build-system"]["requires"]),
        ("requirements-dev.txt", PROJECT["dependency-groups"]["dev"]),
        ("requirements-dev.txt", PROJECT["project"]["optional-dependencies"]["redis"]),
        ("requirements-dev.txt", PROJECT["project"]["optional-dependencies"]["notebook"]),
    ],
)
def test_pins_fit_what_the_project_asks_for(file: str, group: list[str]) -> None:
    """Each requirement is pinned to a version that it allows: after a change, `make lock`."""
    pinned = pins(file)
    for requirement in asked(group):
        assert requirement.name in pinned
        assert pinned[requirement.name] in requirement.specifier


def test_an_extra_that_a_pinned_package_asks_for_is_pinned_with_it() -> None:
    """Else pip before 24 looks for the newest `name[extra]`, which has no hash once a release has come out."""
    pinned = pinned_extras()
    for name in pinned:
        for text in metadata.requires(name) or ():
            asks = Requirement(text)
            if asks.extras and (asks.marker is None or asks.marker.evaluate({"extra": ""})):
                assert asks.extras <= pinned[canonicalize_name(asks.name)], f"{name} asks for {asks}"


def test_both_files_pin_alike() -> None:
    """They are installed into one environment."""
    runtime, dev = pins("requirements.txt"), pins("requirements-dev.txt")
    assert all(dev[name] == runtime[name] for name in runtime.keys() & dev.keys())


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_pins_are_hashed_and_name_no_index(file: str) -> None:
    """A line is a pin or a hash and nothing else: no option, no address."""
    text = (ROOT / file).read_text(encoding="utf-8")
    assert text.count("==") == len(pins(file))
    for line in text.splitlines():
        assert re.fullmatch(
            r"[a-z0-9._-]+(?:\[[a-z0-9,._-]+\])?==\S+(?: ; .*)? \\|    --hash=sha256:[0-9a-f]{64}(?: \\)?", line
        ), line


def test_extras_stay_out_of_the_first_install() -> None:
    """What only some users need is not in the runtime pins."""
    runtime = pins("requirements.txt")
    for group in PROJECT["project"]["optional-dependencies"].values():
        assert not {requirement.name for requirement in asked(group)} & runtime.keys()


def test_lower_bounds_and_no_upper_ones() -> None:
    """Newest releases, from the oldest that is tried; nothing keeps a newer one out."""
    groups = [
        PROJECT["project"]["dependencies"],
        PROJECT["dependency-groups"]["dev"],
        *PROJECT["project"]["optional-dependencies"].values(),
    ]
    for requirement in (requirement for group in groups for requirement in asked(group)):
        assert {specifier.operator for specifier in requirement.specifier} == {">="}, requirement


@pytest.mark.acceptance
def test_the_wheel_works_from_an_empty_folder(tmp_path: Path) -> None:
    """Built, unpacked elsewhere and run there: the command, its data and its scenarios are all inside."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(site)
    for needed in ("mock_server/profiles/demo.toml", "locustfiles/calibrate.py", "redline/py.typed"):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "reports/", "benchmarks/"))]
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import redline.cli; print(redline.cli.__file__); sys.exit(redline.cli.run({}))"
    )
    for words in (["--help"], ["mock", "--list"], ["calibrate", "--dry-run"]):
        done = subprocess.run(
            [sys.executable, "-P", "-c", program.format(words)], cwd=empty, capture_output=True, text=True, check=True
        )
        assert str(site) in done.stdout.splitlines()[0]
