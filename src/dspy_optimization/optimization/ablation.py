"""What every change is worth: each one put back, paired on val."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between a candidate and the baseline."""

    component: ComponentName
    part: str
    """instructions, demos, model, parameters, kind or tools."""
    without: Candidate
    """The candidate with this one change put back."""


def changes(baseline: Candidate, candidate: Candidate) -> Sequence[Change]:
    """Return every difference, in the order of component names and of `Change.part`."""
    return list(_changes(baseline, candidate))


def _changes(baseline: Candidate, candidate: Candidate) -> Iterator[Change]:
    for name, value in candidate.components.items():
        before = baseline.components[name]
        if value.instructions != before.instructions:
            part = replace(value, instructions=before.instructions)
            yield Change(component=name, part="instructions", without=_with(candidate, name, part))
        if value.demos != before.demos:
            part = replace(value, demos=before.demos)
            yield Change(component=name, part="demos", without=_with(candidate, name, part))
        for setting in ("model", "parameters", "kind", "tools"):
            said = getattr(before.settings, setting)
            if getattr(value.settings, setting) != said:
                part = replace(value, settings=replace(value.settings, **{setting: said}))
                yield Change(component=name, part=setting, without=_with(candidate, name, part))


def _with(candidate: Candidate, name: ComponentName, value: ComponentValue) -> Candidate:
    return replace(candidate, components={**candidate.components, name: value}, origin="ablation")
