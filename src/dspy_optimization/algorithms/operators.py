"""Ways to make newcomers, and how much each is used: by what it earned for the calls it took."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from dspy_optimization.events import Json


class Operator(StrEnum):
    """A way to make a candidate."""

    CHAMPION = "champion"  # the best of an island
    CHILD = "child"  # genes of two that were run, a few changed
    MUTATED = "mutated"  # an instruction that answers to failures
    CROSSED = "crossed"  # an instruction made of two
    STRANGER = "stranger"  # random genes


_PRIOR_WINS, _PRIOR_TRIES = 1.0, 4.0
"""What is believed of a way before it was tried."""


@dataclass(slots=True)
class OperatorBook:
    """What each way has earned so far."""

    _wins: dict[Operator, float] = field(default_factory=lambda: dict.fromkeys(Operator, 0.0))
    _tries: dict[Operator, int] = field(default_factory=lambda: dict.fromkeys(Operator, 0))
    _runs: dict[Operator, float] = field(default_factory=lambda: dict.fromkeys(Operator, 0.0))

    def count(self, operator: Operator, win: float, cost: float) -> None:
        """Note a newcomer.

        Args:
            operator: who made it.
            win: how likely it is better than the best before it, 0 to 1; 0 also where nothing could be made.
            cost: what making and meeting it took, in newcomers that are only measured: at least 1.
        """
        self._wins[operator] += win
        self._tries[operator] += 1
        self._runs[operator] += cost

    def worth(self, operator: Operator) -> float:
        """Return what a try is worth for what it costs."""
        tries = self._tries[operator]
        cost = (self._runs[operator] + 1.0) / (tries + 1.0)
        return (self._wins[operator] + _PRIOR_WINS) / (tries + _PRIOR_TRIES) / cost

    def shares(self, weights: Mapping[Operator, float], count: int, rng: np.random.Generator) -> dict[Operator, int]:
        """Return how many newcomers each way makes, (count) together: drawn by weight and worth.

        Args:
            weights: how much each is preferred, whatever it earned; 0: it cannot be used.
            count: of newcomers.
            rng: draws.
        """
        ways = list(Operator)
        found = dict.fromkeys(ways, 0)
        chances = np.array([weights.get(way, 0.0) * self.worth(way) for way in ways])
        if chances.sum() <= 0.0:
            return found
        # Systematic sampling: shares are as near to the chances as whole numbers allow.
        steps = np.cumsum(chances / chances.sum()) * count
        offset = float(rng.random())
        before = 0
        for way, step in zip(ways, steps, strict=True):
            upto = int(np.floor(step + offset))
            found[way] = upto - before
            before = upto
        found[ways[int(np.argmax(chances))]] += count - before
        return found

    def to_json(self) -> dict[str, Json]:
        """Return tries and wins by operator."""
        return {way.value: {"tries": self._tries[way], "wins": round(self._wins[way], 3)} for way in Operator}
