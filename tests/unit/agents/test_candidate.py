"""Candidates are equal when their content is."""

from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, canonical_json, content_hash

values = st.builds(
    ComponentValue,
    instructions=st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    demos=st.lists(st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2), max_size=2).map(tuple),
)
parts = st.dictionaries(st.sampled_from(["one", "two", "three"]).map(ComponentName), values)


@given(parts, parts)
def test_equality_is_content(one: dict, other: dict) -> None:
    """Neither order nor origin counts; equal candidates hash equal."""
    first = Candidate(components=one, origin="baseline")
    again = Candidate(components=dict(reversed(one.items())), origin="gepa", parents=(first.fingerprint,))
    second = Candidate(components=other)

    assert first == again
    assert hash(first) == hash(again)
    assert (one == other) == (first == second)
    assert first != "candidate"


def test_canonical_json() -> None:
    """Sorted, without spaces, as it is."""
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    assert len(content_hash(None)) == 64
