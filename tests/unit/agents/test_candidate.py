"""Candidates are equal when their content is."""

from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, canonical_json, content_hash
from dspy_optimization.agents.component_settings import ComponentSettings

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


def test_fingerprints_of_texts_alone_stay_what_they_were() -> None:
    """Trials and results are kept under them: this one was computed before components had settings."""
    kept = Candidate(
        components={
            ComponentName("classify"): ComponentValue(instructions="Sort it."),
            ComponentName("answer.predict"): ComponentValue(
                instructions="Antworte höflich.", demos=({"question": "2+2", "answer": 4, "sure": True},)
            ),
        }
    )

    assert "39697ee16ad9d93136abdb43e4c56a1579a4dfc71fdca4134ef2e859668c75b3" == kept.fingerprint


def test_settings_are_part_of_what_a_candidate_is() -> None:
    """Another model, another candidate; 1 and 1.0 are the same temperature."""

    def asked(**said: object) -> Candidate:
        value = ComponentValue(instructions="Sort it.", settings=ComponentSettings(**said))
        return Candidate(components={ComponentName("classify"): value})

    settings = (
        {},
        {"model": "large"},
        {"model": "small"},
        {"kind": "predict"},
        {"tools": ()},
        {"tools": ("b", "a")},
        {"tools": ("a", "b")},
        {"parameters": {"temperature": 1}},
        {"parameters": {"top_p": 1}},
    )
    assert len(settings) == len({asked(**said).fingerprint for said in settings})
    assert asked(parameters={"temperature": 1, "max_tokens": 5.0}) == asked(
        parameters={"max_tokens": 5, "temperature": 1.0}
    )
    assert {"instructions": "Sort it.", "demos": []} == asked().components[ComponentName("classify")].to_json()


def test_canonical_json() -> None:
    """Sorted, without spaces, as it is."""
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'
    assert len(content_hash(None)) == 64
