"""The rules that hold the rooms apart, and those that keep a file readable: checked, so that they stay true."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("redline", "analysis", "mock_server", "locustfiles")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MAX_FILE_LINES = 500  # the aim is 350; past this a file has to be split
MAX_FUNCTION_LINES = 60  # code lines; the median is far below
MAX_SCENARIO_LINES = 60

# What must not be in a tracked file. Each is written so that this file does not match itself.
SECRETS = {
    "an API key": r"AIza[0-9A-Za-z_-]{35}",
    "a private key": r"BEGIN [A-Z ]*PRIVATE KEY",
    "a package index": r"pypi\.org/simp[l]e|files\.pythonhosted[.]|--(?:extra-)?index-ur[l][ =]http|file:///op[t]",
    "a path of one machine": r"(?<![\w.])/(?:ro[o]t|wor[k]|ho[m]e/\w+)/",
}
# Tests over real sockets, processes and event loops, which have to wait for them; each waits in small steps.
WAITS = {"time.sleep", "sleep", "asyncio.sleep", "gevent.sleep"}
MAY_WAIT = {
    "tests/analysis/test_export.py",
    "tests/mock_server/test_serving.py",
    "tests/redline/test_sender.py",
    "tests/test_hidden_server.py",
}


def run_python(program: str) -> str:
    """Run a program in a fresh interpreter; return what it printed."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT).stdout


@cache
def parsed(path: Path) -> ast.Module:
    """Parse a file once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """Return a path as the tests are named."""
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[Path]:
    """Return the files that git tracks; all text files of the rooms where this is no checkout."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return [*MODULES, ROOT / "README.md", ROOT / "pyproject.toml"]
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_import_contracts_are_kept() -> None:
    """Imports go down only; the contracts are in pyproject.toml."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["analysis", "mock_server"])
def test_a_room_is_entered_without_loading_it(module: str) -> None:
    """A Locust process imports a leaf of these rooms; their `__init__` must not bring the rest."""
    assert not (ROOT / module / "__init__.py").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("analysis.schema", {"pandas", "numpy", "msgspec", "locust"}),
        ("mock_server.limits", {"numpy", "msgspec", "aiohttp"}),
        ("redline.traffic", {"numpy", "locust", "gevent"}),
        ("redline.locust_traffic", {"locust", "gevent", "pandas"}),
        ("redline.calibration", {"locust", "gevent", "matplotlib"}),
        ("redline.commands.calibrate", {"locust", "gevent", "numpy", "pandas"}),
        ("mock_server.app", {"locust", "numpy", "pandas", "redline", "analysis"}),
    ],
)
def test_what_a_module_does_not_bring_along(module: str, absent: set[str]) -> None:
    """Sending and thinking are two processes, and a leaf stays light."""
    loaded = run_python(f"import {module}, sys; print(*sys.modules)").split()
    assert not absent & set(loaded)


@pytest.mark.parametrize("path", sorted((ROOT / "mock_server" / "limits").glob("*.py")), ids=name_of)
def test_limits_are_pure(path: Path) -> None:
    """The families know no clock, no other room and no package: time is an argument."""
    for node in ast.walk(parsed(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or name.startswith("mock_server.limits")
            assert top != "time"


@pytest.mark.parametrize("path", sorted((ROOT / "locustfiles").glob("*.py")), ids=name_of)
def test_a_scenario_is_thin_and_imports_no_other(path: Path) -> None:
    """Each is loaded as a file by Locust: a second scenario imported from it would exist twice."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_SCENARIO_LINES
    others = {other.stem for other in path.parent.glob("*.py")}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in others | {"locustfiles"}
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & (others | {"locustfiles"})


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_readable(path: Path) -> None:
    """A file is one idea, a function fits on a screen."""
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
            lines = (node.end_lineno or 0) - first.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name != "__init__.py" and path.parent.name != "scripts"], ids=name_of
)
def test_each_module_says_what_it_owns(path: Path) -> None:
    """The first sentence of a file is its docstring; a study begins with its first cell."""
    assert ast.get_docstring(parsed(path))


def test_no_secret_index_or_machine_is_tracked() -> None:
    """No key, no index address, no path of somebody's machine, in any file that git tracks."""
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for what, pattern in SECRETS.items():
            found = re.search(pattern, text)
            assert found is None, f"{name_of(path)} holds {what}: {found.group() if found else ''}"


def test_fast_tests_do_not_wait() -> None:
    """Time is an argument or a virtual clock; what has to wait is a slow test, or is on the list above."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if name_of(path) in MAY_WAIT or "pytest.mark.acceptance" in path.read_text(encoding="utf-8"):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in WAITS, f"{name_of(path)}:{node.lineno} waits"
