"""What a result is worth when its optimization was interrupted: in the gate, in the ablation, while it waits."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from optimization_house import AGENT, House, speller, words

from dspy_optimization.adapters.postgres import Database, PostgresOptimizations
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.example import Split
from dspy_optimization.errors import ConflictError, InvalidRequestError, ModelError, StoreError
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.ledger import ChargeStatus, OptimizationId, Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import LanguageModel, ModelRequest, Price, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Event, EventType
from dspy_optimization.optimization.pulse import Beat, Heard
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, OptimizationStatus, Wish
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.statistics import Verdict
from dspy_optimization.tenancy import LOCAL_TENANT
from dspy_optimization.testing.memory_ledger import MemoryLedger
from dspy_optimization.testing.scripted_model import ScriptedModel

HouseOf = Callable[[LanguageModel], House]
GOOD = speller(lambda text: 0.8 if "LOUD" in text else 0.4)


def _telling(*texts: str) -> AlgorithmChoice:
    return AlgorithmChoice(name="telling", options={"texts": list(texts)})


def _result(house: House, optimization_id: OptimizationId) -> OptimizationResult:
    result = house.stores.results.result(optimization_id)
    assert result is not None
    return result


def _sealed_words() -> set[str]:
    return {str(example.inputs["word"]) for example in words()[Split.TEST]}


def _down_in_the_gate(after: int) -> Callable[[ModelRequest], str]:
    """A model that answers so many questions about test words, then fails once."""
    sealed, lock, asked = _sealed_words(), threading.Lock(), 0

    def answer(request: ModelRequest) -> str:
        nonlocal asked
        if any(word in str(request.body) for word in sealed):
            with lock:
                asked += 1
                if asked == after + 1:
                    raise ModelError("the server is away", retryable=True)
        return GOOD(request)

    return answer


@pytest.mark.parametrize("after", [0, 60, 100, 150])
@pytest.mark.parametrize("cap", [Limits(max_lm_calls=500), Limits(max_tokens=400_000)])
def test_an_interrupted_gate_goes_on_with_the_same_candidate(house_of: HouseOf, after: int, cap: Limits) -> None:
    """What the gate has spent since is no reason to end the replayed search early."""
    house = house_of(ScriptedModel(_down_in_the_gate(after)))
    constraints = Constraints(limits=cap, concurrency=4)
    optimization_id = house.accepted(algorithms=(_telling("Say it LOUD."),), constraints=constraints)

    first = house.run(optimization_id)
    second = house.run(optimization_id)

    result = _result(house, optimization_id)
    assert (OptimizationStatus.PAUSED, OptimizationStatus.COMPLETED) == (first.status, second.status)
    assert ("finished", "telling") == (result.ended_because, result.algorithm_used)
    assert result.validated is not None
    assert (Verdict.IMPROVED, 1) == (result.validated.verdict, result.validated.test_split_use)


def test_cancelled_in_the_ablation_keeps_its_verdict(house_of: HouseOf) -> None:
    """The sealed split was measured and told of: the result says so too."""
    stop = StopSignal()
    house = house_of(ScriptedModel(GOOD))
    optimization_id = house.accepted(algorithms=(_telling("Say it LOUD."),))

    class CancelledAfterTheGate(type(house.stores.events)):  # type: ignore[misc]
        def emit(self, event: Event) -> None:
            super().emit(event)
            if event.type is EventType.VERDICT:
                house.stores.optimizations.update(optimization_id, lambda now: replace(now, wish=Wish.CANCEL))
                while stop.reason is None:
                    time.sleep(0.02)

    events = CancelledAfterTheGate(house.stores.events._database, LOCAL_TENANT)
    optimizer = replace(house.optimizer, stores=replace(house.stores, events=events))

    ended = optimizer.run(optimization_id, stop)

    result = _result(house, optimization_id)
    assert (OptimizationStatus.CANCELLED, "cancelled") == (ended.status, result.ended_because)
    assert result.validated is not None
    assert Verdict.IMPROVED is result.validated.verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class _WaitingModels:
    """A model in whose queue a call about val stands for a minute."""

    def open(
        self, agent: AgentConfig, stop: StopSignal, fell_back: Callable[[Role, str, str, str], None]
    ) -> Mapping[Role, LanguageModel]:
        def answer(request: ModelRequest) -> str:
            if "LOUD" in str(request.body):
                stop.wait(60.0)
            return GOOD(request)

        return dict.fromkeys(Role, ScriptedModel(answer))

    def named(self, stop: StopSignal, fell_back: Callable[[Role, str, str, str], None]) -> Mapping[str, LanguageModel]:
        return {}


def test_the_time_limit_ends_what_waits(good_house: House) -> None:
    """Calls that stand in a model's queue or pause between attempts do not sit out the limit."""
    limits = Limits(max_seconds=4.0)
    optimization_id = good_house.accepted(constraints=Constraints(limits=limits, concurrency=4))
    optimizer = replace(good_house.optimizer, models=_WaitingModels())
    began = time.monotonic()

    optimizer.run(optimization_id, StopSignal())

    assert "max_seconds" == _result(good_house, optimization_id).ended_because
    assert time.monotonic() - began < 30.0


