"""One optimization, from queued to its verdict, on the real database."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from optimization_house import AGENT, Exact, House, build_house, speller, words

from dspy_optimization.adapters.postgres import Database
from dspy_optimization.agents.candidate import ComponentName
from dspy_optimization.agents.config import Component
from dspy_optimization.agents.example import Example, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objective
from dspy_optimization.errors import ConflictError, InvalidRequestError, ModelAuthError, ModelError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import LanguageModel, ModelRequest
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import EventType
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, Optimization, OptimizationStatus, Wish
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.statistics import Verdict
from dspy_optimization.testing.scripted_model import ScriptedModel

HouseOf = Callable[[LanguageModel], House]
TEXTS = ["Say it LOUD.", "Whisper it.", "LOUD and clear, please."]


def _telling(*texts: str, name: str = "telling", breaks: bool = False) -> AlgorithmChoice:
    return AlgorithmChoice(name=name, options={"texts": list(texts), "breaks": breaks})


def _result(house: House, optimization_id: OptimizationId) -> OptimizationResult:
    result = house.stores.results.result(optimization_id)
    assert result is not None
    return result


def _verdict(house: House, optimization_id: OptimizationId) -> Verdict | None:
    validated = _result(house, optimization_id).validated
    return validated.verdict if validated is not None else None


def _events(house: House, optimization_id: OptimizationId) -> list[EventType]:
    return [one.event.type for one in house.stores.events.events(optimization_id)]


def test_a_better_candidate_is_found_and_proven(good_house: House) -> None:
    """40 % to 80 %: improved, by the algorithm that found it, with what the change is worth and the bill."""
    optimization_id = good_house.accepted(algorithms=(_telling(*TEXTS),))

    ended = good_house.run(optimization_id)

    result = _result(good_house, optimization_id)
    assert (OptimizationStatus.COMPLETED, None, 1.0) == (ended.status, ended.error, ended.progress)
    assert Verdict.IMPROVED is _verdict(good_house, optimization_id)
    assert ("telling", "finished", 4) == (result.algorithm_used, result.ended_because, result.trials)
    assert "Say it LOUD." == result.optimized.components[ComponentName("self")].instructions
    assert [("self", "instructions")] == [(one.component, one.part) for one in result.key_improvements]
    assert result.key_improvements[0].worth.value > 0.2
    assert good_house.stores.agents.get(result.artifact.agent_version).version == result.artifact.agent_version
    assert ["run-1"] == [result.artifact.mlflow_run_id]


def test_only_the_gate_sees_the_test_split(house_of: HouseOf) -> None:
    """No call about a test word goes out before the gate opens the split, and each goes out once a candidate."""
    dataset = words()
    sealed = {str(example.inputs["word"]) for example in dataset[Split.TEST]}
    model = ScriptedModel(speller(lambda text: 0.8 if "LOUD" in text else 0.4))
    house = house_of(model)
    optimization_id = house.accepted(dataset=dataset, algorithms=(_telling(*TEXTS),))

    house.run(optimization_id)

    bill = _result(house, optimization_id).bill
    asked = [request for request in model.requests if any(word in str(request.body) for word in sealed)]
    assert 2 * len(sealed) == len(asked) == bill.by_label["gate"].calls
    first = model.requests.index(asked[0])
    assert all(request in asked for request in model.requests[first : first + len(asked)])


def test_nothing_is_paid_twice(good_house: House) -> None:
    """Every call is a distinct question, though trials, ablation and gate ask about the same things."""
    optimization_id = good_house.accepted(algorithms=(_telling("Say it LOUD.", "Say it LOUD."),))

    good_house.run(optimization_id)

    dataset = words()
    result = _result(good_house, optimization_id)
    assert 2 * len(dataset[Split.VAL]) + 2 * len(dataset[Split.TEST]) == result.bill.total.calls
    assert result.bill.answered_from_ledger > 0


def test_the_same_request_again_costs_nothing_and_says_the_same(good_house: House) -> None:
    """Another optimization of the same tenant finds every answer; the test split is used a second time."""
    first, second = good_house.accepted(), good_house.accepted()

    good_house.run(first)
    good_house.run(second)

    again = _result(good_house, second)
    assert 0 == again.bill.total.calls
    assert _result(good_house, first).optimized == again.optimized
    assert again.validated is not None
    assert 2 == again.validated.test_split_use


def test_nothing_better_is_no_improvement(good_house: House) -> None:
    """Val settles it: the baseline stays, its numbers are measured, nothing is tested."""
    optimization_id = good_house.accepted(algorithms=(_telling("Whisper it."),))

    good_house.run(optimization_id)

    result = _result(good_house, optimization_id)
    assert Verdict.NO_IMPROVEMENT is _verdict(good_house, optimization_id)
    assert (result.baseline, None) == (result.optimized, result.algorithm_used)


def test_a_baseline_at_the_ceiling_is_not_searched(house_of: HouseOf) -> None:
    """No headroom: nobody pays for a search that cannot find anything."""
    house = house_of(ScriptedModel(speller(lambda text: 1.0)))
    limits = Constraints(min_improvement_threshold=0.2, concurrency=4)
    optimization_id = house.accepted(constraints=limits)

    house.run(optimization_id)

    assert Verdict.NO_HEADROOM is _verdict(house, optimization_id)
    assert ("no_headroom", 1) == (_result(house, optimization_id).ended_because, _result(house, optimization_id).trials)


def test_the_search_ends_when_the_target_is_met(good_house: House) -> None:
    """The first text reaches 70 %: the two others are not tried."""
    optimization_id = good_house.accepted(
        algorithms=(_telling(*TEXTS),), objectives=(Objective(metric="exact", target_value=0.7),)
    )

    good_house.run(optimization_id)

    result = _result(good_house, optimization_id)
    assert ("target_met", 2) == (result.ended_because, result.trials)
    assert Verdict.IMPROVED is _verdict(good_house, optimization_id)


def test_a_cap_leaves_enough_for_the_proof(good_house: House) -> None:
    """Calls for one text and the gate: the search ends at the cap, the gate is reached, the cap holds."""
    dataset = words()
    cap = 5 * len(dataset[Split.VAL]) + 3 * len(dataset[Split.TEST])
    many = [f"LOUD {index}" for index in range(20)]
    optimization_id = good_house.accepted(
        algorithms=(_telling(*many),), constraints=Constraints(limits=Limits(max_lm_calls=cap), concurrency=4)
    )

    good_house.run(optimization_id)

    result = _result(good_house, optimization_id)
    assert "max_lm_calls" == result.ended_because
    assert Verdict.IMPROVED is _verdict(good_house, optimization_id)
    assert result.bill.total.calls <= cap


def test_a_broken_algorithm_does_not_take_the_others_with_it(good_house: House) -> None:
    """The portfolio goes on, and the event says what broke."""
    optimization_id = good_house.accepted(algorithms=(_telling(breaks=True), _telling("LOUD", name="other")))

    ended = good_house.run(optimization_id)

    told = [
        one.event.data
        for one in good_house.stores.events.events(optimization_id)
        if one.event.type is EventType.ALGORITHM_ENDED
    ]
    assert OptimizationStatus.COMPLETED is ended.status
    assert "other" == _result(good_house, optimization_id).algorithm_used
    assert ("failed", "RuntimeError: it broke") == (told[0]["outcome"], told[0]["error"])


def test_when_every_algorithm_breaks_the_optimization_fails(good_house: House) -> None:
    """There was no search, so there is no verdict."""
    optimization_id = good_house.accepted(algorithms=(_telling(breaks=True),))

    ended = good_house.run(optimization_id)

    assert OptimizationStatus.FAILED is ended.status
    assert ended.error is not None
    assert "every algorithm failed (telling: RuntimeError: it broke)" in ended.error
    assert good_house.stores.results.result(optimization_id) is None


def _failing(after: int, error: ModelError) -> Callable[[ModelRequest], str]:
    good = speller(lambda text: 0.8 if "LOUD" in text else 0.4)
    lock = threading.Lock()
    count = 0

    def answer(request: ModelRequest) -> str:
        nonlocal count
        with lock:
            count += 1
            if count > after:
                raise error
        return good(request)

    return answer


@pytest.mark.parametrize("after", [0, 30, 70, 150, 200])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModelError("the server is away; start it, then resume", retryable=True), OptimizationStatus.PAUSED),
        (ModelAuthError("the key is wrong; give a valid one, then resume"), OptimizationStatus.FAILED),
    ],
)
def test_a_dead_model_is_no_score_and_the_rest_is_paid_once(
    database: Database, after: int, error: ModelError, status: OptimizationStatus
) -> None:
    """Wherever it dies: what, why and what to do; then resumed with a living one, the result of a straight run."""
    broken = build_house(database, ScriptedModel(_failing(after, error)))
    optimization_id = broken.accepted(algorithms=(_telling(*TEXTS),))
    straight = build_house(database, ScriptedModel(speller(lambda text: 0.8 if "LOUD" in text else 0.4)))

    ended = broken.run(optimization_id)
    mended = straight.run(optimization_id)

    assert (status, str(error)) == (ended.status, ended.error)
    result = _result(straight, optimization_id)
    dataset = words()
    assert OptimizationStatus.COMPLETED is mended.status
    assert Verdict.IMPROVED is _verdict(straight, optimization_id)
    assert 4 * len(dataset[Split.VAL]) + 2 * len(dataset[Split.TEST]) == result.bill.total.calls
    assert all(trial.score > 0.2 for trial in straight.stores.trials.trials(optimization_id))


@pytest.mark.parametrize(("wish", "status"), [(Wish.PAUSE, "paused"), (Wish.CANCEL, "cancelled")])
def test_a_wish_from_outside_is_obeyed(house_of: HouseOf, wish: Wish, status: str) -> None:
    """Another process asks; the work ends within a call; cancelled keeps the best so far, paused can go on."""
    release = threading.Event()
    good = speller(lambda text: 0.8 if "LOUD" in text else 0.4)
    asked = threading.Event()

    def slow(request: ModelRequest) -> str:
        if "Whisper" in str(request.body):
            asked.set()
            release.wait(10.0)
        return good(request)

    house = house_of(ScriptedModel(slow))
    optimization_id = house.accepted(algorithms=(_telling(*TEXTS),))
    ended: list[OptimizationStatus] = []
    worker = threading.Thread(target=lambda: ended.append(house.run(optimization_id).status))
    worker.start()
    assert asked.wait(30.0)

    house.stores.optimizations.update(optimization_id, lambda now: replace(now, wish=wish))
    threading.Timer(1.5, release.set).start()
    worker.join(30.0)

    assert [status] == [one.value for one in ended]
    if wish is Wish.CANCEL:
        result = _result(house, optimization_id)
        assert ("cancelled", None) == (result.ended_because, result.validated)
        assert "Say it LOUD." == result.optimized.components[ComponentName("self")].instructions
        with pytest.raises(ConflictError):
            house.run(optimization_id)
    else:
        assert OptimizationStatus.COMPLETED is house.run(optimization_id).status


def test_replaying_tells_nothing_twice(house_of: HouseOf) -> None:
    """A resumed optimization has each trial and each keyed event once."""
    stop = StopSignal()
    good = speller(lambda text: 0.8 if "LOUD" in text else 0.4)
    house = house_of(ScriptedModel(_failing(130, ModelError("away", retryable=True))))
    optimization_id = house.accepted(algorithms=(_telling(*TEXTS),))
    house.run(optimization_id)
    healed = replace(house.optimizer, models=type(house.optimizer.models)(model=ScriptedModel(good)))  # type: ignore[call-arg]

    healed.run(optimization_id, stop)

    trials = [(trial.candidate.fingerprint, trial.split) for trial in house.stores.trials.trials(optimization_id)]
    kinds = _events(house, optimization_id)
    assert len(set(trials)) == len(trials)
    assert 1 == kinds.count(EventType.VERDICT) == kinds.count(EventType.OPTIMIZATION_COMPLETED)
    assert 1 == kinds.count(EventType.OPTIMIZATION_RESUMED)


class _Broken(Exact):
    """A metric with a mistake in it."""

    def score(self, example: Example, prediction: Prediction) -> Score:
        raise InvalidRequestError(f"the metric exact raised ZeroDivisionError on example {example.id}")


def test_a_broken_metric_is_no_score(good_house: House) -> None:
    """The optimization fails with the metric and the example by name."""
    optimization_id = good_house.accepted()
    optimizer = replace(good_house.optimizer, metrics=lambda request: {"exact": _Broken()})

    ended = optimizer.run(optimization_id, StopSignal())

    assert OptimizationStatus.FAILED is ended.status
    assert ended.error is not None
    assert "the metric exact raised ZeroDivisionError on example" in ended.error


def test_two_cannot_work_on_one(good_house: House) -> None:
    """The second is refused while the first holds it."""
    optimization_id = good_house.accepted()

    with good_house.stores.optimizations.owning(optimization_id), pytest.raises(ConflictError):
        good_house.run(optimization_id)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objectives": (Objective(metric="exact", guardrail=True),)}, "at least one that is no guardrail"),
        ({"objectives": (Objective(metric="f1"),)}, "found: f1; possible: exact"),
        ({"objectives": (Objective(metric="exact"), Objective(metric="exact"))}, "exact twice"),
        ({"algorithms": ()}, "found: none"),
        ({"algorithms": (_telling(), _telling())}, "telling, telling"),
        ({"algorithms": (AlgorithmChoice(name="auto"), _telling())}, "auto alone"),
        ({"algorithms": (AlgorithmChoice(name="auto", options={"k": 1}),)}, "auto takes no options; found: k"),
        ({"algorithms": (AlgorithmChoice(name="magic"),)}, "no algorithm is called magic"),
        ({"constraints": Constraints(limits=Limits(max_lm_calls=10))}, "found: 10; possible: a higher cap"),
        (
            {"agent": replace(AGENT, components={ComponentName("self"): Component(frozen=True)})},
            "every component of capitals is frozen",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_kept(
    good_house: House, changes: dict[str, object], says: str
) -> None:
    """The message says what is possible, and no optimization exists afterwards."""
    with pytest.raises(InvalidRequestError) as refused:
        good_house.accepted(**changes)

    assert says in str(refused.value)
    assert [] == list(good_house.stores.optimizations.newest(1))


def test_the_search_says_how_far_it_is(good_house: House) -> None:
    """By calls asked of those forecast: it moves while it searches, and never back."""
    stores = good_house.stores
    told: list[float] = []

    class Watched:
        """The store, noting every progress it is told."""

        def __getattr__(self, name: str) -> object:
            return getattr(stores.optimizations, name)

        def update(self, *given: object, **named: object) -> Optimization:
            found = stores.optimizations.update(*given, **named)  # type: ignore[arg-type]
            told.append(found.progress)
            return found

    watched = replace(stores, optimizations=Watched())  # type: ignore[arg-type]
    optimizer = replace(good_house.optimizer, stores=watched)
    optimization_id = good_house.accepted(algorithms=(_telling(*TEXTS),))

    optimizer.run(optimization_id, StopSignal())

    inside = sorted({round(one, 3) for one in told if 0.1 < one < 0.8})
    assert told == sorted(told)
    assert [round(0.1 + 0.7 * number / len(TEXTS), 3) for number in range(1, len(TEXTS))] == inside
