"""The charts of a report, as inline SVG; each is drawn for a wide and for a narrow screen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dspy_optimization.adapters.report.curves import BASELINE, Curves, Point
from dspy_optimization.adapters.report.numbers import count, number
from dspy_optimization.adapters.report.svg import Axis, element, label, line, marker, padded, picture

WIDE, NARROW = 760.0, 340.0
MOST_POINTS = 1_500
"""Marks in one chart; beyond that every n-th small one is left out, never one that was the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One mean with its interval, in a chart of intervals."""

    name: str
    value: float
    low: float | None
    high: float | None
    text: str
    """The numbers, beside the mark."""
    shape: int = 0
    class_: str = "mark"


def both(draw: Callable[[float, str], Markup]) -> Markup:
    """Return a chart for wide and for narrow screens; style shows one of them."""
    return draw(WIDE, "wide") + draw(NARROW, "narrow")


def score_chart(curves: Curves, scale_name: str, show: Callable[[float], str], unit_range: bool) -> Markup:
    """Return score on val against paid calls: a mark a candidate, a step line for the best so far.

    Args:
        curves: with at least one point.
        scale_name: what the vertical axis measures.
        show: writes a score.
        unit_range: whether scores lie in [0, 1].
    """
    return both(lambda width, variant: _score_chart(curves, scale_name, show, unit_range, width, variant))


def interval_chart(
    rows: Sequence[Row], axis_name: str, show: Callable[[float], str], *, zero: bool, bounds: tuple[float, float] | None
) -> Markup:
    """Return one line a row: a mark at the mean, a bar over its interval.

    Args:
        rows: at least one.
        axis_name: what the horizontal axis measures.
        show: writes a value.
        zero: mark where nothing changes.
        bounds: of the values as such, which the axis stays within.
    """
    return both(lambda width, variant: _interval_chart(rows, axis_name, show, zero, bounds, width, variant))


def share_bar(share: float) -> Markup:
    """Return a small bar for a table cell, filled to a share in [0, 1]; the number stands beside it."""
    filled = max(0.0, min(1.0, share)) * 100
    return element(
        "svg",
        element("rect", x=0, y=0, width=100, height=8, rx=2, class_="bar-room"),
        element("rect", x=0, y=0, width=max(filled, 0.8) if share > 0 else 0, height=8, rx=2, class_="bar-fill"),
        class_="bar",
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _score_chart(
    curves: Curves, scale_name: str, show: Callable[[float], str], unit_range: bool, width: float, variant: str
) -> Markup:
    narrow = variant == "narrow"
    height = 260.0 if narrow else 330.0
    left, right, top, bottom = (44.0, 12.0, 24.0, 46.0) if narrow else (56.0, 20.0, 26.0, 50.0)
    limits = {"floor": 0.0, "ceiling": 1.0} if unit_range else {}
    low, high = padded([point.score for point in curves.points], **limits)
    last = max(point.paid_calls for point in curves.points)
    first = min(0, *(point.paid_calls for point in curves.points)) if len(curves.points) > 1 else 0
    across = Axis(low=first, high=max(last, first + 1) * 1.02, start=left, end=width - right)
    up = Axis(low=low, high=high, start=height - bottom, end=top)
    parts = [*_grid(across, up, show, width - right, narrow)]
    parts += [
        label(scale_name, left - (34 if narrow else 44), 12, class_="axis-name"),
        label("paid model calls", (left + width - right) / 2, height - 8, anchor="middle", class_="axis-name"),
    ]
    if curves.baseline is not None:
        baseline = curves.complete_of(curves.baseline.candidate.fingerprint)
        if baseline is not None:
            y = up.at(baseline.score)
            parts.append(line(left, y, width - right, y, "baseline-rule"))
    if curves.best:
        parts.append(_steps(curves, across, up, width - right))
    names = curves.algorithms
    parts += [_mark(point, names, across, up, show, narrow) for point in _thinned(curves)]
    best = f", the best so far {show(curves.best[-1].score)}" if curves.best else ""
    told = (
        f"{scale_name} against paid model calls: {count(len(curves.points), 'measurement')} by "
        f"{', '.join(names) or 'the baseline'}{best}. The table below holds the numbers."
    )
    return picture(width, height, told, parts, variant)


def _grid(across: Axis, up: Axis, show: Callable[[float], str], end: float, narrow: bool) -> Sequence[Markup]:
    parts: list[Markup] = []
    for value in up.ticks(5):
        y = up.at(value)
        parts += [
            line(across.start, y, end, y, "grid"),
            label(show(value), across.start - 8, y + 4, anchor="end", class_="tick"),
        ]
    for value in across.ticks(4 if narrow else 8):
        x = across.at(value)
        parts += [
            line(x, up.start, x, up.start + 5, "axis"),
            label(number(value), x, up.start + 19, anchor="middle", class_="tick"),
        ]
    return [*parts, line(across.start, up.start, end, up.start, "axis")]


def _steps(curves: Curves, across: Axis, up: Axis, end: float) -> Markup:
    path = ""
    for step in curves.best:
        x, y = across.at(step.paid_calls), up.at(step.score)
        path += f"M{x:.2f},{y:.2f}" if not path else f"H{x:.2f}V{y:.2f}"
    last = max(point.paid_calls for point in curves.points)
    return element("path", element("title", "best so far"), d=f"{path}H{min(across.at(last), end):.2f}", class_="best")


def _mark(
    point: Point, names: Sequence[str], across: Axis, up: Axis, show: Callable[[float], str], narrow: bool
) -> Markup:
    where = "all of val" if point.complete else count(point.n_examples, "val example")
    title = (
        f"{point.algorithm}, candidate {point.candidate[:7]}: {show(point.score)} on {where}, "
        f"{count(point.paid_calls, 'paid call')}"
    )
    is_baseline = point.algorithm == BASELINE
    index = 0 if is_baseline else names.index(point.algorithm)
    class_ = "mark base" if is_baseline else f"mark s{index % 6}"
    size = (4.0 if narrow else 5.0) if point.complete else 2.4
    return marker(
        index,
        across.at(point.paid_calls),
        up.at(point.score),
        class_ if point.complete else f"{class_} part",
        title,
        size,
    )


def _thinned(curves: Curves) -> Sequence[Point]:
    """Return the points to draw, incomplete ones first so that complete ones lie on top."""
    ordered = sorted(curves.points, key=lambda point: point.complete)
    if len(ordered) <= MOST_POINTS:
        return ordered
    best = {step.candidate for step in curves.best}
    stride = -(-len(ordered) // MOST_POINTS)
    return [point for index, point in enumerate(ordered) if index % stride == 0 or point.candidate in best]


def _interval_chart(
    rows: Sequence[Row],
    axis_name: str,
    show: Callable[[float], str],
    zero: bool,
    bounds: tuple[float, float] | None,
    width: float,
    variant: str,
) -> Markup:
    narrow = variant == "narrow"
    left = 10.0 if narrow else min(40.0 + 7.6 * max(len(row.name) for row in rows), 260.0)
    room = 50.0 if narrow else 34.0
    end = width - (14.0 if narrow else 40.0 + 8.6 * max(len(row.text) for row in rows))
    height = 10 + room * len(rows) + 46
    values = [value for row in rows for value in (row.value, row.low, row.high) if value is not None]
    low, high = padded([*values, 0.0] if zero else values)
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    across = Axis(low=low, high=max(high, low + 1e-9), start=left, end=end)
    base = 10 + room * len(rows)
    parts: list[Markup] = []
    for value in across.ticks(4 if narrow else 6):
        x = across.at(value)
        parts += [line(x, 6, x, base, "grid"), label(show(value), x, base + 17, anchor="middle", class_="tick")]
    if zero:
        parts.append(line(across.at(0), 2, across.at(0), base, "zero"))
    parts.append(label(axis_name, (left + end) / 2, base + 38, anchor="middle", class_="axis-name"))
    for index, row in enumerate(rows):
        parts += _interval(row, across, 10 + room * index, room, width, narrow)
    told = f"{axis_name}: " + "; ".join(f"{row.name} {row.text}" for row in rows)
    return picture(width, height, told, parts, variant)


def _interval(row: Row, across: Axis, top: float, room: float, width: float, narrow: bool) -> Sequence[Markup]:
    y = top + (34.0 if narrow else room / 2)
    parts = (
        [
            label(_fitting(row.name, narrow), 2, top + 14, class_="row-name"),
            label(row.text, width - 2, top + 14, anchor="end", class_="row-text"),
        ]
        if narrow
        else [
            label(_fitting(row.name, narrow), 2, y + 4, class_="row-name"),
            label(row.text, width - 2, y + 4, anchor="end", class_="row-text"),
        ]
    )
    if row.low is not None and row.high is not None:
        start, end = across.at(row.low), across.at(row.high)
        parts += [
            line(start, y, end, y, f"whisker {row.class_}"),
            line(start, y - 5, start, y + 5, f"whisker-end {row.class_}"),
            line(end, y - 5, end, y + 5, f"whisker-end {row.class_}"),
        ]
    return [*parts, marker(row.shape, across.at(row.value), y, row.class_, f"{row.name}: {row.text}", 5.5)]


def _fitting(name: str, narrow: bool) -> str:
    """Return a name that fits beside a row; the hover title has all of it."""
    longest = 26 if narrow else 28
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
