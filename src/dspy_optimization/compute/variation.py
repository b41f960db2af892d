"""New points from old ones: whole populations at a time, codes and numbers side by side.

A point is a row of codes, each one of so many choices, and a row of numbers within bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.errors import InvalidRequestError

Codes = npt.NDArray[np.int16]
Keys = npt.NDArray[np.uint64]
Gene = TypeVar("Gene", np.int16, np.float64)
MOST_CHOICES = 32_767
_SAME = 1e-14
"""Numbers of two parents that are nearer than this are not crossed: there is nothing between them."""
_ROWS = 512
_MOST_PRODUCTS = 64
_OFTEN = 0.25
"""From this chance on, one draw for each is no more work than one for each that is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What there is to choose from.

    Raises:
        InvalidRequestError: no gene at all, a gene without choice, bounds that are not finite or the wrong way round.
    """

    choices: tuple[int, ...] = ()
    """How many codes each coded gene has, 1 to 32,767."""
    bounds: tuple[tuple[float, float], ...] = ()
    """The least and the greatest value of each number, both possible."""

    def __post_init__(self) -> None:
        if not self.choices and not self.bounds:
            raise InvalidRequestError("genes: wanted: at least one; found: none; possible: choices or bounds")
        for place, count in enumerate(self.choices):
            if not 1 <= count <= MOST_CHOICES:
                raise InvalidRequestError(
                    f"choices[{place}]: wanted: 1 to {MOST_CHOICES}; found: {count}; possible: another gene"
                )
        for place, (low, high) in enumerate(self.bounds):
            if not (np.isfinite(low) and np.isfinite(high) and low <= high):
                raise InvalidRequestError(
                    f"bounds[{place}]: wanted: two finite numbers, the smaller one first; found: {low:g} and {high:g}; "
                    "possible: the same one twice, for a number that is fixed"
                )

    @property
    def genes(self) -> int:
        """How many genes a point has."""
        return len(self.choices) + len(self.bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Points of a space."""

    codes: Codes
    """(n, coded genes), from 0."""
    numbers: Floats
    """(n, numbers)."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, places: npt.NDArray[np.integer] | slice) -> Population:
        """Return these points."""
        return Population(codes=self.codes[places], numbers=self.numbers[places])

    def keys(self) -> Keys:
        """Return a number for each point, (n,): the same for equal points, for others by a chance of 1 in 2 ** 64."""
        coded = self.codes.shape[1]
        places = _scattered(np.arange(1, coded + self.numbers.shape[1] + 1, dtype=np.uint64))
        found = np.zeros(len(self), dtype=np.uint64)
        # Some rows at a time: what is worked on stays near the processor.
        for start in range(0, len(self), _ROWS):
            some = slice(start, start + _ROWS)
            if coded:
                found[some] += _summed(self.codes[some].astype(np.uint64), places[:coded])
            if len(places) > coded:
                # The sum takes the sign from a zero.
                found[some] += _summed((self.numbers[some] + 0.0).view(np.uint64), places[coded:])
        return found

    def with_more(self, others: Population) -> Population:
        """Return these points and then the others."""
        return Population(
            codes=np.concatenate([self.codes, others.codes]), numbers=np.concatenate([self.numbers, others.numbers])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VariationTerms:
    """How far children are from their parents. The defaults are those of Deb et al. (2002) and of pymoo's NSGA-II."""

    crossover: float = 0.9
    """Probability that two parents are crossed, in [0, 1]; otherwise their children begin as copies."""
    crossover_index: float = 15.0
    """Distribution index of numbers, above 0: the greater, the nearer children are to their parents."""
    mutation: float | None = None
    """Probability that a gene is changed, in [0, 1]; None: one gene of a point on average."""
    mutation_index: float = 20.0
    """Distribution index of numbers, above 0: the greater, the smaller the change."""


def random_population(space: Space, count: int, rng: np.random.Generator) -> Population:
    """Return points drawn evenly from the space, (count)."""
    low, high = _bounds(space)
    return Population(
        codes=rng.integers(0, np.array(space.choices, dtype=np.int64), (count, len(space.choices))).astype(np.int16),
        numbers=low + rng.random((count, len(space.bounds))) * (high - low),
    )


