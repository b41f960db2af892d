"""A whole optimizer on the real database, with a model that behaves and an algorithm that does what it is told."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import uuid4

from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.adapters.postgres import (
    Database,
    PostgresAgents,
    PostgresDatasets,
    PostgresEvents,
    PostgresLedger,
    PostgresOptimizations,
    PostgresResults,
    PostgresTrials,
)
from dspy_optimization.adapters.postgres.experience_store import PostgresExperience
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Example, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objective
from dspy_optimization.agents.reading import fields_of, reading_from_records
from dspy_optimization.agents.splitting import build_dataset
from dspy_optimization.algorithms.problem import Algorithm, Forecast, Problem, Progress, SearchRun, Shape
from dspy_optimization.errors import NotFoundError, TrackingError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import LanguageModel, ModelRequest, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.optimization.intake import Intake, Proposal
from dspy_optimization.optimization.optimizer import Optimizer
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, Optimization
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.store import Stores
from dspy_optimization.tenancy import LOCAL_TENANT

AGENT = AgentConfig(
    name="capitals",
    kind=AgentKind.PREDICT,
    signature=Signature(
        instructions="Say the word in capitals.", inputs=(Field(name="word"),), outputs=(Field(name="answer"),)
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """1 when the answer is the expected one."""

    name: str = "exact"
    floor: float = 0.0
    ceiling: float | None = 1.0

    def score(self, example: Example, prediction: Prediction) -> Score:
        return Score(value=float(prediction.outputs.get("answer") == example.expected["answer"]))


def speller(share: Callable[[str], float]) -> Callable[[ModelRequest], str]:
    """Answer in DSPy's chat format; right for the share of words that the prompt earns."""

    def answer(request: ModelRequest) -> str:
        messages = request.body["messages"]
        assert isinstance(messages, list)
        text = json.dumps(messages)
        last = messages[-1]
        assert isinstance(last, dict)
        asked = str(last["content"])
        word = asked.split("[[ ## word ## ]]")[1].split("\n")[1].strip()
        right = int(word[-3:]) % 100 < 100 * share(text)
        said = word.upper() if right else word
        return f"[[ ## answer ## ]]\n{said}\n\n[[ ## completed ## ]]"

    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class TellingOptions:
    """What the algorithm says."""

    texts: tuple[str, ...] = ("Say it LOUD.",)
    breaks: bool = False


class Telling:
    """Tries instructions it was told, on val."""

    name = "telling"
    description = "tries the texts it is given"
    options = TellingOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        assert isinstance(options, TellingOptions)
        return Forecast(runs=len(options.texts) * shape.n_val, proposals=0)

    def search(self, problem: Problem, run: SearchRun) -> None:
        options = problem.options
        assert isinstance(options, TellingOptions)
        if options.breaks:
            raise RuntimeError("it broke")
        for index, text in enumerate(options.texts):
            candidate = Candidate(
                components={
                    name: replace(value, instructions=text) for name, value in problem.baseline.components.items()
                },
                origin="telling",
                parents=(problem.baseline.fingerprint,),
            )
            results = run.evaluate(candidate, problem.val)
            run.record(candidate, Split.VAL, results, index + 1)
            run.report(
                Progress(phase="search", iteration=index + 1, iterations=len(options.texts), candidate=candidate)
            )
            run.submit(candidate)


class OneAlgorithm:
    """A registry of `telling` under any of two names."""

    def get(self, name: str) -> Algorithm:
        if name not in {"telling", "other"}:
            raise NotFoundError(f"no algorithm is called {name}; possible: telling, other")
        algorithm = Telling()
        algorithm.name = name  # type: ignore[misc]
        return algorithm

    def options(self, name: str, given: Mapping[str, Json]) -> object:
        self.get(name)
        texts = given.get("texts", ["Say it LOUD."])
        assert isinstance(texts, list)
        return TellingOptions(texts=tuple(str(text) for text in texts), breaks=bool(given.get("breaks", False)))


