"""Texts as vectors, without a model: hashed words and pairs of words.

Good enough to see that two instructions say nearly the same, and to let a model guess that what resembles a good one
is better than nothing known. The same text gives the same vector everywhere.
"""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dspy_optimization.compute.ranking import Floats

_HASHED = 256
_WORD = re.compile(r"\w+")
_BYTES_A_NUMBER = 8


@lru_cache(maxsize=4096)
def _counts(text: str) -> Floats:
    words = _words(text)
    found = np.zeros(_HASHED)
    for token in (*words, *(" ".join(pair) for pair in itertools.pairwise(words))):
        digest = hashlib.blake2b(token.encode(), digest_size=_BYTES_A_NUMBER).digest()
        number = int.from_bytes(digest)
        found[number % _HASHED] += 1.0 if number >> 63 else -1.0
    length = float(np.linalg.norm(found))
    found /= length or 1.0
    found.setflags(write=False)
    return found


@lru_cache(maxsize=8)
def _projection(width: int) -> Floats:
    # Fixed for ever: vectors of texts must not change from run to run.
    drawn: Floats = np.random.default_rng(0x7E47).standard_normal((_HASHED, width)) / np.sqrt(width)
    drawn.setflags(write=False)
    return drawn


def vectors(texts: Sequence[str], width: int) -> Floats:
    """Return a short vector a text, (n, width), whose distances are about those of the hashed words.

    Source: Weinberger et al. (2009), feature hashing; Johnson and Lindenstrauss (1984) for the projection.
    """
    if not texts:
        return np.zeros((0, width))
    # One by one: a product of matrices rounds differently with the number of rows.
    return np.stack([_counts(text) @ _projection(width) for text in texts])


def similarity(one: str, other: str) -> float:
    """Return how alike two texts are, the cosine of their hashed words: 1 for the same words in the same order."""
    return 1.0 if one == other else float(_counts(one) @ _counts(other))


def words_apart(one: str, other: str) -> int:
    """Return how many words only one of two texts has, a word counting as often as it stands there."""
    left, right = (Counter(_words(text)) for text in (one, other))
    return ((left - right) + (right - left)).total()


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
