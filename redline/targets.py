"""What ``--target`` means, whether it may be loaded without asking, and how it is opened.

A target is the bundled mock (a child process), the simulator (virtual time), Gemini, or any URL that speaks
Gemini's wire format. Nothing here reads what a target enforces: a profile's name is passed on, no more.
"""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from redline.client import check_target, keys_from
from redline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from redline.budget import Budget
    from redline.record import RunFile
    from redline.traffic import Traffic

GEMINI_URL = "https://generativelanguage.googleapis.com"


@dataclass(frozen=True, slots=True)
class Target:
    """Where calls go. ``kind``: mock, sim, gemini or url; ``url`` is empty for the first two."""

    kind: str
    url: str = ""

    @property
    def host(self) -> str:
        """The host that is loaded; empty where it is this machine's own mock or simulator."""
        return urlsplit(self.url).hostname or ""

    @property
    def name(self) -> str:
        """What the result calls it."""
        return self.url or self.kind

    @property
    def is_local(self) -> bool:
        """Whether no other machine is loaded."""
        if not self.url or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse(text: str, environment: Mapping[str, str]) -> Target:
    """Read ``--target``. Raises `UsageError`."""
    if text in {"mock", "sim"}:
        return Target(text)
    if text == "gemini":
        if not keys_from(environment):
            raise UsageError("--target gemini needs a key: set GEMINI_API_KEY or GOOGLE_API_KEY")
        return Target(text, GEMINI_URL)
    if text == "vertex":
        raise UsageError("--target vertex cannot be called yet; give the URL of a gateway that takes an API key")
    try:
        return Target("url", check_target(text))
    except ValueError as error:
        raise UsageError(str(error)) from None


def require_consent(target: Target, allowed_hosts: Collection[str], *, yes: bool) -> None:
    """Raise `UsageError` where another machine would be loaded and nobody said that it may be."""
    if target.is_local or yes or target.host in allowed_hosts:
        return
    raise UsageError(
        f"--target {target.name} loads another machine and uses up its quota; "
        f"say that it may: --yes, or --allow-host {target.host}"
    )


@dataclass(frozen=True, slots=True)
class Sending:
    """How calls are made, whatever the target."""

    model: str
    transport: str
    profile: str
    seed: int
    budget: Budget


@contextlib.contextmanager
def opened(target: Target, sending: Sending, run_file: RunFile) -> Iterator[Traffic]:
    """Give the traffic to a target; all child processes are gone afterwards.

    Raises `UsageError` for a profile that cannot be used, TargetError where the target cannot be reached.
    """
    if target.kind == "sim":
        from redline.simulation import Simulation  # noqa: PLC0415 - numpy, which a real target does without here

        with Simulation(sending, run_file) as simulation:
            yield simulation
        return
    from redline.locust_traffic import LocustTraffic  # noqa: PLC0415 - only where something is sent
    from redline.mock_process import running_mock  # noqa: PLC0415 - likewise

    with contextlib.ExitStack() as stack:
        url = target.url or stack.enter_context(running_mock(sending.profile, seed=sending.seed))
        yield stack.enter_context(
            LocustTraffic(
                url,
                run_file,
                model=sending.model,
                transport=sending.transport,
                seed=sending.seed,
                budget=sending.budget,
            )
        )
