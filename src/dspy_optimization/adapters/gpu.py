"""The GPUs of this machine, by NVIDIA's management library."""

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device, as it is now."""

    index: int
    name: str
    memory_total_bytes: int
    memory_used_bytes: int
    utilization: float | None
    """Share of the last moments in which it worked, 0 to 1; None: the device does not say."""
    temperature_celsius: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What there is."""

    devices: tuple[Gpu, ...]
    reason: str | None = None
    """Why there is none; None when there is one."""

    @property
    def available(self) -> bool:
        """Whether there is a GPU."""
        return bool(self.devices)


def gpus() -> Gpus:
    """Return the GPUs; none, and why, on a machine without one."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Gpus(devices=(), reason=f"no NVIDIA driver answers: {error}")
    try:
        devices = tuple(_device(index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        return Gpus(devices=(), reason=f"the NVIDIA driver does not say what there is: {error}")
    finally:
        pynvml.nvmlShutdown()
    return Gpus(devices=devices, reason=None if devices else "the NVIDIA driver knows no device")


def _device(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    try:
        utilization: float | None = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100.0
        temperature: int | None = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
    except pynvml.NVMLError:
        utilization, temperature = None, None  # slices of a device do not say
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else str(name),
        memory_total_bytes=int(memory.total),
        memory_used_bytes=int(memory.used),
        utilization=utilization,
        temperature_celsius=temperature,
    )
