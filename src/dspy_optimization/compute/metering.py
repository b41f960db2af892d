"""How long one optimization holds GPUs, and how often memory was not enough: what sharing of costs builds on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dspy_optimization.compute.devices import Device, DeviceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """What was taken of GPUs of one kind."""

    kind: DeviceKind
    seconds: float
    """Wall time that one device was held; of two devices the sum. The processor is not counted: 0 there."""
    out_of_memory: int
    """How often memory was not enough, of the processor too."""


@dataclass(slots=True)
class _Held:
    by: int = 0
    since: float = 0.0


@dataclass(slots=True)
class _Sum:
    seconds: float = 0.0
    out_of_memory: int = 0


@dataclass(slots=True)
class GpuMeter:
    """Counts for one optimization. Thread-safe.

    with meter.holding(device):
        ...
    store.add(optimization_id, meter.taken())
    """

    seconds: Callable[[], float]
    """A clock that never goes back."""
    _turn: threading.Lock = field(init=False, default_factory=threading.Lock)
    _held: dict[tuple[DeviceKind, str], _Held] = field(init=False, default_factory=dict)
    _sums: dict[DeviceKind, _Sum] = field(init=False, default_factory=dict)

    @contextmanager
    def holding(self, device: Device) -> Iterator[None]:
        """Count the time until the context ends; threads that hold the same device at once count once."""
        if not device.is_gpu:
            yield
            return
        key = (device.kind, device.name)
        with self._turn:
            held = self._held.setdefault(key, _Held(since=self.seconds()))
            held.by += 1
        try:
            yield
        finally:
            with self._turn:
                held.by -= 1
                if not held.by:
                    self._sum(device.kind).seconds += self.seconds() - held.since
                    del self._held[key]

    def ran_out(self, device: Device, times: int = 1) -> None:
        """Count that memory of a device was not enough."""
        with self._turn:
            self._sum(device.kind).out_of_memory += times

    def taken(self) -> tuple[GpuUse, ...]:
        """Return what was used since this was asked last, of devices that are still held too; nothing twice."""
        with self._turn:
            now = self.seconds()
            for (kind, _), held in self._held.items():
                self._sum(kind).seconds += now - held.since
                held.since = now
            found = tuple(
                GpuUse(kind=kind, seconds=one.seconds, out_of_memory=one.out_of_memory)
                for kind, one in sorted(self._sums.items())
                if one.seconds or one.out_of_memory
            )
            self._sums.clear()
            return found

    def _sum(self, kind: DeviceKind) -> _Sum:
        return self._sums.setdefault(kind, _Sum())
