'''A pytest plugin: test your own Gemini code against real refusals. Registered by installing redline.

The fixture ``gemini_mock`` is a function. Give it a profile (a bundled name, a path, or TOML as text) and it starts
a mock on a free port of this machine and returns its URL; the mock ends with the test. An example, which is itself
a test of ours:

    from google import genai
    from google.genai import errors, types

    TWO_A_MINUTE = """
    [[limits]]
    metric = "requests"
    family = "anchored_window"
    limit = 2
    window_s = 60
    """

    def ask(client: genai.Client) -> str:
        """The code under test: give up politely when the quota is used up."""
        try:
            return client.models.generate_content(model="gemini-3.8-flash", contents="hello").text
        except errors.ClientError as error:
            if error.code == 429:
                return "please try again later"
            raise

    def test_the_third_call_is_told_to_wait(gemini_mock):
        client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=gemini_mock(TWO_A_MINUTE)))
        answers = [ask(client) for _ in range(3)]
        assert "please try again later" not in answers[:2]
        assert answers[2] == "please try again later"
'''

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class StartMock(Protocol):
    """What the fixture gives: each call starts one more mock and returns its URL."""

    def __call__(self, profile: str = "demo", *, seed: int = 0) -> str:
        """Start a mock. Raises `redline.errors.UsageError` with one line where the profile cannot be used."""


@pytest.fixture
def gemini_mock(tmp_path: Path) -> Iterator[StartMock]:
    """Give a function: a profile in, the URL of a mock that serves it out. The mocks end with the test."""
    from redline.mock_process import running_mock  # noqa: PLC0415 - a plugin is loaded by every pytest run

    with ExitStack() as stack:

        def start(profile: str = "demo", *, seed: int = 0) -> str:
            if "\n" in profile:
                path = tmp_path / "profile.toml"
                path.write_text(profile, encoding="utf-8")
                profile = str(path)
            return stack.enter_context(running_mock(profile, seed=seed))

        yield start
