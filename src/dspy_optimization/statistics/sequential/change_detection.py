"""An alarm for a quality that has dropped after a deployment, with a guaranteed distance between false alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.probability import checked_probability
from dspy_optimization.statistics.sequential.plain import Json, PlainState, stored

DROPS = (0.02, 0.05, 0.10, 0.20)
"""Which drops of the mean are bet on, in the unit of the outcome."""
STAKE = 0.95
"""Largest share of a bet that one outcome can take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropDetector:
    """A mixture Shiryaev-Roberts e-detector; grows by `extend`, the same however the outcomes are cut into pieces.

    While the mean given the past stays at the reference or above, for whatever outcomes in [0, 1], the expected
    number of outcomes before an alarm is at least 1 / alpha. The first alarm ends its work: later outcomes are
    not taken in; once the cause is dealt with, start another one.

    Source: Shin, Ramdas and Rinaldo 2024; M_j <- (M_j + 1)(1 + l_j (reference - x)) with
    l_j = min(drop_j / (reference (1 - reference)), 0.95 / (1 - reference)), alarm when mean_j M_j >= 1 / alpha.
    """

    reference: float
    """Mean that has to be kept, in (0, 1): the interval's lower bound at deployment minus a tolerance."""
    alpha: float
    """1 / alpha outcomes is the least average distance between false alarms."""
    n_outcomes: int
    """Taken in so far."""
    levels: tuple[float, ...]
    """M_j, one for each drop, at least 0."""
    alarm_at: int | None
    """The number of the outcome that set off the alarm, from 1 on; None while there is none."""

    @staticmethod
    def start(*, reference: float, alpha: float = 1e-4) -> DropDetector:
        """Return the detector before its first outcome.

        Args:
            reference: mean that has to be kept, in (0, 1).
            alpha: in (0, 1).
        """
        return DropDetector(
            reference=checked_probability("reference", reference),
            alpha=checked_probability("alpha", alpha),
            n_outcomes=0,
            levels=(0.0,) * len(DROPS),
            alarm_at=None,
        )

    def extend(self, outcomes: npt.ArrayLike) -> DropDetector:
        """Return the detector after further outcomes, up to the first alarm.

        Args:
            outcomes: (n,), each in [0, 1], higher is better, in the order of their units.
        """
        row = np.array(outcomes, np.float64, ndmin=1)
        if row.ndim != 1 or not bool(np.all((row >= 0.0) & (row <= 1.0))):
            raise InvalidRequestError(
                f"wanted: a row of outcomes in [0, 1]; found: shape {row.shape}, values {row.ravel()[:5].tolist()}; "
                "possible: scores scaled to [0, 1]"
            )
        if self.alarm_at is not None:
            return self
        bets = self._bets()
        levels = list(self.levels)
        threshold = len(levels) / self.alpha
        taken, alarm_at = self.n_outcomes, None
        # One by one in plain numbers: each level is a product and a sum of the one before.
        for shortfall in (self.reference - row).tolist():
            taken += 1
            levels = [(level + 1.0) * (1.0 + bet * shortfall) for level, bet in zip(levels, bets, strict=True)]
            if sum(levels) >= threshold:
                alarm_at = taken
                break
        return DropDetector(
            reference=self.reference, alpha=self.alpha, n_outcomes=taken, levels=tuple(levels), alarm_at=alarm_at
        )

    @property
    def share_of_alarm(self) -> float:
        """How far the evidence has come: mean_j M_j times alpha, 1 or more at the alarm."""
        return sum(self.levels) / len(self.levels) * self.alpha

    def to_json(self) -> dict[str, Json]:
        """Return everything as plain finite numbers; `from_json` gives back the same detector, bit for bit."""
        return stored(
            "drop_detector",
            {
                "reference": self.reference,
                "alpha": self.alpha,
                "n_outcomes": self.n_outcomes,
                "levels": list(self.levels),
                "alarm_at": self.alarm_at,
            },
        )

    @staticmethod
    def from_json(data: Mapping[str, Json]) -> DropDetector:
        """Return the detector that `to_json` stored.

        Raises:
            InvalidRequestError: it is something else, or of another version; the message names the field.
        """
        state = PlainState.of(data, "drop_detector")
        return DropDetector(
            reference=checked_probability("reference", state.number("reference")),
            alpha=checked_probability("alpha", state.number("alpha")),
            n_outcomes=state.integer("n_outcomes"),
            levels=state.numbers("levels", len(DROPS)),
            alarm_at=state.optional_integer("alarm_at"),
        )

    def _bets(self) -> tuple[float, ...]:
        mean = self.reference
        return tuple(min(drop / (mean * (1.0 - mean)), STAKE / (1.0 - mean)) for drop in DROPS)
