"""Whole optimizations with two objectives on the real database: each policy takes another candidate to the gate."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from optimization_house import Exact, House, OneAlgorithm, build_house, speller

from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents, Surroundings
from dspy_optimization.adapters.postgres import Database
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.agents.operational_metrics import OperationalMetric, Quantity
from dspy_optimization.algorithms.given import Given
from dspy_optimization.algorithms.option_fields import options_from_json
from dspy_optimization.algorithms.problem import Algorithm
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError
from dspy_optimization.evaluation.model import Price, Role
from dspy_optimization.events import Json
from dspy_optimization.optimization.collaborators import AlgorithmRegistry
from dspy_optimization.optimization.picking import PickedCandidate, measured_candidates, pick_candidate
from dspy_optimization.optimization.request import AlgorithmChoice, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.statistics import Verdict
from dspy_optimization.testing.scripted_model import ScriptedModel

SHARES = {"BEST": 0.93, "GOOD": 0.85, "SOLID": 0.7, "FAIR": 0.5}
FILLER = {"BEST": 260, "GOOD": 80, "SOLID": 4, "FAIR": 0}
TEXTS = {name: f"{name}{' Take care.' * FILLER[name]}" for name in SHARES}
QUALITY = Objective(metric="exact")
COST = Objective(metric="cost_usd", direction=Direction.MINIMIZE)


class WithGiven(OneAlgorithm):
    """`telling`, and the built-in `given`."""

    def get(self, name: str) -> Algorithm:
        return Given() if name == "given" else super().get(name)

    def options(self, name: str, given: Mapping[str, Json]) -> object:
        return options_from_json(name, Given.options, given) if name == "given" else super().options(name, given)


@pytest.fixture
def two_goals(database: Database) -> House:
    """Longer instructions are dearer, and some are better."""
    share = speller(lambda text: next((share for name, share in SHARES.items() if name in text), 0.4))
    price = Price(prompt_usd=1.0, completion_usd=1.0)
    house = build_house(database, ScriptedModel(share, price=price))
    builder = DspyAgents(Parts(), Surroundings(prices={Role.TASK: price}))
    metrics = {"exact": Exact(), "cost_usd": OperationalMetric(quantity=Quantity.COST_USD, name="cost_usd")}
    registry: AlgorithmRegistry = WithGiven()
    return replace(
        house,
        optimizer=replace(house.optimizer, builder=builder, metrics=lambda _: metrics, algorithms=registry),
        intake=replace(house.intake, builder=builder, metrics=lambda _: metrics, algorithms=registry),
    )


def ended(house: House, **changes: object) -> OptimizationResult:
    terms: dict[str, object] = {
        "objectives": (QUALITY, COST),
        "algorithms": (AlgorithmChoice(name="telling", options={"texts": list(TEXTS.values())}),),
        **changes,
    }
    optimization_id = house.accepted(**terms)
    assert OptimizationStatus.COMPLETED is house.run(optimization_id).status
    result = house.stores.results.result(optimization_id)
    assert result is not None
    return result


def text_of(result: OptimizationResult) -> str:
    return next(iter(result.optimized.components.values())).instructions.split()[0]


def test_each_policy_takes_another_candidate(two_goals: House) -> None:
    """And says why; the front is the same; so is the first candidate's place in it. Only the first run pays."""
    targeted = (replace(QUALITY, target_value=0.6), COST)
    first = ended(two_goals)
    assert first.front is not None
    fair = next(one for one in first.front.points if one.means["exact"].value < 0.6)
    cap = 1.0001 * fair.means["cost_usd"].value
    results = {
        "weights": first,
        "lexicographic": ended(two_goals, policy={"type": "lexicographic", "order": ["exact"], "tolerance": 0}),
        "target_values": ended(two_goals, objectives=targeted, policy={"type": "target_values", "least": "cost_usd"}),
        "max_cost": ended(two_goals, policy={"type": "max_cost", "at_most": cap}),
        "knee": ended(two_goals, policy={"type": "knee"}),
    }

    said = {name: text_of(result) for name, result in results.items()}
    assert {"lexicographic": "BEST", "target_values": "SOLID", "max_cost": "FAIR"} == {
        name: said[name] for name in ("lexicographic", "target_values", "max_cost")
    }
    assert {"GOOD", "SOLID"} >= {said["weights"], said["knee"]}
    assert 4 <= len(set(said.values()) | {"BEST"})
    for name, result in results.items():
        assert result.pick is not None
        assert result.front is not None
        assert (name, result.optimized.fingerprint) == (result.pick.policy, result.pick.candidate)
        assert [one.candidate for one in first.front.points] == [one.candidate for one in result.front.points]
        assert result.front.chosen.candidate == result.optimized.fingerprint
        assert result.validated is not None
        assert Verdict.REGRESSED is not result.validated.verdict
    steps = first.front.course
    assert 4 <= len(steps) <= 5
    assert sorted(steps, key=lambda step: (step.paid_calls, step.volume)) == list(steps)
    assert all(0.0 < step.volume <= 1.0 for step in steps)


