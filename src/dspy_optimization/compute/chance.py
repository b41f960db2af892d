"""Random numbers that belong to what they are for: the same for a row and a column whatever else is there, and when.

A generator gives its numbers to whoever asks next, so one more candidate would change the luck of all after it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from dspy_optimization.compute.ranking import Floats, Integers

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_POISSON = stats.poisson.cdf(np.arange(12), 1.0)


def uniforms(*keys: npt.ArrayLike) -> Floats:
    """Return numbers strictly between 0 and 1, one for each combination of the keys, broadcast against each other.

    Source: SplitMix64's finalizer (Steele et al. 2014), once for each key.
    """
    found = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            found = _mixed(found + _STEP + np.asarray(key, dtype=np.int64).astype(np.uint64))
    return ((found >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(*keys: npt.ArrayLike) -> Floats:
    """Return standard normal numbers, keyed as in `uniforms`."""
    return np.asarray(special.ndtri(uniforms(*keys)), dtype=np.float64)


def paired_normals(members: Integers, *keys: npt.ArrayLike) -> Floats:
    """Return standard normal numbers by member, keyed; each odd member has the opposite luck of the one before.

    Their mean is closer to that of all luck there is: whatever answers to luck in a straight line cancels.
    """
    return np.where(members % 2 == 1, -1.0, 1.0) * normals(members // 2, *keys)


def paired_poissons(members: Integers, *keys: npt.ArrayLike) -> Floats:
    """Return Poisson numbers of mean 1 by member, keyed; each odd member has the opposite luck of the one before."""
    luck = uniforms(members // 2, *keys)
    return np.searchsorted(_POISSON, np.where(members % 2 == 1, 1.0 - luck, luck)).astype(np.float64)


def shuffled(values: npt.ArrayLike, *keys: int) -> Integers:
    """Return the values in an order that the keys and the values alone decide."""
    given = np.sort(np.asarray(values, dtype=np.int64))
    return given[np.argsort(uniforms(*keys, given), kind="stable")]


def _mixed(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * _MIX[0]
    value = (value ^ (value >> np.uint64(27))) * _MIX[1]
    return value ^ (value >> np.uint64(31))
