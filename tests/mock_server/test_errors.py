"""Each error as the official client raises it: class, code, status and words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx2
import pytest
from google import genai
from google.genai import errors, types

from mock_server.errors import REJECTIONS
from mock_server.service import Faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    Serve = Callable[..., AbstractContextManager[str]]

MODEL = "gemini-3.8-flash"
NOTHING_LEFT = '[[limits]]\nmetric = "requests"\nfamily = "fixed_window"\nlimit = 0\nwindow_s = 60\n'


def client(url: str, key: str = "k") -> genai.Client:
    """Make the official client; nothing but the address is changed."""
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url))


@pytest.mark.parametrize(
    ("profile", "kind", "code", "status", "words"),
    [
        ("[faults]\noverloaded_503 = 1", errors.ServerError, 503, "UNAVAILABLE", "experiencing high demand"),
        ("[faults]\noverloaded_503_old = 1", errors.ServerError, 503, "UNAVAILABLE", "The model is overloaded."),
        ("[faults]\ninternal_500 = 1", errors.ServerError, 500, "INTERNAL", "Internal error encountered."),
        ("[faults]\ndeadline_504 = 1", errors.ServerError, 504, "DEADLINE_EXCEEDED", "Deadline expired before"),
        ("[faults]\ncancelled_499 = 1", errors.ClientError, 499, "CANCELLED", "The operation was cancelled."),
        ('[keys]\nvalid = ["a"]', errors.ClientError, 400, "INVALID_ARGUMENT", "API key not valid."),
        ('[keys.rejected]\nk = "expired"', errors.ClientError, 400, "INVALID_ARGUMENT", "API key expired."),
        (
            '[keys.rejected]\nk = "location"',
            errors.ClientError,
            400,
            "FAILED_PRECONDITION",
            "location is not supported",
        ),
        ('[keys.rejected]\nk = "leaked"', errors.ClientError, 403, "PERMISSION_DENIED", "reported as leaked."),
        ('[keys.rejected]\nk = "denied"', errors.ClientError, 403, "PERMISSION_DENIED", "has been denied access."),
        ('[keys.rejected]\nk = "suspended"', errors.ClientError, 403, "PERMISSION_DENIED", "has been suspended."),
        ('[keys.rejected]\nk = "referrer"', errors.ClientError, 403, "PERMISSION_DENIED", "<empty> are blocked."),
        ('[keys.rejected]\nk = "disabled"', errors.ClientError, 403, "PERMISSION_DENIED", "has not been used in"),
        (NOTHING_LEFT, errors.ClientError, 429, "RESOURCE_EXHAUSTED", "You exceeded your current quota"),
        (
            NOTHING_LEFT + '[refusal]\nshape = "prepaid_402"',
            errors.ClientError,
            402,
            "RESOURCE_EXHAUSTED",
            "Your prepayment credits are depleted.",
        ),
    ],
)
def test_what_the_client_raises(
    serve: Serve, profile: str, kind: type[errors.APIError], code: int, status: str, words: str
) -> None:
    """In a call and in a stream alike."""
    with serve(profile) as url:
        gemini = client(url)
        with pytest.raises(kind) as caught:
            gemini.models.generate_content(model=MODEL, contents="hi")
        with pytest.raises(kind) as streamed:
            list(gemini.models.generate_content_stream(model=MODEL, contents="hi"))
    assert (caught.value.code, caught.value.status) == (code, status)
    assert streamed.value.code == code
    assert words in str(caught.value.message)


def test_every_rejection_and_fault_is_tried_above() -> None:
    """A new one must not go untested."""
    tried = str(test_what_the_client_raises.pytestmark[0].args)  # type: ignore[attr-defined]
    assert all(f'"{reason}"' in tried for reason in REJECTIONS if reason != "invalid")
    assert all(name in tried for name in Faults.__struct_fields__ if name[-1].isdigit() or name.endswith("old"))


def test_too_many_tokens_is_a_400(serve: Serve) -> None:
    """The same code and status as a bad key; only the words differ."""
    with serve("") as url:
        gemini = client(url)
        with pytest.raises(errors.ClientError) as caught:
            gemini.models.generate_content(model=MODEL, contents="w " * 1_048_577)
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")
    assert "exceeds the maximum number of tokens allowed (1048576)" in str(caught.value.message)


def test_an_unknown_field_is_refused_by_name(serve: Serve) -> None:
    """With the place that it was found at."""
    body = {"contents": [{"parts": [{"text": "a"}]}], "generationConfig": {"colour": 3, "top_p": 1}}
    with serve("") as url:
        answer = httpx2.post(f"{url}/v1/models/{MODEL}:generateContent?key=k", json=body)
    assert answer.status_code == 400
    message = "Invalid JSON payload received. Unknown name \"colour\" at 'generation_config': Cannot find field."
    assert answer.json()["error"]["message"] == message


def test_a_malformed_answer(serve: Serve) -> None:
    """A 200 that is no JSON: the client cannot read it."""
    with serve("[faults]\nmalformed = 1") as url:
        gemini = client(url)
        with pytest.raises(json.JSONDecodeError):
            gemini.models.generate_content(model=MODEL, contents="hi")
        with pytest.raises(errors.UnknownApiResponseError):
            list(gemini.models.generate_content_stream(model=MODEL, contents="hi"))


def test_a_cut_answer(serve: Serve) -> None:
    """The connection breaks in the middle, in a stream after the first event."""
    with serve("[faults]\ncut = 1\n[length]\ntokens = 100\nsigma = 0") as url:
        gemini = client(url)
        broken = (httpx2.RemoteProtocolError, httpx2.ReadError)
        with pytest.raises(broken):
            gemini.models.generate_content(model=MODEL, contents="hi")
        seen = []
        with pytest.raises(broken):
            seen.extend(chunk.text for chunk in gemini.models.generate_content_stream(model=MODEL, contents="hi"))


def test_a_blocked_prompt(serve: Serve) -> None:
    """A 200 with a reason and no text."""
    with serve("[faults]\nblocked = 1") as url:
        gemini = client(url)
        answer = gemini.models.generate_content(model=MODEL, contents="hi")
        chunks = list(gemini.models.generate_content_stream(model=MODEL, contents="hi"))
    assert answer.text is None
    assert answer.prompt_feedback is not None
    assert answer.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT
    assert [chunk.text for chunk in chunks] == [None]


def test_a_maximum_spent_in_thought(serve: Serve) -> None:
    """No text, MAX_TOKENS, and the thoughts are counted; with thinking off there is an answer."""
    with serve("[length]\ntokens = 10\nsigma = 0\nthought_tokens = 50") as url:
        gemini = client(url)
        config = types.GenerateContentConfig(max_output_tokens=20)
        starved = gemini.models.generate_content(model=MODEL, contents="hi", config=config)
        config.thinking_config = types.ThinkingConfig(thinking_budget=0)
        answer = gemini.models.generate_content(model=MODEL, contents="hi", config=config)
    assert starved.text is None
    assert starved.candidates is not None
    assert starved.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    assert starved.usage_metadata is not None
    assert (starved.usage_metadata.thoughts_token_count, starved.usage_metadata.total_token_count) == (20, 21)
    assert answer.text
