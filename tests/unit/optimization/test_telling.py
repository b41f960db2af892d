"""What happened is told, whenever its process died."""

from collections import Counter
from dataclasses import replace

import pytest
from optimization_house import House

from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.trial import Trial
from dspy_optimization.events import EventType
from dspy_optimization.tenancy import LOCAL_TENANT


class Killed(BaseException):
    """Stands for kill -9: nothing after it happens."""


@pytest.mark.parametrize("at", [1, 2])
def test_a_trial_is_told_of_although_its_process_died_before_it_told(good_house: House, at: int) -> None:
    """The trial is durable, its event is not: whoever goes on tells of it, and of no trial twice."""
    recorded = 0

    class Dying(type(good_house.stores.trials)):  # type: ignore[misc]
        def record(self, optimization_id: OptimizationId, trial: Trial) -> bool:
            nonlocal recorded
            recorded += 1
            kept = bool(super().record(optimization_id, trial))
            if recorded == at:
                raise Killed
            return kept

    stores = replace(good_house.stores, trials=Dying(good_house.stores.events._database, LOCAL_TENANT))
    optimization_id = good_house.accepted()
    with pytest.raises(Killed):
        replace(good_house.optimizer, stores=stores).run(optimization_id, StopSignal())
    good_house.run(optimization_id)

    events = [one.event for one in good_house.stores.events.events(optimization_id)]
    told = Counter(
        (one.data["candidate"], one.data["split"], one.data["algorithm"])
        for one in events
        if one.type is EventType.TRIAL_RECORDED
    )
    kept = Counter(
        (one.candidate.fingerprint, one.split.value, one.algorithm)
        for one in good_house.stores.trials.trials(optimization_id)
    )
    assert kept == told
