"""Batches: memory may run out wherever it likes, the result is the same."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.compute.batching import Batches, is_out_of_memory
from dspy_optimization.compute.devices import Device, DeviceKind, load_torch, numpy_device

ROWS, WIDTH = 300, 7
MATRIX = np.random.default_rng(0).standard_normal((ROWS, WIDTH))
WHOLE = np.tanh(MATRIX * 3.0).sum(axis=1)


class OutOfMemoryError(RuntimeError):
    """Named as torch's own, which is not importable everywhere."""


def gpu() -> tuple[Device, list[str]]:
    """Return a device that computes with NumPy and counts as a GPU, and what it was asked to do."""
    asked: list[str] = []
    namespace = SimpleNamespace(
        cuda=SimpleNamespace(empty_cache=lambda: asked.append("empty_cache")), float64=np.float64
    )

    class Pretended(Device):
        __slots__ = ()

        def to_numpy(self, array: Any) -> Any:
            return np.asarray(array, dtype=np.float64)

    fields = {"name": "cuda:0", "kind": DeviceKind.CUDA, "reason": "", "namespace": namespace, "dtype": np.float64}
    return Pretended(**fields), asked


class Allocator:
    """Gives memory, but not at these times of asking."""

    def __init__(self, *refused: int, error: Callable[[], Exception] = MemoryError) -> None:
        self.asked = 0
        self._refused, self._error = refused, error

    def __call__(self, array: Any) -> Any:
        self.asked += 1
        if self.asked in self._refused:
            raise self._error()
        return array


def work(allocate: Callable[[Any], Any]) -> Callable[[Device, slice], Any]:
    def tanh(_: Device, rows: slice) -> Any:
        some = allocate(MATRIX[rows].copy())
        scaled = allocate(some * 3.0)
        bent = allocate(np.tanh(scaled))
        return allocate(bent.sum(axis=1))

    return tanh


def room(of: int) -> Callable[[Device], int]:
    return lambda _: of


@pytest.mark.parametrize("pretended", [False, True])
@pytest.mark.parametrize(("rows", "start"), [(ROWS, ROWS), (ROWS, 100), (ROWS, 64), (20, 7), (20, 1)])
def test_memory_that_runs_out_anywhere_changes_nothing(rows: int, start: int, pretended: bool) -> None:
    """Refused at the first time of asking, at the second, …: at every one there is."""
    device = gpu()[0] if pretended else numpy_device()
    straight = Allocator()
    unhindered = Batches(device, room=room(start)).run(work(straight), rows, bytes_per_row=1)

    assert WHOLE[:rows].tobytes() == unhindered.tobytes()
    if start == 1 and not pretended:
        return  # the processor has nothing smaller to try
    for turn in range(1, straight.asked + 1):
        allocator = Allocator(turn)
        batches = Batches(device, room=room(start))
        assert WHOLE[:rows].tobytes() == batches.run(work(allocator), rows, bytes_per_row=1).tobytes()
        assert 1 == batches.out_of_memory


@settings(max_examples=25)
@given(st.sets(st.integers(1, 60), max_size=12), st.integers(2, 400))
def test_memory_that_runs_out_again_and_again_changes_nothing(refused: set[int], start: int) -> None:
    allocator = Allocator(*refused, error=lambda: OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"))
    batches = Batches(gpu()[0], room=room(start))
    found: Any = None
    try:
        found = batches.run(work(allocator), ROWS, bytes_per_row=1)
    except MemoryError:
        assert batches.device.kind is DeviceKind.CPU  # refused there too, row by row
    else:
        assert WHOLE.tobytes() == found.tobytes()


def test_as_many_rows_as_memory_allows_in_whole_tiles() -> None:
    sizes: list[int] = []

    def counted(_: Device, rows: slice) -> Any:
        sizes.append(rows.stop - rows.start)
        return MATRIX[rows]

    Batches(numpy_device(), room=room(2000)).run(counted, ROWS, bytes_per_row=10)

    assert [192, 108] == sizes


def test_a_size_that_did_not_fit_is_not_tried_again() -> None:
    device, asked = gpu()
    sizes: list[int] = []

    def small(_: Device, rows: slice) -> Any:
        sizes.append(rows.stop - rows.start)
        if sizes[-1] > 100:
            raise OutOfMemoryError("CUDA out of memory")
        return MATRIX[rows]

    batches = Batches(device, room=room(1000))
    for _ in range(2):
        assert MATRIX.tobytes() == batches.run(small, ROWS, bytes_per_row=1).tobytes()

    assert [300, 128, 64, 64, 64, 64, 44, 64, 64, 64, 64, 44] == sizes
    assert (["empty_cache"] * 2, 2) == (asked, batches.out_of_memory)


def test_what_does_not_fit_row_by_row_goes_to_the_processor_and_somebody_is_told() -> None:
    told: list[str] = []
    used: list[str] = []

    def only_there(device: Device, rows: slice) -> Any:
        used.append(device.name)
        if device.is_gpu:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)")
        return MATRIX[rows]

    device = replace(gpu()[0], namespace=SimpleNamespace(cuda=SimpleNamespace(empty_cache=list), float64=np.float64))
    batches = Batches(device, warn=told.append, room=lambda one: 64 if one.is_gpu else 10**9)
    for _ in range(2):
        assert MATRIX.tobytes() == batches.run(only_there, ROWS, bytes_per_row=1).tobytes()

    assert ["cuda:0"] * 7 + ["cpu"] * 2 == used
    assert 1 == len(told)
    assert "not even one row of work fits on cuda:0" in told[0]
    assert "goes on on the processor, slower" in told[0]