def test_a_policy_that_finds_nothing_says_so(two_goals: House) -> None:
    """The baseline stays, and the verdict's reason names the policy."""
    result = ended(two_goals, policy={"type": "max_cost", "metric": "cost_usd", "at_most": 1e-9})

    assert result.optimized == result.baseline
    assert result.validated is not None
    assert Verdict.NO_IMPROVEMENT is result.validated.verdict
    assert "By the policy max_cost, the baseline stays" in result.validated.reason


def test_the_course_counts_the_calls_paid_when_each_was_measured_first(two_goals: House) -> None:
    """As the trials say, so that a resume changes nothing of it."""
    whole = ended(two_goals)
    again = two_goals.stores.trials.completed(whole.optimization_id, 60)

    assert whole.front is not None
    assert {one.candidate for one in again} >= {step.candidate for step in whole.front.course}
    paid = {one.candidate: one.paid_calls for one in again}
    assert [paid[step.candidate] for step in whole.front.course] == [step.paid_calls for step in whole.front.course]


def picked(house: House, result: OptimizationResult, beginning: str) -> PickedCandidate:
    optimization = house.stores.optimizations.get(result.optimization_id)
    known = measured_candidates(house.stores.trials, result.optimization_id)
    return pick_candidate(house.intake, optimization, beginning, known)


def test_a_person_picks_another_one(two_goals: House) -> None:
    """It goes to the gate as the second use of the split, at a smaller level, and pays for the split alone."""
    first = ended(two_goals, policy={"type": "lexicographic", "order": ["exact"], "tolerance": 0})
    assert first.front is not None
    good = next(
        one for one in first.front.points if 0.8 < one.means["exact"].value < first.front.points[0].means["exact"].value
    )

    found = picked(two_goals, first, good.candidate[:12])
    accepted = two_goals.intake.accept(found.checked)
    ending = two_goals.run(accepted.request.id)
    result = two_goals.stores.results.result(accepted.request.id)

    assert result is not None
    assert result.validated is not None
    assert (OptimizationStatus.COMPLETED, None) == (ending.status, ending.error)
    assert ("GOOD", "given", "picked") == (text_of(result), result.algorithm_used, result.pick and result.pick.policy)
    assert good.candidate == result.optimized.fingerprint
    assert (2, found.alpha) == (found.test_split_use, result.validated.alpha)
    assert first.validated is not None
    assert (2, True) == (result.validated.test_split_use, result.validated.alpha < first.validated.alpha)
    assert "use 2 of the test split" in found.sentence
    assert result.validated.n_examples == result.bill.total.calls == result.bill.by_label["gate"].calls
    trials = two_goals.stores.trials.trials(accepted.request.id)
    assert f"picked from optimization {first.optimization_id}" in {one.candidate.origin for one in trials}
    assert str(first.optimization_id) == accepted.request.policy["optimization"]


def test_what_cannot_be_picked(two_goals: House) -> None:
    """Unknown, several, at the gate already, not ended, and a split that was used up."""
    first = ended(two_goals)
    waiting = two_goals.stores.optimizations.get(two_goals.accepted())

    with pytest.raises(NotFoundError, match=r"found: none; possible, on the front: [0-9a-f]{12}, ") as error:
        picked(two_goals, first, "zz")
    assert first.optimized.fingerprint[:12] not in str(error.value)
    with pytest.raises(NotFoundError, match="found: none"):
        picked(two_goals, first, "")
    with pytest.raises(ConflictError, match="the chosen one"):
        picked(two_goals, first, first.optimized.fingerprint)
    with pytest.raises(ConflictError, match="the baseline"):
        picked(two_goals, first, first.baseline.fingerprint)
    with pytest.raises(ConflictError, match="is queued; possible: wait"):
        pick_candidate(two_goals.intake, waiting, "a", lambda _: ())
    assert first.front is not None
    other = next(one.candidate for one in first.front.points if not one.is_chosen)
    strict = replace(two_goals, intake=replace(two_goals.intake, alpha=2e-4))
    with pytest.raises(InvalidRequestError, match="split"):
        picked(strict, first, other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives": (replace(QUALITY, weight=0.0),)}, "a weight above 0 for exact; found: 0.0"),
        ({"objectives": (replace(QUALITY, weight=float("nan")),)}, "a weight above 0 for exact; found: nan"),
        ({"objectives": (replace(QUALITY, target_value=80.0),)}, "from 0 to 1; found: 80"),
        ({"objectives": (QUALITY, replace(COST, target_value=-1.0))}, "from 0 on; found: -1"),
        ({"objectives": (QUALITY, replace(COST, guardrail=True, target_value=1.0))}, "found: one on the guardrail"),
        ({"objectives": (replace(QUALITY, margin=float("nan")),)}, "a margin from 0 on for exact; found: nan"),
        ({"policy": {"type": "knee"}, "objectives": (QUALITY,)}, "knee needs at least two"),
        ({"policy": {"type": "max_cost"}, "objectives": (QUALITY,)}, "max_cost needs an objective of what"),
    ],
)
def test_contradictions_are_refused_before_anything_is_kept(
    two_goals: House, changes: dict[str, object], said: str
) -> None:
    """By whoever asks: the Python interface builds objectives by hand."""
    with pytest.raises(InvalidRequestError, match=said):
        two_goals.accepted(**changes)
    assert [] == list(two_goals.stores.optimizations.newest(5))
