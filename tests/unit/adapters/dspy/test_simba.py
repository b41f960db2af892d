"""SIMBA: trials without events, rules without source, winners that val decides on."""

import dspy
import pytest
from search_world import FakeRun, Shouter, agent_of, problem_of

from dspy_optimization.adapters.dspy.search import dspy_search
from dspy_optimization.adapters.dspy.simba import SIMBA, SIMBAOptions, append_a_rule, program_outline
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.agents.example import Split
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import ModelRequest, Role


class Noting(Shouter):
    """Keeps what reflection is shown."""

    def __init__(self) -> None:
        super().__init__(garbled=lambda word: word in ("apple", "stone"))
        self.shown: list[str] = []

    def answer(self, role: Role, request: ModelRequest) -> str:
        if role is Role.REFLECTION:
            self.shown.append(str(request.body["messages"][-1]["content"]))
        return super().answer(role, request)


def searched(options: SIMBAOptions, **settings: object) -> FakeRun:
    """Return the run of a finished search."""
    sizes = {name: settings.pop(name) for name in ("train", "val", "seed") if name in settings}
    agent = agent_of()
    run = FakeRun(agent, **settings)
    SIMBA().search(problem_of(SIMBA(), agent, options, **sizes), run)
    return run


def test_a_small_train_split_is_enough() -> None:
    """DSPy asserts that it holds a whole minibatch."""
    run = searched(SIMBAOptions(steps=2, minibatch_size=32, candidates=2), train=5)

    assert run.submitted
    assert {5} == {len(results) for _, _, results, _ in run.recorded}


def test_every_winner_is_submitted() -> None:
    """DSPy takes the best on train; val may see it otherwise."""
    run = searched(SIMBAOptions(steps=3, minibatch_size=6, candidates=3))

    assert len(run.submitted) > 1
    assert {Split.TRAIN} == {split for _, split, _, _ in run.recorded}


def test_steps_are_reported() -> None:
    """No event of DSPy's tells of them."""
    run = searched(SIMBAOptions(steps=3, minibatch_size=4, candidates=2))
    steps = [(one.iteration, one.iterations) for one in run.progress if one.phase == "sampled"]

    assert [(1, 3), (2, 3), (3, 3)] == steps


def test_samples_are_no_trials() -> None:
    """A draw at temperature 1 is not what the candidate answers."""
    run = searched(SIMBAOptions(steps=1, minibatch_size=6, candidates=3), train=6)

    assert all(len(results) == 6 for _, _, results, _ in run.recorded)
    assert run.calls > sum(len(results) for _, _, results, _ in run.recorded)


def test_rules_are_learned_from_programs_with_and_without_source() -> None:
    """DSPy loses the rule where `inspect.getsource` finds nothing."""
    model = Noting()
    run = searched(SIMBAOptions(steps=3, minibatch_size=8, candidates=4, max_demos=0), model=model)
    learned = {part.instructions for one, *_ in run.recorded for part in one.components.values()}

    assert any("SHOUT" in text for text in learned)
    assert "class Predict(Module, Parameter)" in model.shown[0]

    namespace: dict[str, type] = {}
    exec("import dspy\nclass Made(dspy.Module):\n    pass", namespace)  # a class nobody can find the source of
    made = namespace["Made"]()
    made.say = dspy.Predict("word -> answer")

    assert program_outline(made) == (
        "class Made(dspy.Module):  # predictors, in the order they run\nsay: word -> answer"
    )


def test_a_step_that_teaches_nothing_changes_nothing() -> None:
    """Equal tries have no difference to learn from."""
    agent = agent_of()
    with dspy_search(problem_of(SIMBA(), agent), FakeRun(agent), "simba") as search:
        sample = {"score": 0.5}
        context = {"batch_10p_score": 0.0, "batch_90p_score": 1.0}

        assert append_a_rule([sample, sample], search.student, **context) is False


def test_failures_are_shown_to_the_model_that_learns() -> None:
    """Why a try was worth nothing is the best there is to learn from."""
    model = Noting()
    searched(SIMBAOptions(steps=4, minibatch_size=10, candidates=4, max_demos=0), model=model, seed=1)

    assert any("expected" in text for text in model.shown)


class Silent(Shouter):
    """Gives advice nobody can read."""

    def answer(self, role: Role, request: ModelRequest) -> str:
        return "no" if role is Role.REFLECTION else super().answer(role, request)


def test_unreadable_advice_is_told_of() -> None:
    """The candidate is dropped; the reason is in the report."""
    run = searched(SIMBAOptions(steps=3, minibatch_size=8, candidates=3, max_demos=0), model=Silent())
    last = [one for one in run.progress if one.phase == "sampled"][-1]

    assert last.data["failed"] > 0
    assert "module_advice" in str(last.data["last_failure"])


def test_programs_of_several_components_learn_component_by_component() -> None:
    """Advice goes where it belongs."""
    agent = agent_of(AgentKind.PIPELINE)
    run = FakeRun(agent)
    options = SIMBAOptions(steps=2, minibatch_size=6, candidates=3)
    SIMBA().search(problem_of(SIMBA(), agent, options), run)

    assert any(one != agent.baseline for one in run.submitted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: wanted 1"),
        ({"minibatch_size": 0}, "minibatch_size: wanted 1"),
        ({"candidates": 1}, "candidates: wanted 2"),
        ({"max_demos": -1}, "max_demos: wanted 0"),
        ({"sampling_temperature": 0.0}, "sampling_temperature: wanted more than 0"),
        ({"candidate_temperature": 0.0}, "candidate_temperature: wanted more than 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    """What was wanted and what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        SIMBAOptions(**options)
