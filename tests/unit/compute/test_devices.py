"""What there is to work on, said in words; torch and NumPy do the same."""

import builtins
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dspy_optimization.compute.devices import (
    Device,
    DeviceKind,
    Library,
    allocator_configuration,
    best_device,
    devices,
    load_torch,
    numpy_device,
)
from dspy_optimization.compute.memory import Memory, processor_memory
from dspy_optimization.errors import InvalidRequestError

NO_TORCH = Library(torch=None, reason="torch is not installed: NumPy on the processor, slower")
GIB = 2**30


class Machine:
    """Answers what torch is asked of devices, for a machine that has these GPUs."""

    float32, float64 = "float32", "float64"

    def __init__(self, *free_bytes: int, mps: bool = False, broken: tuple[int, ...] = ()) -> None:
        self.limits: dict[str, float] = {}
        self.asked: list[str] = []
        self.emptied = 0
        self._free, self._broken = free_bytes, broken
        self.cuda = SimpleNamespace(
            is_available=lambda: bool(free_bytes),
            device_count=lambda: len(free_bytes),
            mem_get_info=self._info,
            memory_reserved=lambda name: 3 * GIB,
            memory_allocated=lambda name: 1 * GIB,
            set_per_process_memory_fraction=self._keep,
            empty_cache=self._empty,
        )
        self.mps = SimpleNamespace(
            recommended_max_memory=lambda: 8 * GIB,
            current_allocated_memory=lambda: 1 * GIB,
            set_per_process_memory_fraction=lambda share: self._keep(share, "mps"),
            empty_cache=self._empty,
        )
        self.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps))

    def _keep(self, share: float, name: str) -> None:
        self.limits[name] = share

    def _empty(self) -> None:
        self.emptied += 1

    def _info(self, name: str) -> tuple[int, int]:
        self.asked.append(name)
        index = int(name.split(":")[1])
        if index in self._broken:
            raise RuntimeError("CUDA error: device is lost\nCompile with TORCH_USE_CUDA_DSA")
        return self._free[index], 10 * GIB


def on(machine: Machine) -> Library:
    return Library(torch=machine, version="2.13.0")


def test_without_torch_numpy_works_and_says_why() -> None:
    found = best_device(library=NO_TORCH)

    assert ("cpu", DeviceKind.CPU, False, False) == (found.name, found.kind, found.is_gpu, found.has_torch)
    assert NO_TORCH.reason == found.reason
    assert np.float64 == found.asarray([1, 2]).dtype


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), r"torch is not installed: .*\[torch\]"),
        (ModuleNotFoundError("No module named 'sympy'", name="sympy"), "cannot be loaded .No module named 'sympy'"),
        (OSError("libcudart.so.13: cannot open\nmore"), "cannot be loaded .libcudart.so.13: cannot open.: NumPy"),
    ],
)
def test_a_torch_that_cannot_be_had_is_a_reason_and_no_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    real = builtins.__import__

    def without(name: str, *others: Any, **more: Any) -> Any:
        if name == "torch":
            raise error
        return real(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    library = load_torch()

    assert library.torch is None
    assert re.search(said, str(library.reason))


def test_gpus_come_before_the_processor_and_are_not_touched() -> None:
    machine = Machine(1 * GIB, 5 * GIB)
    found = devices(library=on(machine))

    assert ["cuda:0", "cuda:1", "cpu"] == [one.name for one in found]
    assert [] == machine.asked
    assert ("float32", "float32", "float64") == tuple(one.dtype for one in found)


def test_the_gpu_with_the_most_free_memory_is_used_and_no_more_of_it_than_the_fraction() -> None:
    machine = Machine(1 * GIB, 5 * GIB, 2 * GIB)
    found = best_device(fraction=0.5, library=on(machine))

    assert ("cuda:1", "torch sees 3 CUDA devices") == (found.name, found.reason)
    assert machine.limits["cuda:1"] == 0.5
    assert Memory(free_bytes=7 * GIB, total_bytes=10 * GIB) == found.memory()  # 5, and 2 that torch keeps unused
    assert 4 * GIB == found.room_bytes()  # half of 10 less the 1 that is taken


def test_a_gpu_that_is_lost_is_passed_over() -> None:
    assert "cuda:0" == best_device(library=on(Machine(1 * GIB, 5 * GIB, broken=(1,)))).name
    alone = best_device(library=on(Machine(5 * GIB, broken=(0,))))

    assert (DeviceKind.CPU, True) == (alone.kind, alone.has_torch)
    assert "cuda:0 does not answer (CUDA error: device is lost): torch on the processor" == alone.reason


def test_apples_gpu_is_used() -> None:
    machine = Machine(mps=True)
    found = best_device(fraction=0.25, library=on(machine))
    found.release()

    assert ("mps", "float32", {"mps": 0.25}, 1) == (found.name, found.dtype, machine.limits, machine.emptied)
    assert Memory(free_bytes=7 * GIB, total_bytes=8 * GIB) == found.memory()
    assert 1 * GIB == found.room_bytes()


def test_what_does_not_fit_goes_to_the_processor_of_the_same_library() -> None:
    machine = Machine(5 * GIB)
    found = best_device(library=on(machine)).on_processor("too little memory")

    assert ("cpu", "float64", machine, "too little memory") == (found.name, found.dtype, found.namespace, found.reason)
    assert found is found.on_processor("again")


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InvalidRequestError, match="GPU_MEMORY_FRACTION: wanted: above 0 and up to 1; found"):
        devices(fraction=fraction, library=NO_TORCH)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, None),
        ({"PYTORCH_CUDA_ALLOC_CONF": ""}, None),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "a:1", "PYTORCH_CUDA_ALLOC_CONF": "b:2"}, "a:1"),
    ],
)
def test_what_torch_is_told_of_memory_is_shown(environment: dict[str, str], told: str | None) -> None:
    assert told == allocator_configuration(environment)


