"""Elements of inline SVG, escaped; scales and ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from dspy_optimization.adapters.report.visible import visible


def element(name: str, *children: Markup | str, **attributes: str | float | None) -> Markup:
    """Return one element; text and attribute values are escaped, attributes that are None left out.

    `class_` becomes `class`, an underscore inside a name a hyphen.
    """
    words = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inside = Markup().join(child if isinstance(child, Markup) else escape(visible(child)) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("".join(words)), inside)  # noqa: S704 - escaped above


def picture(width: float, height: float, label: str, parts: Sequence[Markup], variant: str) -> Markup:
    """Return an SVG that scales with its place and says in words what it shows.

    Args:
        width: of the drawing, in its own units.
        height: likewise.
        label: what a person who cannot see it is told.
        parts: back to front.
        variant: the class that decides on which screens it is shown.
    """
    return element(
        "svg",
        *parts,
        class_=f"chart {variant}",
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        role="img",
        aria_label=visible(label),
    )


def label(
    text: str, x: float, y: float, *, anchor: str = "start", class_: str | None = None, transform: str | None = None
) -> Markup:
    """Return a text."""
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_, transform=transform)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def marker(shape: int, x: float, y: float, class_: str, title: str, size: float = 5.0) -> Markup:
    """Return a mark with a hover title; `shape` counts circle, square, triangle, diamond, cross, and again."""
    told = element("title", title)
    match shape % 5:
        case 0:
            return element("circle", told, cx=x, cy=y, r=size, class_=class_)
        case 1:
            return element("rect", told, x=x - size, y=y - size, width=2 * size, height=2 * size, class_=class_)
        case 2:
            corners = [(x, y - 1.25 * size), (x + 1.15 * size, y + size), (x - 1.15 * size, y + size)]
        case 3:
            far = 1.35 * size
            corners = [(x, y - far), (x + far, y), (x, y + far), (x - far, y)]
        case _:
            arm, thin = 1.25 * size, 0.45 * size
            quarter = [(thin, arm), (thin, thin), (arm, thin)]
            turned = [(b, -a) for a, b in quarter]
            corners = [
                (x + sign * a, y + sign * b) for sign in (1, -1) for a, b in (*quarter, *[(a, b) for a, b in turned])
            ]
    return element("polygon", told, points=" ".join(f"{_value(a)},{_value(b)}" for a, b in corners), class_=class_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Maps values to places along one direction."""

    low: float
    high: float
    start: float
    """Where `low` lies on the drawing."""
    end: float

    def at(self, value: float) -> float:
        """Return the place of a value; values outside lie on the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> Sequence[float]:
        """Return round values inside, at most so many."""
        return ticks(self.low, self.high, most)


def ticks(low: float, high: float, most: int) -> Sequence[float]:
    """Return multiples of 1, 2 or 5 times a power of ten within [low, high], at most `most` of them."""
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    inside = [_multiples(factor * power, low, high) for factor in (1, 2, 5, 10, 20)]
    return next((found for found in inside if len(found) <= most), inside[-1])


def _multiples(step: float, low: float, high: float) -> Sequence[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def padded(values: Sequence[float], *, floor: float | None = None, ceiling: float | None = None) -> tuple[float, float]:
    """Return bounds that hold all values with some room, within floor and ceiling where given; never empty."""
    low, high = min(values), max(values)
    room = (high - low) * 0.12 or max(abs(high) * 0.1, 0.05)
    low, high = low - room, high + room
    if floor is not None:
        low = max(low, floor)
    if ceiling is not None:
        high = min(high, ceiling)
    return (low, high) if high > low else (low - 0.05, high + 0.05)


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
