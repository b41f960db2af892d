"""Fits go on on the processor when a device is full, and what was held is counted."""

from dataclasses import replace

import numpy as np
import pytest

from dspy_optimization.compute.computing import Computing
from dspy_optimization.compute.devices import Device, DeviceKind, devices, numpy_device
from dspy_optimization.compute.metering import GpuMeter, GpuUse


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pretended_gpu() -> Device:
    processor = next((one for one in devices() if one.has_torch), None)
    if processor is None:
        pytest.skip("torch is not installed: a GPU cannot be pretended")
    # torch's processor under the name of a GPU: it computes, and counts as one.
    return replace(processor, kind=DeviceKind.CUDA)


def test_what_fits_is_done_once_and_metered() -> None:
    clock = Clock()
    computing = Computing(meter=GpuMeter(clock), device=pretended_gpu())

    def work(device: Device) -> str:
        clock.now += 2.5
        return device.name

    assert "cpu" == computing.run(work)
    assert (GpuUse(kind=DeviceKind.CUDA, seconds=2.5, out_of_memory=0),) == computing.meter.taken()
    assert () == computing.meter.taken()


def test_a_full_device_gives_way_to_the_processor_once_and_for_all() -> None:
    clock, said, asked = Clock(), list[str](), list[DeviceKind]()
    computing = Computing(meter=GpuMeter(clock), device=pretended_gpu(), warn=said.append)

    def work(device: Device) -> int:
        asked.append(device.kind)
        if device.is_gpu:
            clock.now += 1.0
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return 7

    assert [7, 7] == [computing.run(work), computing.run(work)]
    assert [DeviceKind.CUDA, DeviceKind.CPU, DeviceKind.CPU] == asked
    assert 1 == len(said)
    assert "goes on on the processor" in said[0]
    assert (GpuUse(kind=DeviceKind.CUDA, seconds=1.0, out_of_memory=1),) == computing.meter.taken()


def test_the_processor_without_memory_says_what_is_possible() -> None:
    computing = Computing(meter=GpuMeter(Clock()), device=numpy_device())

    def work(_device: Device) -> None:
        raise MemoryError

    with pytest.raises(MemoryError, match=r"wanted: .*found: .*possible: "):
        computing.run(work)


def test_other_errors_pass() -> None:
    said: list[str] = []
    computing = Computing(meter=GpuMeter(Clock()), device=pretended_gpu(), warn=said.append)

    def work(_device: Device) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        computing.run(work)
    assert [] == said


def test_rows_that_do_not_fit_on_the_device_go_on_on_the_processor() -> None:
    """Halved to the last row first; both devices' failures are counted, and later work begins on the processor."""
    clock, said, tried = Clock(), list[str](), list[tuple[bool, int]]()
    computing = Computing(meter=GpuMeter(clock), device=pretended_gpu(), warn=said.append)

    def work(device: Device, rows: slice) -> object:
        tried.append((device.is_gpu, rows.stop - rows.start))
        if device.is_gpu:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return device.asarray(np.arange(rows.start, rows.stop, dtype=np.float64))

    found = [computing.in_batches(work, 4, bytes_per_row=8) for _ in range(2)]

    assert [[0.0, 1.0, 2.0, 3.0]] * 2 == [one.tolist() for one in found]
    assert [(True, 4), (True, 2), (True, 1), (False, 4), (False, 4)] == tried
    assert not computing.device.is_gpu
    assert 1 == len(said)
    assert 3 == computing.meter.taken()[0].out_of_memory
