"""Who of those in a race is how good, by what was measured, or by what a response model expects of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dspy_optimization.compute.calibration import Calibration
from dspy_optimization.compute.cells import Cells
from dspy_optimization.compute.devices import Device
from dspy_optimization.compute.race import Race
from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.compute.response_model import ResponseModel, ResponseTerms, fit

_TERMS = ResponseTerms(products=0)
_GROWTH = 1.6
"""A model is measured again when there are so many times the cells."""
_TELLING = 15
"""Cells a row from which features that do not help are called that."""
_DRAWS = 64
"""Draws a member, for the chance that the leader is the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How good those in a race are."""

    means: Floats
    """Of each of them, higher is better."""
    basis: str
    """What the means are, in words."""
    winner: bool = False
    """Whether the best one is known to be good enough, and nothing more need be paid."""


class Judge(Protocol):
    """Compares who is in a race."""

    def __call__(self, race: Race, living: Integers) -> Verdict | None:
        """Return how good these are; None: nothing can be said, nobody may be dropped."""


def raw_means(race: Race, living: Integers) -> Verdict | None:
    """Judge by means over the columns that all have seen; None when there are none: nobody may be dropped."""
    columns = race.shared(living)
    if not len(columns):
        return None
    return Verdict(
        means=race.scores[np.ix_(living, columns)].mean(axis=1), basis=f"mean of {len(columns)} shared examples"
    )


class ModelJudge:
    """Judges by what is expected of the full scores, as long as the model behind it foretells what it has not seen."""

    def __init__(self, features: Floats, device: Device | None) -> None:
        """Take what is known of candidates without running them, (rows, d); d may be 0."""
        self._features, self._device = features, device
        self._model: ResponseModel | None = None
        self._measured = 0
        self.doubt: str | None = "nothing was measured that a model could be fitted to"
        """Why the last verdict was not a model's; None: it was."""

    def __call__(self, race: Race, living: Integers) -> Verdict | None:
        """Return what the model expects, or `raw_means` where it is in doubt."""
        raw = raw_means(race, living)
        if raw is None:
            return None
        model = self._believed(race)
        if model is None:
            return raw
        expected = model.expected().mean(axis=0)
        leader = int(race.ranked(living, expected[living])[0])
        draws = model.completed(_DRAWS)
        good = draws[:, leader] >= draws[:, living].max(axis=1) - race.terms.tolerance
        return Verdict(
            means=expected[living],
            basis=f"score expected by the model from {model.cells} cells",
            winner=float(good.mean()) >= race.terms.sure,
        )

    def means(self, race: Race) -> Floats | None:
        """Return what a model of everything measured expects, (rows,), looked into once more; None: it is in doubt."""
        self._measured = 0
        model = self._believed(race)
        return None if model is None else model.expected().mean(axis=0)

    def _believed(self, race: Race) -> ResponseModel | None:
        """Return a model of what was measured, None when it is in doubt; doubts are looked into as cells grow."""
        cells = int((~np.isnan(race.scores)).sum())
        if cells < _GROWTH * self._measured:
            return None if self.doubt else self._fitted(race)
        self._measured = cells
        model = self._fitted(race)
        found = model.calibration
        self.doubt = _doubt(found, len(race.scores))
        return None if self.doubt else model

    def _fitted(self, race: Race) -> ResponseModel:
        rows, columns = np.nonzero(~np.isnan(race.scores))
        self._model = fit(
            self._features,
            race.scores.shape[1],
            Cells(rows=rows, columns=columns, scores=race.scores[rows, columns]),
            seed=race.seed,
            terms=_TERMS,
            start=self._model,
            device=self._device,
        )
        return self._model


def _doubt(found: Calibration, rows: int) -> str | None:
    """Return why a model is in doubt.

    Features may foretell those never run and still mislead among the best where one ability is not all, so a misfit
    is doubt enough. That features help cannot be shown by few cells a row; until then they are taken to: their weights
    stay near 0 if they do not.
    """
    if not found.cells or found.misfit:
        return found.misfit
    return None if found.cells < _TELLING * rows else found.reason or None
