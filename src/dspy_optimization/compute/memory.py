"""How much memory the processor's side has left, for a process that may be kept in a container."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How much there is, in bytes."""

    free_bytes: int
    total_bytes: int


def processor_memory(root: Path = Path("/")) -> Memory:
    """Return the machine's memory, or what the control groups of this process leave of it if that is less.

    Args:
        root: where `proc` and `sys` are; there are no control groups but on Linux.

    Source: Linux, admin-guide/cgroup-v2 (memory.max, memory.current, memory.stat) and cgroup-v1/memory.
    """
    machine = psutil.virtual_memory()
    free, total = int(machine.available), int(machine.total)
    for limit, used in _limits(root):
        total, free = min(total, limit), min(free, max(limit - used, 0))
    return Memory(free_bytes=free, total_bytes=total)


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use of every control group this process is in, its own and those around it."""
    listed = _text(root / "proc/self/cgroup")
    mounted = root / "sys/fs/cgroup"
    for line in [] if listed is None else listed.splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            yield from _groups(mounted, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            yield from _groups(
                mounted / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            )


def _groups(top: Path, path: str, limit_name: str, used_name: str, cache_name: str) -> Iterator[tuple[int, int]]:
    inside = Path(path.strip().strip("/"))
    # In a container the path may be the host's, which does not exist here: then the top is the container's own.
    for place in (inside, *inside.parents):
        limit, used = _number(top / place / limit_name), _number(top / place / used_name)
        if limit is not None and used is not None:
            yield limit, max(used - _reclaimable(top / place / "memory.stat", cache_name), 0)


def _reclaimable(stat: Path, name: str) -> int:
    """Return how many bytes are files the kernel drops before it refuses memory."""
    for line in (_text(stat) or "").splitlines():
        found, _, value = line.partition(" ")
        if found == name and value.strip().isdecimal():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    """Return the number in a file; None: no file, or `max`, which is no number."""
    text = (_text(path) or "").strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