def test_on_the_processor_the_last_row_says_what_it_wants() -> None:
    def never(_: Device, rows: slice) -> Any:
        raise MemoryError

    with pytest.raises(MemoryError, match="wanted: about 12,345 bytes for one row of work; found: not enough"):
        Batches(numpy_device(), room=room(10**9)).run(never, ROWS, bytes_per_row=12_345)


def test_what_failed_is_not_held_while_it_is_tried_again() -> None:
    """An error holds the frames it passed, and those their arrays."""
    alive: list[int] = []

    class Counted(np.ndarray):
        def __new__(cls, rows: int) -> Any:
            alive.append(rows)
            return np.zeros(rows).view(cls)

        def __del__(self) -> None:
            if self.base is not None and len(self) in alive:
                alive.remove(len(self))

    most: list[int] = []

    def heavy(_: Device, rows: slice) -> Any:
        most.append(len(alive))
        held = Counted(rows.stop - rows.start)
        if len(held) > 100:
            raise MemoryError
        return np.asarray(held)

    Batches(numpy_device(), room=room(300)).run(heavy, ROWS, bytes_per_row=1)

    assert 0 == max(most[:3])


def test_nothing_is_a_result_too() -> None:
    assert (0, WIDTH) == Batches(numpy_device()).run(lambda _, rows: MATRIX[rows], 0, bytes_per_row=8).shape


def test_other_errors_pass() -> None:
    def wrong(_: Device, rows: slice) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Batches(numpy_device()).run(wrong, ROWS, bytes_per_row=8)


def test_what_the_libraries_say_is_understood() -> None:
    """Really asked for more than there is."""
    library = load_torch()
    if library.torch is None:
        pytest.skip(str(library.reason))
    with pytest.raises(RuntimeError) as torch_error:
        library.torch.empty(10**15)
    with pytest.raises(MemoryError) as numpy_error:
        np.empty(10**17)

    assert is_out_of_memory(torch_error.value)
    assert is_out_of_memory(numpy_error.value)
    assert is_out_of_memory(library.torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(library.torch.cuda.OutOfMemoryError(""))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("with_torch", [False, True])
def test_products_of_matrices_are_the_same_down_to_whole_tiles(with_torch: bool) -> None:
    library = load_torch()
    if with_torch and library.torch is None:
        pytest.skip(str(library.reason))
    device = (
        Device(name="cpu", kind=DeviceKind.CPU, reason="", namespace=library.torch, dtype=library.torch.float64)
        if with_torch and library.torch is not None
        else numpy_device()
    )
    weights = np.random.default_rng(1).standard_normal((WIDTH, 5))

    def product(device: Device, rows: slice) -> Any:
        return device.asarray(MATRIX[rows]) @ device.asarray(weights)

    whole, tiles, single = (
        Batches(device, room=room(size)).run(product, ROWS, bytes_per_row=1) for size in (1000, 130, 1)
    )

    assert whole.tobytes() == tiles.tobytes()
    assert np.allclose(whole, single, rtol=1e-14, atol=1e-14)


def test_small_work_does_not_ask_for_room() -> None:
    """Asking takes a millisecond; what fits into the small allowance is tried at once, and halves like any other."""
    asked: list[str] = []

    def room_of(device: Device) -> int:
        asked.append(device.name)
        return 10**9

    batches = Batches(numpy_device(), room=room_of, small=100)
    found = [batches.run(lambda _, rows: MATRIX[rows], count, bytes_per_row=10) for count in (10, 11)]

    np.testing.assert_array_equal(MATRIX[:11], found[1])
    assert ["cpu"] == asked
