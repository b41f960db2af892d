"""What a search begins with: demos from right answers and labelled examples, texts, and candidates that differ."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from evolution_world import ANSWER, RIGHT, SHORT, Place, PlainAgent, Right

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field
from dspy_optimization.agents.example import Example, Prediction, Split, Step
from dspy_optimization.agents.metric import Score
from dspy_optimization.algorithms.genome import Gene, GenePool
from dspy_optimization.algorithms.problem import Problem
from dspy_optimization.algorithms.proposals import Proposals
from dspy_optimization.algorithms.seeding import SeedTerms, first_candidates, seed_pool
from dspy_optimization.errors import InfrastructureFailed, ModelBusyError
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import Json
from dspy_optimization.testing.scripted_model import chat_response

READ = ComponentName("read")


@dataclass
class Notes:
    """A run that scores, notes trials, and writes a text a number."""

    trials: list[tuple[str, Split, list[str]]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        assert role is Role.REFLECTION
        self.prompts.append(str(request.body["messages"]))
        return chat_response(f"<instruction>Text {len(self.prompts)} of {request.sample}</instruction>")

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        tokens = Score(value=float(prediction.usage.prompt_tokens))
        return {"right": Right().score(example, prediction), "tokens": tokens}

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        assert 0 == iteration
        self.trials.append((candidate.fingerprint, split, [one.example_id for one in results]))


class Steps(PlainAgent):
    """Right where it is told so; each component says a step, with what it thought where it thinks."""

    def __init__(self, is_right: Callable[[int], bool], *, thinks: bool = False, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self._is_right, self._thinks = is_right, thinks

    def run(self, candidate: Candidate, inputs: Mapping[str, Json], calls: Calls) -> Prediction:
        number = int(str(inputs["question"])[1:])
        thought: dict[str, Json] = {"reasoning": f"because {number}"} if self._thinks else {}
        answer = f"A{number}" if self._is_right(number) else "A"
        steps = tuple(
            Step(
                component=name,
                inputs={"question": f"Q{number}"},
                outputs={**thought, "answer": answer if name == ANSWER else f"draft {number}"},
                failure="cut off" if number == 5 and name == READ else None,
            )
            for name in candidate.components
        )
        return Prediction(outputs={"answer": answer}, steps=steps)


TERMS = SeedTerms(demo_pool=8, bootstrap_examples=12, instructions=2)


def seeded(
    place: Place,
    terms: SeedTerms = TERMS,
    *,
    slots: int = 4,
    most: int = 100,
    vary: tuple[Gene, ...] = ("instructions", "demos"),
    change: Callable[[Problem], Problem] = lambda problem: problem,
) -> tuple[GenePool, Notes]:
    problem, run = change(place.problem(None)), Notes()
    pool = GenePool(problem.baseline, problem.frozen, {}, slots=slots, vary=vary)
    proposals = Proposals(agent=problem.agent, calls=run, algorithm="test", temperature=1.0, most=most)
    seed_pool(problem, run, pool, proposals, terms)  # type: ignore[arg-type]
    return pool, run


def numbers(pool: GenePool, component: ComponentName = ANSWER) -> list[int]:
    return [int(str(demo["question"])[1:]) for demo in pool.demos(component)]


def test_demos_are_right_answers_and_labelled_examples() -> None:
    """Half of each where there are both; what the agent thought stands in its own."""
    pool, run = seeded(Place(agent=Steps(lambda number: number % 2 == 0, thinks=True)))
    own = [demo for demo in pool.demos(ANSWER) if "reasoning" in demo]
    labelled = [demo for demo in pool.demos(ANSWER) if "reasoning" not in demo]

    assert [4, 4] == [len(own), len(labelled)]
    for demo in pool.demos(ANSWER):
        assert f"A{str(demo['question'])[1:]}" == demo["answer"]
    assert all(int(str(demo["question"])[1:]) % 2 == 0 for demo in own)
    assert {"question", "answer", "reasoning"} == set(own[0])
    assert {"question", "answer"} == set(labelled[0])
    assert 1 == len(run.trials)
    fingerprint, split, ids = run.trials[0]
    assert (Place().agent.baseline.fingerprint, Split.TRAIN, 12) == (fingerprint, split, len(ids))


def test_demos_are_all_different_and_as_many_as_wanted() -> None:
    """An agent that only answers makes demos that are labelled examples: they count once."""
    pool, _ = seeded(Place(agent=Steps(lambda _: True)))

    assert 8 == len(pool.demos(ANSWER)) == len(set(numbers(pool)))


def test_where_labelled_examples_are_few_right_answers_fill_up() -> None:
    """Two labelled ones beside six of its own."""
    place = Place(agent=Steps(lambda _: True, thinks=True), n_train=12)
    fields = (*place.agent.config.signature.outputs, Field(name="note"))  # type: ignore[union-attr]
    place.agent.config = replace(place.agent.config, signature=replace(place.agent.config.signature, outputs=fields))  # type: ignore[type-var]

    def noted(problem: Problem) -> Problem:
        some = tuple(replace(one, expected={**one.expected, "note": ""}) for one in problem.train[:2])
        return replace(problem, train=some + problem.train[2:])

    pool, _ = seeded(place, change=noted)

    assert 8 == len(pool.demos(ANSWER))
    assert 2 == sum("note" in demo for demo in pool.demos(ANSWER))
    assert 6 == sum("reasoning" in demo for demo in pool.demos(ANSWER))


def test_each_component_gets_its_own_steps() -> None:
    """Of right runs alone; no step that failed, nothing for a component that is frozen, no labelled examples."""
    place = Place(agent=Steps(lambda number: number != 3, before=("read",)), n_train=10)
    pool, _ = seeded(place, replace(TERMS, bootstrap_examples=10, demo_pool=20))

    assert [0, 1, 2, 4, 5, 6, 7, 8, 9] == sorted(numbers(pool))
    assert [0, 1, 2, 4, 6, 7, 8, 9] == sorted(numbers(pool, READ))
    assert all(str(demo["answer"]).startswith("draft") for demo in pool.demos(READ))


def test_examples_are_no_demos_of_a_step_that_is_not_the_whole_agent() -> None:
    """Also where all other components are frozen: their fields are the agent's, not the step's."""
    place = Place(agent=Steps(lambda _: False, before=("read",), frozen=("read",)))
    pool, _ = seeded(place)

    assert (ANSWER,) == pool.components
    assert () == pool.demos(ANSWER)


def test_examples_without_every_output_are_no_demos() -> None:
    place = Place(agent=Steps(lambda _: False))
    pool, _ = seeded(
        place,
        change=lambda problem: replace(
            problem, train=tuple(replace(one, expected={"note": "x"}) for one in problem.train[:3]) + problem.train[3:5]
        ),
    )

    assert {3, 4} == set(numbers(pool))


def test_without_a_signature_only_right_answers_are_demos() -> None:
    place = Place(agent=Steps(lambda number: number < 2))
    place.agent.config = AgentConfig(name="plain", kind=AgentKind.PIPELINE)
    pool, _ = seeded(place, replace(TERMS, bootstrap_examples=20))

    assert {0, 1} == set(numbers(pool))


def test_where_only_costs_count_no_answer_is_right() -> None:
    """A metric to lower has no best value: labelled examples alone, and nothing is run to find others."""
    place = Place(agent=Steps(lambda _: True, thinks=True), goals=(SHORT, replace(RIGHT, guardrail=True)))
    pool, run = seeded(place)

    assert [] == run.trials
    assert all("reasoning" not in demo for demo in pool.demos(ANSWER))
    assert 8 == len(pool.demos(ANSWER))


@pytest.mark.parametrize(
    ("terms", "slots", "demos", "runs"),
    [
        (replace(TERMS, demo_pool=0), 4, 0, 0),
        (TERMS, 0, 0, 0),
        (replace(TERMS, bootstrap_examples=0), 4, 8, 0),
        (replace(TERMS, demo_pool=3), 4, 3, 12),
    ],
)
def test_what_is_not_wanted_is_not_paid(terms: SeedTerms, slots: int, demos: int, runs: int) -> None:
    pool, run = seeded(Place(agent=Steps(lambda _: True)), terms, slots=slots)

    assert demos == len(pool.demos(ANSWER))
    assert runs == sum(len(ids) for _, _, ids in run.trials)


def test_texts_are_asked_for_each_component_and_show_no_val_example() -> None:
    place = Place(agent=Steps(lambda _: True, before=("read", "look"), frozen=("look",)))
    pool, run = seeded(place)

    assert {ANSWER, READ} == set(pool.components)
    assert [3, 3] == [len(pool.instructions(name)) for name in pool.components]
    assert 4 == len(run.prompts)
    for example in place.val:
        assert not any(f'"{example.inputs["question"]}"' in prompt for prompt in run.prompts)
    assert any(f'"{example.inputs["question"]}"' in prompt for example in place.train for prompt in run.prompts)
    none, quiet = seeded(place, most=0)
    assert [1, 1] == [len(none.instructions(name)) for name in none.components]
    assert [] == quiet.prompts


def test_the_same_problem_fills_the_same_pool() -> None:
    """Whatever order its examples stand in, and whatever global generators say."""
    place = Place(agent=Steps(lambda number: number % 3 > 0, thinks=True))
    found = []
    for seed in (1, 2):
        random.seed(seed)
        pool, run = seeded(place, change=lambda one: replace(one, train=one.train[:: (-1 if seed == 2 else 1)]))  # noqa: B023
        found.append((pool.demos(ANSWER), pool.instructions(ANSWER), run.prompts, run.trials))

    assert found[0] == found[1]
    other, _ = seeded(place, change=lambda one: replace(one, seed=one.seed + 1))
    assert other.demos(ANSWER) != found[0][0]


def test_a_world_that_fails_ends_the_search() -> None:
    def fails(number: int) -> bool:
        if number == 4:
            raise ModelBusyError("come later")
        return True

    with pytest.raises(InfrastructureFailed):
        seeded(Place(agent=Steps(fails)), replace(TERMS, bootstrap_examples=20))


def test_without_train_examples_there_is_what_the_baseline_has() -> None:
    pool, run = seeded(Place(n_train=0))

    assert () == pool.demos(ANSWER)
    assert [] == run.trials
    assert 3 == len(pool.instructions(ANSWER))


def first(pool: GenePool, count: int, baseline: Candidate | None = None, *, seed: int = 0) -> list[Candidate]:
    problem = Place().problem(None)
    chosen = problem if baseline is None else replace(problem, baseline=baseline)
    return first_candidates(chosen, pool, count, np.random.default_rng(seed))


def test_candidates_begin_with_the_baseline_and_single_changes() -> None:
    """Then random ones; all different; parents are named."""
    pool, _ = seeded(Place(agent=Steps(lambda _: True)))
    baseline = Place().agent.baseline
    found = first(pool, 12)

    assert 12 == len(found) == len({one.fingerprint for one in found})
    assert baseline == found[0]
    assert ["seed: demos", "seed: other demos", "seed: instructions", "seed: instructions"] == [
        one.origin for one in found[1:5]
    ]
    assert {"random genes"} == {one.origin for one in found[5:]}
    assert {(baseline.fingerprint,)} == {one.parents for one in found[1:5]}
    assert pool.demos(ANSWER)[:4] == found[1].components[ANSWER].demos
    assert baseline.components[ANSWER].instructions == found[1].components[ANSWER].instructions
    assert pool.instructions(ANSWER)[1] == found[3].components[ANSWER].instructions
    assert () == found[3].components[ANSWER].demos
    assert [one.fingerprint for one in found] == [one.fingerprint for one in first(pool, 12)]
    for one in found:
        pool.encode(one)


def test_candidates_are_as_many_as_there_are() -> None:
    """A pool of one text and one demo has four."""
    baseline = Place().agent.baseline
    pool = GenePool(baseline, (), {}, slots=1)
    assert [baseline] == first(pool, 10)
    pool.add_demo(ANSWER, {"question": "Q1", "answer": "A1"})
    pool.add_instruction(ANSWER, "Say why.")

    assert 4 == len(first(pool, 10))
    assert [baseline] == first(pool, 1)


def test_components_change_together_and_settings_stay() -> None:
    """A component with fewer texts than others keeps its last one."""
    value = ComponentValue(instructions="Look.", demos=({"question": "Q0", "answer": "A0"},))
    baseline = Candidate(components={ANSWER: value, READ: value})
    pool = GenePool(baseline, (), {}, slots=2)
    pool.add_instruction(ANSWER, "A1")
    pool.add_instruction(ANSWER, "A2")
    pool.add_instruction(READ, "R1")

    texts = [
        tuple(one.components[name].instructions for name in (ANSWER, READ))
        for one in first(pool, 20, baseline)
        if one.origin == "seed: instructions"
    ]

    assert [("A1", "R1"), ("A2", "R1")] == texts
    assert any(() == one.components[ANSWER].demos for one in first(pool, 20, baseline) if "other" in one.origin)
