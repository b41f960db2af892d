"""What arrays can be worked on here, and how much memory it has: CUDA and MPS through torch, the processor without it.

    device = best_device(fraction=0.8)              # torch is loaded here and not before
    scores = device.asarray(matrix) @ device.asarray(weights)
    device.to_numpy(scores)                         # float64, on the processor

torch reads PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF itself, when it first asks a GPU for memory. Nothing here does
that before somebody makes an array, so whatever stands in the environment of the process is in effect.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.memory import Memory, processor_memory
from dspy_optimization.errors import InvalidRequestError

DEFAULT_FRACTION = 0.8
_PROCESSOR_SHARE = 0.5
"""Of the memory that is free: an operating system promises more than it has and ends processes that believe it."""
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""What torch reads, the first one that is set."""


class DeviceKind(StrEnum):
    """What a device is."""

    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """torch, or why there is none."""

    torch: Any | None
    version: str | None = None
    reason: str | None = None
    """Why there is none, and what to do; None: there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where arrays lie and are worked on. Arrays are float32 on a GPU and float64 on the processor."""

    name: str
    """As torch calls it: `cuda:0`, `mps`, `cpu`."""
    kind: DeviceKind
    reason: str
    """Why this one, in words."""
    namespace: Any
    """torch or numpy: who makes arrays."""
    dtype: Any
    """The namespace's float32 or float64."""
    memory_fraction: float = DEFAULT_FRACTION
    """Share of a GPU's memory that this process takes at most, above 0 and up to 1."""

    @property
    def is_gpu(self) -> bool:
        """Whether it is something other than the processor."""
        return self.kind is not DeviceKind.CPU

    @property
    def has_torch(self) -> bool:
        """Whether arrays are torch's; otherwise they are NumPy's."""
        return self.namespace is not np

    def asarray(self, values: object, *, dtype: Any | None = None) -> Any:
        """Return the values as an array on this device; shares memory with them where it can."""
        kind = self.dtype if dtype is None else dtype
        if not self.has_torch:
            return np.asarray(values, dtype=kind)
        if isinstance(values, np.ndarray) and not values.flags.writeable:
            values = values.copy()  # torch has no arrays that are only to be read
        return self.namespace.as_tensor(values, dtype=kind, device=self.name)

    def to_numpy(self, array: Any) -> npt.NDArray[np.float64]:
        """Return an array of this device as float64 on the processor, without its history of gradients."""
        if not self.has_torch:
            return np.asarray(array, dtype=np.float64)
        return np.asarray(array.detach().cpu().numpy(), dtype=np.float64)

    def memory(self) -> Memory:
        """Return what is free now for this process, and all there is. What torch keeps and does not use is free."""
        torch = self.namespace
        match self.kind:
            case DeviceKind.CUDA:
                free, total = torch.cuda.mem_get_info(self.name)
                kept = int(torch.cuda.memory_reserved(self.name)) - self._taken_bytes()
                return Memory(free_bytes=int(free) + kept, total_bytes=int(total))
            case DeviceKind.MPS:
                total = int(torch.mps.recommended_max_memory())
                return Memory(free_bytes=max(total - self._taken_bytes(), 0), total_bytes=total)
            case DeviceKind.CPU:
                return processor_memory()
            case _:
                assert_never(self.kind)

    def room_bytes(self) -> int:
        """Return how much memory more work may take now: free, and within this process's share."""
        memory = self.memory()
        if not self.is_gpu:
            return int(memory.free_bytes * _PROCESSOR_SHARE)
        share = int(memory.total_bytes * self.memory_fraction)
        return max(min(memory.free_bytes, share - self._taken_bytes()), 0)

    def _taken_bytes(self) -> int:
        """Return how much of a GPU this process's arrays take."""
        if self.kind is DeviceKind.CUDA:
            return int(self.namespace.cuda.memory_allocated(self.name))
        return int(self.namespace.mps.current_allocated_memory())

    def release(self) -> None:
        """Give back what torch keeps of a GPU's memory without using it."""
        if self.kind is DeviceKind.CUDA:
            self.namespace.cuda.empty_cache()
        elif self.kind is DeviceKind.MPS:
            self.namespace.mps.empty_cache()

    def keep_to_fraction(self) -> None:
        """Let torch take no more of this GPU than `memory_fraction`, in the whole process."""
        if self.kind is DeviceKind.CUDA:
            self.namespace.cuda.set_per_process_memory_fraction(float(self.memory_fraction), self.name)
        elif self.kind is DeviceKind.MPS:
            self.namespace.mps.set_per_process_memory_fraction(float(self.memory_fraction))

    def on_processor(self, reason: str) -> Device:
        """Return the processor of the same library, for what does not fit here. Numbers are float64 there."""
        if not self.is_gpu:
            return self
        return replace(self, name="cpu", kind=DeviceKind.CPU, reason=reason, dtype=self.namespace.float64)


