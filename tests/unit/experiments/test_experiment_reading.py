"""An experiment that was kept is read as it was, at every step of its life."""

import json
from dataclasses import replace
from typing import Any

import pytest
from experiment_world import ERRORS, LATENCY, hours, plan

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.experiments.decision import Decision, DecisionState
from dspy_optimization.experiments.experiment import Experiment, ExperimentStatus
from dspy_optimization.experiments.experiment_reading import experiment_from_json
from dspy_optimization.experiments.plan import Terms
from dspy_optimization.experiments.split import Variant

PLANNED = Experiment.planned(plan(guardrails=(LATENCY, ERRORS), terms=Terms(fdr_alpha=0.01)), created_at=hours(-1))
RUNNING = PLANNED.start(at=hours(0))
RAISED = RUNNING.raise_split(0.6, at=hours(1)).raise_split(0.75, at=hours(2)).extend(300.5, at=hours(3))
DECISION = Decision(
    state=DecisionState.HARM,
    winner=Variant.BASELINE,
    confidence=0.1 + 0.2,
    deployment_recommended=False,
    ends=True,
    decided_at=hours(200),
    reason="Rolled back: ä.",
)
ENDED = replace(
    RAISED,
    status=ExperimentStatus.ROLLED_BACK,
    decision=DECISION,
    alerted_at=hours(168),
    ended_at=hours(200),
    ended_because="\ud800 half",
)


@pytest.mark.parametrize("experiment", [PLANNED, RUNNING, RAISED, RAISED.stop("enough", at=hours(4)), ENDED])
def test_an_experiment_is_read_as_it_was(experiment: Experiment) -> None:
    """Through JSON text, with the same plan hash."""
    found = experiment_from_json(json.loads(json.dumps(experiment.to_json(), allow_nan=False)))

    assert experiment == found
    assert experiment.plan.hash == found.plan.hash


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"version": 2}, "wanted: version 1; found: 2"),
        ({"strange": 1}, "'strange' is no known key"),
        ({"splits": []}, r"experiment\.splits"),
        ({"splits": [{"at": hours(0).isoformat(), "split_buckets": 0}]}, r"splits\[0\]\.split_buckets"),
        ({"created_at": "2026-03-02"}, "a moment with its time zone"),
        ({"started_at": "soon"}, "a moment in ISO 8601"),
        ({"status": "paused"}, "'paused' is not known"),
        ({"until_hours": "168"}, "until_hours"),
        ({"ended_because": 7}, "ended_because"),
        ({"plan": None}, "plan"),
        ({"decision": {"state": "harm"}}, "decision"),
    ],
)
def test_anything_else_is_refused(changed: dict[str, Any], part: str) -> None:
    """The message names the field."""
    with pytest.raises(InvalidRequestError, match=part):
        experiment_from_json({**RUNNING.to_json(), **changed})
