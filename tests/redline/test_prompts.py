"""Prompts have the size that was asked for, and no two begin alike."""

from __future__ import annotations

from random import Random

import pytest

from redline.prompts import SAMPLE_WORDS, Prompts


def prompts() -> Prompts:
    """Make them from a fixed seed."""
    return Prompts(Random(1))  # noqa: S311 - words, not secrets


@pytest.mark.parametrize("tokens", [1, 499, 500, 999, 1000, 1234, 120_000])
def test_a_prompt_has_as_many_words_as_tokens_are_wanted(tokens: int) -> None:
    """Also where most of it is made of blocks."""
    assert len(prompts().make(tokens).split()) == tokens


def test_large_prompts_differ_from_their_first_words_on() -> None:
    """What a server has seen before it may count as cached."""
    made = prompts()
    beginnings = {" ".join(made.make(50_000).split()[:20]) for _ in range(50)}
    assert len(beginnings) == 50


def test_the_servers_count_of_a_sample_sizes_what_follows() -> None:
    """Two tokens a word: half as many words."""
    made = prompts()
    made.learn(2 * SAMPLE_WORDS)
    assert len(made.make(10_000).split()) == 5000
