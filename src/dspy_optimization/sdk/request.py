"""What somebody wants optimized, as the service takes it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.sdk.agent_source import AgentSource, named_agent, read_text
from dspy_optimization.sdk.catalog import Dataset

MAX_EXAMPLES_BYTES = 256 << 20
EXAMPLE_SUFFIXES = (".jsonl", ".json")
TASKS = "reasoning_gym:"

Record: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An agent with more to say: which part of it, which version is the baseline."""

    agent: AgentSource
    component: str | None = None
    """The one component to optimize; None: all of them."""
    type: str | None = None
    """agent, workflow or component; None: component where one is named, else agent."""
    scope: str | None = None
    """individual, population or cross_domain."""
    version: str | None = None
    """None: the newest."""

    def to_json(self) -> dict[str, object]:
        """Return it as the service reads it."""
        agent = named_agent(self.agent)
        return _given(
            type=self.type or ("agent" if self.component is None else "component"),
            id=agent.name if self.component is None else f"{agent.name}/{self.component}",
            scope=self.scope,
            version=self.version,
            config=agent.config,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Examples with more to say: how they read and how they are split."""

    items: Sequence[Record] | Path | str
    """Mappings, a `.jsonl` or `.json` file of them, or `reasoning_gym:<task>?size=200`."""
    name: str | None = None
    inputs: Sequence[str] = ()
    """Names of the fields that are inputs; empty: as the agent's signature says."""
    expected: Sequence[str] = ()
    cluster: str | None = None
    """The field whose examples never stand in two splits."""
    split: str | None = None
    """The field that may name the split."""
    shares: Mapping[str, float] | None = None
    """train, val and test; they sum to 1."""
    seed: int | None = None
    """Of the split."""

    def to_json(self) -> dict[str, object]:
        """Return them as the service reads them. Raises `InvalidRequestError` for a file that cannot be read."""
        is_task = isinstance(self.items, str) and self.items.startswith(TASKS)
        return _given(
            source=self.items if is_task else None,
            examples=None if is_task else _records(self.items),
            name=self.name,
            inputs=list(self.inputs) or None,
            expected=list(self.expected) or None,
            cluster=self.cluster,
            split=self.split,
            shares=None if self.shares is None else dict(self.shares),
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Within which bounds. What is not given is as the service has it."""

    max_optimization_time: float | None = None
    """Seconds of work."""
    min_improvement_threshold: float | None = None
    """The smallest gain that matters, in the unit of the metric."""
    max_resource_usage: float | None = None
    """Share of the task model's concurrency, above 0 to 1."""
    max_cost_usd: float | None = None
    max_lm_calls: int | None = None
    max_tokens: int | None = None
    seed: int | None = None
    concurrency: int | None = None
    requires_approval: bool | None = None
    """Only False: approval comes with deployments, and until then the service refuses True."""
    requires_gpu: bool | None = None
    priority: str | None = None
    """high, normal or low."""
    deadline: datetime | None = None
    """When it has to have ended. Aware."""
    isolation: str | None = None
    """thread, or process: one of its own, so that what crashes there harms no other."""

    def to_json(self) -> dict[str, object]:
        """Return them as the service reads them. Raises `InvalidRequestError` for a deadline without a zone."""
        if self.deadline is not None and self.deadline.tzinfo is None:
            raise InvalidRequestError(
                f"deadline: wanted: a time with a zone; found: {self.deadline.isoformat()}; possible: "
                "datetime.now(tz=UTC) + timedelta(hours=2)"
            )
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return _given(**{**values, "deadline": None if self.deadline is None else self.deadline.isoformat()})


AgentOrTarget: TypeAlias = Target | AgentSource
ExamplesSource: TypeAlias = Examples | Dataset | Sequence[Record] | Path | str
Objectives: TypeAlias = str | Record | Sequence[str | Record]
Options: TypeAlias = Mapping[str, Mapping[str, object]]
Algorithms: TypeAlias = str | Options | Sequence[str | Options]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationRequest:
    """One request."""

    agent: AgentOrTarget
    examples: ExamplesSource
    """Text is the id of a dataset, a file's name or a `reasoning_gym:` task."""
    objectives: Objectives = "exact_match"
    """Metrics by name, `{metric: …, weight: …}`, or a metric's specification `{type: judge, name: …}`."""
    algorithms: Algorithms | None = None
    metrics: Sequence[str | Record] = ()
    constraints: Constraints | None = None
    policy: str | Record | None = None
    """Which candidate goes to the gate: weights, knee, {type: max_cost, at_most: …} and so on; None: weights."""

    def to_json(self) -> dict[str, object]:
        """Return it as the service reads it. Raises `InvalidRequestError` for what cannot be read here."""
        wanted = [_objective(one) for one in _listed(self.objectives)]
        metrics = [*self.metrics, *(one.metric for one in wanted if one.metric is not None)]
        return _given(
            target=target_json(self.agent),
            dataset=dataset_json(self.examples),
            objectives=[one.objective for one in wanted],
            metrics=metrics or None,
            algorithms=None if self.algorithms is None else _algorithms(self.algorithms),
            constraints=None if self.constraints is None else self.constraints.to_json(),
            policy=self.policy,
        )


def target_json(agent: AgentOrTarget) -> dict[str, object]:
    """Return what is optimized as the service reads it."""
    return (agent if isinstance(agent, Target) else Target(agent=agent)).to_json()


def dataset_json(examples: ExamplesSource) -> dict[str, object]:
    """Return the examples as the service reads them: an id, or themselves."""
    if isinstance(examples, Dataset):
        return {"id": examples.id}
    if isinstance(examples, Examples):
        return examples.to_json()
    if isinstance(examples, str) and not examples.startswith(TASKS) and not examples.endswith(EXAMPLE_SUFFIXES):
        return {"id": examples}
    return Examples(items=examples).to_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    objective: Record
    metric: Record | None = None


def _objective(value: str | Record) -> _Wanted:
    if isinstance(value, str):
        return _Wanted(objective={"metric": value})
    if "metric" in value:
        return _Wanted(objective=value)
    name = value.get("name", value.get("type"))
    if not isinstance(name, str):
        raise InvalidRequestError(
            f"objectives: wanted: a metric; found: {dict(value)!r}; possible: 'exact_match', "
            "{'metric': 'exact_match', 'weight': 2}, {'type': 'judge', 'name': 'tone', 'rubric': '…'}"
        )
    return _Wanted(objective={"metric": name}, metric=value)


def _listed(objectives: Objectives) -> Sequence[str | Record]:
    return [objectives] if isinstance(objectives, str | Mapping) else objectives


def _algorithms(algorithms: Algorithms) -> list[object]:
    if isinstance(algorithms, str):
        return [algorithms]
    if isinstance(algorithms, Mapping):
        return [{name: options} for name, options in algorithms.items()]
    return list(algorithms)


def _records(items: Sequence[Record] | Path | str) -> list[object]:
    if not isinstance(items, str | Path):
        given: list[object] = list(items)
        strange = next((one for one in given if not isinstance(one, Mapping)), None)
        if strange is not None:
            raise InvalidRequestError(
                f"examples: wanted: mappings; found: {type(strange).__name__} {str(strange)[:60]!r}; possible: "
                "{'question': '…', 'answer': '…'}"
            )
        return given
    path = Path(items)
    if path.suffix not in EXAMPLE_SUFFIXES:
        raise InvalidRequestError(
            f"{path}: wanted: a file of examples; found: {path.suffix or 'no suffix'}; possible: "
            f"{', '.join(EXAMPLE_SUFFIXES)}"
        )
    text = read_text(path, MAX_EXAMPLES_BYTES)
    lines = [text] if path.suffix == ".json" else text.split("\n")
    found: list[object] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise InvalidRequestError(
                    f"{path}: wanted: JSON; found: in line {number}: {error}; possible: mend it there"
                ) from error
    if path.suffix == ".json":
        if len(found) != 1 or not isinstance(found[0], list):
            raise InvalidRequestError(f"{path}: wanted: a list of examples; found: something else; possible: [{{…}}]")
        return found[0]
    return found


def _given(**values: object) -> dict[str, object]:
    """Return only what was given."""
    return {name: value for name, value in values.items() if value is not None}
