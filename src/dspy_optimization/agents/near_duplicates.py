"""Which examples say nearly the same: MinHash finds the pairs, exact Jaccard similarity decides.

Texts are compared as sets of shingles, five characters each, after case and spacing are evened out. Shingles that
many texts share are their common template and do not count: otherwise every task of a generator would be the near
duplicate of every other.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.agents.example import Example
from dspy_optimization.events import Json

Hashes: TypeAlias = NDArray[np.uint64]

SHINGLE_CHARACTERS = 5
NEAR_SIMILARITY = 0.8
MAX_CHARACTERS = 20_000
TEMPLATE_SHARE = 0.05
TEMPLATE_TEXTS = 5
BANDS = 16
ROWS = 4
MAX_FIRSTS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NearPair:
    """Two texts, by position, and how alike they are."""

    first: int
    second: int
    similarity: float
    """Jaccard similarity of the shingles, 0 to 1; 1 where the evened-out texts are equal."""


def input_text(example: Example) -> str:
    """Return the inputs of an example as one text, evened out: NFKC, no case, single spaces.

    Fields come in the order of their names; other than text they count as JSON.
    """
    parts = [_text(example.inputs[name]) for name in sorted(example.inputs)]
    return " ".join(unicodedata.normalize("NFKC", "\n".join(parts)).casefold().split())


def near_pairs(texts: Sequence[str], *, similarity: float = NEAR_SIMILARITY) -> tuple[NearPair, ...]:
    """Return pairs that connect every group of alike texts; not every pair inside a group.

    Args:
        texts: as `input_text` gives them; beyond 20,000 characters only the beginning counts.
        similarity: from which Jaccard similarity on two texts are alike, in (0, 1].

    Returns:
        In the order found, the same for the same texts. A pair of similarity 0.8 is missed with probability
        0.0002: 1 - (1 - 0.8^4)^16 of them share a band of their MinHash signatures.
    Source: Broder 1997 (MinHash); the bands as in Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4.
    """
    firsts: dict[str, int] = {}
    pairs: list[NearPair] = []
    for number, text in enumerate(texts):
        first = firsts.setdefault(text, number)
        if first != number:
            pairs.append(NearPair(first=first, second=number, similarity=1.0))
    distinct = list(firsts.values())
    shingles = _without_template([_shingles(texts[number][:MAX_CHARACTERS]) for number in distinct])
    groups = Groups(len(distinct))
    for members in _buckets(shingles):
        for one, other, alike in _alike(members, shingles, groups, similarity):
            pairs.append(NearPair(first=distinct[one], second=distinct[other], similarity=alike))
    return tuple(pairs)


class Groups:
    """Positions joined into groups (union-find); a group is known by its smallest position."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, position: int) -> int:
        """Return the smallest position of the group."""
        while self._parent[position] != position:
            self._parent[position] = self._parent[self._parent[position]]
            position = self._parent[position]
        return position

    def join(self, one: int, other: int) -> None:
        """Make two groups one."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low

    def members(self) -> dict[int, list[int]]:
        """Return group → its positions in order, single ones too."""
        found: dict[int, list[int]] = defaultdict(list)
        for position in range(len(self._parent)):
            found[self.root(position)].append(position)
        return dict(found)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _shingles(text: str) -> Hashes:
    """Return the sorted, distinct hashes of a text's shingles; a shorter text is one shingle."""
    codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32).astype(np.uint64)
    width = min(SHINGLE_CHARACTERS, len(codes))
    if width == 0:
        return np.zeros(0, dtype=np.uint64)
    count = len(codes) - width + 1
    hashed = np.full(count, len(codes) if count == 1 else 0, dtype=np.uint64)
    for offset in range(width):
        hashed = _mixed(hashed ^ codes[offset : offset + count])
    return np.unique(hashed)


def _mixed(values: Hashes) -> Hashes:
    """Return SplitMix64 of every value. Source: Steele, Lea, Flood 2014."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _without_template(shingles: list[Hashes]) -> list[Hashes]:
    """Drop what more than 5 % of the texts, and more than 5 texts, have in common."""
    if not shingles:
        return shingles
    values, counts = np.unique(np.concatenate(shingles), return_counts=True)
    template = values[counts > max(TEMPLATE_TEXTS, TEMPLATE_SHARE * len(shingles))]
    return [one[~np.isin(one, template, assume_unique=True)] for one in shingles]


def _buckets(shingles: Sequence[Hashes]) -> Iterator[list[int]]:
    """Yield the positions that share a band of their signatures, band by band."""
    present = [number for number, one in enumerate(shingles) if len(one)]
    if not present:
        return
    joined = np.concatenate([shingles[number] for number in present])
    starts = np.cumsum([0, *(len(shingles[number]) for number in present[:-1])])
    for band in range(BANDS):
        rows = [
            np.minimum.reduceat(_mixed(joined ^ _mixed(np.array([band * ROWS + row + 1], dtype=np.uint64))), starts)
            for row in range(ROWS)
        ]
        signature = rows[0]
        for row in rows[1:]:
            signature = _mixed(signature) ^ row
        order = np.argsort(signature, kind="stable")
        cuts = np.flatnonzero(np.diff(signature[order])) + 1
        for bucket in np.split(order, cuts):
            if len(bucket) > 1:
                yield [present[place] for place in bucket]


def _alike(
    members: Sequence[int], shingles: Sequence[Hashes], groups: Groups, similarity: float
) -> Iterator[tuple[int, int, float]]:
    """Join the members of one bucket that are alike, each with the first of a group it is like.

    A bucket holds few groups; comparing with at most 32 firsts keeps a crowded one from costing its square.
    """
    firsts: list[int] = []
    for member in members:
        joined = False
        for first in firsts:
            if groups.root(first) == groups.root(member):
                joined = True
                continue
            alike = _jaccard(shingles[first], shingles[member])
            if alike >= similarity:
                groups.join(first, member)
                joined = True
                yield min(first, member), max(first, member), alike
        if not joined and len(firsts) < MAX_FIRSTS:
            firsts.append(member)


def _jaccard(one: Hashes, other: Hashes) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