def test_who_loses_an_optimization_to_another_stops_paying(house_of: HouseOf, database: Database) -> None:
    """The database was away and another process took over: this one ends instead of asking everything once more."""
    gate, lost = threading.Event(), threading.Event()

    def answer(request: ModelRequest) -> str:
        if "LOUD" in str(request.body):
            gate.set()
            lost.wait(20.0)
            time.sleep(0.05)
        return GOOD(request)

    model = ScriptedModel(answer)
    house = house_of(model)

    class Taken(PostgresOptimizations):
        def beat(self, beats: Sequence[Beat]) -> Mapping[OptimizationId, Heard]:
            if not gate.is_set():
                return super().beat(beats)
            lost.set()
            error = ConflictError("another process took it over while the database was away")
            return {one.optimization_id: Heard(taken=error) for one in beats}

        def update(self, *args: object, **more: object) -> object:  # type: ignore[override]
            if lost.is_set():
                raise ConflictError("another process took it over while the database was away")
            return super().update(*args, **more)  # type: ignore[arg-type]

    optimizer = replace(house.optimizer, stores=replace(house.stores, optimizations=Taken(database, LOCAL_TENANT)))
    optimization_id = house.accepted(algorithms=(_telling(*[f"LOUD {index}" for index in range(30)]),))

    with pytest.raises(ConflictError):
        optimizer.run(optimization_id, StopSignal())

    assert len(model.requests) < 3 * len(words()[Split.VAL])


def test_a_moment_without_a_database_pauses_nothing(good_house: House) -> None:
    """Trials, events and steps are written once it is back, as the ledger's rows are."""
    away = iter([True, False] * 1000)
    lock = threading.Lock()

    class Blinking(type(good_house.stores.events)):  # type: ignore[misc]
        def emit(self, event: Event) -> None:
            with lock:
                gone = next(away)
            if gone:
                raise StoreError("the database is away")
            super().emit(event)

    class BlinkingTrials(type(good_house.stores.trials)):  # type: ignore[misc]
        def record(self, *args: object) -> bool:
            if next(away):
                raise StoreError("the database is away")
            return bool(super().record(*args))

    class BlinkingResults(type(good_house.stores.results)):  # type: ignore[misc]
        def open_test_split(self, *args: object) -> int:
            if next(away):
                raise StoreError("the database is away")
            return int(super().open_test_split(*args))

    database = good_house.stores.events._database
    stores = replace(
        good_house.stores,
        events=Blinking(database, LOCAL_TENANT),
        trials=BlinkingTrials(database, LOCAL_TENANT),
        results=BlinkingResults(database, LOCAL_TENANT),
    )
    optimizer = replace(good_house.optimizer, stores=stores)
    optimization_id = good_house.accepted(constraints=Constraints(limits=Limits(max_lm_calls=500), concurrency=4))

    ended = optimizer.run(optimization_id, StopSignal())

    told = [one.event.type for one in good_house.stores.events.events(optimization_id)]
    assert (OptimizationStatus.COMPLETED, None) == (ended.status, ended.error)
    assert EventType.BUDGET_WARNING in told


