"""Texts to words: the units of NER."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tokenizers import Regex
from tokenizers.pre_tokenizers import PreTokenizer, Split

Bounds = tuple[int, int]
"""Where a word begins in its text, and where it has ended, in characters."""

_ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
PATTERN = rf"[{_ALONE}]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]&&[^{_ALONE}]]+|[^\s\p{{C}}\p{{Z}}]"
"""What a word is: a letter of a script that puts no blanks between words; a run of other letters, digits and marks; or
any other visible character. Tokens joined by blanks and the text that they were cut from have the same words."""
PADDING = -2
"""In `words`: fills rows of fewer words than the longest."""
UNSEEN = -1
"""In `words`: a word without a token, as all are that `max_length` cut off."""


@lru_cache
def _splitter(pattern: str) -> PreTokenizer:
    return Split(Regex(pattern), "removed", invert=True)


def split_words(text: str, pattern: str = PATTERN) -> list[Bounds]:
    """Return where a text's words stand, in order."""
    return [bounds for _, bounds in _splitter(pattern).pre_tokenize_str(text)]


def first_tokens(words: Sequence[Bounds], offsets: Sequence[Bounds]) -> list[int]:
    """Return the number of the first token that has a part in each word, UNSEEN where none has.

    Args:
        offsets: where each token stands in the text, as words do; special tokens and padding are empty.
    """
    firsts, token = [], 0
    for start, end in words:
        while token < len(offsets) and offsets[token][1] <= start:
            token += 1
        firsts.append(token if token < len(offsets) and offsets[token][0] < end else UNSEEN)
    return firsts
