"""Keeps DSPy's prints, progress bars and log lines off the terminal while a search runs.

DSPy prints, draws tqdm bars that nobody can switch off, and logs to a handler of its own that writes to whatever
`sys.stderr` is. Only what a search writes is dropped: the streams ask DSPy's settings, which follow a search into
DSPy's worker threads and no further. Handlers that operators put on DSPy's loggers go on getting every record. Each
search puts its own streams in place and takes them away; they nest, in any order, over threads.

DSPy also empties tqdm's list of living bars before every evaluation, other threads' bars included. tqdm then misses a
bar that it is about to take out, and what it raises (`KeyError`) ends whichever search that was. So the list is made to
bear it.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO, cast
from weakref import WeakSet

import dspy
from dspy.utils import parallelizer

_SETTING = "dspy_optimization_quiet"


def _is_quiet() -> bool:
    return bool(dspy.settings.get(_SETTING, False))


class QuietStream:
    """A standard stream that drops what searches write and is what it stands for in everything else."""

    def __init__(self, behind: "TextIO | QuietStream") -> None:
        self.behind = behind
        self.retired = False
        """True: its search is over, and it stands only because another stream was put in front of it."""

    def write(self, text: str) -> int:
        """Write the text, or drop it when a search writes it."""
        return len(text) if _is_quiet() else self.behind.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write the lines, or drop them when a search writes them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


class Bars(WeakSet[Any]):
    """tqdm's list of living bars: one leaves when it is closed or forgotten, and not for the sake of another search."""

    def clear(self) -> None:
        """Keep them."""

    def remove(self, item: object) -> None:
        """Let go of a bar, also of one that is not there."""
        self.discard(item)


def _share_bars() -> None:
    bars = parallelizer.tqdm.tqdm
    if not isinstance(bars._instances, Bars):  # noqa: SLF001 - DSPy reaches for it too, that is the trouble
        bars._instances = Bars()  # noqa: SLF001


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what is printed, drawn and logged inside, in this thread and in those DSPy starts from it."""
    _share_bars()
    streams: tuple[tuple[Literal["stdout", "stderr"], QuietStream], ...] = (
        ("stdout", QuietStream(sys.stdout)),
        ("stderr", QuietStream(sys.stderr)),
    )
    for name, stream in streams:
        setattr(sys, name, stream)
    try:
        with dspy.context(**{_SETTING: True}):
            yield
    finally:
        for name, stream in streams:
            stream.retired = True
            if getattr(sys, name) is stream:
                setattr(sys, name, _living(stream))
            _let_go(getattr(sys, name))


def _living(stream: TextIO | QuietStream) -> TextIO:
    """Return the first stream behind this one whose search still runs, or what people gave us."""
    while isinstance(stream, QuietStream) and stream.retired:
        stream = stream.behind
    return cast("TextIO", stream)


def _let_go(stream: TextIO | QuietStream) -> None:
    """Take the streams of searches that are over out of the chain: where searches always overlap none ends in front."""
    while isinstance(stream, QuietStream):
        stream.behind = _living(stream.behind)
        stream = stream.behind