def test_a_warning_nobody_can_be_told_of_loses_no_answer() -> None:
    """The teller fails for good; the answer that was paid is on the bill and in the ledger."""
    store = MemoryLedger()

    def warn(_: object) -> None:
        raise StoreError("the database is away")

    def session() -> LedgerSession:
        model = ScriptedModel(GOOD, price=Price(prompt_usd=1.0, completion_usd=1.0))
        return LedgerSession.open(
            store,
            OptimizationId(uuid4()),
            models=dict.fromkeys(Role, model),
            limits=Limits(max_lm_calls=1),
            now=lambda: datetime.now(UTC),
            warn=warn,
        )

    request = ModelRequest(body={"messages": [{"role": "user", "content": "[[ ## word ## ]]\nabc007\n"}]})
    with session() as first, pytest.raises(BaseException, match="away"):
        first.scope("x", StopSignal()).call(Role.TASK, request)

    assert [ChargeStatus.SETTLED] == [charge.status for charge in store.charges]
    assert 1 == len(store._answers)


def test_a_worn_out_test_split_is_refused_before_anything_is_paid(good_house: House) -> None:
    """From the 22nd use on no test reaches its level: the message asks for fresh examples."""
    dataset = words()
    for _ in range(21):
        optimization_id = good_house.accepted(dataset=dataset)
        good_house.stores.results.open_test_split(dataset.version, optimization_id)

    with pytest.raises(InvalidRequestError) as refused:
        good_house.accepted(dataset=dataset)

    assert "use 22 of this one" in str(refused.value)
    assert "fresh test examples" in str(refused.value)


def test_a_split_worn_out_meanwhile_costs_no_gate(house_of: HouseOf) -> None:
    """Others used it up between acceptance and gate: nothing is asked about a test word."""
    model = ScriptedModel(GOOD)
    house = house_of(model)
    dataset = words()
    ids = [house.accepted(dataset=dataset, agent=replace(AGENT, name=f"capitals{index}")) for index in range(22)]
    for one in ids[1:]:
        house.stores.results.open_test_split(dataset.version, one)

    ended = house.run(ids[0])

    assert OptimizationStatus.FAILED is ended.status
    assert "fresh test examples" in str(ended.error)
    assert not [one for one in model.requests if any(word in str(one.body) for word in _sealed_words())]


def test_a_row_says_when_it_changed(house_of: HouseOf) -> None:
    """Trackers take it for the end of what ended without a result."""
    house = house_of(ScriptedModel(_down_in_the_gate(0)))
    optimization_id = house.accepted()

    ended = house.run(optimization_id)

    assert OptimizationStatus.PAUSED is ended.status
    assert ended.updated_at > ended.request.created_at
    assert ended.updated_at == house.stores.optimizations.get(optimization_id).updated_at


def test_what_a_piece_of_work_takes_counts_judges_and_replays_alike() -> None:
    """Every different call once, at what its own model costs, whether it was paid now or before."""
    store, optimization_id = MemoryLedger(), OptimizationId(uuid4())
    task = ScriptedModel(GOOD, price=Price(prompt_usd=1.0, completion_usd=1.0))
    judge = ScriptedModel(GOOD, price=Price(prompt_usd=100.0, completion_usd=100.0), identity="judge")
    models = {Role.TASK: task, Role.REFLECTION: task, Role.JUDGE: judge}

    def asked() -> Spend:
        with LedgerSession.open(
            store,
            optimization_id,
            models=models,
            limits=Limits(),
            now=lambda: datetime.now(UTC),
            warn=lambda warning: None,
        ) as session:
            scope = session.scope("baseline", StopSignal())
            for word in ("abc001", "abc001", "abc002"):
                content = f"[[ ## word ## ]]\n{word}\n"
                request = ModelRequest(body={"messages": [{"role": "user", "content": content}]})
                scope.call(Role.TASK, request)
                scope.call(Role.JUDGE, request)
            return scope.taken

    first, again = asked(), asked()

    bill = store.bill(optimization_id).total
    assert first == again
    assert (4, bill.tokens, pytest.approx(bill.cost_usd)) == (first.calls, first.tokens, first.cost_usd)
