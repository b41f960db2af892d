"""The pictures of two or more goals: each against another, all of them side by side, and how the front grew."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from dspy_optimization.adapters.report.charts import both
from dspy_optimization.adapters.report.numbers import count, number, percent
from dspy_optimization.adapters.report.pareto import Goal, Listed, Other, Pareto
from dspy_optimization.adapters.report.svg import Axis, element, label, line, marker, padded, picture

MOST_OTHERS = 1_000
"""Faint marks in one picture."""
_LONGEST_NAME = 22
_APART = 12.0
"""How far below each other two words have to stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairChart:
    """Two goals against each other."""

    title: str
    drawn: Markup


def pair_charts(found: Pareto) -> tuple[PairChart, ...]:
    """Return one picture a pair of goals: intervals both ways, the front as a line where there are two goals alone."""
    return tuple(
        PairChart(
            title=f"{up.name} against {across.name}",
            drawn=_for_screens(_Pair(found=found, across=across, up=up)),
        )
        for across, up in found.pairs
    )


def parallel_chart(found: Pareto) -> Markup:
    """Return one axis a goal, the best on top; a line a candidate."""
    return both(lambda width, variant: _parallel(found, width, variant))


def volume_chart(found: Pareto) -> Markup | None:
    """Return the share that the front dominates against paid calls; None where it never grew."""
    if len(found.front.course) < 2:
        return None
    return both(lambda width, variant: _volume(found, width, variant))


def trust_chart(spans: Sequence[tuple[int, int, float, float]], name: str) -> Markup:
    """Return how far a model was trusted by round.

    Args:
        spans: first round, last round, least and most trust in them; in their order, at least one.
        name: whose rounds.
    """
    return both(lambda width, variant: _trust(spans, name, width, variant))


