"""Leaks: examples of one split that stand, equal or nearly so, in another."""

from collections.abc import Sequence
from dataclasses import dataclass

from dspy_optimization.agents.example import Example, Split
from dspy_optimization.agents.near_duplicates import NEAR_SIMILARITY, Groups, NearPair, input_text, near_pairs
from dspy_optimization.agents.untrusted import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Two examples in two splits that a model could not tell apart."""

    first: Example
    first_split: Split
    second: Example
    second_split: Split
    similarity: float
    """Jaccard similarity of the inputs' shingles, 0 to 1."""
    reason: str
    """equal, near or cluster."""

    @property
    def places(self) -> str:
        """Which two, where they stand and how alike they are, without their texts."""
        how = {"equal": "equal inputs", "cluster": f"the same cluster {self.first.cluster}"}
        alike = how.get(self.reason, f"{self.similarity:.0%} alike")
        return f"{self.first.id[:12]} in {self.first_split} and {self.second.id[:12]} in {self.second_split} ({alike})"

    def __str__(self) -> str:
        return f"{self.places}: {shown(input_text(self.first))} / {shown(input_text(self.second))}"


def find_leaks(
    examples: Sequence[Example], splits: Sequence[Split], *, similarity: float = NEAR_SIMILARITY
) -> tuple[Leak, ...]:
    """Return the leaks across splits: one for each pair of splits that a group of alike examples spans.

    Args:
        examples: in any order.
        splits: of each example.
        similarity: from which Jaccard similarity on two inputs are nearly equal, in (0, 1].
    """
    pairs = near_pairs([input_text(example) for example in examples], similarity=similarity)
    leaks = [_leak(pair, examples, splits) for pair in _across(pairs, splits)]
    return (*leaks, *_cluster_leaks(examples, splits, {(one.first.id, one.second.id) for one in leaks}))


def _across(pairs: Sequence[NearPair], splits: Sequence[Split]) -> list[NearPair]:
    """Return the pairs that cross splits, and one for every member an indirect pair ties to another split."""
    direct = [pair for pair in pairs if splits[pair.first] is not splits[pair.second]]
    groups = Groups(len(splits))
    for pair in pairs:
        groups.join(pair.first, pair.second)
    spanned = {(groups.root(pair.first), frozenset((splits[pair.first], splits[pair.second]))) for pair in direct}
    similar = {pair.second: pair.similarity for pair in pairs}
    indirect: list[NearPair] = []
    for root, members in groups.members().items():
        seen: dict[Split, int] = {}
        for member in members:
            for split, first in seen.items():
                key = (root, frozenset((split, splits[member])))
                if split is not splits[member] and key not in spanned:
                    spanned.add(key)
                    indirect.append(NearPair(first=first, second=member, similarity=similar.get(member, 0.0)))
            seen.setdefault(splits[member], member)
    return direct + indirect


def _leak(pair: NearPair, examples: Sequence[Example], splits: Sequence[Split]) -> Leak:
    first, second = examples[pair.first], examples[pair.second]
    return Leak(
        first=first,
        first_split=splits[pair.first],
        second=second,
        second_split=splits[pair.second],
        similarity=pair.similarity,
        reason="equal" if input_text(first) == input_text(second) else "near",
    )


def _cluster_leaks(examples: Sequence[Example], splits: Sequence[Split], known: set[tuple[str, str]]) -> list[Leak]:
    firsts: dict[tuple[str, Split], Example] = {}
    for example, split in zip(examples, splits, strict=True):
        if example.cluster is not None:
            firsts.setdefault((example.cluster, split), example)
    leaks: list[Leak] = []
    for (cluster, split), example in firsts.items():
        for other_split in Split:
            other = firsts.get((cluster, other_split))
            if other is None or split >= other_split or {(example.id, other.id), (other.id, example.id)} & known:
                continue
            leaks.append(
                Leak(
                    first=example,
                    first_split=split,
                    second=other,
                    second_split=other_split,
                    similarity=0.0,
                    reason="cluster",
                )
            )
    return leaks
