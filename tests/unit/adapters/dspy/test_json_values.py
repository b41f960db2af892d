"""Program values as JSON."""

import json
from collections import namedtuple
from dataclasses import dataclass
from datetime import date
from enum import Enum, IntEnum

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.adapters.dspy.json_values import json_object, json_value
from dspy_optimization.agents.candidate import content_hash


class Size(IntEnum):
    BIG = 2


class Colour(Enum):
    RED = "red"


class Person(pydantic.BaseModel):
    name: str
    born: date


@dataclass
class Place:
    city: str


class Circle:
    def __init__(self):
        self.me = self

    def __str__(self):
        return "a circle"


Pair = namedtuple("Pair", "a b")


class Broken(pydantic.BaseModel):
    value: int

    @pydantic.field_serializer("value")
    def fail(self, value):
        raise ValueError("no")

    def __str__(self):
        return "broken"


VALUES = [
    (None, None),
    (True, True),
    (3, 3),
    (Size.BIG, 2),
    (0.5, 0.5),
    (float("nan"), "nan"),
    (float("-inf"), "-inf"),
    ("a\x00b", "a�b"),
    ("a\ud800b", "a?b"),
    (Colour.RED, "red"),
    (Person(name="Ada", born=date(1815, 12, 10)), {"name": "Ada", "born": "1815-12-10"}),
    (Place(city="Ulm"), {"city": "Ulm"}),
    ({1: {2}}, {"1": [2]}),
    ({"b", "a"}, ["a", "b"]),
    ((1, [2.0]), [1, [2.0]]),
    (Pair(1, 2), [1, 2]),
    (dspy.Example(x=Place(city="Ulm")), {"x": {"city": "Ulm"}}),
    (dspy.Prediction(x=1), {"x": 1}),
    (Circle(), "a circle"),
    (Broken(value=1), "broken"),
]


@pytest.mark.parametrize(("value", "wanted"), VALUES, ids=[type(value).__name__ for value, _ in VALUES])
def test_objects_become_json(value, wanted):
    """Each kind of object has one JSON form."""
    assert wanted == json_value(value)
    assert type(wanted) is type(json_value(value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("abc\x00ü"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("xyz"), inner),
    max_leaves=20,
)


@given(JSON)
def test_json_stays_as_it_is(value):
    """Plain JSON without NUL comes back equal, a second time too, and can be hashed and stored."""
    once = json_value(value)

    assert once == json_value(once)
    assert "\x00" in json.dumps(value, ensure_ascii=False) or "\\u0000" in json.dumps(value) or value == once
    assert 64 == len(content_hash(once))


def test_keys_become_text():
    """JSON objects have text for keys."""
    assert {"1": 2, "None": 3} == json_object({1: 2, None: 3})