def test_torch_is_not_loaded_before_it_is_asked_for() -> None:
    """Nor by whatever the service imports: its environment is complete by then, and starting stays quick."""
    code = "import sys, dspy_optimization.main, dspy_optimization.compute.response_model; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False" == told.stdout.strip()


@pytest.fixture(params=["numpy", "torch", "cuda", "mps"])
def device(request: pytest.FixtureRequest) -> Device:
    """Every device there is."""
    if request.param == "numpy":
        return numpy_device()
    library = load_torch()
    if library.torch is None:
        pytest.skip(str(library.reason))
    kind = DeviceKind.CPU if request.param == "torch" else DeviceKind(request.param)
    found = [one for one in devices(library=library) if one.kind is kind]
    if not found:
        pytest.skip(f"this machine has no {kind.value}")
    return found[0]


def test_arrays_come_back_as_they_went(device: Device) -> None:
    values = np.arange(6.0).reshape(2, 3)
    values.flags.writeable = False
    array = device.asarray(values)

    assert values.tolist() == device.to_numpy(array).tolist()
    assert np.float64 == device.to_numpy(array).dtype
    assert [1, 2] == device.to_numpy(device.asarray([1, 2], dtype=device.namespace.int64)).tolist()


def test_all_devices_work_out_the_same(device: Device) -> None:
    """As NumPy's float64; a GPU's float32 but for rounding."""
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((50, 20)), rng.standard_normal((20, 30))
    expected = np.tanh(one @ other).sum(axis=0)

    found = device.to_numpy(device.namespace.tanh(device.asarray(one) @ device.asarray(other)).sum(0))

    assert np.allclose(expected, found, rtol=0.0, atol=1e-4 if device.is_gpu else 1e-12)


def test_there_is_room(device: Device) -> None:
    memory = device.memory()

    assert 0 < memory.free_bytes <= memory.total_bytes
    assert 0 < device.room_bytes() <= memory.free_bytes


Files = Callable[[dict[str, str]], Path]


@pytest.fixture
def root(tmp_path: Path) -> Files:
    def written(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return written


def test_a_container_has_what_its_group_leaves_it(root: Files) -> None:
    """Version 2: the tightest of the groups around it counts; files that can be dropped are free."""
    top = "sys/fs/cgroup"
    found = processor_memory(
        root(
            {
                "proc/self/cgroup": "0::/a/b\n",
                f"{top}/a/b/memory.max": "max\n",
                f"{top}/a/b/memory.current": "5000\n",
                f"{top}/a/memory.max": "10000\n",
                f"{top}/a/memory.current": "7000\n",
                f"{top}/a/memory.stat": "anon 1\ninactive_file 2000\n",
            }
        )
    )

    assert Memory(free_bytes=5000, total_bytes=10000) == found


def test_an_older_container_too_and_one_that_does_not_see_its_own_path(root: Files) -> None:
    top = "sys/fs/cgroup/memory"
    found = processor_memory(
        root(
            {
                "proc/self/cgroup": "4:memory:/host/path\n3:cpu:/\n",
                f"{top}/memory.limit_in_bytes": "10000\n",
                f"{top}/memory.usage_in_bytes": "12000\n",
            }
        )
    )

    assert Memory(free_bytes=0, total_bytes=10000) == found


def test_without_groups_the_machine_has_what_it_has(tmp_path: Path) -> None:
    found = processor_memory(tmp_path)

    assert 0 < found.free_bytes <= found.total_bytes
