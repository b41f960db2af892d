"""An optimization whose candidates choose models, temperatures and kinds: what it proves, and what it bills."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from optimization_house import AGENT, House, OneModel, build_house, speller, words

from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents, Surroundings
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.agents.candidate import Candidate, ComponentName
from dspy_optimization.agents.component_settings import ComponentSettings, ModuleKind
from dspy_optimization.agents.config import AgentConfig, Component
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Objective
from dspy_optimization.algorithms.problem import Algorithm, Forecast, Problem, SearchRun, Shape
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.ledger import Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import LanguageModel, ModelRequest, Price, Role
from dspy_optimization.events import Json
from dspy_optimization.optimization.estimate import estimate
from dspy_optimization.optimization.intake import Proposal
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.statistics import Verdict
from dspy_optimization.testing.scripted_model import ScriptedModel

SELF = ComponentName("self")
PRICES = {
    "own": Price(prompt_usd=1.0, completion_usd=2.0),
    "small": Price(prompt_usd=0.1, completion_usd=0.2),
    "large": Price(prompt_usd=10.0, completion_usd=30.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """Nothing to choose."""


class Choosing:
    """Tries every model that a component may ask, each in each kind."""

    name: ClassVar[str] = "telling"
    description: ClassVar[str] = "tries every model and kind"
    options: ClassVar[type] = NoOptions

    def forecast(self, options: object, shape: Shape) -> Forecast:
        return Forecast(runs=6 * shape.n_val, proposals=0)

    def search(self, problem: Problem, run: SearchRun) -> None:
        choices = problem.runnable.choices[SELF]
        tried = [
            ComponentSettings(model=model, kind=kind, parameters={"temperature": 0.25})
            for model in choices.models
            for kind in choices.kinds
        ]
        for number, settings in enumerate(tried):
            value = replace(problem.baseline.components[SELF], settings=settings)
            candidate = Candidate(components={SELF: value}, origin="choosing")
            run.record(candidate, Split.VAL, run.evaluate(candidate, problem.val), number + 1)
            run.submit(candidate)


class OnlyChoosing:
    """A registry of one."""

    def get(self, name: str) -> Algorithm:
        return Choosing()

    def options(self, name: str, given: Mapping[str, Json]) -> object:
        return NoOptions()


def right(share: float) -> Callable[[ModelRequest], str]:
    """Answer right for this share of the words, with reasoning where it is asked for."""
    answer = speller(lambda _: share)

    def said(request: ModelRequest) -> str:
        reasoning = "[[ ## reasoning ## ]]\nso\n\n" if "[[ ## reasoning ## ]]" in str(request.body) else ""
        return reasoning + answer(request)

    return said


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A house whose settings list models by name."""

    house: House
    models: Mapping[str, ScriptedModel]

    def optimized(self, limits: Limits | None = None, agent: AgentConfig = AGENT) -> OptimizationResult:
        accepted = self.house.accepted(
            agent=agent, constraints=Constraints(limits=limits or Limits(max_lm_calls=5000), concurrency=4)
        )
        ended = self.house.run(accepted)
        assert OptimizationStatus.COMPLETED is ended.status, ended.error
        result = self.house.stores.results.result(accepted)
        assert result is not None
        return result


def world(database: Database, prices: Mapping[str, Price]) -> World:
    models = {
        name: ScriptedModel(right(share), identity=name, price=prices.get(name))
        for name, share in (("own", 0.4), ("small", 0.3), ("large", 0.9))
    }
    named: dict[str, LanguageModel] = {name: models[name] for name in ("small", "large")}
    house = build_house(database, models["own"])
    builder = DspyAgents(Parts(), Surroundings(models=frozenset(named), named_prices=dict(prices)))
    optimizer = replace(
        house.optimizer,
        builder=builder,
        models=OneModel(model=models["own"], by_name=named),
        algorithms=OnlyChoosing(),
    )
    intake = replace(house.intake, builder=builder, algorithms=OnlyChoosing())
    return World(house=replace(house, optimizer=optimizer, intake=intake), models=models)