@dataclass(frozen=True, slots=True, kw_only=True)
class OneModel:
    """Every role is the same model; others have names."""

    model: LanguageModel
    by_name: Mapping[str, LanguageModel] = field(default_factory=dict)

    def open(
        self, agent: AgentConfig, stop: StopSignal, fell_back: Callable[[Role, str, str, str], None]
    ) -> Mapping[Role, LanguageModel]:
        return dict.fromkeys(Role, self.model)

    def named(self, stop: StopSignal, fell_back: Callable[[Role, str, str, str], None]) -> Mapping[str, LanguageModel]:
        return self.by_name


@dataclass(slots=True)
class Tracked:
    """Remembers what it was told."""

    results: list[OptimizationResult] = field(default_factory=list)
    without_result: list[Optimization] = field(default_factory=list)
    away: bool = False

    def completed(self, optimization: Optimization, result: OptimizationResult, agent: AgentConfig) -> str | None:
        if self.away:
            raise TrackingError("the tracker is away")
        self.results.append(result)
        return "run-1"

    def ended(self, optimization: Optimization) -> str | None:
        self.without_result.append(optimization)
        return "run-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """An engine with its parts in reach."""

    stores: Stores
    optimizer: Optimizer
    intake: Intake
    tracked: Tracked

    def accepted(self, **changes: object) -> OptimizationId:
        proposal = replace(
            Proposal(
                agent=AGENT,
                dataset=words(),
                objectives=(Objective(metric="exact"),),
                algorithms=(AlgorithmChoice(name="telling"),),
                constraints=Constraints(limits=Limits(), concurrency=4),
            ),
            **changes,
        )
        return self.intake.accept(self.intake.check(proposal)).request.id

    def run(self, optimization_id: OptimizationId) -> Optimization:
        return self.optimizer.run(optimization_id, StopSignal())


def words(n: int = 200, seed: int = 0) -> Dataset:
    """Words whose last three digits say how hard they are."""
    records = [
        {"word": f"{chr(97 + index % 26)}{chr(97 + index * 7 % 26)}{chr(97 + index * 3 % 26)}{index:03}"}
        for index in range(n)
    ]
    full = [{**record, "answer": record["word"].upper()} for record in records]
    return build_dataset("words", reading_from_records(full, fields_of(AGENT)), seed=seed, group_near_duplicates=False)


def build_house(database: Database, model: LanguageModel) -> House:
    """Return an engine around a model."""
    stores = Stores(
        optimizations=PostgresOptimizations(database, LOCAL_TENANT),
        trials=PostgresTrials(database, LOCAL_TENANT),
        results=PostgresResults(database, LOCAL_TENANT),
        events=PostgresEvents(database, LOCAL_TENANT),
        agents=PostgresAgents(database, LOCAL_TENANT, AllowList()),
        datasets=PostgresDatasets(database, LOCAL_TENANT),
        ledger=PostgresLedger(database, LOCAL_TENANT),
    )
    tracked = Tracked()
    builder = DspyAgents(Parts())
    optimizer = Optimizer(
        stores=stores,
        builder=builder,
        models=OneModel(model=model),
        algorithms=OneAlgorithm(),
        metrics=lambda request: {"exact": Exact()},
        tracker=tracked,
        alpha=0.05,
        now=lambda: datetime.now(UTC),
    )
    intake = Intake(
        stores=stores,
        builder=builder,
        algorithms=OneAlgorithm(),
        metrics=lambda specifications: {"exact": Exact()},
        check_prices=lambda agent, constraints: None,
        can_propose=lambda: False,
        lessons=PostgresExperience(database, LOCAL_TENANT).lessons,
        alpha=0.05,
        now=lambda: datetime.now(UTC),
        new_id=uuid4,
    )
    return House(stores=stores, optimizer=optimizer, intake=intake, tracked=tracked)
