"""What changed, one at a time."""

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
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
