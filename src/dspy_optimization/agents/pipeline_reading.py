"""How the steps of a pipeline hang together: acyclic, for a step sees only the input and earlier steps."""

from collections.abc import Mapping
from dataclasses import dataclass

from dspy_optimization.agents.config import AgentConfig, AgentKind, PipelineStep
from dspy_optimization.agents.untrusted import closest, shown
from dspy_optimization.errors import InvalidRequestError

INPUT = "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFields:
    """The names of what goes into an agent and comes out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def agent_fields(config: AgentConfig) -> AgentFields | None:
    """Return an agent's fields; None when the configuration does not tell (an entrypoint, a bare HTTP agent).

    A pipeline takes the `input.<field>` its steps refer to and gives what its last step gives.
    """
    if config.signature is not None:
        inputs, outputs = ([one.name for one in side] for side in (config.signature.inputs, config.signature.outputs))
        return AgentFields(inputs=tuple(inputs), outputs=tuple(outputs))
    if config.kind is not AgentKind.PIPELINE:
        return None
    last = agent_fields(config.steps[-1].agent)
    if last is None:
        return None
    references = [reference for step in config.steps for reference in step_inputs(step).values()]
    inputs = [field for source, _, field in (one.partition(".") for one in references) if source == INPUT]
    return AgentFields(inputs=tuple(dict.fromkeys(inputs)), outputs=last.outputs)


def step_inputs(step: PipelineStep) -> Mapping[str, str]:
    """Return input of the step → reference; an input that is not mapped is `input.<its own name>`."""
    fields = agent_fields(step.agent)
    own = {} if fields is None else {name: f"{INPUT}.{name}" for name in fields.inputs}
    return own | dict(step.inputs)


def check_references(config: AgentConfig, where: str) -> None:
    """Refuse steps whose inputs come from nowhere, from themselves, or from later steps.

    Raises:
        InvalidRequestError: names the step, the reference, and the references that are possible there.
    """
    known: dict[str, tuple[str, ...] | None] = {}
    later = [step.name for step in config.steps]
    for number, step in enumerate(config.steps):
        place = f"{where}.steps[{number}]"
        if step.name in known or step.name == INPUT:
            raise InvalidRequestError(
                f"{place}.name: every step has a name of its own, found {step.name} again; possible: another name "
                f"({INPUT} is the pipeline's own input)"
            )
        fields = agent_fields(step.agent)
        for key, reference in step.inputs.items():
            if fields is not None and key not in fields.inputs:
                raise InvalidRequestError(
                    f"{place}.inputs: {shown(key)} is no input of the step {step.name}{closest(key, fields.inputs)}; "
                    f"possible: {', '.join(fields.inputs)}"
                )
            _check_reference(reference, f"{place}.inputs.{key}", known, later)
        known[step.name] = None if fields is None else fields.outputs


def _check_reference(reference: str, where: str, known: Mapping[str, tuple[str, ...] | None], names: list[str]) -> None:
    source, dot, field = reference.partition(".")
    possible = [f"{INPUT}.<field>"]
    for name, outputs in known.items():
        possible += [f"{name}.<field>"] if outputs is None else [f"{name}.{one}" for one in outputs]
    hint = f"possible: {', '.join(possible)}"
    if not dot or not field.isidentifier():
        raise InvalidRequestError(f"{where}: a reference is wanted, found {shown(reference)}; {hint}")
    if source == INPUT:
        return
    if source not in known:
        reason = "does not come earlier" if source in names else "is no step"
        raise InvalidRequestError(f"{where}: {reference} refers to {source}, which {reason}; {hint}")
    outputs = known[source]
    if outputs is not None and field not in outputs:
        raise InvalidRequestError(f"{where}: the step {source} gives no {field}{closest(field, outputs)}; {hint}")
