"""GPU time is what a clock says, once a device, and nothing is told twice."""

import threading
from types import SimpleNamespace

from dspy_optimization.compute.devices import Device, DeviceKind, numpy_device
from dspy_optimization.compute.metering import GpuMeter, GpuUse


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def cuda(index: int) -> Device:
    return Device(name=f"cuda:{index}", kind=DeviceKind.CUDA, reason="", namespace=SimpleNamespace(), dtype=None)


def use(seconds: float, out_of_memory: int = 0, kind: DeviceKind = DeviceKind.CUDA) -> GpuUse:
    return GpuUse(kind=kind, seconds=seconds, out_of_memory=out_of_memory)


def test_two_devices_count_each_and_one_that_is_held_twice_counts_once() -> None:
    clock = Clock()
    meter = GpuMeter(clock)
    with meter.holding(cuda(0)):
        clock.now = 1.0
        with meter.holding(cuda(0)), meter.holding(cuda(1)):
            clock.now = 3.0
        clock.now = 4.0

    assert (use(6.0),) == meter.taken()
    assert () == meter.taken()


def test_the_processor_costs_nothing_but_its_memory_may_run_out() -> None:
    clock = Clock()
    meter = GpuMeter(clock)
    with meter.holding(numpy_device()):
        clock.now = 5.0
    assert () == meter.taken()
    meter.ran_out(numpy_device(), 2)

    assert (use(0.0, 2, DeviceKind.CPU),) == meter.taken()


def test_what_is_still_held_is_told_up_to_now() -> None:
    clock = Clock()
    meter = GpuMeter(clock)
    with meter.holding(cuda(0)):
        clock.now = 2.0
        meter.ran_out(cuda(0))
        assert (use(2.0, 1),) == meter.taken()
        clock.now = 5.0

    assert (use(3.0),) == meter.taken()


def test_threads_may_hold_and_fail() -> None:
    clock = Clock()
    meter = GpuMeter(clock)
    both = threading.Barrier(2)

    def hold() -> None:
        try:
            with meter.holding(cuda(0)):
                both.wait()
                raise MemoryError
        except MemoryError:
            pass

    other = threading.Thread(target=hold)
    other.start()
    with meter.holding(cuda(0)):
        both.wait()
        clock.now = 7.0
        other.join()
    clock.now = 9.0

    assert (use(7.0),) == meter.taken()
