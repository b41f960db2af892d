"""The few operations on arrays that NumPy and PyTorch spell differently, so that one formula serves both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dspy_optimization.compute.devices import Device
from dspy_optimization.compute.ranking import Floats, Integers

Array = Any
"""A NumPy array or a tensor: both know +, *, @ and slices."""


class Arrays(Protocol):
    """Where formulas are computed."""

    def array(self, values: npt.ArrayLike) -> Array:
        """Return values as an array of this place."""

    def numpy(self, values: Array) -> Floats:
        """Return an array of this place as NumPy's."""

    def exp(self, values: Array) -> Array:
        """Return the exponentials."""

    def chances(self, logits: Array) -> Array:
        """Return the logistic function; the argument is overwritten."""

    def joined(self, parts: Sequence[Array]) -> Array:
        """Return arrays one below the other."""

    def groups(self, places: Integers, count: int) -> Groups:
        """Return how rows of a long array belong to rows of a short one."""


class Groups(Protocol):
    """Many belong to one: cells to a row, or to a column."""

    def take(self, values: Array) -> Array:
        """Return for each of the many the row of the one that it belongs to."""

    def sums(self, values: Array) -> Array:
        """Return for each one the sum over the many that belong to it, in a fixed order."""


class NumpyArrays:
    """On the CPU, without PyTorch."""

    def array(self, values: npt.ArrayLike) -> Array:
        """Return values as float64."""
        return np.ascontiguousarray(values, dtype=np.float64)

    def numpy(self, values: Array) -> Floats:
        """Return the array itself."""
        return np.asarray(values, dtype=np.float64)

    def exp(self, values: Array) -> Array:
        """Return the exponentials; infinity for what is too large."""
        with np.errstate(over="ignore"):
            return np.exp(values)

    def chances(self, logits: Array) -> Array:
        """Return the logistic function; the argument is overwritten."""
        np.negative(logits, out=logits)
        with np.errstate(over="ignore"):
            np.exp(logits, out=logits)
        logits += 1.0
        return np.reciprocal(logits, out=logits)

    def joined(self, parts: Sequence[Array]) -> Array:
        """Return arrays one below the other."""
        return np.concatenate(parts)

    def groups(self, places: Integers, count: int) -> Groups:
        """Return sums as products with a sparse matrix: the quickest that NumPy and SciPy offer."""
        return _NumpyGroups(places, count)


class _NumpyGroups:
    def __init__(self, places: Integers, count: int) -> None:
        self._places = places
        ones = np.ones(len(places))
        self._sums = sparse.csr_array((ones, (places, np.arange(len(places)))), shape=(count, len(places)))

    def take(self, values: Array) -> Array:
        return values.take(self._places, axis=0)

    def sums(self, values: Array) -> Array:
        return self._sums @ values


class TorchArrays:
    """On a device of PyTorch's, in that device's precision."""

    def __init__(self, device: Device) -> None:
        self._torch, self._device = device.namespace, device

    def array(self, values: npt.ArrayLike) -> Array:
        """Return values as a tensor on the device."""
        return self._device.asarray(np.ascontiguousarray(values, dtype=np.float64))

    def numpy(self, values: Array) -> Floats:
        """Return a tensor as NumPy's array, float64."""
        return self._device.to_numpy(values)

    def exp(self, values: Array) -> Array:
        """Return the exponentials."""
        return self._torch.exp(values)

    def chances(self, logits: Array) -> Array:
        """Return the logistic function; the argument is overwritten."""
        return logits.sigmoid_()

    def joined(self, parts: Sequence[Array]) -> Array:
        """Return tensors one below the other."""
        return self._torch.cat(list(parts))

    def groups(self, places: Integers, count: int) -> Groups:
        """Return sums over sorted segments: the same in every run, where atomic additions on a GPU are not."""
        return _TorchGroups(self._torch, self._device.name, places, count)


class _TorchGroups:
    def __init__(self, torch: Any, device: str, places: Integers, count: int) -> None:
        self._torch = torch
        order = np.argsort(places, kind="stable")
        self._places = torch.tensor(places, device=device)
        self._order = None if (np.diff(places) >= 0).all() else torch.tensor(order, device=device)
        self._lengths = torch.tensor(np.bincount(places, minlength=count), device=device)

    def take(self, values: Array) -> Array:
        return values.index_select(0, self._places)

    def sums(self, values: Array) -> Array:
        sorted_values = values if self._order is None else values.index_select(0, self._order)
        return self._torch.segment_reduce(sorted_values, "sum", lengths=self._lengths, axis=0, unsafe=True, initial=0)


def arrays_of(device: Device | None) -> Arrays:
    """Return the operations of a device; None: NumPy's."""
    return NumpyArrays() if device is None or not device.has_torch else TorchArrays(device)
