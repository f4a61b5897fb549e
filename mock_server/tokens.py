"""Deterministic token counts, and text of an exact count. The real tokenizer is not public; this one is simple.

A word (what whitespace separates) of up to four characters is one token, and each further four characters one
more. So N words of at most four characters are exactly N tokens, whatever they say.
"""

from __future__ import annotations

import functools
from typing import Any

CHARS_PER_TOKEN = 4
IMAGE_TOKENS = 258  # what the service counts for an image of up to 384 x 384 pixels
_WORDS = ("a", "calm", "sea", "is", "what", "each", "boat", "and", "its", "crew", "want", "at", "dawn")
_DATA = frozenset({"inlineData", "inline_data", "fileData", "file_data"})
_SHORT = 64
_TOKENS_BY_LENGTH = [(length + CHARS_PER_TOKEN - 1) // CHARS_PER_TOKEN for length in range(_SHORT)]


def count_text(text: str) -> int:
    """Return the number of tokens in a text."""
    try:
        return sum(map(_TOKENS_BY_LENGTH.__getitem__, map(len, text.split())))
    except IndexError:  # a word of 64 characters or more
        return sum((len(word) + CHARS_PER_TOKEN - 1) // CHARS_PER_TOKEN for word in text.split())


@functools.lru_cache(maxsize=1024)
def make_text(tokens: int, start: int = 0) -> str:
    """Return words of exactly ``tokens`` tokens; ``start`` says where in the endless text to begin."""
    return " ".join(_WORDS[(start + place) % len(_WORDS)] for place in range(tokens))


def count_part(part: dict[str, Any]) -> int:
    """Return the tokens of one part of a content: text, or data that counts as an image."""
    text = part.get("text")
    if isinstance(text, str):
        return count_text(text)
    if not _DATA.isdisjoint(part):
        return IMAGE_TOKENS
    return count_text(" ".join(str(value) for value in part.values()))
