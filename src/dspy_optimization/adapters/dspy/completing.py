"""What candidates that each met a part of val are expected to be worth on all of it."""

from dataclasses import dataclass

import numpy as np

from dspy_optimization.compute.cells import Cells
from dspy_optimization.compute.ranking import Floats
from dspy_optimization.compute.response_model import ResponseModel, ResponseTerms, fit

_TERMS = ResponseTerms(products=0)
_GROWTH = 1.3
"""A model is measured on cells held out when there are so many times the cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of candidates. Never a score: scores are what was measured."""

    means: Floats
    """(rows,), of all columns; without a model those of the columns that all have."""
    table: Floats
    """(rows, columns), measured where it was; elsewhere what the model expects, NaN without one."""
    information: Floats | None
    """(columns,), how much each tells the best apart; None: no model to say."""
    doubt: str | None
    """Why there is no model; None: there is one."""


class Completion:
    """Fits models to a table that grows, and looks now and then whether they can be believed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._looked_at = 0
        self._doubt: str | None = None

    def of(self, scores: Floats) -> Expected:
        """Return what is expected of (rows, columns) in [0, 1], NaN where not measured; all rows share a column."""
        rows, columns = np.nonzero(~np.isnan(scores))
        look = len(rows) >= _GROWTH * self._looked_at
        model: ResponseModel | None = None
        if look or self._doubt is None:
            cells = Cells(rows=rows, columns=columns, scores=scores[rows, columns])
            model = fit(np.zeros((len(scores), 0)), scores.shape[1], cells, seed=self._seed, terms=_TERMS)
        if look and model is not None:
            self._looked_at = len(rows)
            found = model.calibration
            self._doubt = None if found.trusted else found.reason
        if model is None or self._doubt is not None:
            shared = ~np.isnan(scores).any(axis=0)
            return Expected(means=scores[:, shared].mean(axis=1), table=scores, information=None, doubt=self._doubt)
        return Expected(
            means=model.expected().mean(axis=0),
            table=np.where(np.isnan(scores), model.table().mean(axis=0), scores),
            information=model.information(),
            doubt=None,
        )
