"""What is expected of candidates, run or not, with how much is left open: by a response model, or by plain means.

Nothing of it is ever reported as a score: scores are what was paid for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dspy_optimization.compute.cells import Cells
from dspy_optimization.compute.computing import Computing
from dspy_optimization.compute.devices import Device
from dspy_optimization.compute.ranking import Floats
from dspy_optimization.compute.response_model import ResponseModel, fit

MEMBERS = 8
"""Draws from the posterior."""
_PRIOR_SPREAD = 0.1
"""Standard deviation of what candidates are worth, before anything is known."""
_LEAST_VARIANCE = 0.02
"""Of a single score: a candidate that was right every time is not known for sure."""


class Beliefs(Protocol):
    """What is expected in one goal, as draws; all in [0, 1], higher is better."""

    @property
    def model(self) -> ResponseModel | None:
        """The model behind it; None: plain means, which know nothing of candidates that were not run."""
        ...

    @property
    def draws(self) -> Floats:
        """Draws of each row's mean over all examples, (members, rows); what was paid for counts as it is."""
        ...

    @property
    def expected(self) -> Floats:
        """What the draws would be on average if there were many, (rows,): nobody is ahead by luck."""
        ...

    @property
    def information(self) -> Floats:
        """How much each example tells the best rows apart, (columns,)."""
        ...


def fitted(features: Floats, scores: Floats, *, seed: int, computing: Computing | None = None) -> ResponseModel:
    """Return a response model of everything known.

    Args:
        features: (rows, d).
        scores: (rows, columns) in [0, 1], NaN where not measured.
        seed: of the members.
        computing: where; None: with NumPy.
    """
    rows, columns = np.nonzero(~np.isnan(scores))
    cells = Cells(rows=rows, columns=columns, scores=scores[rows, columns])

    def work(device: Device | None) -> ResponseModel:
        return fit(features, scores.shape[1], cells, seed=seed, device=device)

    return work(None) if computing is None else computing.run(work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """What a response model expects of candidates nobody ran."""

    model: ResponseModel
    computing: Computing | None = None
    """Where, in as many portions as memory asks for; None: with NumPy, at once."""

    @property
    def members(self) -> int:
        """How many draws of the model there are."""
        return self.model.members

    def means(self, features: Floats, member: int) -> Floats:
        """Return what one draw expects of rows, (n,), each in [0, 1]."""
        found: Floats = self.model.means(features, members=[member], computing=self.computing)[0]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBeliefs:
    """By a response model."""

    model: ResponseModel
    draws: Floats
    expected: Floats
    information: Floats

    @classmethod
    def of(
        cls, features: Floats, utilities: Floats, *, seed: int, computing: Computing | None = None
    ) -> "ModelBeliefs":
        """Fit a model to everything known.

        Args:
            features: (rows, d).
            utilities: (rows, columns), NaN where not measured.
            seed: of the members.
            computing: where; None: with NumPy.
        """
        model = fitted(features, utilities, seed=seed, computing=computing)
        return cls(
            model=model,
            draws=model.completed(),
            expected=model.expected().mean(axis=0),
            information=model.information(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBeliefs:
    """By means of what was measured, evened out for how hard the examples were, and drawn to the mean of all."""

    draws: Floats
    expected: Floats
    information: Floats
    model: None = None

    @classmethod
    def of(cls, utilities: Floats, rng: np.random.Generator) -> "PlainBeliefs":
        """Return means with their spread; `rng` draws the members."""
        known = ~np.isnan(utilities)
        values = np.where(known, utilities, 0.0)
        count = known.sum(axis=1)
        level = values.sum() / max(int(known.sum()), 1)
        asked = known.sum(axis=0)
        hardness = np.where(asked > 0, values.sum(axis=0) / np.maximum(asked, 1) - level, 0.0)
        hardness *= asked / (asked + 2.0)
        away = np.where(known, utilities - hardness - level, 0.0).sum(axis=1)
        variance = max(level * (1.0 - level), _LEAST_VARIANCE)
        weight = count / (count + variance / _PRIOR_SPREAD**2)
        centre = level + weight * away / np.maximum(count, 1)
        open_share = 1.0 - count / max(utilities.shape[1], 1)
        spread = np.sqrt(open_share * variance * weight / np.maximum(count, 1) + (1.0 - weight) * _PRIOR_SPREAD**2)
        complete = known.all(axis=1)
        centre = np.where(complete, values.mean(axis=1), centre)
        spread = np.where(complete, 0.0, spread)
        luck = rng.standard_normal((MEMBERS, len(utilities)))
        chance = values.sum(axis=0) / np.maximum(asked, 1)
        return cls(
            draws=np.clip(centre + luck * spread, 0.0, 1.0),
            expected=np.clip(centre, 0.0, 1.0),
            information=chance * (1.0 - chance),
        )


def expected(beliefs: Sequence[Beliefs]) -> Floats:
    """Return what rows are expected to be worth, (rows, goals)."""
    return np.column_stack([one.expected for one in beliefs])
