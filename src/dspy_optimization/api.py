"""The Python interface: an agent, examples and a metric in, an agent with its evidence out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_optimization.adapters.dspy.artifact import load_agent
from dspy_optimization.adapters.dspy.live import live_agent, records
from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.adapters.export import AGENT
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset, SplitShares
from dspy_optimization.agents.dataset_loading import read_source
from dspy_optimization.agents.loading import load_agent_file
from dspy_optimization.agents.reading import RecordFields, fields_of
from dspy_optimization.agents.splitting import build_dataset
from dspy_optimization.bootstrap import LIVE_METRIC, LiveCode, open_engine
from dspy_optimization.engine import Engine
from dspy_optimization.errors import EngineError, InvalidRequestError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.optimization.front import FrontPoint
from dspy_optimization.optimization.picking import measured_candidates, pick_candidate
from dspy_optimization.optimization.proposing import Wanted, checked
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.settings import Settings, read_settings
from dspy_optimization.statistics import Verdict


class NotFinishedError(EngineError):
    """Look at the message; `optimize(..., resume=error.optimization_id)` goes on where it stopped."""

    def __init__(self, message: str, optimization_id: OptimizationId) -> None:
        super().__init__(message)
        self.optimization_id = optimization_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimized:
    """An optimized agent with its evidence. Calling it runs the agent under the LM that DSPy has configured."""

    result: OptimizationResult
    config: AgentConfig
    """The agent as data: save it, serve it."""
    module: Any
    """The agent as a `dspy.Module`; its `models` holds name → `dspy.LM` for components that chose a model by name."""

    @property
    def verdict(self) -> Verdict | None:
        """What the sealed split allows to be said; None when it was not reached."""
        return self.result.validated.verdict if self.result.validated is not None else None

    @property
    def pareto_front(self) -> tuple[FrontPoint, ...]:
        """The candidates that none other beats on val, the best in the primary objective first; see `pick`."""
        return self.result.front.points if self.result.front is not None else ()

    def __call__(self, **inputs: Any) -> Any:
        """Run the optimized agent; returns a `dspy.Prediction`."""
        return self.module(**inputs)


def optimize(
    agent: object,
    examples: Iterable[object] | str | Path,
    metric: str | Mapping[str, Json] | Callable[..., object] = "exact_match",
    *,
    objectives: Sequence[str | Mapping[str, Json]] = (),
    policy: str | Mapping[str, Json] | None = None,
    algorithms: str | Mapping[str, Mapping[str, Json]] = "auto",
    limits: Limits | None = None,
    min_gain: float = 0.0,
    seed: int = 0,
    concurrency: int = 8,
    shares: SplitShares | None = None,
    settings: Settings | None = None,
    track: bool = True,
    resume: OptimizationId | None = None,
) -> Optimized:
    """Return the best agent found, and what may be said of it on examples nobody optimized on.

    Args:
        agent: a `dspy.Module`, an `AgentConfig`, or the path of an agent file.
        examples: mappings, `dspy.Example`s with inputs, the path of a JSONL or CSV file, or a task such as
            `reasoning_gym:leg_counting?size=200`. They are split into train, val and a sealed test split, near
            duplicates kept together.
        metric: a metric by name or specification, or a function (example, prediction[, trace]) → number in [0, 1].
        objectives: beside the metric, which comes first: names such as "cost_usd", or {"metric": "latency_seconds",
            "guardrail": True}.
        policy: which candidate goes to the gate: "knee", {"type": "max_cost", "at_most": 0.01} and so on; None: the
            best weighted utility.
        algorithms: "auto", a name, or name → options.
        limits: caps over everything; None: none.
        min_gain: the smallest gain that matters, in the unit of the metric.
        seed: of splits and search.
        concurrency: examples in flight at once.
        shares: of the splits; None: 30 % train, 30 % val, 40 % test.
        settings: None: from the environment.
        track: whether an MLflow run is written.
        resume: an optimization of the same agent, examples and metric that was interrupted.
    Raises:
        InvalidRequestError: something about the request is wrong; says what is possible.
        NotFinishedError: it was paused or failed; says why, and carries the id to resume.
        StoreError: the database does not answer.
    """
    settings = read_settings() if settings is None else settings
    config, fields, programs = _agent(agent, settings)
    name, specification, functions = _metric(metric)
    live = LiveCode(programs=programs, metrics=functions)
    with open_engine(settings, live=live, track=track) as engine:
        if resume is None:
            wanted = Wanted(
                agent=config,
                dataset=_dataset(config.name, examples, fields, seed, shares),
                objectives=[{"metric": one} if isinstance(one, str) else one for one in (name, *objectives)],
                metrics=(specification,),
                algorithms=_algorithms(algorithms),
                policy=dict(policy) if isinstance(policy, Mapping) else policy,
                constraints=Constraints(
                    limits=Limits() if limits is None else limits,
                    min_improvement_threshold=min_gain,
                    seed=seed,
                    concurrency=concurrency,
                ),
            )
            resume = engine.intake.accept(checked(wanted, engine.intake)).request.id
        else:
            _check_same(engine, resume, config)
        builder = DspyAgents(Parts(allowed=engine.allowed, programs=dict(programs))).elsewhere()
        return _finish(engine, resume, builder)


def pick(
    optimization_id: OptimizationId,
    candidate: str,
    *,
    agent: object | None = None,
    metric: str | Mapping[str, Json] | Callable[..., object] = "exact_match",
    settings: Settings | None = None,
    track: bool = True,
) -> Optimized:
    """Return another candidate of an optimization that has ended, with what may be said of it.

    It goes through the gate in an optimization of its own, as the next use of the test split, so at a smaller level:
    `result.validated.alpha` says at which.

    Args:
        optimization_id: that measured the candidate.
        candidate: its fingerprint, or a beginning that no other one has; `Optimized.pareto_front` lists them.
        agent: the `dspy.Module` that was optimized; None: it was a configuration.
        metric: the function that scored it; anything else is known already.
        settings: None: from the environment.
        track: whether an MLflow run is written.
    Raises:
        NotFoundError: there is no such candidate; names those on the front.
        ConflictError: the optimization has not ended, or the candidate was at the gate already.
        NotFinishedError: as `optimize`.
    """
    settings = read_settings() if settings is None else settings
    programs = {} if agent is None else _agent(agent, settings)[2]
    live = LiveCode(programs=programs, metrics=_metric(metric)[2])
    with open_engine(settings, live=live, track=track) as engine:
        picked_from = engine.stores.optimizations.get(optimization_id)
        known = measured_candidates(engine.stores.trials, optimization_id)
        picked = pick_candidate(engine.intake, picked_from, candidate, known)
        made = engine.intake.accept(picked.checked).request.id
        builder = DspyAgents(Parts(allowed=engine.allowed, programs=dict(programs))).elsewhere()
        return _finish(engine, made, builder)


def load(folder: str | Path, *, settings: Settings | None = None, models: Mapping[str, object] | None = None) -> Any:
    """Return an exported agent as a `dspy.Module`, laid out and sampled as its configuration says.

    It asks the LM that DSPy has configured; components that choose a model by name ask the one of `models`. Every file
    is checked against the manifest first.

    Args:
        folder: what `dspy-opt runs export`, the client's `artifact` or an unpacked download wrote, or `agent` in it.
        settings: say which code of yours an agent may name; None: from the environment.
        models: name → `dspy.LM`, for each name that a component chooses.
    Raises:
        InvalidRequestError: a file was changed, the agent names code that is not allowed here, or `models` are not
            those that its components name.
        NotFoundError: it is no such folder.
    """
    settings = read_settings() if settings is None else settings
    place = Path(folder).expanduser()
    agents = DspyAgents(Parts(allowed=settings.allow)).elsewhere()
    saved = load_agent(place / AGENT if (place / AGENT).is_dir() else place, agents)
    given = {} if models is None else models
    asked = {value.settings.model for value in saved.candidate.components.values()} - {None}
    if set(given) != asked:
        raise InvalidRequestError(
            f"models: wanted: an LM for each model that a component of {saved.config.name} names "
            f"({', '.join(sorted(map(str, asked))) or 'none'}); found: {', '.join(sorted(given)) or 'none'}; possible: "
            "load(folder, models={name: dspy.LM(...)})"
        )
    return agents.as_module(saved.config, saved.candidate, given)


def _check_same(engine: Engine, optimization_id: OptimizationId, config: AgentConfig) -> None:
    target = engine.stores.optimizations.get(optimization_id).request.target
    if config.version != target.version:
        raise InvalidRequestError(
            f"resume: wanted: the agent {target.id} as it was when optimization {optimization_id} began (version "
            f"{target.version[:12]}); found: {config.name} in version {config.version[:12]}; possible: that agent, or "
            "a new optimization of this one"
        )


def _finish(engine: Engine, optimization_id: OptimizationId, builder: DspyAgents) -> Optimized:
    ended = engine.optimizer.run(optimization_id, StopSignal())
    result = engine.stores.results.result(optimization_id)
    if result is None or ended.status is not OptimizationStatus.COMPLETED:
        raise NotFinishedError(f"{ended.status.value}: {ended.error or 'on request'}", optimization_id)
    config = engine.stores.agents.get(result.artifact.agent_version)
    return Optimized(result=result, config=config, module=builder.as_module(config))


def _agent(agent: object, settings: Settings) -> tuple[AgentConfig, RecordFields, Mapping[str, object]]:
    """Return the configuration, how records for it read, and the live program behind it when there is one."""
    if isinstance(agent, AgentConfig):
        return agent, fields_of(agent), {}
    if isinstance(agent, str | Path):
        config = load_agent_file(Path(agent), settings.allow)
        return config, fields_of(config), {}
    live = live_agent(agent)
    return live.config, live.fields, {str(live.config.entrypoint): live.program}


def _metric(
    metric: str | Mapping[str, Json] | Callable[..., object],
) -> tuple[str, Mapping[str, Json], Mapping[str, Callable[..., object]]]:
    """Return the name of the metric, its specification, and the function behind it when there is one."""
    if isinstance(metric, str):
        return metric, {"type": metric}, {}
    if isinstance(metric, Mapping):
        name = metric.get("name", metric.get("type"))
        if not isinstance(name, str):
            raise InvalidRequestError(
                f"metric: wanted: a type; found: {dict(metric)}; possible: {{'type': 'exact_match'}}"
            )
        return name, metric, {}
    name = getattr(metric, "__name__", type(metric).__name__)
    return name, {"type": LIVE_METRIC, "name": name}, {name: metric}


def _dataset(
    name: str, examples: Iterable[object] | str | Path, fields: RecordFields, seed: int, shares: SplitShares | None
) -> Dataset:
    source = examples if isinstance(examples, str | Path) else list(records(examples))
    return build_dataset(name, read_source(source, fields), seed=seed, shares=shares)


def _algorithms(algorithms: str | Mapping[str, Mapping[str, Json]]) -> tuple[AlgorithmChoice, ...]:
    if isinstance(algorithms, str):
        return (AlgorithmChoice(name=algorithms),)
    return tuple(AlgorithmChoice(name=name, options=options) for name, options in algorithms.items())