def key_marks() -> Sequence[tuple[str, Markup]]:
    """Return what the marks mean, as the pictures draw them."""
    ring = element("circle", cx=8, cy=8, r=7, class_="ring")
    return (
        ("baseline", marker(3, 8, 8, "mark base", "baseline", 5)),
        ("chosen", Markup().join([ring, marker(0, 8, 8, "mark s2", "chosen", 3.6)])),
        ("on the front", marker(0, 8, 8, "mark s0", "on the front", 5)),
        ("hurts a guardrail", marker(4, 8, 8, "mark s1", "hurts a guardrail", 5)),
        ("dominated", marker(0, 8, 8, "mark base part", "dominated", 3)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    found: Pareto
    across: Goal
    up: Goal

    @property
    def told(self) -> str:
        """What it shows, in words."""
        points = "; ".join(
            f"{one.words}: {self.up.name} {self.up.text(one.point.means[self.up.name].value)}, "
            f"{self.across.name} {self.across.text(one.point.means[self.across.name].value)}"
            for one in self.found.listed[:12]
        )
        more = len(self.found.listed) - 12
        return (
            f"{self.up.name} ({self.up.wish}) against {self.across.name} ({self.across.wish}), on val: {points}"
            f"{f'; and {more} more' if more > 0 else ''}. The table below holds the numbers."
        )


def _for_screens(pair: _Pair) -> Markup:
    return both(lambda width, variant: _pair(pair, width, variant))


def _pair(pair: _Pair, width: float, variant: str) -> Markup:
    narrow = variant == "narrow"
    height = 280.0 if narrow else 380.0
    left, right, top, bottom = (52.0, 14.0, 26.0, 48.0) if narrow else (64.0, 24.0, 30.0, 52.0)
    found, x, y = pair.found, pair.across, pair.up
    across = _axis(found, x, left, width - right)
    up = _axis(found, y, height - bottom, top)
    parts: list[Markup] = []
    for value in up.ticks(5):
        parts += [
            line(left, up.at(value), width - right, up.at(value), "grid"),
            label(y.text(value), left - 7, up.at(value) + 4, anchor="end", class_="tick"),
        ]
    for value in across.ticks(4 if narrow else 7):
        place = across.at(value)
        parts += [
            line(place, up.start, place, up.start + 5, "axis"),
            label(x.text(value), place, up.start + 19, anchor="middle", class_="tick"),
        ]
    parts += [
        line(left, up.start, width - right, up.start, "axis"),
        label(f"{'↑' if y.is_up else '↓'} {_cut(y.name)} ({y.wish})", 2, 13, class_="axis-name"),
        label(
            f"{'' if x.is_up else '← '}{_cut(x.name)} ({x.wish}){' →' if x.is_up else ''}",
            (left + width - right) / 2,
            height - 8,
            anchor="middle",
            class_="axis-name",
        ),
    ]
    parts += [_faint(one, x, y, across, up) for one in _thinned(found.others)]
    if len(found.goals) == 2:
        parts += _front_line(found, x, y, across, up)
    ordered = sorted(found.listed, key=lambda one: (one.point.is_chosen, one.point.is_baseline))
    for one in ordered:
        parts += _whiskers(one, x, y, across, up)
    for one in ordered:
        parts += _mark(one, x, y, (across.at(_mean(one, x)), up.at(_mean(one, y))))
    parts += _words(ordered, x, y, across, up, width)
    return picture(width, height, pair.told, parts, variant)


def _axis(found: Pareto, goal: Goal, start: float, end: float) -> Axis:
    values = [other.means[goal.name] for other in found.others]
    for one in found.listed:
        mean = one.point.means[goal.name]
        values += [value for value in (mean.value, mean.low, mean.high) if value is not None]
    limits: dict[str, float] = {"floor": 0.0, "ceiling": 1.0} if goal.is_share else {}
    if not goal.is_share and min(values) >= 0.0:
        limits["floor"] = 0.0
    low, high = padded(values, **limits)
    return Axis(low=low, high=high, start=start, end=end)


def _mean(one: Listed, goal: Goal) -> float:
    return one.point.means[goal.name].value


def _thinned(others: Sequence[Other]) -> Sequence[Other]:
    return others[:: -(-len(others) // MOST_OTHERS) or 1]


def _faint(one: Other, x: Goal, y: Goal, across: Axis, up: Axis) -> Markup:
    title = (
        f"candidate {one.candidate[:7]}, dominated: {y.name} {y.text(one.means[y.name])}, {x.name} "
        f"{x.text(one.means[x.name])}"
    )
    return marker(0, across.at(one.means[x.name]), up.at(one.means[y.name]), "mark base part", title, 2.6)


def _front_line(found: Pareto, x: Goal, y: Goal, across: Axis, up: Axis) -> Iterator[Markup]:
    """Yield the edge of what the front dominates: between two points the corner that is the worse of both ways."""
    able = [one for one in found.listed if one.point.on_front and one.point.guardrails_hold]
    places = sorted({(_mean(one, x), _mean(one, y)) for one in able})
    if len(places) < 2:
        return
    worst_x, worst_y = (min if x.is_up else max), (min if y.is_up else max)
    path = f"M{across.at(places[0][0]):.2f},{up.at(places[0][1]):.2f}"
    for before, after in pairwise(places):
        corner = (worst_x(before[0], after[0]), worst_y(before[1], after[1]))
        for at in (corner, after):
            path += f"L{across.at(at[0]):.2f},{up.at(at[1]):.2f}"
    yield element("path", d=path, class_="front-line")


def _whiskers(one: Listed, x: Goal, y: Goal, across: Axis, up: Axis) -> Iterator[Markup]:
    class_ = f"cross {_class(one)}"
    across_mean, up_mean = one.point.means[x.name], one.point.means[y.name]
    place = (across.at(across_mean.value), up.at(up_mean.value))
    if across_mean.low is not None and across_mean.high is not None:
        yield line(across.at(across_mean.low), place[1], across.at(across_mean.high), place[1], class_)
    if up_mean.low is not None and up_mean.high is not None:
        yield line(place[0], up.at(up_mean.low), place[0], up.at(up_mean.high), class_)


def _class(one: Listed) -> str:
    if one.point.is_baseline:
        return "base"
    if one.point.is_chosen:
        return "s2"
    return "s0" if one.point.guardrails_hold else "s1"


def _mark(one: Listed, x: Goal, y: Goal, place: tuple[float, float]) -> Iterator[Markup]:
    title = (
        f"{one.words}: {y.name} {_told(one, y)}, {x.name} {_told(one, x)}; on the front in "
        f"{percent(round(one.point.probability_on_front, 2))} of the samples"
    )
    shape = 3 if one.point.is_baseline else 0 if one.point.guardrails_hold else 4
    if one.point.is_chosen:
        yield element("circle", cx=place[0], cy=place[1], r=10, class_="ring")
    yield marker(shape, *place, f"mark {_class(one)}", title, 5.5)


def _told(one: Listed, goal: Goal) -> str:
    mean = one.point.means[goal.name]
    interval = "" if mean.low is None or mean.high is None else f" ({goal.text(mean.low)} to {goal.text(mean.high)})"
    return f"{goal.text(mean.value)}{interval}"


def _words(ordered: Sequence[Listed], x: Goal, y: Goal, across: Axis, up: Axis, width: float) -> Iterator[Markup]:
    """Yield names beside the marks, where there is room; a number without room is left to the mark's own title."""
    marks = [(across.at(_mean(one, x)), up.at(_mean(one, y))) for one in ordered]
    taken = [_Box(left=a - 6, right=a + 6, top=b - 6, bottom=b + 6) for a, b in marks]
    for one, (at_x, at_y) in reversed(list(zip(ordered, marks, strict=True))):
        wide = 7.0 * len(one.name)
        for is_right, rise in ((True, -8), (False, -8), (True, 18), (False, 18)):
            start = at_x + 12 if is_right else at_x - 12 - wide
            box = _Box(left=start, right=start + wide, top=at_y + rise - 9, bottom=at_y + rise + 2)
            if start > 0 and box.right < width and not any(box.meets(other) for other in taken):
                break
        else:
            if one.is_plain:
                continue
            is_right, rise, box = True, -8, _Box(left=at_x, right=at_x, top=at_y, bottom=at_y)
        taken.append(box)
        yield label(
            one.name,
            at_x + (12 if is_right else -12),
            at_y + rise,
            anchor="start" if is_right else "end",
            class_="node-text" if one.is_plain else "node-text strong",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """What a mark or a word covers."""

    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        """Say whether the two cover a place in common."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def _parallel(found: Pareto, width: float, variant: str) -> Markup:
    narrow = variant == "narrow"
    height = 250.0 if narrow else 290.0
    left, right = (40.0, 70.0) if narrow else (70.0, 96.0)
    top, base = 48.0, height - 26.0
    step = (width - left - right) / (len(found.goals) - 1)
    places = [left + step * index for index in range(len(found.goals))]
    axes = [_best_on_top(found, goal, base, top) for goal in found.goals]
    parts: list[Markup] = []
    for place, goal in zip(places, found.goals, strict=True):
        longest = int(min(step, 2 * place, 2 * (width - place)) / 7.0)
        parts += [
            line(place, base, place, top, "axis"),
            label(_cut(goal.name, longest), place, 14, anchor="middle", class_="axis-name strong"),
            *_ends(found, goal, place, base, top),
        ]
    for one in sorted(found.listed, key=lambda one: (one.point.is_chosen, one.point.is_baseline)):
        points = [
            (place, axis.at(goal.objective.oriented(_mean(one, goal))))
            for place, goal, axis in zip(places, found.goals, axes, strict=True)
        ]
        told = f"{one.words}: " + ", ".join(f"{goal.name} {_told(one, goal)}" for goal in found.goals)
        kind = f"lane {_class(one)}{' chosen' if one.point.is_chosen else ''}"
        kind += "" if one.point.guardrails_hold else " hurts"
        path = "M" + "L".join(f"{a:.2f},{b:.2f}" for a, b in points)
        parts.append(element("path", element("title", told), d=path, class_=kind))
        shape = 3 if one.point.is_baseline else 0 if one.point.guardrails_hold else 4
        parts += [marker(shape, *point, f"mark {_class(one)}", told, 4.0) for point in points]
    parts += _names_beside(found, found.goals[-1], axes[-1], places[-1] + 9)
    told = (
        f"{count(len(found.listed), 'candidate')} on one axis a goal, the best value on top: "
        f"{', '.join(f'{goal.name} ({goal.wish})' for goal in found.goals)}. The table below holds the numbers."
    )
    return picture(width, height, told, parts, variant)


def _names_beside(found: Pareto, goal: Goal, axis: Axis, x: float) -> Iterator[Markup]:
    """Yield names beside the last axis; a number that would stand on another name is left out."""
    taken: list[float] = []
    for one in sorted(found.listed, key=lambda one: one.is_plain):
        y = axis.at(goal.objective.oriented(_mean(one, goal)))
        if not one.is_plain or all(abs(y - other) >= _APART for other in taken):
            taken.append(y)
            yield label(one.name, x, y + 4, class_="node-text" if one.is_plain else "node-text strong")


def _ends(found: Pareto, goal: Goal, place: float, base: float, top: float) -> Iterator[Markup]:
    """Yield the best and the worst value of one axis; the one value there is where all are equal."""
    ordered = sorted((_mean(one, goal) for one in found.listed), key=goal.objective.oriented)
    worst, best = goal.text(ordered[0]), goal.text(ordered[-1])
    if ordered[0] == ordered[-1]:
        yield label(f"all {best}", place, top - 8, anchor="middle", class_="tick")
        return
    yield label(best, place, top - 8, anchor="middle", class_="tick")
    yield label(worst, place, base + 17, anchor="middle", class_="tick")


def _best_on_top(found: Pareto, goal: Goal, base: float, top: float) -> Axis:
    values = [goal.objective.oriented(_mean(one, goal)) for one in found.listed]
    low, high = min(values), max(values)
    if high <= low:
        low, high = padded(values)
    return Axis(low=low, high=high, start=base, end=top)


def _volume(found: Pareto, width: float, variant: str) -> Markup:
    narrow = variant == "narrow"
    height = 200.0 if narrow else 230.0
    left, right, top, bottom = (44.0, 12.0, 26.0, 46.0) if narrow else (56.0, 20.0, 28.0, 50.0)
    steps = found.front.course
    last = max(found.paid_calls, steps[-1].paid_calls, 1)
    across = Axis(low=0.0, high=last * 1.02, start=left, end=width - right)
    up = Axis(low=0.0, high=1.0, start=height - bottom, end=top)
    path = ""
    for one in steps:
        x, y = across.at(one.paid_calls), up.at(one.volume)
        path += f"M{x:.2f},{y:.2f}" if not path else f"H{x:.2f}V{y:.2f}"
    path += f"H{across.at(last):.2f}"
    parts = [
        *_frame(across, up, width - right, percent, narrow),
        label("share dominated", 2, 13, class_="axis-name"),
        label("paid model calls", (left + width - right) / 2, height - 8, anchor="middle", class_="axis-name"),
        element("path", d=path, class_="best"),
    ]
    told = (
        f"Hypervolume of the front on val against paid model calls: from {percent(round(steps[0].volume, 3))} after "
        f"{count(steps[0].paid_calls, 'call')} to {percent(round(steps[-1].volume, 3))} after "
        f"{count(steps[-1].paid_calls, 'call')}, in {count(len(steps), 'step')}."
    )
    return picture(width, height, told, parts, variant)


def _trust(spans: Sequence[tuple[int, int, float, float]], name: str, width: float, variant: str) -> Markup:
    narrow = variant == "narrow"
    height = 150.0
    left, right, top, bottom = 44.0, 14.0, 26.0, 46.0
    last = spans[-1][1]
    across = Axis(low=0.5, high=last + 0.5, start=left, end=width - right)
    up = Axis(low=0.0, high=1.0, start=height - bottom, end=top)
    parts = [
        *_frame(across, up, width - right, percent, narrow, whole=True),
        label("trust in the model", 2, 13, class_="axis-name"),
        label("round", (left + width - right) / 2, height - 8, anchor="middle", class_="axis-name"),
    ]
    for first, end, low, high in spans:
        x, y = across.at(first - 0.5), up.at(high)
        parts.append(
            element(
                "rect",
                x=x,
                y=y - 1.5,
                width=across.at(end + 0.5) - x,
                height=max(up.at(low) - y, 0.0) + 3,
                class_="trust",
            )
        )
    told = f"How far {name} trusted its model, round 1 to {last}: " + "; ".join(
        f"{first} to {end}: {percent(round(low, 2))} to {percent(round(high, 2))}" for first, end, low, high in spans
    )
    return picture(width, height, told, parts, variant)


def _frame(
    across: Axis, up: Axis, end: float, show: Callable[[float], str], narrow: bool, *, whole: bool = False
) -> Sequence[Markup]:
    parts: list[Markup] = []
    for value in up.ticks(4):
        parts += [
            line(across.start, up.at(value), end, up.at(value), "grid"),
            label(show(value), across.start - 8, up.at(value) + 4, anchor="end", class_="tick"),
        ]
    for value in across.ticks(4 if narrow else 8):
        if not whole or value == int(value):
            x = across.at(value)
            parts += [
                line(x, up.start, x, up.start + 5, "axis"),
                label(number(value), x, up.start + 19, anchor="middle", class_="tick"),
            ]
    return [*parts, line(across.start, up.start, end, up.start, "axis")]


def _cut(name: str, longest: int = _LONGEST_NAME) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
