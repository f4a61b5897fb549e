"""Prompts of a wanted size that differ from their first words on.

Gemini caches equal prefixes, and cached tokens may be counted in another way, so no two prompts begin alike. A
common short word is about one token; `Prompts.learn` corrects the ratio with what the server counted. No I/O here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

_TEXT = (
    "air arm art bag ball bank bar base bed bell bird boat body book box boy bread bus cake call camp car card cat "
    "chair city class clock cloud coat cold cook corn cup day desk dog door drop ear east egg end eye face farm field "
    "fire fish floor food foot fox game gate girl glass gold grass hall hand hat head hill home horse hour house ice "
    "ink iron job key king lake land leaf leg light line lion list lock map milk moon name neck nest night north nose "
    "note oil page paper park path pen place plant plate pool port post rain ring river road rock room rope rose salt "
    "sand school sea seat seed ship shoe shop side sign sky snow soap song south spoon star step stone sun table tail "
    "team tent time town train tree walk wall water way week west wind wing wood word yard year"
)
_WORDS = _TEXT.split()
SAMPLE_WORDS = 200  # of the prompt that sizes all others
_BLOCK_WORDS, _BLOCKS = 500, 32  # drawn once: a large prompt must not take the time in which other calls are due


class Prompts:
    """Makes prompts from a seeded stream."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._words_per_token = 1.0
        self._blocks: list[str] = []

    def make(self, tokens: int) -> str:
        """Return a prompt of about ``tokens`` input tokens, at least one word."""
        count = max(1, round(tokens * self._words_per_token))
        blocks = max(0, count // _BLOCK_WORDS - 1)
        beginning = self._draw(count - blocks * _BLOCK_WORDS)
        return " ".join([beginning, *self._draw_blocks(blocks)])

    def sample(self) -> str:
        """Return a prompt of `SAMPLE_WORDS` words, to be counted by the server."""
        return self._draw(SAMPLE_WORDS)

    def _draw(self, count: int) -> str:
        return " ".join(self._rng.choices(_WORDS, k=count))

    def _draw_blocks(self, count: int) -> list[str]:
        if count and not self._blocks:
            self._blocks = [self._draw(_BLOCK_WORDS) for _ in range(_BLOCKS)]
        return self._rng.choices(self._blocks, k=count) if count else []

    def learn(self, counted_tokens: int) -> None:
        """Take the server's count of a sample as the size of a word."""
        if counted_tokens > 0:
            self._words_per_token = SAMPLE_WORDS / counted_tokens
