"""Elements, scales and ticks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from dspy_optimization.adapters.report.svg import Axis, element, label, marker, padded, ticks

FINITE = st.floats(-1e6, 1e6)


def test_text_and_attributes_are_escaped() -> None:
    """Names of algorithms are anybody's."""
    drawn = label("<b>\x1b", 1, 2.50001, class_='a" onload="x')

    assert '<text x="1" y="2.5" text-anchor="start" class="a&#34; onload=&#34;x">&lt;b&gt;⟨U+001B⟩</text>' == str(drawn)
    assert "<g><circle></circle></g>" == str(element("g", Markup("<circle></circle>"), id=None))


@given(FINITE, st.floats(1e-6, 1e6), st.integers(1, 12))
def test_ticks_lie_inside_and_are_not_too_many(low: float, width: float, most: int) -> None:
    """Whatever the scale, an axis stays readable."""
    found = ticks(low, low + width, most)

    assert most >= len(found)
    assert all(low - width * 1e-6 <= one <= low + width * (1 + 1e-6) for one in found)


def test_ticks_are_round() -> None:
    """Multiples of 1, 2 or 5 times a power of ten."""
    assert [0.4, 0.5, 0.6, 0.7] == pytest.approx(list(ticks(0.38, 0.74, 5)))
    assert [0, 500, 1000] == pytest.approx(list(ticks(0, 1400, 4)))


@given(st.lists(FINITE, min_size=1, max_size=9))
def test_bounds_hold_every_value_and_are_never_empty(values: list[float]) -> None:
    """One value alone still gets an axis."""
    low, high = padded(values)

    assert low < high
    assert low <= min(values)
    assert high >= max(values)


def test_bounds_stay_between_floor_and_ceiling() -> None:
    """A share axis never goes below nothing or above all."""
    assert (0.0, 1.0) == padded([0.01, 0.99], floor=0.0, ceiling=1.0)
    assert padded([1.0, 1.0], floor=1.0, ceiling=1.0) == pytest.approx((0.95, 1.05))


def test_places_outside_lie_on_the_edge() -> None:
    """Nothing is drawn outside of a chart."""
    axis = Axis(low=0, high=10, start=100, end=0)

    assert [100, 50, 0, 0] == [axis.at(value) for value in (-5, 5, 10, 99)]


def test_every_shape_differs_and_has_its_title() -> None:
    """Marks are told apart without colour; the sixth is the first again."""
    drawn = [str(marker(shape, 5, 5, "mark", "who")) for shape in range(6)]

    assert 5 == len(set(drawn))
    assert drawn[0] == drawn[5]
    assert all("<title>who</title>" in one for one in drawn)
