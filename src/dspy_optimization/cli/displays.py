"""Displays without a terminal: a line an event, JSON lines, nothing. And the choice among them."""

import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TextIO

from dspy_optimization.cli.event_lines import json_line, plain_line
from dspy_optimization.cli.following import Display
from dspy_optimization.events import RecordedEvent
from dspy_optimization.optimization.standing import View


class DisplayKind(StrEnum):
    """How progress is shown."""

    LIVE = "live"  # a panel that redraws itself
    PLAIN = "plain"  # one line an event
    NONE = "none"  # only the outcome


class Lines:
    """One line an event on standard output; notes on standard error."""

    def __init__(self, line: Callable[[RecordedEvent], str | None], out: TextIO, notes: TextIO) -> None:
        """Write to these streams.

        Args:
            line: the event as a line; None: not shown.
            out: for events.
            notes: for everything else.
        """
        self._line = line
        self._out = out
        self._notes = notes

    def tell(self, event: RecordedEvent) -> None:
        """Write the event."""
        line = self._line(event)
        if line is not None:
            self._out.write(f"{line}\n")
            self._out.flush()

    def show(self, view: View) -> None:
        """Lines do not change once written."""

    def note(self, text: str) -> None:
        """Write to the other stream."""
        self._notes.write(f"{text}\n")
        self._notes.flush()

    def end(self) -> None:
        """Nothing to put back."""


def open_display(kind: DisplayKind | None, *, as_json: bool) -> Display:
    """Return the display that fits.

    Args:
        kind: as asked for; None: live on a terminal, plain otherwise.
        as_json: JSON lines of events on standard output, whatever `kind` says.
    """
    if as_json:
        return Lines(json_line, sys.stdout, sys.stderr)
    if kind is None:
        kind = DisplayKind.LIVE if sys.stdout.isatty() else DisplayKind.PLAIN
    match kind:
        case DisplayKind.LIVE:
            from dspy_optimization.cli.live_panel import LivePanel

            return LivePanel.open()
        case DisplayKind.PLAIN:
            return Lines(plain_line, sys.stdout, sys.stderr)
        case DisplayKind.NONE:
            return Lines(_nothing, sys.stdout, sys.stderr)


def _nothing(_event: RecordedEvent) -> None:
    """Leave the event out."""
