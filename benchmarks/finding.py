"""What a benchmark found: tables, what to make of them, and the numbers behind them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dspy_optimization.events import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows to look at; prints as Markdown, so that a report can take it over as it is."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        widths = [
            max(len(row[place]) for row in (self.columns, *self.rows)) if self.rows else len(name)
            for place, name in enumerate(self.columns)
        ]
        rule = tuple("-" * width for width in widths)
        lines = [
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in (self.columns, rule, *self.rows)
        ]
        return "\n".join([f"**{self.title}**", "", *lines])


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one benchmark."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    """What a reader must know to read the tables right."""
    data: Mapping[str, Json] = field(default_factory=dict)
    """Every single measurement, for the JSON file."""


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Return median and range, `1.20 (1.10 to 1.40)`; a dash for no values, the bare number for one."""
    if not values:
        return "-"
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):{form}} to {max(values):{form}})"
