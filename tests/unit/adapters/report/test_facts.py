"""The report, gathered from what was kept."""

import json
import shlex
from dataclasses import replace

import pytest
from report_sample import (
    BASELINE,
    CLASSIFY,
    COST,
    bill,
    dataset,
    events,
    material,
    optimization,
    result,
    sample,
    story,
    validated,
)

from dspy_optimization.adapters.report.facts import collect
from dspy_optimization.adapters.report.reproduce import installed_versions
from dspy_optimization.agents.example import Split
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Role
from dspy_optimization.events import EventType
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.store import Stores


def test_a_finished_one_shows_the_candidate_of_its_result() -> None:
    """Everything a person asks for is there."""
    shown = sample()

    assert shown.validated is not None
    assert shown.chosen is not None
    assert [CLASSIFY] == [change.component for change in shown.changes if change.changed]
    assert shown.examples is not None
    assert 100 == shown.examples.n
    assert shown.sealed is not None
    assert shown.answer_before is not None
    assert shown.answer_after is not None
    assert shown.is_running is False


def test_a_running_one_shows_the_best_so_far_and_claims_nothing() -> None:
    """During the search there is a leader and no proof."""
    trials = story(dataset()).trials[:12]

    shown = sample(result=None, optimization=optimization(OptimizationStatus.RUNNING), trials=trials)

    assert shown.curves.leader is not None
    assert shown.curves.leader.candidate == shown.chosen
    assert BASELINE == shown.baseline
    assert (None, None, True) == (shown.validated, shown.sealed, shown.is_running)


def test_one_that_never_began_has_nothing_to_show() -> None:
    """No trials, no candidates, no error."""
    shown = sample(result=None, optimization=optimization(OptimizationStatus.QUEUED), trials=(), events=())

    assert (None, None, (), None, ()) == (shown.baseline, shown.chosen, shown.changes, shown.examples, shown.notices)


def test_nothing_better_shows_no_examples_that_changed() -> None:
    """The baseline compared with itself says nothing."""
    shown = sample(result=result(BASELINE, validated(dataset(), BASELINE)))

    assert (None, None) == (shown.examples, shown.answer_after)
    assert all(not change.changed for change in shown.changes)


def test_notices_tell_each_fact_once() -> None:
    """Caps, fallbacks, broken algorithms, resumes and a tracker that was away."""
    told = events(
        (EventType.OPTIMIZATION_RESUMED, {}),
        (EventType.MODEL_FALLBACK, {"role": "task", "wanted": "big", "used": "small", "reason": "busy"}),
        (EventType.ALGORITHM_ENDED, {"algorithm": "simba", "outcome": "failed", "error": "ValueError: no"}),
        (EventType.ALGORITHM_ENDED, {"algorithm": "gepa", "outcome": "finished", "error": None}),
        (EventType.TRACKING_FAILED, {"error": "nobody listens"}),
    )

    notices = sample(events=told).notices

    assert (
        "50% of the cap max_lm_calls = 4000 were used.",
        "It was interrupted and resumed; what had been answered before was not paid again.",
        "For the role task, small answered instead of big: busy.",
        "The algorithm simba broke and was left out: ValueError: no",
        "MLflow did not take it: nobody listens",
    ) == notices


def test_the_same_again_is_a_command_a_shell_reads_back() -> None:
    """Objectives but guardrails, algorithms with options, caps, seed; quoted."""
    limits = Limits(max_lm_calls=4000, max_cost_usd=5.0, max_tokens=10_000_000, max_seconds=7200)
    whole = material()
    constraints = replace(whole.optimization.request.constraints, limits=limits)
    objectives = (*whole.optimization.request.objectives, replace(COST, metric="latency", guardrail=False, weight=0.5))
    request = replace(whole.optimization.request, constraints=constraints, objectives=objectives)

    asked = replace(whole.optimization, request=request)
    again = sample(optimization=asked, result=None, trials=()).reproduction

    assert (
        "dspy-opt optimize agent.yaml --objective exact_match:max --objective latency:min:0.5 "
        "--algorithm miprov2 --option miprov2.num_candidates=6 --algorithm gepa --option 'gepa.note=it'\"'\"'s' "
        "--max-calls 4000 --max-usd 5 --max-tokens 10000000 --time-limit 7200s --min-gain 0.05 --seed 7 "
        "--concurrency 8"
    ) == again.command
    assert shlex.split(again.command) == shlex.split("".join(line.removesuffix("\\") for line in again.lines(60)))
    assert all(len(line) <= 60 for line in again.lines(60))
    assert {Split.TRAIN: 80, Split.VAL: 100, Split.TEST: 200} == again.split_sizes
    assert {"python", "dspy", "numpy"} <= set(installed_versions())


@pytest.mark.parametrize("with_result", [True, False])
def test_collecting_reads_the_stores(with_result: bool) -> None:
    """The bill is the result's own, or what the ledger has so far."""
    whole = material() if with_result else material(result=None)

    found = collect(_kept(whole), whole.optimization.request.id, {Role.TASK: "model"})

    assert replace(whole, models={Role.TASK: "model"}) == found
    assert json.loads(json.dumps(found.bill.answered_from_ledger)) == bill().answered_from_ledger


class _Kept:
    """Stores that hold one optimization."""

    def __init__(self, whole: object) -> None:
        self._whole = whole

    def __getattr__(self, name: str) -> object:
        return lambda *_: getattr(self._whole, name)


def _kept(whole: object) -> Stores:
    class Getting(_Kept):
        def __init__(self, held: object) -> None:
            super().__init__(whole)
            self.get = lambda _: held

    kept = _Kept(whole)
    return Stores(
        optimizations=Getting(whole.optimization),
        agents=Getting(whole.agent),
        datasets=Getting(whole.dataset),
        trials=kept,
        results=kept,
        events=kept,
        ledger=kept,
    )
