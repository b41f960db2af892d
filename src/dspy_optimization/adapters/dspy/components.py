"""The optimizable parts of a DSPy program: reading them, setting them, hiding the frozen ones."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from enum import Enum
from typing import Any, cast, get_args

import dspy
from dspy.primitives.module import set_attribute_by_name
from pydantic import BaseModel, TypeAdapter, ValidationError

from dspy_optimization.adapters.dspy.asking import instructions_of, settings_of, settle
from dspy_optimization.adapters.dspy.json_values import json_value
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, Fingerprint
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json


class Frozen(dspy.Module):
    """Stands where a frozen predictor stood: works the same, and no optimizer finds it.

    `_compiled` is DSPy's own mark for it, but DSPy only looks for the mark on modules around predictors.
    """

    def __init__(self, predictor: Any, component: ComponentName) -> None:
        super().__init__()
        self.predictor = predictor
        self.component = component
        self._compiled = True

    def forward(self, **inputs: Any) -> Any:
        """Return what the predictor returns."""
        return self.predictor(**inputs)

    def named_parameters(self) -> list[tuple[str, Any]]:
        """Return none: this also holds where the frozen predictor is the whole program."""
        return []

    def __getattr__(self, name: str) -> Any:
        # Programs read `.signature` and `.demos` of their predictors.
        if name.startswith("__") or "predictor" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.predictor, name)


def components(program: Any) -> dict[ComponentName, Any]:
    """Return component → `dspy.Predict`, frozen ones included; what the program's author froze is no component."""
    found = {ComponentName(name): predictor for name, predictor in program.named_predictors()}
    hidden = {part.component: part.predictor for _, part in program.named_sub_modules(Frozen)}
    return {**found, **hidden}


def apply(program: Any, candidate: Candidate) -> None:
    """Set what the candidate says, in place; components it does not name stay as they are.

    Whether the models it names exist is for whoever knows the settings.

    Raises:
        InvalidRequestError: the candidate names a component the program lacks, or one cannot be asked as it says.
    """
    parts = components(program)
    check_names(candidate.components, parts, "the candidate")
    for name, value in candidate.components.items():
        predictor = parts[name]
        predictor.signature = predictor.signature.with_instructions(value.instructions)
    settle(program, {name: value.settings for name, value in candidate.components.items()}, parts)
    for name, value in candidate.components.items():
        parts[name].demos = [_demo(parts[name], demo) for demo in value.demos]


def read_candidate(program: Any, *, origin: str = "", parents: tuple[Fingerprint, ...] = ()) -> Candidate:
    """Return what every component of the program says now, frozen ones included.

    Of a demo only the fields of the component's signature are kept, for nothing else is ever shown to a model:
    `augmented` marks and columns of other components would make equal prompts look like different candidates.
    """
    return Candidate(
        components={
            name: ComponentValue(
                instructions=instructions_of(predictor),
                demos=tuple(demo for demo in (demo_to_json(predictor, one) for one in predictor.demos) if demo),
                settings=settings_of(predictor),
            )
            for name, predictor in components(program).items()
        },
        origin=origin,
        parents=parents,
    )


def demo_to_json(predictor: Any, demo: Any) -> dict[str, Json]:
    """Return the fields of a demo that the predictor's signature has, in the signature's order, as JSON."""
    return {name: json_value(demo[name]) for name in predictor.signature.fields if name in demo}


def freeze(program: Any, names: Iterable[ComponentName]) -> Any:
    """Hide components from optimizers, in place; return the program (a new root where the program is one predictor).

    Raises:
        InvalidRequestError: a name is no component of the program.
    """
    parts = components(program)
    wanted = set(names)
    check_names(wanted, parts, "frozen components")
    stands_for = {
        id(predictor): Frozen(predictor, name)
        for name, predictor in program.named_predictors()
        if ComponentName(name) in wanted
    }
    if id(program) in stands_for:
        return stands_for[id(program)]
    # A predictor that stands at two places is named once a pass.
    while paths := [(path, one) for path, one in program.named_predictors() if id(one) in stands_for]:
        for path, predictor in paths:
            set_attribute_by_name(program, path, stands_for[id(predictor)])
    return program


def detach_models(program: Any) -> None:
    """Take away every LM a program brings along: its calls would pass by the ledger."""
    for _, predictor in program.named_sub_modules(dspy.Predict):
        predictor.lm = None


def check_names(names: Iterable[str], parts: Mapping[ComponentName, object], what: str) -> None:
    """Refuse names that are no components.

    Raises:
        InvalidRequestError: lists the components there are.
    """
    unknown = sorted(set(names) - set(parts))
    if unknown:
        raise InvalidRequestError(
            f"{what}: components of this agent are wanted, found {', '.join(unknown)}; "
            f"possible: {', '.join(sorted(parts)) or 'none, this agent has no components'}"
        )


def _demo(predictor: Any, demo: Mapping[str, Json]) -> Any:
    fields = predictor.signature.fields
    ordered = {name: _ordered(value) for name, value in demo.items()}
    return dspy.Example(
        {name: _typed(value, fields[name].annotation) if name in fields else value for name, value in ordered.items()}
    )


def _ordered(value: Json) -> Json:
    """Return the value with its keys in order: equal candidates make equal prompts, wherever they were stored."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(one) for one in value] if isinstance(value, list) else value


def _typed(value: Json, annotation: Any) -> object:
    """Return the object the program's own demos would hold: a demo then looks the same before and after a restart."""
    if not _holds_objects(annotation):
        return value
    try:
        return cast("object", TypeAdapter(annotation).validate_python(value))
    except ValidationError:
        return value


def _holds_objects(annotation: Any) -> bool:
    kinds = (BaseModel, Enum, date, datetime, time)
    if isinstance(annotation, type) and issubclass(annotation, kinds):
        return True
    return any(_holds_objects(one) for one in get_args(annotation))
