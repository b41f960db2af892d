"""Near duplicates: held against exact Jaccard similarity over all pairs."""

import random
import time
from collections import Counter

from agent_samples import example
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents.near_duplicates import Groups, input_text, near_pairs

WORDS = [f"word{number}" for number in range(2000)]


def _texts(count: int, rng: random.Random) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=40)) for _ in range(count)]


def _shingles(text: str) -> set[str]:
    return {text[start : start + 5] for start in range(len(text) - 4)}


def test_pairs_are_the_ones_of_exact_jaccard() -> None:
    """Against all pairs by Python sets: nothing is missed, nothing added, the similarity is the same.

    The words are many and the texts few, so hardly any shingle is shared by more than five texts.
    """
    rng = random.Random(1)
    texts = _texts(60, rng)
    for number in range(30):
        words = texts[number].split()
        for _ in range(rng.choice([1, 1, 2, 6])):
            words[rng.randrange(40)] = rng.choice(WORDS)
        texts.append(" ".join(words))
    counts = Counter(one for text in texts for one in _shingles(text))
    sets = [{one for one in _shingles(text) if counts[one] <= 5} for text in texts]
    exact = {
        (one, other): len(sets[one] & sets[other]) / len(sets[one] | sets[other])
        for one in range(len(texts))
        for other in range(one + 1, len(texts))
    }
    expected = {pair: alike for pair, alike in exact.items() if alike >= 0.8}

    assert expected == {(pair.first, pair.second): pair.similarity for pair in near_pairs(texts)}
    assert len(expected) > 10


def test_a_template_is_no_likeness() -> None:
    """Two hundred tasks with one long frame and different numbers are different tasks."""
    rng = random.Random(2)
    texts = [
        f"Here is a question about numbers, please answer with a single number and nothing else: {rng.random()} ?"
        for _ in range(200)
    ]

    assert near_pairs(texts) == ()
    assert [(0, 200)] == [(pair.first, pair.second) for pair in near_pairs([*texts, texts[0]])]


def test_equal_texts_are_found_however_many() -> None:
    """Equal texts are pairs of similarity 1 with the first of them, also when all are equal or empty."""
    assert [(0, 1, 1.0), (0, 2, 1.0)] == [(one.first, one.second, one.similarity) for one in near_pairs(["", "", ""])]
    assert near_pairs([]) == ()
    assert near_pairs(["a", "b", "ab"]) == ()


def test_inputs_are_evened_out() -> None:
    """Case, spacing and width of letters do not matter, other fields do."""
    one, other = example("Ｈｅｌｌｏ   World"), example("hello\nworld")

    assert input_text(one) == input_text(other) == "hello world"


def test_twenty_thousand_take_seconds() -> None:
    """The cost grows with the texts, not with their pairs."""
    rng = random.Random(3)
    texts = _texts(5_000, rng)
    started = time.process_time()
    pairs = near_pairs(texts + [f"{text} end" for text in texts[:50]])

    assert len(pairs) == 50
    assert time.process_time() - started < 15.0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_groups_are_the_connected_components(edges: list[tuple[int, int]]) -> None:
    """Union-find against repeated merging of sets."""
    groups = Groups(10)
    sets = [{number} for number in range(10)]
    for one, other in edges:
        groups.join(one, other)
        merged = next(some for some in sets if one in some) | next(some for some in sets if other in some)
        sets = [some for some in sets if not some & merged] + [merged]

    assert {min(some): sorted(some) for some in sets} == groups.members()
