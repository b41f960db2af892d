"""New points from old ones: whole populations at a time, codes and numbers side by side.

A point is a row of codes, each one of so many choices, and a row of numbers within bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.errors import InvalidRequestError

Codes = npt.NDArray[np.int16]
MOST_CHOICES = 32_767
_SAME = 1e-14
"""Numbers of two parents that are nearer than this are not crossed: there is nothing between them."""


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

    def keys(self) -> npt.NDArray[np.uint64]:
        """Return a number for each point, (n,): the same for equal points, for others by a chance of 1 in 2 ** 64."""
        # The sum takes the sign from a zero.
        parts = (self.codes.astype(np.uint64), np.ascontiguousarray(self.numbers + 0.0).view(np.uint64))
        words = np.concatenate(parts, axis=1)
        places = _scattered(np.arange(1, words.shape[1] + 1, dtype=np.uint64))
        found: npt.NDArray[np.uint64] = _scattered(words ^ places).sum(axis=1, dtype=np.uint64)
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
    terms = VariationTerms() if terms is None else terms
    crossed = rng.random((len(mothers), 1)) < terms.crossover
    chance = 1.0 / space.genes if terms.mutation is None else terms.mutation
    codes = _swapped(mothers.codes, fathers.codes, crossed, rng)
    numbers = _blended(space, mothers.numbers, fathers.numbers, crossed, rng, terms.crossover_index)
    return Population(
        codes=_recoded(space, codes, chance, rng),
        numbers=_nudged(space, numbers, chance, rng, terms.mutation_index),
    )


def _swapped(mothers: Codes, fathers: Codes, crossed: npt.NDArray[np.bool_], rng: np.random.Generator) -> Codes:
    swap = crossed & (rng.random(mothers.shape) < 0.5)
    return np.concatenate([np.where(swap, fathers, mothers), np.where(swap, mothers, fathers)])


def _recoded(space: Space, codes: Codes, chance: float, rng: np.random.Generator) -> Codes:
    choices = np.array(space.choices, dtype=np.int64)
    change = (rng.random(codes.shape) < chance) & (choices > 1)
    # A step of 1 to choices - 1 around the ring never ends where it began.
    step = 1 + rng.integers(0, np.maximum(choices - 1, 1), codes.shape)
    return np.where(change, (codes + step) % np.maximum(choices, 1), codes).astype(np.int16)


def _blended(
    space: Space,
    mothers: Floats,
    fathers: Floats,
    crossed: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    index: float,
) -> Floats:
    mix = np.nonzero(crossed & (rng.random(mothers.shape) < 0.5) & (np.abs(mothers - fathers) > _SAME))
    low, high = (bound[mix[1]] for bound in _bounds(space))
    one, other = mothers[mix], fathers[mix]
    small, great = np.minimum(one, other), np.maximum(one, other)
    gap, draw = great - small, rng.random(len(one))
    middle = (small + great) / 2.0
    left = np.clip(middle - _spread(1.0 + 2.0 * (small - low) / gap, draw, index) * gap / 2.0, low, high)
    right = np.clip(middle + _spread(1.0 + 2.0 * (high - great) / gap, draw, index) * gap / 2.0, low, high)
    swap = rng.random(len(one)) < 0.5
    first, second = mothers.copy(), fathers.copy()
    first[mix], second[mix] = np.where(swap, right, left), np.where(swap, left, right)
    return np.concatenate([first, second])


def _spread(room: Floats, draw: Floats, index: float) -> Floats:
    """Return how far children are spread, in parents' distances, so that none leaves the bounds."""
    alpha = 2.0 - room ** -(index + 1.0)
    inner = draw <= 1.0 / alpha
    return np.where(inner, draw * alpha, 1.0 / (2.0 - np.where(inner, 0.0, draw * alpha))) ** (1.0 / (index + 1.0))


def _nudged(space: Space, numbers: Floats, chance: float, rng: np.random.Generator, index: float) -> Floats:
    lowest, highest = _bounds(space)
    change = np.nonzero((rng.random(numbers.shape) < chance) & (highest > lowest))
    low, high = lowest[change[1]], highest[change[1]]
    before, draw = numbers[change], rng.random(len(change[0]))
    below, above = 2.0 * np.minimum(draw, 0.5), 2.0 * np.minimum(1.0 - draw, 0.5)
    power, span = index + 1.0, high - low
    down = (below + (1.0 - below) * ((high - before) / span) ** power) ** (1.0 / power) - 1.0
    up = 1.0 - (above + (1.0 - above) * ((before - low) / span) ** power) ** (1.0 / power)
    found = numbers.copy()
    found[change] = np.clip(before + np.where(draw < 0.5, down, up) * span, low, high)
    return found


def _scattered(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return words each bit of which depends on every given bit. Source: Steele et al. (2014), SplitMix."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _bounds(space: Space) -> tuple[Floats, Floats]:
    both = np.array(space.bounds, dtype=np.float64).reshape(len(space.bounds), 2)
    return both[:, 0], both[:, 1]
