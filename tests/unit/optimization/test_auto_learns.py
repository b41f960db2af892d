"""From optimizations that were carried out to what `auto` makes of them."""

import itertools
from dataclasses import replace
from uuid import UUID

import pytest
from optimization_house import AGENT, House, words

from dspy_optimization.agents.objective import Objective
from dspy_optimization.errors import InvalidRequestError, NotFoundError
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.optimization.experience import NEEDED
from dspy_optimization.optimization.intake import Proposal
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints, OptimizationStatus

OF_RULES = ("labeled_fewshot", "bootstrap_fewshot")
PORTFOLIO = (AlgorithmChoice(name="telling"), AlgorithmChoice(name="other"))


class Rules:
    """The registry of the house, with the names that rules take."""

    def __init__(self, house: House, gone: str = "") -> None:
        self._own = house.intake.algorithms
        self._gone = gone

    def get(self, name: str) -> object:
        return self._own.get(name)

    def options(self, name: str, given: object) -> object:
        if name == self._gone:
            raise NotFoundError(f"no algorithm is called {name}")
        return {} if name in OF_RULES else self._own.options(name, given)


def proposal(seed: int = 0, **changes: object) -> Proposal:
    given = Proposal(
        agent=AGENT,
        dataset=words(60),
        objectives=(Objective(metric="exact"),),
        constraints=Constraints(limits=Limits(max_lm_calls=400), concurrency=4, seed=seed),
    )
    return replace(given, **changes)


def test_auto_goes_by_what_was_carried_out(good_house: House) -> None:
    """Two algorithms that do the same share the calls; what is estimated is what is accepted."""
    # Known ids: whether something is explored depends on the newest.
    ids = itertools.count(1)
    intake = replace(good_house.intake, algorithms=Rules(good_house), new_id=lambda: UUID(int=next(ids)))
    for seed in range(NEEDED):
        checked = intake.check(proposal(seed, algorithms=PORTFOLIO, dataset=words(60, seed)))
        ended = good_house.run(intake.accept(checked).request.id)
        assert OptimizationStatus.COMPLETED is ended.status

    estimated, accepted = intake.check(proposal(7)), intake.check(proposal(7))
    kept = intake.accept(accepted)
    gone = replace(intake, algorithms=Rules(good_house, gone="telling")).check(proposal())

    assert estimated == accepted
    assert {"telling", "other"} == {one.name for one in estimated.algorithms}
    assert f"{NEEDED} past optimizations like this one: " in str(estimated.reason)
    assert "the past cannot tell" in str(estimated.reason)
    assert accepted.algorithms == kept.request.algorithms
    assert accepted.situation == good_house.stores.optimizations.get(kept.request.id).request.situation
    assert list(OF_RULES) == [one.name for one in gone.algorithms]
    assert f"not enough yet: {NEEDED} past optimizations like this one (other in {NEEDED})" in str(gone.reason)


def test_the_past_is_not_read_where_algorithms_are_named(good_house: House) -> None:
    """Only `auto` asks for it."""

    def refuse() -> list[object]:
        raise InvalidRequestError("asked")

    intake = replace(good_house.intake, lessons=refuse)

    assert intake.check(proposal(algorithms=PORTFOLIO)).reason is None
    with pytest.raises(InvalidRequestError, match="asked"):
        intake.check(proposal())
