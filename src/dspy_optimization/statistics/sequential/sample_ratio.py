"""Sample ratio mismatch: do the arms get the shares of the traffic that they were promised?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.statistics.sequential.plain import Json, PlainState, stored

CONCENTRATION = 1000.0
"""c: how close to the promised shares a mismatch is expected; larger finds small ones, later."""
ALARM_E_VALUE = 1000.0
"""From here on the experiment is invalid: a chance of at most 1 in 1,000 over all looks."""

Counts = npt.NDArray[np.int64]


def sample_ratio_log_e(
    counts: npt.ArrayLike, shares: Sequence[float], *, concentration: float = CONCENTRATION
) -> npt.NDArray[np.float64]:
    """Return the natural log of the e-value against "the arms have these shares"; 0 before the first unit.

    Args:
        counts: (..., n_arms), units of each arm so far.
        shares: (n_arms,), promised, each in (0, 1), adding up to 1.
        concentration: c, above 0.

    Returns:
        (...).
    Source: Lindon and Malek 2022, Dirichlet-multinomial against multinomial: log G(c) - log G(c + n)
    + sum_j [log G(c w_j + n_j) - log G(c w_j)] - sum_j n_j log w_j.
    """
    weights = _checked_shares(shares)
    if not (math.isfinite(concentration) and concentration > 0.0):
        raise InvalidRequestError(
            f"wanted: a concentration above 0; found: {concentration}; possible: {CONCENTRATION:g}"
        )
    n = _checked_counts(counts, weights.size).astype(np.float64)
    total = n.sum(axis=-1)
    arms = special.gammaln(concentration * weights + n) - special.gammaln(concentration * weights) - n * np.log(weights)
    return np.asarray(special.gammaln(concentration) - special.gammaln(concentration + total) + arms.sum(axis=-1))


def sample_ratio_p_value(counts: Sequence[int], shares: Sequence[float]) -> float | None:
    """Return Pearson's chi-square p-value for one look, for display; None without units.

    Peeking at it alarms too often (3 % below 0.001 in 2,000 looks): decide by `SampleRatio`.

    Args:
        counts: (n_arms,), units of each arm.
        shares: (n_arms,), promised, each in (0, 1), adding up to 1.
    """
    weights = _checked_shares(shares)
    n = _checked_counts(counts, weights.size).astype(np.float64)
    if n.ndim != 1:
        raise InvalidRequestError(f"wanted: one count an arm; found: shape {n.shape}; possible: (n_arms,)")
    total = n.sum()
    if total == 0.0:
        return None
    expected = total * weights
    return float(special.chdtrc(weights.size - 1, float(np.sum((n - expected) ** 2 / expected))))


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatio:
    """The evidence against the promised shares, looked at after every unit; one a stage, since a ramp changes them.

    Keep one for exposures and one for units with outcomes: outcomes may get lost in one arm only.
    """

    shares: tuple[float, ...]
    """Promised, one for each arm, adding up to 1."""
    counts: tuple[int, ...]
    max_log_e: float
    """Natural log of the largest e-value so far, at least 0."""

    @staticmethod
    def start(shares: Sequence[float]) -> SampleRatio:
        """Return the evidence before the first unit.

        Args:
            shares: (n_arms,), each in (0, 1), adding up to 1; baseline first, as `extend` numbers them.
        """
        _checked_shares(shares)
        return SampleRatio(shares=tuple(map(float, shares)), counts=(0,) * len(shares), max_log_e=0.0)

    def extend(self, arms: npt.ArrayLike) -> SampleRatio:
        """Return the evidence after further units; the same however they are cut into pieces.

        Args:
            arms: (n,), the place of each unit's arm in `shares`, in the order of exposure; of two arms also
                whether it was treated.
        """
        places = np.array(arms, ndmin=1)
        if places.ndim != 1 or (places.size and places.dtype.kind not in "iub"):
            raise InvalidRequestError(
                f"wanted: the number of an arm for each unit; found: shape {places.shape} and type {places.dtype}; "
                "possible: a row of whole numbers"
            )
        if places.size == 0:
            return self
        places = places.astype(np.int64)
        if places.min() < 0 or places.max() >= len(self.shares):
            raise InvalidRequestError(
                f"wanted: arms from 0 to {len(self.shares) - 1}; found: {places.min()} to {places.max()}; possible: "
                "the places of the shares"
            )
        path = np.cumsum(places[:, None] == np.arange(len(self.shares)), axis=0) + np.array(self.counts)
        largest = float(sample_ratio_log_e(path, self.shares).max())
        return SampleRatio(shares=self.shares, counts=tuple(path[-1].tolist()), max_log_e=max(self.max_log_e, largest))

    @property
    def log_e(self) -> float:
        """Natural log of the current e-value."""
        return float(sample_ratio_log_e(self.counts, self.shares))

    @property
    def is_mismatch(self) -> bool:
        """Whether the arms are proven to have other shares at any look so far: the experiment is invalid."""
        return self.max_log_e >= math.log(ALARM_E_VALUE)

    @property
    def p_value(self) -> float | None:
        """Chi-square, for display only; None without units."""
        return sample_ratio_p_value(self.counts, self.shares)

    def to_json(self) -> dict[str, Json]:
        """Return everything as plain finite numbers; `from_json` gives back the same state, bit for bit."""
        return stored(
            "sample_ratio",
            {"shares": list(self.shares), "counts": list(self.counts), "max_log_e": self.max_log_e},
        )

    @staticmethod
    def from_json(data: Mapping[str, Json]) -> SampleRatio:
        """Return the state that `to_json` stored.

        Raises:
            InvalidRequestError: it is something else, or of another version; the message names the field.
        """
        state = PlainState.of(data, "sample_ratio")
        shares = state.numbers("shares")
        _checked_shares(shares)
        counts = state.integers("counts", len(shares))
        return SampleRatio(shares=shares, counts=counts, max_log_e=state.number("max_log_e"))


def _checked_shares(shares: Sequence[float]) -> npt.NDArray[np.float64]:
    weights = np.array(shares, np.float64)
    right = weights.ndim == 1 and weights.size >= 2 and bool(np.all((weights > 0.0) & (weights < 1.0)))
    if not (right and math.isclose(float(weights.sum()), 1.0, rel_tol=1e-9)):
        raise InvalidRequestError(
            f"wanted: at least two shares in (0, 1) that add up to 1; found: {weights.tolist()}; possible: [0.9, 0.1]"
        )
    return weights


def _checked_counts(counts: npt.ArrayLike, n_arms: int) -> Counts:
    values = np.asarray(counts)
    if values.ndim == 0 or values.shape[-1] != n_arms or values.dtype.kind not in "iu" or (values < 0).any():
        raise InvalidRequestError(
            f"wanted: a count from 0 on for each of {n_arms} arms; found: {values.tolist()}; possible: whole numbers"
        )
    return values.astype(np.int64)
