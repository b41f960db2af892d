"""Units of an experiment, in the order of their exposure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dspy_optimization.errors import InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Units:
    """What is known of units whose attribution window has closed, in exposure order; build it with `Units.of`."""

    treated: npt.NDArray[np.bool_]
    """(n,), whether the unit was assigned to the optimized arm (intention to treat)."""
    outcome: npt.NDArray[np.float64]
    """(n,), each in [0, 1]."""
    propensity: npt.NDArray[np.float64]
    """(n,), the chance of treatment that the unit was assigned with, in (0, 1)."""

    @staticmethod
    def of(treated: npt.ArrayLike, outcome: npt.ArrayLike, propensity: npt.ArrayLike) -> Units:
        """Return the units as arrays of their own.

        Args:
            treated: (n,), true for the optimized arm.
            outcome: (n,), each in [0, 1].
            propensity: (n,) or one number for all, in (0, 1).

        Raises:
            InvalidRequestError: a shape, an outcome or a propensity is wrong; the message names the first one.
        """
        arms = np.array(treated, bool, ndmin=1)
        outcomes = np.array(outcome, np.float64, ndmin=1)
        chances = np.array(propensity, np.float64)
        if chances.ndim == 0:
            chances = np.full(arms.shape, chances)
        if arms.ndim != 1 or arms.shape != outcomes.shape or arms.shape != chances.shape:
            raise InvalidRequestError(
                f"wanted: one arm, outcome and propensity a unit; found: shapes {arms.shape}, {outcomes.shape} and "
                f"{chances.shape}; possible: three rows of one length, or one propensity for all"
            )
        _check(outcomes, (outcomes >= 0.0) & (outcomes <= 1.0), "outcome", "in [0, 1]", "min(cost, cap) / cap")
        _check(chances, (chances > 0.0) & (chances < 1.0), "propensity", "in (0, 1)", "the logged traffic split")
        for array in (arms, outcomes, chances):
            array.flags.writeable = False
        return Units(treated=arms, outcome=outcomes, propensity=chances)

    def __len__(self) -> int:
        return self.treated.size

    def between(self, start: int, stop: int) -> Units:
        """Return the units from place `start` to before `stop`."""
        return Units(
            treated=self.treated[start:stop], outcome=self.outcome[start:stop], propensity=self.propensity[start:stop]
        )


def exposure_order(exposed_at: npt.ArrayLike, unit_ids: Sequence[str]) -> npt.NDArray[np.intp]:
    """Return the places of the units in the one order that a test may see them in: by time, then by id.

    Whatever order the units come in, taking them by these places gives the same row: arrival must not matter.

    Args:
        exposed_at: (n,), any numbers that grow with time, such as microseconds.
        unit_ids: (n,), all different.

    Raises:
        InvalidRequestError: the lengths differ, a time is not a number, or an id comes twice.
    """
    times = np.asarray(exposed_at)
    if times.shape != (len(unit_ids),) or times.dtype.kind not in "iuf" or not np.isfinite(times).all():
        raise InvalidRequestError(
            f"wanted: one finite time a unit; found: times of shape {times.shape} and type {times.dtype} for "
            f"{len(unit_ids)} units; possible: whole microseconds"
        )
    if len(set(unit_ids)) != len(unit_ids):
        raise InvalidRequestError(
            f"wanted: every unit once; found: {len(unit_ids) - len(set(unit_ids))} repeated ids; possible: the first "
            "exposure of each unit"
        )
    rank = np.empty(len(unit_ids), np.intp)
    rank[sorted(range(len(unit_ids)), key=unit_ids.__getitem__)] = np.arange(len(unit_ids))
    return np.lexsort((rank, times))


def _check(values: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], name: str, wanted: str, example: str) -> None:
    if not right.all():
        place = int(np.argmin(right))
        raise InvalidRequestError(
            f"wanted: every {name} {wanted}; found: {values[place]} for unit {place}; possible: {example}"
        )
