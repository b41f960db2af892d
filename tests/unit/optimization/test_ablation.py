"""What changed, one at a time."""

from dataclasses import replace

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.optimization.ablation import changes


def _candidate(**parts: tuple[str, int]) -> Candidate:
    return Candidate(
        components={
            ComponentName(name): ComponentValue(
                instructions=text, demos=tuple({"question": str(index)} for index in range(demos))
            )
            for name, (text, demos) in parts.items()
        }
    )


def test_nothing_changed_is_nothing_to_put_back() -> None:
    """A candidate equal to the baseline has no ablation."""
    baseline = _candidate(answer=("Answer.", 1))

    assert [] == list(changes(baseline, baseline))


def test_each_change_is_put_back_alone() -> None:
    """The other changes stay as the candidate has them."""
    baseline = _candidate(answer=("Answer.", 0), search=("Search.", 0))
    candidate = _candidate(answer=("Answer well.", 2), search=("Search.", 1))

    found = changes(baseline, candidate)

    assert [("answer", "instructions"), ("answer", "demos"), ("search", "demos")] == [
        (change.component, change.part) for change in found
    ]
    assert _candidate(answer=("Answer.", 2), search=("Search.", 1)) == found[0].without
    assert _candidate(answer=("Answer well.", 0), search=("Search.", 1)) == found[1].without
    assert _candidate(answer=("Answer well.", 2), search=("Search.", 0)) == found[2].without


def test_every_changed_setting_is_a_change_of_its_own() -> None:
    """Put back to what the baseline says, while the others stay as the candidate has them."""
    name = ComponentName("answer")
    before = ComponentSettings(parameters={"temperature": 0.5}, tools=("a", "b"))
    after = ComponentSettings(model="large", parameters={"temperature": 1}, kind="predict", tools=("a",))

    def told(settings: ComponentSettings) -> Candidate:
        value = ComponentValue(instructions="Answer.", settings=settings)
        return Candidate(components={name: value})

    found = changes(told(before), told(after))

    assert ["model", "parameters", "kind", "tools"] == [change.part for change in found]
    assert [
        told(replace(after, model=None)),
        told(replace(after, parameters=before.parameters)),
        told(replace(after, kind=None)),
        told(replace(after, tools=before.tools)),
    ] == [change.without for change in found]
