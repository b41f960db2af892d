"""Where an optimization computes: on its device while memory lasts, then on the processor; what it takes is counted."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from dspy_optimization.compute.batching import Batches, Work, is_out_of_memory
from dspy_optimization.compute.devices import Device, numpy_device
from dspy_optimization.compute.metering import GpuMeter
from dspy_optimization.compute.ranking import Floats

Done = TypeVar("Done")

_SMALL = 2**24
"""Bytes of a batch that are not worth asking a device for its room."""


def _nobody(_sentence: str) -> None:
    pass


@dataclass(slots=True, kw_only=True)
class Computing:
    """The computing of one optimization."""

    meter: GpuMeter
    device: Device = field(default_factory=numpy_device)
    """Where the next work is done."""
    warn: Callable[[str], None] = _nobody
    """Told in a sentence when it goes on on the processor."""
    room: Callable[[Device], int] = Device.room_bytes
    """How many bytes may be taken of a device now."""
    _batches: Batches | None = None

    def run(self, work: Callable[[Device], Done]) -> Done:
        """Return what the work comes to; begun again on the processor when the device has too little memory.

        Raises:
            MemoryError: not even the processor has enough.
        """
        device = self.device
        try:
            with self.meter.holding(device):
                return work(device)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.meter.ran_out(device)
            if not device.is_gpu:
                raise MemoryError(
                    "wanted: memory for one fit of the response model; found: not enough on the processor; possible: a "
                    "machine with more memory, or less that runs beside it"
                ) from error
        # The error, which holds every array of the work that failed, is gone only here.
        gc.collect(1)
        device.release()
        reason = f"{device.name} has too little memory left for a fit of the response model"
        self.device = device.on_processor(reason)
        self.warn(f"{reason}: this optimization goes on on the processor, slower")
        return work(self.device)

    def in_batches(self, work: Work, rows: int, *, bytes_per_row: int) -> Floats:
        """Return the result of all rows, (rows, …), in as many batches as memory asks for.

        What does not fit row by row on the device goes on on the processor, and so does everything after it.

        Args:
            work: asked for rows one batch after the other; again for those of a batch that did not fit.
            rows: how many there are.
            bytes_per_row: what one takes while it is worked on, above 0.

        Raises:
            MemoryError: a single row does not fit on the processor.
        """
        device, batches = self.device, self._batches
        if batches is None or batches.device is not device:
            batches = self._batches = Batches(device, warn=self.warn, room=self.room, small=_SMALL)
        before = batches.out_of_memory
        try:
            with self.meter.holding(device):
                return batches.run(work, rows, bytes_per_row=bytes_per_row)
        finally:
            self.device = batches.device
            if batches.out_of_memory > before:
                self.meter.ran_out(device, batches.out_of_memory - before)