def load_torch() -> Library:
    """Return torch, or why it cannot be had. The first time it takes a second or two."""
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            return Library(torch=None, reason=_broken(error))
        return Library(
            torch=None,
            reason="torch is not installed: NumPy on the processor, slower; possible: install dspy-optimization[torch]",
        )
    except (ImportError, OSError) as error:
        return Library(torch=None, reason=_broken(error))
    return Library(torch=torch, version=str(torch.__version__))


def devices(*, fraction: float = DEFAULT_FRACTION, library: Library | None = None) -> tuple[Device, ...]:
    """Return what there is to work on, GPUs before the processor, which is always there. Takes no memory of a GPU.

    Args:
        fraction: of a GPU's memory that this process takes at most, above 0 and up to 1.
        library: torch; None: `load_torch`.

    Raises:
        InvalidRequestError: a fraction out of range.
    """
    if not 0.0 < fraction <= 1.0:
        raise InvalidRequestError(
            f"GPU_MEMORY_FRACTION: wanted: above 0 and up to 1; found: {fraction:g}; possible: {DEFAULT_FRACTION:g}"
        )
    library = load_torch() if library is None else library
    torch = library.torch
    if torch is None:
        return (_numpy(library.reason or "NumPy on the processor"),)
    problems: list[str] = []
    gpus = [*_cuda(torch, fraction, problems), *_mps(torch, fraction)]
    why = "; ".join(problems) if problems else "torch sees no GPU"
    reason = "beside a GPU" if gpus else f"{why}: torch on the processor"
    return (*gpus, Device(name="cpu", kind=DeviceKind.CPU, reason=reason, namespace=torch, dtype=torch.float64))


def best_device(*, fraction: float = DEFAULT_FRACTION, library: Library | None = None) -> Device:
    """Return what to work on: of several CUDA devices that with the most free memory, without a GPU the processor.

    A GPU that does not answer is passed over, and the reason of what is used instead says so. torch takes no more of a
    GPU than the fraction from now on.

    Args:
        fraction: as `devices`.
        library: as `devices`.

    Raises:
        InvalidRequestError: a fraction out of range.
    """
    problems: list[str] = []
    answering: list[tuple[int, Device]] = []
    for device in devices(fraction=fraction, library=library):
        if not device.is_gpu:
            break
        try:
            device.keep_to_fraction()
            answering.append((device.memory().free_bytes, device))
        except RuntimeError as error:
            problems.append(f"{device.name} does not answer ({_first_line(error)})")
    if answering:
        return max(answering, key=lambda one: one[0])[1]
    processor = devices(fraction=fraction, library=library)[-1]
    return replace(processor, reason=f"{'; '.join(problems)}: torch on the processor") if problems else processor


def numpy_device(reason: str = "NumPy on the processor was asked for") -> Device:
    """Return NumPy on the processor, whatever else there is."""
    return _numpy(reason)


def allocator_configuration(environment: Mapping[str, str] | None = None) -> str | None:
    """Return how torch is told to manage a GPU's memory, as it stands in the environment; None: torch's own way."""
    given = os.environ if environment is None else environment
    return next((given[name] for name in ALLOCATOR_VARIABLES if given.get(name)), None)


def _numpy(reason: str) -> Device:
    return Device(name="cpu", kind=DeviceKind.CPU, reason=reason, namespace=np, dtype=np.float64)


def _cuda(torch: Any, fraction: float, problems: list[str]) -> list[Device]:
    try:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    except RuntimeError as error:
        problems.append(f"CUDA does not answer ({_first_line(error)})")
        return []
    seen = "a CUDA device" if count == 1 else f"{count} CUDA devices"
    return [
        Device(
            name=f"cuda:{index}",
            kind=DeviceKind.CUDA,
            reason=f"torch sees {seen}",
            namespace=torch,
            dtype=torch.float32,
            memory_fraction=fraction,
        )
        for index in range(count)
    ]


def _mps(torch: Any, fraction: float) -> list[Device]:
    if not torch.backends.mps.is_available():
        return []
    return [
        Device(
            name="mps",
            kind=DeviceKind.MPS,
            reason="torch sees Apple's GPU",
            namespace=torch,
            dtype=torch.float32,
            memory_fraction=fraction,
        )
    ]


def _broken(error: Exception) -> str:
    return f"torch cannot be loaded ({_first_line(error)}): NumPy on the processor, slower; possible: install it anew"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
