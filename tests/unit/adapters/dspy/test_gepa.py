"""GEPA: what it reflects on, what it may spend, and that it always draws the same."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from search_world import FakeRun, Shouter, agent_of, problem_of

from dspy_optimization.adapters.dspy.feedback import feedback_on
from dspy_optimization.adapters.dspy.gepa import GEPA, GEPAOptions, _Listener, perfect_utility
from dspy_optimization.adapters.dspy.gepa_adapter import SearchAdapter, SteadyName
from dspy_optimization.adapters.dspy.search import dspy_search
from dspy_optimization.adapters.dspy.student import StudentRun
from dspy_optimization.agents.candidate import ComponentName
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.agents.example import Example, ExampleId, Prediction, Split, Step
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import ModelRequest, Role
from dspy_optimization.evaluation.trial import ExampleResult


def searched(options: GEPAOptions, kind: AgentKind = AgentKind.PREDICT, **settings: object) -> FakeRun:
    """Return the run of a finished search."""
    sizes = {name: settings.pop(name) for name in ("train", "val", "concurrency", "seed") if name in settings}
    agent = agent_of(kind)
    run = FakeRun(agent, **settings)
    GEPA().search(problem_of(GEPA(), agent, options, **sizes), run)
    return run


class HalfReadable(Shouter):
    """Reasons and then forgets to answer: the format is kept in part. Keeps what reflection is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def answer(self, role: Role, request: ModelRequest) -> str:
        if role is Role.REFLECTION:
            self.shown.append(str(request.body["messages"][-1]["content"]))
            return super().answer(role, request)
        said = super().answer(role, request)
        return said if "SHOUT" in str(request.body) else said.split("[[ ## answer")[0]


def test_answers_that_parse_in_part_are_reflected_on() -> None:
    """`bootstrap_trace` divides two lists there and drops the example; nothing would be left to reflect on."""
    model = HalfReadable()
    run = searched(GEPAOptions(iterations=6), AgentKind.CHAIN_OF_THOUGHT, model=model)

    assert "unusable_answer" in model.shown[0]
    assert "the answer lacks the field answer" in model.shown[0]
    assert any("SHOUT" in part.instructions for part in run.submitted[0].components.values())


def test_every_run_is_scored_once() -> None:
    """Feedback needs no second opinion of the metric: a judge would be paid twice."""
    run = searched(GEPAOptions(iterations=5))
    calls = [one.data["metric_calls"] for one in run.progress if "metric_calls" in one.data]

    assert calls[-1] == len(run.scored)


@pytest.mark.parametrize("cap", [14, 20, 33, 50])
@pytest.mark.parametrize("width", [1, 2])
def test_the_cap_on_metric_calls_holds(cap: int, width: int) -> None:
    """gepa itself looks at the cap between iterations and goes past it."""
    options = GEPAOptions(iterations=50, max_metric_calls=cap, proposals_per_iteration=width, merge=False)
    if cap < 4 + width * (6 + 4):
        with pytest.raises(InvalidRequestError, match="gepa: max_metric_calls: wanted 24 or more"):
            searched(options, val=4)
        return
    run = searched(options, val=4)

    assert len(run.scored) <= cap
    assert any("metric_calls" in one.data for one in run.progress)


def test_proposals_are_asked_at_once_and_are_the_same() -> None:
    """One thread and four make the same proposals from the same requests."""
    options = GEPAOptions(iterations=4, proposals_per_iteration=3)
    alone = searched(options, AgentKind.PIPELINE, concurrency=1)
    together = searched(options, AgentKind.PIPELINE, concurrency=4)

    assert alone.submitted == together.submitted
    assert sorted(alone.paid) == sorted(together.paid)
    assert [(one, step) for one, _, _, step in alone.recorded] == [(one, step) for one, _, _, step in together.recorded]


class Watching(Shouter):
    """Keeps the draws reflection asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.samples: list[tuple[str, str]] = []

    def answer(self, role: Role, request: ModelRequest) -> str:
        if role is Role.REFLECTION:
            self.samples.append((str(request.body["messages"]), request.sample))
            return '{"new_instruction": "Repeat the word."}'
        return super().answer(role, request)


def test_the_same_minibatch_gets_a_new_draw() -> None:
    """The ledger, as DSPy's cache, would answer the same proposal for ever."""
    model = Watching()
    options = GEPAOptions(iterations=4, reflection_minibatch_size=1, skip_perfect_minibatches=False)
    searched(options, model=model, train=1)

    assert 1 == len({asked for asked, _ in model.samples})
    assert ["", "1", "2", "3"] == [sample for _, sample in model.samples]


