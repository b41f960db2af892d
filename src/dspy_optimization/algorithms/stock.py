"""Everybody that was run, with their genes, their scores, and what is expected of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.algorithms.beliefs import Beliefs, Foresight, ModelBeliefs, PlainBeliefs, expected
from dspy_optimization.algorithms.genome import GenePool
from dspy_optimization.algorithms.guarding import Guard, guard_of
from dspy_optimization.algorithms.measuring import Measurements
from dspy_optimization.compute.computing import Computing
from dspy_optimization.compute.hypervolume import contributions
from dspy_optimization.compute.ranking import Floats, Integers, best_first, fronts
from dspy_optimization.compute.variation import Codes

_WORST = 1.1
"""Reference of the hypervolume: every loss is between 0 and 1."""


@dataclass(slots=True, kw_only=True)
class Stock:
    """Candidates of one search that were run."""

    pool: GenePool
    table: Measurements
    seed: int
    surrogate: bool
    computing: Computing | None = None
    """Where models are fitted; None: with NumPy."""
    _codes: list[Codes] = field(default_factory=list)

    def enter(self, candidate: Candidate) -> int:
        """Return the candidate's row; new texts become genes."""
        row = self.table.row(candidate)
        if row == len(self._codes):
            self._codes.append(self.pool.encode(candidate))
        return row

    @property
    def codes(self) -> Codes:
        """The genes of all rows, (rows, genes), tidied."""
        return self.pool.points(self._codes).codes

    def believe(self, rng: np.random.Generator) -> "Standing":
        """Return what is expected now. A model that does not fit what was seen gives way to plain means."""
        features = self.pool.features(self.codes) if self.surrogate else None
        found: list[Beliefs] = []
        models: list[Foresight] = []
        trust, reasons = 1.0, list[str]()
        for goal in self.table.goals:
            utilities = self.table.utilities(goal)
            fitted = None
            if features is not None:
                fitted = ModelBeliefs.of(features, utilities, seed=self.seed, computing=self.computing)
                models.append(Foresight(model=fitted.model, computing=self.computing))
                known = fitted.model.calibration
                trust = min(trust, _share(known.new_rank_correlation) if known.trusted else 0.0)
                if known.reason:
                    reasons.append(known.reason)
                if not known.fits:
                    reasons.append(known.misfit)
                    fitted = None
            found.append(fitted if fitted is not None else PlainBeliefs.of(utilities, rng))
        weights = np.array([goal.weight for goal in self.table.goals])
        weights = weights / weights.sum()
        if features is None:
            trust, reasons = 0.0, ["switched off"]
        return Standing(
            beliefs=tuple(found),
            models=tuple(models) if trust > 0.0 else (),
            guards=self._guards(features) if features is not None and trust > 0.0 else (),
            features=0 if features is None else features.shape[1],
            trust=trust,
            reason="; ".join(one for one in dict.fromkeys(reasons) if one),
            weights=weights,
            worth=expected(found) @ weights,
            excess=self.table.excess(),
        )

    def _guards(self, features: Floats) -> tuple[Guard, ...]:
        found = [
            guard_of(margin, features, self.table.values(margin.item), seed=self.seed, computing=self.computing)
            for margin in self.table.margins
        ]
        return tuple(one for one in found if one is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is expected of everybody that was run, at one moment."""

    beliefs: tuple[Beliefs, ...]
    """One a goal."""
    models: tuple[Foresight, ...]
    """One a goal; none where they cannot tell who is worth running."""
    guards: tuple[Guard, ...] = ()
    """Of guardrails that a model can tell something of."""
    features: int
    """How many features they were fitted to."""
    trust: float
    """How well the models rank who was never run, 0 to 1: their rank correlation on rows held out."""
    reason: str
    """Why the models are not trusted; empty where they are."""
    weights: Floats
    """Of the goals, (goals,), together 1."""
    worth: Floats
    """Expected utility of all goals together, (rows,)."""
    excess: Floats
    """How much guardrails are hurt, (rows,)."""

    @property
    def draws(self) -> Sequence[Floats]:
        """Per goal draws of each row's mean over all examples, (members, rows)."""
        return [one.draws for one in self.beliefs]

    @property
    def best_first(self) -> Integers:
        """The rows, best first: guardrails, then fronts of what is expected with several goals, then utility."""
        if len(self.beliefs) == 1:
            return np.lexsort((np.arange(len(self.worth)), -self.worth, self.excess)).astype(np.int64)
        return best_first(1.0 - expected(self.beliefs), self.excess)

    @property
    def best(self) -> int:
        """The row of greatest expected utility that hurts no guardrail more than need be."""
        return int(np.lexsort((-self.worth, self.excess))[0])

    def drawn_order(self, rng: np.random.Generator) -> Integers:
        """Return the rows best first as one draw has it: who is better with probability p stands before so often.

        Domination between noisy scores is a matter of chance; so is the order here.
        """
        member = int(rng.integers(len(self.beliefs[0].draws)))
        losses = np.column_stack([1.0 - draws[member] for draws in self.draws])
        if losses.shape[1] == 1:
            return np.lexsort((np.arange(len(losses)), losses[:, 0], self.excess)).astype(np.int64)
        # Of the front alone: who is dominated, or hurts a guardrail, takes no room from those before him.
        front, room = fronts(losses, self.excess) == 0, np.zeros(len(losses))
        room[front] = contributions(losses[front], np.full(losses.shape[1], _WORST))
        first = best_first(losses, self.excess)
        return first[np.argsort(-room[first], kind="stable")].astype(np.int64)

    def better(self, row: int, than: float) -> float:
        """Return how likely a row is worth more than so much, all goals together, 0 to 1."""
        draws = np.stack([one[:, row] for one in self.draws], axis=1)
        return float((draws @ self.weights > than).mean())


def _share(correlation: float) -> float:
    return float(np.clip(np.nan_to_num(correlation), 0.0, 1.0))
