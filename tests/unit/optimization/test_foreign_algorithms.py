"""Foreign algorithms at work: what they do wrong ends in a sentence, and the optimization in good order."""

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pytest
from optimization_house import House, speller, words

import bad_algorithms as bad
from dspy_optimization.agents.example import Split
from dspy_optimization.algorithms.option_fields import options_from_json
from dspy_optimization.algorithms.problem import Algorithm
from dspy_optimization.errors import CancelRequested
from dspy_optimization.evaluation.model import LanguageModel, ModelRequest
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import EventType, Json
from dspy_optimization.optimization import turns
from dspy_optimization.optimization.request import AlgorithmChoice, Optimization, OptimizationStatus
from dspy_optimization.statistics import Verdict
from dspy_optimization.testing.scripted_model import ScriptedModel

HouseOf = Callable[[LanguageModel], House]


@dataclass(frozen=True, slots=True)
class Only:
    """A registry of one."""

    algorithm: Algorithm

    def get(self, name: str) -> Algorithm:
        return self.algorithm

    def options(self, name: str, given: Mapping[str, Json]) -> object:
        return options_from_json(name, self.algorithm.options, given)


def _run(house: House, algorithm: Algorithm, stop: StopSignal | None = None) -> tuple[House, Optimization]:
    only = Only(algorithm)
    mine = replace(
        house,
        optimizer=replace(house.optimizer, algorithms=only),
        intake=replace(house.intake, algorithms=only),
    )
    optimization_id = mine.accepted(algorithms=(AlgorithmChoice(name="trying"),))
    return mine, mine.optimizer.run(optimization_id, StopSignal() if stop is None else stop)


@pytest.fixture
def house(house_of: HouseOf) -> House:
    """Its model spells 40 % right, and 80 % when it is told to SHOUT."""
    return house_of(ScriptedModel(speller(lambda text: 0.8 if "SHOUT" in text else 0.4)))


def test_one_that_is_right_is_not_hindered(house: House) -> None:
    """All it records is kept, and it wins."""
    mine, ended = _run(house, bad.Trying())

    result = mine.stores.results.result(ended.request.id)
    assert result is not None
    assert result.validated is not None
    assert (OptimizationStatus.COMPLETED, Verdict.IMPROVED) == (ended.status, result.validated.verdict)
    assert ("trying", 4) == (result.algorithm_used, result.trials)


@pytest.mark.parametrize(
    ("algorithm", "sentence"),
    [
        (bad.Cheating(), "wanted: results that this search got from evaluate for this candidate"),
        (bad.Lending(), "wanted: results that this search got from evaluate for this candidate"),
        (bad.Forging(), "found: other content under its id"),
        (bad.Peeking(), "only the gate opens the test split"),
        (bad.Adding(), "wanted: a candidate with a value for each of self"),
        (bad.Leaving(), "SystemExit: I have had enough"),
        (bad.Breaking(), "ZeroDivisionError: division by zero"),
        (bad.Pretending(), "CancelRequested: a person, surely"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, bad.Trying) else "",
)
def test_what_it_may_not_fails_the_optimization_with_a_sentence(
    house: House, algorithm: Algorithm, sentence: str
) -> None:
    """Nothing made up is kept, and the process goes on."""
    mine, ended = _run(house, algorithm)

    assert OptimizationStatus.FAILED is ended.status
    assert sentence in str(ended.error)
    kept = [one.algorithm for one in mine.stores.trials.trials(ended.request.id)]
    assert {"baseline"} == set(kept)


def test_a_refusal_that_is_swallowed_is_told_all_the_same(house: House) -> None:
    """Who goes on after a refusal does not make it unsaid."""

    class Quiet(bad.Cheating):
        """Swallows what it is told."""

        def search(self, problem: object, run: object) -> None:
            try:
                super().search(problem, run)  # type: ignore[arg-type]
            except Exception:  # noqa: BLE001
                return

    _, ended = _run(house, Quiet())

    assert OptimizationStatus.FAILED is ended.status
    assert "wanted: results that this search got from evaluate" in str(ended.error)


def test_a_guess_that_is_scored_does_not_pass_the_gate(house: House) -> None:
    """A search can fool itself with predictions it made up; the gate runs the candidate."""
    mine, ended = _run(house, bad.Guessing())

    result = mine.stores.results.result(ended.request.id)
    assert result is not None
    assert result.validated is not None
    measured = result.validated.optimized_performance["success_rate"].value
    assert measured < 0.95


def _cancelled(house: House, algorithm: Algorithm, stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "GRACE_SECONDS", 1.0)
    began = time.monotonic()

    mine, ended = _run(house, algorithm, stop)

    assert OptimizationStatus.CANCELLED is ended.status
    assert time.monotonic() - began < 20.0
    told = [one.event for one in mine.stores.events.events(ended.request.id)]
    assert EventType.ALGORITHM_STARTED in [one.type for one in told]


def test_one_that_hangs_is_left_behind_when_it_is_cancelled(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person cancels; after a grace the optimization ends as cancelled, whatever its thread does."""
    stop = StopSignal()

    _cancelled(house, bad.Hanging(lambda: stop.stop(CancelRequested("enough"))), stop, monkeypatch)


def test_one_that_asks_again_for_ever_is_left_behind(house_of: HouseOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is busy, but with nothing that is answered."""
    stop = StopSignal()
    spell = speller(lambda text: 0.4)
    n_val = len(words()[Split.VAL])
    asked = itertools.count(1)

    def answer(request: ModelRequest) -> str:
        if next(asked) == n_val + 20:
            stop.stop(CancelRequested("enough"))
        return spell(request)

    _cancelled(house_of(ScriptedModel(answer)), bad.Stubborn(), stop, monkeypatch)


def test_one_that_swallows_stops_ends_with_its_caps(house: House) -> None:
    """What it is refused it cannot pay for."""
    _, ended = _run(house, bad.Swallowing())

    assert OptimizationStatus.COMPLETED is ended.status
