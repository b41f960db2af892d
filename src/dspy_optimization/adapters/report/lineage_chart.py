"""The family of candidates as a picture: generations from left to right, better ones higher."""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from dspy_optimization.adapters.report.charts import both
from dspy_optimization.adapters.report.curves import BASELINE
from dspy_optimization.adapters.report.lineage import Ancestor
from dspy_optimization.adapters.report.numbers import count
from dspy_optimization.adapters.report.svg import element, label, marker, picture
from dspy_optimization.agents.candidate import Fingerprint

MOST_SHOWN = 48
"""Candidates in the picture: the chosen one's ancestors and the best; the table lists all."""
_ROWS = 9


def lineage_chart(family: Sequence[Ancestor], algorithms: Sequence[str], show: Callable[[float], str]) -> Markup:
    """Return the picture.

    Args:
        family: at least one.
        algorithms: in the order that decides their marks.
        show: writes a score.
    """
    shown = _shown(family)
    return both(lambda width, variant: _draw(shown, algorithms, show, width, variant))


def _shown(family: Sequence[Ancestor]) -> Sequence[Ancestor]:
    ranked = sorted(
        family,
        key=lambda one: (not one.on_path, one.algorithm != BASELINE, -(one.score if one.score is not None else -1.0)),
    )
    kept = {one.fingerprint for one in ranked[:MOST_SHOWN]}
    return [one for one in family if one.fingerprint in kept]


def _columns(shown: Sequence[Ancestor]) -> Sequence[Sequence[Ancestor]]:
    """Return generations, best first; a crowded one goes on in a column of its own."""
    columns: list[list[Ancestor]] = []
    for generation in sorted({one.generation for one in shown}):
        members = sorted(
            (one for one in shown if one.generation == generation),
            key=lambda one: (-(one.score if one.score is not None else -1.0), one.fingerprint),
        )
        columns += [members[start : start + _ROWS] for start in range(0, len(members), _ROWS)]
    return columns


def _draw(
    shown: Sequence[Ancestor], algorithms: Sequence[str], show: Callable[[float], str], width: float, variant: str
) -> Markup:
    narrow = variant == "narrow"
    columns = _columns(shown)
    rows = max(len(column) for column in columns)
    row_height = 32.0
    height = rows * row_height + 22
    step = (width - 20) / max(len(columns), 1)
    written = step >= (58 if narrow else 64)
    places: dict[Fingerprint, tuple[float, float]] = {
        one.fingerprint: (14 + step * column, 24 + row_height * row + (rows - len(members)) * row_height / 2)
        for column, members in enumerate(columns)
        for row, one in enumerate(members)
    }
    chosen_path = {one.fingerprint for one in shown if one.on_path}
    parts = [
        _edge(places[parent], places[one.fingerprint], {parent, one.fingerprint} <= chosen_path)
        for one in sorted(shown, key=lambda one: one.on_path)
        for parent in one.parents
        if parent in places
    ]
    for one in shown:
        parts += _node(one, places[one.fingerprint], algorithms, show, written)
    told = (
        f"{count(len(shown), 'candidate')} in {count(len(columns), 'column')}; the table below says who came from whom."
    )
    return picture(width, height, told, parts, variant)


def _edge(start: tuple[float, float], end: tuple[float, float], chosen: bool) -> Markup:
    (x1, y1), (x2, y2) = start, end
    middle = (x1 + x2) / 2
    path = f"M{x1:.2f},{y1:.2f}C{middle:.2f},{y1:.2f} {middle:.2f},{y2:.2f} {x2:.2f},{y2:.2f}"
    return element("path", d=path, class_="edge chosen" if chosen else "edge")


def _node(
    one: Ancestor, place: tuple[float, float], algorithms: Sequence[str], show: Callable[[float], str], written: bool
) -> Sequence[Markup]:
    x, y = place
    index = algorithms.index(one.algorithm) if one.algorithm in algorithms else 0
    class_ = "mark base" if one.algorithm == BASELINE else f"mark s{index % 6}"
    score = show(one.score) if one.score is not None else "not on all of val"
    title = f"{one.algorithm}, candidate {one.short}: {score}"
    parts = [marker(index, x, y, class_, title, 5.5)]
    if one.chosen:
        parts.insert(0, element("circle", cx=x, cy=y, r=10, class_="ring"))
    if written and one.score is not None:
        parts.append(
            label(
                show(one.score),
                x + (8 if one.chosen else 5),
                y - (9 if one.chosen else 7),
                class_="node-text strong" if one.chosen else "node-text",
            )
        )
    return parts
