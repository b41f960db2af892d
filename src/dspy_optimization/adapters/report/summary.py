"""The report for a terminal: plain rows, and plain text of at most 80 columns made of them."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dspy_optimization.adapters.report.facts import Report
from dspy_optimization.adapters.report.numbers import count, dollars, duration, number, per_hundred, percent
from dspy_optimization.adapters.report.tiles import tiles
from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.adapters.report.word_changes import ComponentChange
from dspy_optimization.adapters.report.wording import Statement

COLUMNS = 80
_NAME_COLUMNS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A name and what is to be said of it; safe to print."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Lines under a title."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a terminal shows at the end."""

    agent: str
    statement: Statement
    """Safe to print, like everything here."""
    blocks: tuple[Block, ...]
    """Only those with something to say."""


def summary(report: Report) -> Summary:
    """Return the rows; control characters of agents and models are spelled out."""
    blocks = (
        Block(title="Result", lines=tuple(_line(tile.name, f"{tile.figure}  ({tile.note})") for tile in tiles(report))),
        Block(title="What changed", lines=tuple(_changes(report))),
        Block(title="Worth of each change, on val", lines=tuple(_worth(report))),
        Block(title="Cost", lines=tuple(_cost(report))),
        Block(title="Worth knowing", lines=tuple(_line("", notice) for notice in report.notices)),
        Block(title="The same again", lines=tuple(_line("", one) for one in report.reproduction.lines(COLUMNS - 4))),
    )
    told = report.statement
    return Summary(
        agent=visible(report.agent.name),
        statement=Statement(
            tone=told.tone,
            label=told.label,
            headline=told.headline,
            sentence=visible(told.sentence),
            evidence=visible(told.evidence),
            next_step=visible(told.next_step),
        ),
        blocks=tuple(block for block in blocks if block.lines),
    )


def plain(shown: Summary, columns: int = COLUMNS) -> str:
    """Return the text, no line wider than `columns`, wide characters counted as two.

    Args:
        shown: the rows.
        columns: at least 40.
    """
    told = shown.statement
    lines = [f"{shown.agent}: {told.label}", "", *_wrapped(told.headline, columns)]
    lines += [*_wrapped(told.sentence, columns), *_wrapped(told.evidence, columns)]
    lines += ["", *_wrapped(f"Next: {told.next_step}", columns)]
    for block in shown.blocks:
        lines += ["", block.title]
        for line in block.lines:
            lines += _laid_out(line, columns)
    return "\n".join(piece for line in lines for piece in _wrapped(line, columns)) + "\n"


def _changes(report: Report) -> Iterator[Line]:
    for change in report.changes:
        if change.changed:
            yield _line(change.component, ", ".join(_parts(change)))


def _parts(change: ComponentChange) -> Iterator[str]:
    if change.instructions_changed:
        yield f"instructions +{change.words_added} −{change.words_removed} words"
    if change.demos_added or change.demos_removed:
        yield f"demos +{len(change.demos_added)} −{len(change.demos_removed)} ({change.demos_kept} kept)"
    if change.demos_reordered:
        yield "demos in another order"
    for setting in change.settings:
        yield setting.words


def _worth(report: Report) -> Iterator[Line]:
    improvements = report.result.key_improvements if report.result is not None else ()
    for one in improvements:
        yield _line(f"{one.component}: {one.part}", _gain(report, one.worth.value, one.worth.low, one.worth.high))
    found = report.examples
    if found is not None and found.n:
        yield _line(
            count(found.n, "val example"),
            f"{len(found.better)} better, {len(found.worse)} worse, {found.same} the same",
        )


def _gain(report: Report, value: float, low: float | None, high: float | None) -> str:
    def show(amount: float) -> str:
        sign = "+" if amount > 0 else "−" if amount < 0 else ""
        return f"{sign}{per_hundred(amount) if report.scale.right_or_wrong else number(abs(amount))}"

    text = f"{show(value)}{' in 100' if report.scale.right_or_wrong else ''}"
    return text if low is None or high is None else f"{text} ({show(low)} to {show(high)})"


def _cost(report: Report) -> Iterator[Line]:
    bill = report.bill
    for role, spend in bill.by_role.items():
        yield _line(role.value, f"{count(spend.calls, 'call')}, {spend.tokens:,} tokens, {dollars(spend.cost_usd)}")
    for label, spend in bill.by_label.items():
        yield _line(f"for {label}", f"{count(spend.calls, 'call')}, {dollars(spend.cost_usd)}")
    total = bill.total
    if bill.answered_from_ledger:
        share = bill.answered_from_ledger / (bill.answered_from_ledger + total.calls)
        yield _line("saved by the ledger", f"{count(bill.answered_from_ledger, 'call')}, {percent(share)} of all")
    if total.lost_calls:
        yield _line("lost", f"{count(total.lost_calls, 'call')}, billed at the most they can have cost")
    if report.optimization.elapsed_seconds:
        yield _line("time worked", duration(report.optimization.elapsed_seconds))


def _line(name: str, text: str) -> Line:
    return Line(name=" ".join(visible(name).split()), text=" ".join(visible(text).split(" ")).replace("\n", " "))


def _laid_out(line: Line, columns: int) -> Sequence[str]:
    """Return a name and its text side by side, or below each other where the name is long."""
    if not line.name:
        return [f"  {piece}" for piece in _wrapped(line.text, columns - 2)]
    beside = _wrapped(line.text, columns - _NAME_COLUMNS - 2)
    pad = " " * (_NAME_COLUMNS + 2)
    if _width(line.name) >= _NAME_COLUMNS:
        return [*(f"  {piece}" for piece in _wrapped(line.name, columns - 2)), *(f"{pad}{piece}" for piece in beside)]
    first = f"  {line.name}{' ' * (_NAME_COLUMNS - _width(line.name))}{beside[0]}"
    return [first, *(f"{pad}{piece}" for piece in beside[1:])]


def _wrapped(text: str, columns: int) -> Sequence[str]:
    """Return the text in lines of at most so many columns; a word that is longer is cut."""
    if _width(text) <= columns:
        return [text]
    lines, current = [], ""
    for word in text.split(" "):
        joined = f"{current} {word}" if current else word
        if _width(joined) <= columns:
            current = joined
            continue
        if current:
            lines.append(current)
        pieces = list(_cut(word, columns))
        lines += pieces[:-1]
        current = pieces[-1]
    return [*lines, current]


def _cut(word: str, columns: int) -> Iterator[str]:
    piece = ""
    for character in word:
        if _width(piece + character) > columns:
            yield piece
            piece = ""
        piece += character
    yield piece


def _width(text: str) -> int:
    """Return how many columns a terminal gives the text."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
        for character in text
    )
