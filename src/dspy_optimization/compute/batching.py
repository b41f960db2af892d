"""Work over rows in as many batches as memory asks for, with the same result whatever they were."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.devices import Device

Work = Callable[[Device, slice], Any]
"""Rows of the result, (rows of the slice, …), as an array of that device: not always the one it was first asked on.

Each row has to be the same whatever rows it is worked on with. Sums and products element by element are; a product of
matrices is so down to 64 rows with the libraries we measured, and below that but for rounding.
"""
_TILE = 64
_TOLD = (
    "out of memory",  # CUDA's driver and MPS, as RuntimeError
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",  # torch on the processor
    "not enough memory",
)


class Batches:
    """Runs the work of one optimization on a device; belongs to one thread.

        batches = Batches(device, warn=tell)
        scores = batches.run(lambda device, rows: device.asarray(matrix[rows]).sum(axis=1), n, bytes_per_row=8 * width)

    It begins with as many rows as memory allows. When memory is not enough it drops what it held, gives back what torch
    keeps, halves, and does not ask for that much again. What does not fit row by row goes to the processor, and so does
    everything after it.
    """

    def __init__(
        self,
        device: Device,
        *,
        warn: Callable[[str], None] | None = None,
        room: Callable[[Device], int] = Device.room_bytes,
        small: int = 0,
    ) -> None:
        """Begin on a device.

        Args:
            device: where work is done until it no longer fits.
            warn: told in a sentence when it goes on on the processor.
            room: how many bytes may be taken of a device now.
            small: bytes that are tried without asking for room first, which takes a millisecond.
        """
        self._device = device
        self._warn = warn
        self._room = room
        self._small = small
        self._most_bytes: int | None = None
        self._out_of_memory = 0

    @property
    def device(self) -> Device:
        """Where work is done now."""
        return self._device

    @property
    def out_of_memory(self) -> int:
        """How often memory was not enough."""
        return self._out_of_memory

    def run(self, work: Work, rows: int, *, bytes_per_row: int) -> npt.NDArray[np.float64]:
        """Return the result of all rows, (rows, …).

        Args:
            work: asked for rows one batch after the other; again for those of a batch that did not fit.
            rows: how many there are.
            bytes_per_row: what one takes on the device while it is worked on, above 0.

        Raises:
            MemoryError: a single row does not fit on the processor.
        """
        parts: list[npt.NDArray[np.float64]] = []
        done, size = 0, self._first(rows, bytes_per_row)
        while done < rows or not parts:
            batch = slice(done, min(done + size, rows))
            found = self._tried(work, batch)
            if found is not None:
                parts.append(found)
                done = batch.stop
            else:
                size = self._smaller(batch, rows, bytes_per_row)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _first(self, rows: int, bytes_per_row: int) -> int:
        room = self._small if rows * bytes_per_row <= self._small else self._room(self._device)
        if self._most_bytes is not None:
            room = min(room, self._most_bytes)
        fit = max(room // bytes_per_row, 1)
        return _rounded(fit) if fit < rows else max(rows, 1)

    def _tried(self, work: Work, batch: slice) -> npt.NDArray[np.float64] | None:
        """Return the result of a batch; None: memory was not enough, and what it held is free again."""
        try:
            return self._device.to_numpy(work(self._device, batch))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # The error, which holds every array of the work that failed, is gone only here.
        self._out_of_memory += 1
        gc.collect(1)  # what is young: a whole collection stops every thread
        self._device.release()
        return None

    def _smaller(self, failed: slice, rows: int, bytes_per_row: int) -> int:
        """Return how many rows to try after a batch did not fit, perhaps on the processor."""
        if failed.stop - failed.start > 1:
            size = _rounded((failed.stop - failed.start) // 2)
            self._most_bytes = size * bytes_per_row
            return size
        if not self._device.is_gpu:
            raise MemoryError(
                f"wanted: about {max(bytes_per_row, 1):,} bytes for one row of work; found: not enough memory on the "
                "processor; possible: a machine with more memory, or less that runs beside it"
            )
        reason = f"not even one row of work fits on {self._device.name}, which has too little memory left"
        self._device = self._device.on_processor(reason)
        self._most_bytes = None
        if self._warn is not None:
            self._warn(f"{reason}: this optimization goes on on the processor, slower")
        return self._first(rows - failed.start, bytes_per_row)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory was not enough: of NumPy, or of torch on any device."""
    if isinstance(error, MemoryError):
        return True
    # torch's own error of that name is a RuntimeError, and is not imported where torch is not.
    told = str(error)
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or any(phrase in told for phrase in _TOLD)
    )


def _rounded(rows: int) -> int:
    """Return so many rows or somewhat less: whole tiles, as far as there is one."""
    return rows - rows % _TILE if rows > _TILE else rows
