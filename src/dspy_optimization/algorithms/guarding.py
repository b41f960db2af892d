"""Guardrails: how much candidates hurt them, by what was measured and, of those nobody ran, by a response model."""

from dataclasses import dataclass

import numpy as np

from dspy_optimization.agents.objective import Objective
from dspy_optimization.algorithms.beliefs import Foresight, fitted
from dspy_optimization.compute.computing import Computing
from dspy_optimization.compute.ranking import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """A guardrail and the baseline's mean that it is held against."""

    item: Objective
    reference: float

    def excess(self, hurt: Floats) -> Floats:
        """Return how much a loss goes beyond what is allowed, in allowances; 0: it does not.

        Args:
            hurt: by how much means are worse than the baseline's, in units of the metric; below 0: better.
        """
        allowance = max(self.item.margin * abs(self.reference), 1e-12)
        return np.maximum(hurt / allowance - 1.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What is expected of candidates nobody ran, in one guardrail."""

    margin: Margin
    foresight: Foresight
    low: float
    """The worst value met, oriented so that higher is better; the model's 0."""
    high: float
    """The best, the model's 1."""

    @property
    def members(self) -> int:
        """How many draws of it there are."""
        return self.foresight.members

    def excess(self, features: Floats, member: int) -> Floats:
        """Return how much one draw expects rows to go beyond the margin, (n,); see `Margin.excess`."""
        means = self.low + (self.high - self.low) * self.foresight.means(features, member)
        return self.margin.excess(self.margin.item.oriented(self.margin.reference) - means)


def guard_of(
    margin: Margin, features: Floats, values: Floats, *, seed: int, computing: Computing | None
) -> Guard | None:
    """Return what a model expects; None where it cannot tell: all values are alike, or it does not foretell.

    Args:
        margin: of the guardrail.
        features: (rows, d).
        values: (rows, columns), oriented so that higher is better, NaN where not measured.
        seed: of the model's members.
        computing: where it is fitted and asked; None: with NumPy.
    """
    known = values[~np.isnan(values)]
    if not known.size or np.ptp(known) <= 0.0:
        return None
    low, high = float(known.min()), float(known.max())
    model = fitted(features, (values - low) / (high - low), seed=seed, computing=computing)
    if not (model.calibration.trusted and model.calibration.fits):
        return None
    return Guard(margin=margin, foresight=Foresight(model=model, computing=computing), low=low, high=high)
