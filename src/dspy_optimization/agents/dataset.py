"""Datasets: immutable by content, split once by cluster and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NewType

from dspy_optimization.agents.example import Example, Split

DatasetVersion = NewType("DatasetVersion", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitShares:
    """How large the splits are, as shares that sum to 1."""

    train: float = 0.3
    val: float = 0.3
    test: float = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Examples under a content hash, each in exactly one split."""

    name: str
    version: DatasetVersion
    """SHA-256 over the examples and their splits."""
    splits: Mapping[Split, tuple[Example, ...]]
    seed: int

    def __getitem__(self, split: Split) -> tuple[Example, ...]:
        return self.splits[split]

    @property
    def examples(self) -> Sequence[Example]:
        """All examples, train first, test last."""
        return [example for split in Split for example in self.splits[split]]
