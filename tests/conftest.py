"""What all tests share: a virtual clock, a seeded random stream, and the rule about programs that may be missing."""

from __future__ import annotations

import os
import random
import shutil
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

from redline.clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable

# The time that an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("dev", deadline=None, max_examples=50)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=200, derandomize=True)
# A shell starts what runs in the background with SIGINT ignored, and so would start every program under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


def find_program(*names: str) -> str:
    """Return the path of the first of these programs that is there.

    Where none is: the test is skipped with its reason, and fails where ``CI`` is set.
    """
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    reason = f"needs the program {' or '.join(names)} (a Debian package; .ci/run installs it)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(name="require_program", scope="session")
def fixture_require_program() -> Callable[..., str]:
    """Give a function: names of a program in, its path out, or the test is skipped (fails where CI is set)."""
    return find_program


@pytest.fixture
def clock() -> VirtualClock:
    """Give a clock that moves only when somebody sleeps on it."""
    return VirtualClock()


@pytest.fixture
def rng() -> random.Random:
    """Give a seeded random stream."""
    return random.Random(20261123)  # noqa: S311 - repeatable tests, not secrets
