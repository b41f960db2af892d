"""Means of everybody measured on all of val, and what a pick would be: over HTTP, while it runs and afterwards."""

from datetime import UTC, datetime, timedelta
from math import fsum

import pytest

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.optimization.contender import contenders
from dspy_optimization.optimization.request import OptimizationStatus as Status
from dspy_optimization.optimization.search import Scoreboard
from evidence_world import ACCURACY, COST, Kept, candidate_of, keep
from web_world import Keyed

pytestmark = pytest.mark.xdist_group("service")

CHEAP = Objective(metric="cost_usd", direction=Direction.MINIMIZE)


def board_of(kept: Kept, *objectives: Objective) -> Scoreboard:
    """What the optimizer itself knows of these trials."""
    first = kept.trials[0].results
    cost = fsum(one.scores["cost_usd"].value for one in first) / len(first)
    goals = Objectives(items=objectives).with_scales({"cost_usd": cost})
    board = Scoreboard(goals, kept.dataset[Split.VAL])
    for trial in kept.trials:
        board.add(trial.candidate, trial.split, trial.results, trial.algorithm, trial.iteration)
    return board


@pytest.mark.parametrize(
    ("objectives", "status"), [((ACCURACY, CHEAP), Status.RUNNING), ((ACCURACY, COST), Status.COMPLETED)]
)
def test_means_are_those_the_optimizer_has(keyed: Keyed, objectives: tuple[Objective, ...], status: Status) -> None:
    """Candidates whose trials make all of val together too; guardrails by the optimizer's own rule."""
    kept = keep(
        keyed.database, 60, objectives=objectives, status=status, parts=0.5, ended=datetime.now(UTC) - timedelta(days=1)
    )
    answer = keyed.ask(f"/api/v1/optimizations/{kept.id}/means", who="viewer").json()
    everybody = contenders(board_of(kept, *objectives), candidate_of(0))

    assert ("val", 12) == (answer["measured_on"], answer["n"])
    assert [one.metric for one in objectives if not one.guardrail] == answer["goals"]
    found = {one["candidate"]: one for one in answer["items"]}
    assert {one.fingerprint for one in everybody} == set(found)
    assert any(sum(trial.candidate == one.candidate for trial in kept.trials) > 1 for one in everybody)
    for one in everybody:
        told = found[one.fingerprint]
        assert one.means == pytest.approx(told["means"])
        assert (one.guardrails_hold, one.is_baseline) == (told["guardrails_hold"], told["is_baseline"])
    assert all(one["guardrails_hold"] for one in answer["items"]) is (COST not in objectives)


def test_means_are_of_one_tenant_and_of_what_is_there(keyed: Keyed) -> None:
    """Another tenant's optimization is as unknown as any; nobody measured is an empty list."""
    kept = keep(keyed.database, 3)
    queued = keep(keyed.database, 0, status=Status.RUNNING)

    assert 404 == keyed.ask(f"/api/v1/optimizations/{kept.id}/means", who="other").status_code
    (only,) = keyed.ask(f"/api/v1/optimizations/{queued.id}/means").json()["items"]
    assert candidate_of(0).fingerprint == only["candidate"]


def test_what_a_pick_would_be_is_for_who_may_pick(keyed: Keyed) -> None:
    """Viewers look at fronts and spend nothing; what cannot be picked says why, as the pick itself does."""
    going_on = keep(keyed.database, 3, status=Status.RUNNING)
    path = f"/api/v1/optimizations/{going_on.id}/pick"
    name = Fingerprint(going_on.trials[-1].candidate.fingerprint)

    assert 403 == keyed.ask(path, who="viewer", params={"candidate": name}).status_code
    assert 422 == keyed.ask(path).status_code
    refused = keyed.ask(path, params={"candidate": name})
    assert (409, True) == (refused.status_code, "wait until it ends" in refused.json()["detail"])
    posted = keyed.ask(path, method="POST", json={"candidate": name})
    assert (posted.status_code, posted.json()["detail"]) == (refused.status_code, refused.json()["detail"])