def tournament(place: npt.ArrayLike, count: int, rng: np.random.Generator) -> Integers:
    """Return winners of duels, (count,): each time the one of two random points that stands further in front.

    Nobody meets himself unless he is alone, and nobody a second time before all others have met somebody.

    Args:
        place: (n,), smaller is better, such as the place in `ranking.best_first`.
        count: of winners.
        rng: draws who meets whom.
    """
    places = np.asarray(place)
    half = len(places) // 2
    if not half:
        return np.zeros(count if len(places) else 0, dtype=np.int64)
    meetings = [rng.permutation(len(places))[: 2 * half].reshape(half, 2) for _ in range(-(-count // half))]
    first, second = np.concatenate(meetings)[:count].T
    winners: Integers = np.where(places[first] <= places[second], first, second).astype(np.int64)
    return winners


def offspring(
    space: Space,
    mothers: Population,
    fathers: Population,
    rng: np.random.Generator,
    terms: VariationTerms | None = None,
) -> Population:
    """Return children of pairs, (2 n): the first n resemble the mothers, the others the fathers.

    Codes are swapped gene by gene and changed to another choice; numbers by simulated binary crossover and polynomial
    mutation within their bounds.

    Source: Deb and Agrawal (1995); Deb and Deb (2014).
    """
    born = mothers.with_more(fathers)
    vary(space, born, rng, terms)
    return born


def vary(space: Space, parents: Population, rng: np.random.Generator, terms: VariationTerms | None = None) -> None:
    """Turn mothers and as many fathers, who stand behind them, into their children, as `offspring`; in their place."""
    terms = VariationTerms() if terms is None else terms
    chance = 1.0 / space.genes if terms.mutation is None else terms.mutation
    crossed = rng.random((len(parents) // 2, 1)) < terms.crossover
    bounds = _bounds(space)
    _swap(parents.codes, crossed, rng)
    _blend(parents.numbers, bounds, crossed, rng, terms.crossover_index)
    _recode(parents.codes, space, chance, rng)
    _nudge(parents.numbers, bounds, chance, rng, terms.mutation_index)


def _swap(codes: Codes, crossed: npt.NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Swap every second code of those pairs that are crossed: the first half of the rows with the other one."""
    if not codes.size:
        return
    first, second = _halves(codes)
    swap = np.flatnonzero(_coins((len(crossed), codes.shape[1]), rng) & crossed)
    kept = first[swap]
    first[swap] = second[swap]
    second[swap] = kept


def _recode(codes: Codes, space: Space, chance: float, rng: np.random.Generator) -> None:
    """Change each code with this probability to another one."""
    if not codes.size:
        return
    flat, places = codes.reshape(-1), _chosen(codes.size, chance, rng)
    choices = np.array(space.choices, dtype=np.int64)[places % codes.shape[1]]
    places, choices = places[choices > 1], choices[choices > 1]
    # A step of 1 to choices - 1 around the ring never ends where it began.
    flat[places] = (flat[places] + 1 + rng.integers(0, choices - 1)) % choices


def _blend(
    numbers: Floats,
    bounds: tuple[Floats, Floats],
    crossed: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    index: float,
) -> None:
    """Cross every second number of those pairs that are crossed: the first half of the rows with the other one."""
    if not numbers.size:
        return
    genes = numbers.shape[1]
    first, second = _halves(numbers)
    coins = _coins((2, len(crossed), genes), rng)
    coins[0] &= crossed
    places = np.flatnonzero(coins[0])
    gap = first[places] - second[places]
    np.abs(gap, out=gap)
    if not (apart := gap > _SAME).all():
        places, gap = places[apart], gap[apart]
    # Wherever chance decides between two numbers of a child, arithmetic does it: a processor cannot guess the branch.
    swap = np.negative(coins[1].reshape(-1)[places].view(np.int8), dtype=np.int64)
    low, high = (_of_genes(bound, places) for bound in bounds)
    one, other = first[places], second[places]
    small, great = np.minimum(one, other), np.maximum(one, other)
    middle, draw = (small + great) / 2.0, rng.random(len(places))
    left = middle - _spread(gap, small - low, draw, index) * (gap / 2.0)
    right = middle + _spread(gap, high - great, draw, index) * (gap / 2.0)
    first[places], second[places] = _exchanged(
        np.minimum(np.maximum(left, low), high), np.minimum(np.maximum(right, low), high), swap
    )


def _of_genes(bound: Floats, places: Integers) -> Floats:
    """Return the bounds of numbers at these places of a flat matrix; one for all of them where all genes have it."""
    return bound[:1] if (bound == bound[0]).all() else bound[places % len(bound)]


def _exchanged(one: Floats, other: Floats, whether: Integers) -> tuple[Floats, Floats]:
    """Return both, exchanged where `whether` is -1 and as they are where it is 0."""
    differ = (one.view(np.int64) ^ other.view(np.int64)) & whether
    return (one.view(np.int64) ^ differ).view(np.float64), (other.view(np.int64) ^ differ).view(np.float64)


def _spread(gap: Floats, room: Floats, draw: Floats, index: float) -> Floats:
    """Return how far a child is spread, in its parents' distances, so that it stays within the bounds.

    Args:
        gap: (k,), between the parents, above 0.
        room: (k,), between a parent and the bound it is next to.
        draw: (k,), in [0, 1).
        index: of the distribution.
    """
    reach = draw * (2.0 - _power(gap / (gap + 2.0 * room), index + 1.0))
    # From 1 on the spread is the root of 1 / (2 - reach), before that of the reach.
    root: Floats = np.minimum(reach, 2.0 - reach) ** np.copysign(1.0 / (index + 1.0), 1.0 - reach)
    return root


def _power(base: Floats, exponent: float) -> Floats:
    """Return powers; of small whole numbers by products, which are the same on every processor, and quicker."""
    if exponent > _MOST_PRODUCTS or exponent != int(exponent):
        return base**exponent
    left, found = int(exponent), np.ones_like(base)
    while left:
        if left % 2:
            found *= base
        left //= 2
        if left:
            base = base * base
    return found


def _nudge(
    numbers: Floats, bounds: tuple[Floats, Floats], chance: float, rng: np.random.Generator, index: float
) -> None:
    """Change each number with this probability by a step within its bounds."""
    if not numbers.size:
        return
    flat, places = numbers.reshape(-1), _chosen(numbers.size, chance, rng)
    low, high = (_of_genes(bound, places) for bound in bounds)
    span, before, draw = high - low, flat[places], rng.random(len(places))
    down, power = draw < 0.5, index + 1.0
    near = 2.0 * np.where(down, draw, 1.0 - draw)
    far = np.where(down, high - before, before - low) / np.where(span > 0.0, span, 1.0)
    step = 1.0 - (near + (1.0 - near) * _power(far, power)) ** (1.0 / power)
    flat[places] = np.minimum(np.maximum(before + np.where(down, -step, step) * span, low), high)


def _halves(rows: npt.NDArray[Gene]) -> tuple[npt.NDArray[Gene], npt.NDArray[Gene]]:
    """Return the first and the second half of the rows, flat; who writes there writes in the rows."""
    flat = rows.reshape(-1)
    return flat[: flat.size // 2], flat[flat.size // 2 :]


def _coins(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return fair coins, each a bit of what is drawn."""
    count = math.prod(shape)
    drawn = np.frombuffer(rng.bytes(-(-count // 8)), dtype=np.uint8)
    return np.unpackbits(drawn, count=count).view(np.bool_).reshape(shape)


def _chosen(count: int, chance: float, rng: np.random.Generator) -> Integers:
    """Return those of 0 to count - 1 that are chosen, ascending, each with this chance, whatever the others are."""
    if chance <= 0.0:
        return np.zeros(0, dtype=np.int64)
    if chance >= _OFTEN:
        return np.flatnonzero(rng.random(count) < chance)
    # How far it is from one to the next; so few are drawn, not one for each.
    found, reached = [], -1
    while reached < count:
        left = (count - reached) * chance
        steps = rng.geometric(chance, int(left + 4.0 * math.sqrt(left)) + 4)
        found.append(reached + np.cumsum(np.minimum(steps, count + 1)))
        reached = int(found[-1][-1])
    places = np.concatenate(found) if len(found) > 1 else found[0]
    return places[: np.searchsorted(places, count)]


def _summed(words: Keys, places: Keys) -> Keys:
    """Return a number for each row, which depends on what stands where. Writes over the words."""
    words ^= places
    found: Keys = _scattered(words).sum(axis=1, dtype=np.uint64)
    return found


def _scattered(words: Keys) -> Keys:
    """Return words each bit of which depends on every given bit. Writes over what is given.

    Source: Steele et al. (2014), SplitMix.
    """
    shifted = np.empty_like(words)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words ^= np.right_shift(words, np.uint64(shift), out=shifted)
        words *= np.uint64(factor)
    words ^= np.right_shift(words, np.uint64(31), out=shifted)
    return words


def _bounds(space: Space) -> tuple[Floats, Floats]:
    both = np.array(space.bounds, dtype=np.float64).reshape(len(space.bounds), 2)
    return both[:, 0], both[:, 1]
