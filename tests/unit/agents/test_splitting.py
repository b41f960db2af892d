"""Splitting: disjoint, stable, balanced, by whole clusters."""

import random

import pytest
from agent_samples import example
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.agents.dataset import SplitShares
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.reading import Reading
from dspy_optimization.agents.splitting import build_dataset, dataset_version, split_examples, with_near_clusters
from dspy_optimization.errors import InvalidRequestError

clustered = st.lists(
    st.builds(
        lambda number, cluster: example(f"{number}", f"{number}", None if cluster is None else f"c{cluster}"),
        st.integers(0, 10**9),
        st.none() | st.integers(0, 5),
    ),
    min_size=12,
    max_size=40,
    unique_by=lambda one: one.id,
)
SHARES = SplitShares()


@given(clustered, st.integers(0, 99), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_splits_are_disjoint_whole_and_stable(examples, seed: int, rng: random.Random) -> None:
    """Each example in one split, each cluster too, whatever order they come in."""
    if len({one.cluster or one.id for one in examples}) < 3:
        return
    dataset = build_dataset("x", Reading(examples=tuple(examples)), seed=seed, group_near_duplicates=False)
    shuffled = list(examples)
    rng.shuffle(shuffled)
    again = build_dataset("x", Reading(examples=tuple(shuffled)), seed=seed, group_near_duplicates=False)
    clusters = [{one.cluster or one.id for one in dataset[split]} for split in Split]

    assert dataset == again
    assert sorted(one.id for one in examples) == sorted(one.id for one in dataset.examples)
    assert set() == clusters[0] & clusters[1] | clusters[0] & clusters[2] | clusters[1] & clusters[2]
    assert all(dataset[split] for split in Split)


@pytest.mark.parametrize("count", [3, 10, 101])
def test_shares_are_kept(count: int) -> None:
    """Single examples are cut to the nearest whole number, and no split is empty."""
    examples = [example(str(number)) for number in range(count)]
    assigned = split_examples(examples, seed=0, shares=SHARES)
    sizes = [sum(one is split for one in assigned.values()) for split in Split]

    assert all(abs(size - share * count) <= 1 for size, share in zip(sizes, (0.3, 0.3, 0.4), strict=True))
    assert min(sizes) >= 1


@given(st.integers(0, 10**6), st.integers(0, 20))
def test_one_example_more_moves_at_most_two(extra: int, seed: int) -> None:
    """At each of the two cuts at most one example changes its side."""
    examples = [example(f"question {number}") for number in range(50)]
    before = split_examples(examples, seed=seed, shares=SHARES)
    after = split_examples([*examples, example(f"extra {extra}")], seed=seed, shares=SHARES)

    assert sum(before[one.id] is not after[one.id] for one in examples) <= 2


def test_a_seed_is_another_split() -> None:
    """Another seed, another version."""
    reading = Reading(examples=tuple(example(f"question {number}") for number in range(30)))

    assert build_dataset("x", reading, seed=1).version != build_dataset("x", reading, seed=2).version


def test_the_version_is_content() -> None:
    """Splits, clusters and metadata count; order does not."""
    one, two = example("a"), example("b")
    splits = {Split.TRAIN: [one, two], Split.VAL: [], Split.TEST: []}
    versions = [
        dataset_version(splits),
        dataset_version({Split.TRAIN: [one], Split.VAL: [two], Split.TEST: []}),
        dataset_version({**splits, Split.TRAIN: [example("a", cluster="c"), two]}),
        dataset_version({**splits, Split.TRAIN: [example("a", x=1), two]}),
    ]

    assert len(set(versions)) == 4
    assert versions[0] == dataset_version({**splits, Split.TRAIN: [two, one]})


def test_near_duplicates_become_one_cluster() -> None:
    """What is nearly equal cannot end up in two splits; clusters it touches become one."""
    text = "please tell me how i can get the money back that i paid for the parcel that never came to my house"
    examples = [example(text, cluster="b"), example(f"{text}!", cluster="a"), example(f"{text}?!"), example("other")]
    named = with_near_clusters([*examples, example("third", cluster="b")])

    assert ["a", "a", "a", None, "a"] == [one.cluster for one in named]
    alone = with_near_clusters([example(text), example(f"{text}!")])
    assert alone[0].cluster == alone[1].cluster
    assert str(alone[0].cluster).startswith("near:")


def test_equal_examples_stand_once() -> None:
    """Of equal ones with other clusters the smallest counts, whatever the order."""
    examples = [example("a", cluster="z"), example("a", cluster="b"), example("a"), example("b"), example("c")]
    dataset = build_dataset("x", Reading(examples=tuple(examples)))

    assert len(dataset.examples) == 3
    assert dataset == build_dataset("x", Reading(examples=tuple(reversed(examples))))
    assert ["b"] == [one.cluster for one in dataset.examples if one.inputs == {"question": "a"}]


def test_given_splits_are_kept() -> None:
    """The user's own splits are not made better behind the user's back."""
    examples = tuple(example(name) for name in "abc")
    dataset = build_dataset("x", Reading(examples=examples, splits=(Split.TEST, Split.TRAIN, Split.VAL)))

    assert [examples[1], examples[2], examples[0]] == list(dataset.examples)


@pytest.mark.parametrize(
    ("examples", "splits", "shares", "fragment"),
    [
        (
            "ab",
            None,
            None,
            "at least 3 clusters are wanted, one for each of train, val and test, found 2 in 2 examples",
        ),
        ("abcd", None, SplitShares(train=0.5, val=0.5, test=0.5), "shares above 0 that sum to 1 are wanted"),
        ("abcd", None, SplitShares(train=1.0, val=0.0, test=0.0), "found train 1.0, val 0.0, test 0.0"),
        (
            "aab",
            (Split.TRAIN, Split.TEST, Split.VAL),
            None,
            "an example stands in one split, found 'a' in train and test",
        ),
        ("ab", (Split.TRAIN, Split.TEST), None, "found none for val"),
    ],
)
def test_refusals(examples, splits, shares, fragment: str) -> None:
    """Too little, wrong shares, and an example in two splits."""
    reading = Reading(examples=tuple(example(name) for name in examples), splits=splits)
    with pytest.raises(InvalidRequestError) as caught:
        build_dataset("x", reading, shares=shares)

    assert fragment in str(caught.value)
