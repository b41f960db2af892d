"""How much of the space of objectives a set of points dominates: one number for how good a Pareto front is."""

from __future__ import annotations

import moocore
import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.ranking import Floats, checked
from dspy_optimization.errors import InvalidRequestError


def hypervolume(values: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return the volume between the points and the reference, exactly.

    Points that are not better than the reference in every objective, or not known in one (NaN), add nothing.

    Args:
        values: (n, m), smaller is better.
        reference: (m,), finite.

    Raises:
        InvalidRequestError: shapes that do not fit, a reference that is not finite, a point of minus infinity.

    Source: moocore (Guerreiro, Fonseca and Paquete 2021); in tests inclusion-exclusion.
    """
    points, corner, inside = _inside(values, reference)
    return float(moocore.hypervolume(points[inside], ref=corner)) if inside.any() else 0.0


def contributions(values: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Return how much smaller the hypervolume is without each point, (n,); of two equal points both add nothing.

    Args:
        values: (n, m), smaller is better.
        reference: (m,), finite.

    Raises:
        InvalidRequestError: as `hypervolume`.
    """
    points, corner, inside = _inside(values, reference)
    found = np.zeros(len(points))
    if inside.any():
        # moocore asks for two objectives: one in which all are 1 better than the reference changes no volume.
        flat = np.column_stack([points[inside], np.zeros(int(inside.sum()))])
        found[inside] = moocore.hv_contributions(flat, ref=np.append(corner, 1.0), ignore_dominated=False)
    return found


def _inside(values: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    points = checked(values)
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != points.shape[1:] or not np.isfinite(corner).all():
        raise InvalidRequestError(
            f"reference: wanted: {points.shape[1]} finite numbers, one an objective; found: {corner.tolist()}; "
            "possible: a point that every other one is better than"
        )
    inside: npt.NDArray[np.bool_] = np.asarray((points < corner).all(axis=1))
    if np.isneginf(points[inside]).any():
        raise InvalidRequestError(
            "objectives: wanted: finite values; found: minus infinity, which dominates an infinite volume; possible: a "
            "finite bound"
        )
    return points, corner, inside