def cost_of(price: Price, model: ScriptedModel) -> float:
    """Return what a model was asked costs, by its own price and count."""
    answers = [ScriptedModel(right(0.0), identity="x").complete(request) for request in model.requests]
    prompt = sum(answer.prompt_tokens for answer in answers)
    completion = sum(answer.completion_tokens for answer in answers)
    return price.cost_usd(prompt, completion)


def test_the_better_model_is_found_proven_and_billed_at_its_price(database: Database) -> None:
    """The bill adds up what each model costs; what is ablated are model, kind and parameters; the agent keeps them."""
    there = world(database, PRICES)

    result = there.optimized()

    value = result.optimized.components[SELF]
    assert Verdict.IMPROVED is (result.validated.verdict if result.validated is not None else None)
    assert "large" == value.settings.model
    assert {"model", "parameters", "kind"} >= {one.part for one in result.key_improvements}
    assert "model" in {one.part for one in result.key_improvements}
    expected = sum(cost_of(PRICES[name], model) for name, model in there.models.items())
    total = sum(result.bill.by_role.values(), Spend())
    assert {Role.TASK} == set(result.bill.by_role)
    assert sum(len(model.requests) for model in there.models.values()) == total.calls
    assert pytest.approx(expected) == total.cost_usd
    assert min(len(model.requests) for model in there.models.values()) > 0
    kept = there.house.stores.agents.get(result.artifact.agent_version)
    assert value.settings == kept.components[SELF].settings
    trials = there.house.stores.trials.trials(result.optimization_id)
    kinds = Counter(one.candidate.components[SELF].settings.kind for one in trials if one.split is Split.VAL)
    assert {ModuleKind.PREDICT, ModuleKind.CHAIN_OF_THOUGHT} <= set(kinds)


def test_under_a_dollar_cap_only_models_with_a_price_are_a_choice(database: Database) -> None:
    """The search never meets the others, so nothing breaks; the cap holds."""
    there = world(database, {name: price for name, price in PRICES.items() if name != "large"})

    result = there.optimized(Limits(max_cost_usd=50.0))

    assert [] == list(there.models["large"].requests)
    assert len(there.models["small"].requests) > 0
    assert 50.0 >= result.bill.total.cost_usd > 0.0


def test_an_agent_that_names_a_model_from_the_start_is_measured_with_it(database: Database) -> None:
    """Its baseline asks the named model; one the settings do not list is refused before anything is kept."""
    there = world(database, PRICES)
    stated = replace(AGENT, components={SELF: Component(how=ComponentSettings(model="large"))})
    unlisted = replace(AGENT, components={SELF: Component(how=ComponentSettings(model="huge"))})

    result = there.optimized(agent=stated)

    assert "large" == result.baseline.components[SELF].settings.model
    assert [] == list(there.models["own"].requests)
    with pytest.raises(InvalidRequestError, match=r"model: .*found: huge; possible: large, small"):
        there.house.accepted(agent=unlisted)


def test_an_estimate_counts_the_dearest_model_that_components_ask(database: Database) -> None:
    """Nothing is sent; a model whose price nobody knows makes the dollars unknown."""
    there = world(database, PRICES)
    stated = replace(AGENT, components={SELF: Component(how=ComponentSettings(model="large"))})
    estimates = []
    for agent in (AGENT, stated):
        checked = there.house.intake.check(
            Proposal(
                agent=agent,
                dataset=words(),
                objectives=(Objective(metric="exact"),),
                algorithms=(AlgorithmChoice(name="telling"),),
                constraints=Constraints(limits=Limits(max_lm_calls=1000)),
            )
        )
        for named in (there.models, {**there.models, "large": ScriptedModel()}):
            estimates.append(
                estimate(
                    checked,
                    there.house.optimizer.builder.build(agent),
                    OnlyChoosing(),
                    dict.fromkeys(Role, there.models["own"]),
                    named=named,
                    judge_calls=0,
                    seconds_a_call=1.0,
                ).cost_usd
            )

    own, again, dear, unknown = estimates
    assert own is not None
    assert dear is not None
    assert (own, None) == (again, unknown)
    assert 15.0 * own >= dear > 9.9 * own
    assert [[], []] == [list(there.models[name].requests) for name in ("own", "large")]
