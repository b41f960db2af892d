"""adversarial scratch"""
import pytest
from optimization_house import House, build_house, speller, words
from test_optimizer import _telling, _result, _verdict, TEXTS, HouseOf
from dspy_optimization.errors import ModelError
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import ModelRequest
from dspy_optimization.optimization.request import Constraints
from dspy_optimization.agents.example import Split
from dspy_optimization.testing.scripted_model import ScriptedModel


@pytest.mark.parametrize("cap", [400, 500])
def test_gate_resume(house_of: HouseOf, cap: int) -> None:
    dataset = words()
    sealed = {str(example.inputs["word"]) for example in dataset[Split.TEST]}
    speak = speller(lambda text: 0.8 if "LOUD" in text else 0.4)
    seen = [0]
    down = [True]

    def answer(request: ModelRequest) -> str:
        if any(word in str(request.body) for word in sealed):
            seen[0] += 1
            if down[0] and seen[0] > 100:
                raise ModelError("away", retryable=True)
        return speak(request)

    house = house_of(ScriptedModel(answer))
    print(len(dataset[Split.VAL]), len(dataset[Split.TEST]))
    oid = house.accepted(algorithms=(_telling("Say it LOUD."),), constraints=Constraints(limits=Limits(max_lm_calls=cap), concurrency=4))
    first = house.run(oid)
    print(first.status, first.error, house.stores.ledger.bill(oid).total.calls)
    down[0] = False
    second = house.run(oid)
    r = _result(house, oid)
    print(second.status, second.error, r.ended_because, _verdict(house, oid), r.optimized == r.baseline, r.bill.total.calls)
    assert r.optimized != r.baseline
