"""Texts as vectors: the same everywhere, near when they say the same, far when they do not."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.algorithms.text_vectors import similarity, vectors, words_apart

LONG = " ".join(f"word{number}" for number in range(300))


def test_the_same_text_gives_the_same_vector_in_another_process() -> None:
    """Python's own hashes of texts differ from process to process; a replay must not."""
    code = "from dspy_optimization.algorithms.text_vectors import vectors; print(vectors(['Say why.'], 4).tolist())"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert str(vectors(["Say why."], 4).tolist()) == told.stdout.strip()


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=40), max_size=5), width=st.integers(1, 16))
def test_a_vector_is_that_of_its_text_alone(texts: list[str], width: int) -> None:
    """Whatever stands beside it; no text has no NaN, and as much as none at all has none of anything."""
    found = vectors(texts, width)

    assert (len(texts), width) == found.shape
    assert np.isfinite(found).all()
    for text, vector in zip(texts, found, strict=True):
        assert vectors([text], width)[0].tolist() == vector.tolist()


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=60), other=st.text(max_size=60))
def test_similarity_is_a_cosine(text: str, other: str) -> None:
    """1 for the same, also where there is no word in it; the same both ways."""
    assert pytest.approx(1.0) == similarity(text, text)
    assert -1.0 - 1e-9 <= similarity(text, other) <= 1.0 + 1e-9
    assert similarity(other, text) == pytest.approx(similarity(text, other))


def test_words_and_their_order_count_and_case_and_signs_do_not() -> None:
    near = similarity("Check the units, then answer.", "check THE units then answer")
    turned = similarity("Check the units, then answer.", "Answer, then units the check.")
    other = similarity("Check the units, then answer.", "Write a poem about the sea and its ships.")

    assert pytest.approx(1.0) == near
    assert 0.3 < turned < 0.9
    assert other < 0.3


def test_vectors_keep_distances() -> None:
    """Johnson and Lindenstrauss: a projection on as many numbers leaves distances about as they are."""
    texts = [f"{LONG} {number} {' '.join(['more'] * number)}" for number in range(3)] + ["Say why.", "Be short."]
    cosines = np.array([[similarity(one, other) for other in texts] for one in texts])
    projected = vectors(texts, 512)

    assert np.abs(projected @ projected.T - cosines).max() < 0.15


def test_words_apart_count_what_only_one_has() -> None:
    assert 0 == words_apart("Be short, be kind.", "be kind; BE SHORT")
    assert 1 == words_apart("be short", "be be short")
    assert 2 == words_apart("at most 3 words", "at most 5 words")
    assert 4 == words_apart(LONG, f"{LONG} and say it aloud")
