"""Splitting: once, by cluster and seed, the same whatever order the examples come in."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dspy_optimization.agents.candidate import content_hash
from dspy_optimization.agents.dataset import Dataset, DatasetVersion, SplitShares
from dspy_optimization.agents.example import Example, ExampleId, Split
from dspy_optimization.agents.near_duplicates import Groups, input_text, near_pairs
from dspy_optimization.agents.reading import Reading
from dspy_optimization.agents.untrusted import shown
from dspy_optimization.errors import InvalidRequestError

NEAR_PREFIX = "near:"


def build_dataset(
    name: str,
    reading: Reading,
    *,
    seed: int = 0,
    shares: SplitShares | None = None,
    group_near_duplicates: bool = True,
) -> Dataset:
    """Return the dataset of what was read: equal examples once, each in exactly one split.

    Splits that the source names are kept as they are (`agents.checking` reports the leaks they have). Otherwise
    nearly equal examples become one cluster, and clusters are split.

    Raises:
        InvalidRequestError: too few clusters for three splits, an example named for two splits, wrong shares.
    """
    if reading.splits is not None:
        assigned = _given(reading.examples, reading.splits)
        examples = _distinct(reading.examples)
    else:
        examples = _distinct(reading.examples)
        if group_near_duplicates:
            examples = with_near_clusters(examples)
        assigned = split_examples(examples, seed=seed, shares=shares or SplitShares())
    order = sorted(examples, key=lambda example: _draw(seed, example.id))
    splits = {split: tuple(one for one in order if assigned[one.id] is split) for split in Split}
    return Dataset(name=name, version=dataset_version(splits), splits=splits, seed=seed)


def dataset_version(splits: Mapping[Split, Sequence[Example]]) -> DatasetVersion:
    """Return the content hash of examples and splits; the order of the examples does not count."""
    content = {
        split.value: sorted((example.to_json() for example in splits[split]), key=lambda one: str(one["id"]))
        for split in Split
    }
    return DatasetVersion(content_hash(content))


def split_examples(examples: Sequence[Example], *, seed: int, shares: SplitShares) -> Mapping[ExampleId, Split]:
    """Return example → split, by whole clusters; an example without a cluster is one of its own.

    Clusters stand in the order of a hash of seed and name, and the shares cut that order by number of examples: the
    splits are as large as whole clusters allow, and one example more moves at most one cluster at each cut.

    Raises:
        InvalidRequestError: fewer than three clusters, or shares that do not sum to 1.
    """
    _check_shares(shares)
    clusters: dict[str, list[ExampleId]] = defaultdict(list)
    for example in examples:
        clusters[_cluster_key(example)].append(example.id)
    order = sorted(clusters, key=lambda key: _draw(seed, key))
    if len(order) < len(Split):
        raise InvalidRequestError(
            f"at least 3 clusters are wanted, one for each of train, val and test, found {len(order)} in "
            f"{len(examples)} examples; possible: more examples, or no cluster field"
        )
    cuts = _cuts([len(clusters[key]) for key in order], shares)
    return {
        one: split
        for position, key in enumerate(order)
        for split in (_split_at(position, cuts),)
        for one in clusters[key]
    }


def with_near_clusters(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Return the examples with every group of nearly equal inputs in one cluster.

    A group takes the smallest name among the clusters it touches; where it touches none it is called `near:` and
    the beginning of its smallest id. Clusters that a group connects become one.
    """
    groups = Groups(len(examples))
    for pair in near_pairs([input_text(example) for example in examples]):
        groups.join(pair.first, pair.second)
    firsts: dict[str, int] = {}
    for position, example in enumerate(examples):
        if example.cluster is not None:
            groups.join(firsts.setdefault(example.cluster, position), position)
    named = list(examples)
    for members in groups.members().values():
        if len(members) < 2:
            continue
        given = [cluster for cluster in (examples[one].cluster for one in members) if cluster is not None]
        name = min(given) if given else NEAR_PREFIX + min(examples[one].id for one in members)[:12]
        for one in members:
            named[one] = replace(examples[one], cluster=name)
    return tuple(named)


def _distinct(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Keep each example once; of equal ones with other clusters the smallest, so that order does not matter."""
    kept: dict[ExampleId, Example] = {}
    for example in examples:
        known = kept.get(example.id)
        if known is None or _rank(example) < _rank(known):
            kept[example.id] = example
    return tuple(kept.values())


def _rank(example: Example) -> tuple[bool, str, str]:
    return example.cluster is None, example.cluster or "", content_hash(dict(example.metadata))


def _given(examples: Sequence[Example], splits: Sequence[Split]) -> Mapping[ExampleId, Split]:
    assigned: dict[ExampleId, Split] = {}
    for example, split in zip(examples, splits, strict=True):
        known = assigned.setdefault(example.id, split)
        if known is not split:
            raise InvalidRequestError(
                f"an example stands in one split, found {shown(input_text(example))} in {known} and {split}; "
                "possible: remove one of the two"
            )
    missing = [split.value for split in Split if split not in assigned.values()]
    if missing:
        raise InvalidRequestError(
            f"examples for each of train, val and test are wanted, found none for {', '.join(missing)}; possible: add "
            "some, or name no splits and have them made"
        )
    return assigned


def _check_shares(shares: SplitShares) -> None:
    values = (shares.train, shares.val, shares.test)
    if not all(0.0 < value < 1.0 for value in values) or not math.isclose(sum(values), 1.0, abs_tol=1e-9):
        raise InvalidRequestError(
            f"shares above 0 that sum to 1 are wanted, found train {shares.train}, val {shares.val}, test "
            f"{shares.test}; possible: 0.3, 0.3, 0.4"
        )


def _cluster_key(example: Example) -> str:
    return f"id:{example.id}" if example.cluster is None else f"cluster:{example.cluster}"


def _draw(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}/{key}".encode()).hexdigest()


def _cuts(sizes: Sequence[int], shares: SplitShares) -> tuple[int, int]:
    """Return how many clusters come before val and before test, each split with at least one."""
    before = [0]
    for size in sizes:
        before.append(before[-1] + size)
    train = _nearest(before, before[-1] * shares.train, 1, len(sizes) - 2)
    test = _nearest(before, before[-1] * (shares.train + shares.val), train + 1, len(sizes) - 1)
    return train, test


def _nearest(before: Sequence[int], wanted: float, lowest: int, highest: int) -> int:
    return min(range(lowest, highest + 1), key=lambda count: (abs(before[count] - wanted), count))


def _split_at(position: int, cuts: tuple[int, int]) -> Split:
    if position < cuts[0]:
        return Split.TRAIN
    return Split.VAL if position < cuts[1] else Split.TEST