def test_names_have_the_same_place_in_every_process() -> None:
    """A set of strings has another order under every PYTHONHASHSEED, and merging goes by it."""
    code = (
        "from dspy_optimization.adapters.dspy.gepa_adapter import SteadyName as N;"
        "print(list({N(x) for x in ('first','second','third','fourth','fifth','sixth')}))"
    )
    orders = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert 1 == len(orders)
    assert {SteadyName("first"): 1} == {"first": 1} or hash(SteadyName("first")) != hash("first")


def test_lineage_goes_from_parent_to_child() -> None:
    """A candidate of the second generation names the one it was made of."""
    generations = set()
    for seed in range(4):
        options = GEPAOptions(iterations=8, proposals_per_iteration=2, skip_perfect_minibatches=False)
        run = searched(options, AgentKind.PIPELINE, seed=seed)
        generation = {run.agent.baseline.fingerprint: 0}
        for candidate, *_ in run.recorded:
            if candidate != run.agent.baseline:
                generation[candidate.fingerprint] = 1 + max(generation[parent] for parent in candidate.parents)
        generations |= set(generation.values())

    assert {0, 1, 2} <= generations


def test_a_merged_candidate_has_two_parents() -> None:
    """What gepa merges comes from both."""
    agent = agent_of(AgentKind.PIPELINE)
    problem = problem_of(GEPA(), agent)
    run = FakeRun(agent)
    with dspy_search(problem, run, "gepa") as search:
        adapter = SearchAdapter(search, None, None)
        seed = adapter.seed_candidate
        first, second = (dict(seed) | {name: "SHOUT."} for name in seed)
        both = dict.fromkeys(seed, "SHOUT.")
        listener = _Listener(search, adapter, SimpleNamespace(iterations=1))
        for index, texts in enumerate((first, second)):
            listener.on_valset_evaluated({"candidate_idx": index, "candidate": texts})
        listener.on_merge_attempted({"merged_candidate": both, "parent_ids": [0, 1]})
        parents, merged = [search.book.candidate(adapter.build_program(one)) for one in (first, second)], None
        merged = search.book.candidate(adapter.build_program(both))

    assert tuple(one.fingerprint for one in parents) == merged.parents


@pytest.mark.parametrize("frontier", ["instance", "objective", "hybrid", "cartesian"])
def test_every_frontier_works(frontier: str) -> None:
    """Objectives shape who becomes a parent."""
    run = searched(GEPAOptions(iterations=4, frontier=frontier))

    assert run.submitted


def test_train_minibatches_are_trials_too() -> None:
    """They are on train, so they never decide."""
    run = searched(GEPAOptions(iterations=3))
    splits = [split for _, split, _, _ in run.recorded]

    assert splits[0] is Split.VAL
    assert Split.TRAIN in splits


def test_full_marks_are_known_only_where_they_exist() -> None:
    """Dollars have no best value."""
    best = Objectives(items=(Objective(metric="a"), Objective(metric="b", weight=3.0)), ceilings={"b": 2.0})
    cost = Objectives(items=(Objective(metric="a"), Objective(metric="c", direction=Direction.MINIMIZE)))

    assert pytest.approx(1.75) == perfect_utility(best)
    assert perfect_utility(cost) is None


def test_feedback_says_what_came_and_what_was_wanted() -> None:
    """Per component, with the place where the program broke."""
    example = Example(id=ExampleId("1"), inputs={"word": "a"}, expected={"answer": "A"})
    name, other = ComponentName("first"), ComponentName("second")
    step = Step(component=other, inputs={}, outputs={}, failure="no answer")
    prediction = Prediction(outputs={}, steps=(step,), failure="second: no answer")
    run = StudentRun(None, prediction, [], None)
    scores = {"shout": Score(value=0.0, feedback="second: no answer", failure="second: no answer")}
    run.result = ExampleResult(example_id=example.id, scores=scores, outputs={})

    assert (
        "shout = 0\nThe program failed: second: no answer\nIt broke in second, after first had answered.\n"
        'Expected: {"answer":"A"}'
    ) == feedback_on(run, example, name)
    assert "It broke" not in feedback_on(run, example, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations: wanted 1"),
        ({"reflection_minibatch_size": 0}, "reflection_minibatch_size: wanted 1"),
        ({"proposals_per_iteration": 0}, "proposals_per_iteration: wanted 1"),
        ({"max_merges": -1}, "max_merges: wanted 0"),
        ({"reflection_temperature": 0.0}, "reflection_temperature: wanted more than 0"),
        ({"max_instruction_characters": 0}, "max_instruction_characters: wanted 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    """What was wanted and what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        GEPAOptions(**options)
