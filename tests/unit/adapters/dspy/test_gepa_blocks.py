"""GEPA on a part of val: who meets which examples, who becomes a parent, who is best."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
from gepa.strategies.eval_policy import FullEvaluationPolicy
from racing_world import OBJECTIVES
from search_world import FakeRun, agent_of, problem_of

from dspy_optimization.adapters.dspy.gepa import GEPA
from dspy_optimization.adapters.dspy.gepa_blocks import ValBlocks
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.example import Example, ExampleId, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.algorithms.problem import Problem
from dspy_optimization.evaluation.trial import ExampleResult

N_VAL, BLOCK = 40, 12


class Adapter:
    """Names candidates as the real one does."""

    watch = None

    def candidate(self, texts: dict[str, str]) -> Candidate:
        return Candidate(components={ComponentName("self"): ComponentValue(instructions=texts["self"])})


@dataclass
class Evolution:
    """gepa's state, as far as it is looked at, and what makes it grow."""

    blocks: ValBlocks
    problem: Problem
    adapter: Adapter = field(default_factory=Adapter)
    program_candidates: list[dict[str, str]] = field(default_factory=list)
    prog_candidate_val_subscores: list[dict[int, float]] = field(default_factory=list)

    def add(self, ability: float, parents: Sequence[int] = (), *, met: Sequence[int] | None = None) -> list[int]:
        """Run a child of this ability on what it is to meet, as gepa does, and return that."""
        texts = {"self": f"candidate {len(self.program_candidates)}"}
        if met is None:
            proposal = SimpleNamespace(candidate=texts, parent_program_ids=list(parents))
            always = SimpleNamespace(should_accept=lambda *_: True)
            assert [proposal] == self.blocks.select([proposal], self, always)
            met = self.blocks.get_eval_batch(None, self)
        dice = np.random.default_rng(len(self.program_candidates))
        chances = 1.0 / (1.0 + np.exp(np.linspace(-2.0, 2.0, N_VAL) - ability))
        scores = {one: float(dice.random() < chances[one]) for one in met}
        self.told(texts, scores)
        self.program_candidates.append(texts)
        self.prog_candidate_val_subscores.append(scores)
        return list(met)

    def told(self, texts: dict[str, str], scores: dict[int, float]) -> None:
        polite = 0.0 if int(texts["self"].split()[1]) % 3 == 2 else 1.0
        results = [
            ExampleResult(
                example_id=self.problem.val[one].id,
                scores={"exact_match": Score(value=score), "polite": Score(value=polite)},
                outputs={},
            )
            for one, score in scores.items()
        ]
        self.adapter.watch(self.adapter.candidate(texts), Split.VAL, results)

    def get_program_average_val_subset(self, number: int) -> tuple[float, int]:
        scores = self.prog_candidate_val_subscores[number]
        return sum(scores.values()) / len(scores), len(scores)


def evolution(*, greedy: bool = False, seed: int = 0, objectives: Objectives = OBJECTIVES) -> Evolution:
    agent = agent_of()
    problem = replace(
        problem_of(GEPA(), agent, seed=seed),
        # Ids in another order than the examples have.
        val=tuple(Example(id=ExampleId(f"{(one * 7) % N_VAL:02}"), inputs={}, expected={}) for one in range(N_VAL)),
        objectives=objectives,
    )
    blocks = ValBlocks(problem, FakeRun(agent), block=BLOCK, greedy=greedy, perfect=1.0)
    made = Evolution(blocks, problem)
    blocks.serve(made.adapter)
    made.add(-1.0, met=range(N_VAL))
    return made


def grown(count: int = 14, **terms: object) -> Evolution:
    """Return an evolution with children, better and better, of the first one and of each other in turn."""
    made = evolution(**terms)
    for number in range(count):
        made.add(-1.0 + 0.25 * number, [0 if number % 2 else max(0, number - 1)])
    return made


def test_every_child_meets_the_fixed_half() -> None:
    """So any two can be compared paired, whatever else they have met."""
    made = grown()
    met = [set(scores) for scores in made.prog_candidate_val_subscores]
    shared = set.intersection(*met)

    assert {BLOCK} == {len(one) for one in met[1:]}
    assert len(shared) >= BLOCK // 2


def test_the_rest_is_what_the_parents_have_met() -> None:
    """A child of a child meets what its parent met; one of two parents what both have."""
    made = grown()
    last = len(made.program_candidates) - 1
    parent = set(made.prog_candidate_val_subscores[last])
    child = made.add(1.0, [last])

    assert parent == set(child)
    for number in range(1, last):
        both = parent & set(made.prog_candidate_val_subscores[number])
        merged = set(made.add(1.0, [number, last]))

        assert both <= merged


def test_the_model_says_which_examples_are_telling() -> None:
    """Children of whoever has met all of val meet what tells the best apart, not what came first."""
    made = grown()
    made.add(1.0, [0])
    expected = made.blocks.expected(made)
    fixed = set.intersection(*(set(scores) for scores in made.prog_candidate_val_subscores[:8]))
    batch = set(made.add(1.0, [0]))
    ids = sorted(example.id for example in made.problem.val)
    telling = [expected.information[ids.index(example.id)] for example in made.problem.val]
    own = batch - set(made.blocks._fixed)
    rest = set(range(N_VAL)) - batch

    assert expected.doubt is None
    assert fixed >= set(made.blocks._fixed)
    assert min(telling[one] for one in own) >= max(telling[one] for one in rest)


def test_a_merged_child_has_the_parents_that_were_announced() -> None:
    """gepa tells of merging by an event alone."""
    made = grown()
    made.blocks.on_merge_attempted({"parent_ids": [3, 5]})
    both = set(made.prog_candidate_val_subscores[3]) & set(made.prog_candidate_val_subscores[5])

    assert both <= set(made.blocks.get_eval_batch(None, made))
    assert [] == made.blocks._parents


def test_the_same_text_is_accepted_once() -> None:
    """gepa drops the second one, so nobody waits for its block."""
    made = grown()
    twins = [SimpleNamespace(candidate={"self": "twin"}, parent_program_ids=[one]) for one in (1, 2)]
    other = SimpleNamespace(candidate={"self": "worse"}, parent_program_ids=[3])
    criterion = SimpleNamespace(should_accept=lambda one, _: one is not other)

    assert [twins[0]] == made.blocks.select([*twins, other], made, criterion)
    assert [[1]] == made.blocks._parents


@pytest.mark.parametrize("seed", range(4))
def test_whoever_met_easy_examples_is_not_the_best(seed: int) -> None:
    """gepa's own policy takes the highest mean of whatever was met."""
    made = grown(seed=seed)
    easy = dict.fromkeys(range(8), 1.0)
    made.add(0.0, met=list(easy))
    lucky = len(made.program_candidates) - 1
    made.prog_candidate_val_subscores[lucky] = easy
    made.told(made.program_candidates[lucky], easy)

    assert made.blocks.expected(made).doubt is None
    assert lucky == FullEvaluationPolicy().get_best_program(made)
    assert lucky != made.blocks.get_best_program(made)


def test_scores_that_are_shown_were_measured() -> None:
    """What is expected decides and is never told."""
    made = grown()
    best = made.blocks.get_best_program(made)
    mean, count = made.get_program_average_val_subset(best)

    assert (mean, count) == made.blocks.measured(made)
    assert mean == made.blocks.get_valset_score(best, made)
    assert mean != made.blocks.expected(made).means[best]


def test_who_has_met_what_others_have_not_is_no_parent_for_that() -> None:
    """The first candidate has met all of val and is the worst: gepa's own front would draw it again and again."""
    made = grown()
    drawn = Counter(made.blocks.select_candidate_idx(made) for _ in range(200))
    strong = sum(count for number, count in drawn.items() if number >= 7)

    assert drawn[0] < 20
    assert strong > 120


@pytest.mark.parametrize("greedy", [True, False])
def test_who_has_mastered_train_is_no_parent(greedy: bool) -> None:
    """Nothing is learned from full marks; gepa would draw it again and again and propose nothing."""
    made = grown(greedy=greedy)
    best = made.blocks.get_best_program(made)
    master = made.adapter.candidate(made.program_candidates[best])
    marks = [
        ExampleResult(example_id=one.id, scores={"exact_match": Score(value=1.0)}, outputs={})
        for one in made.problem.train
    ]
    made.adapter.watch(master, Split.TRAIN, marks[1:])

    assert best in {made.blocks.select_candidate_idx(made) for _ in range(100)}
    made.adapter.watch(master, Split.TRAIN, marks[:1])
    assert best not in {made.blocks.select_candidate_idx(made) for _ in range(100)}
    assert best == made.blocks.get_best_program(made)
    for texts in made.program_candidates:
        made.adapter.watch(made.adapter.candidate(texts), Split.TRAIN, marks)
    assert best in {made.blocks.select_candidate_idx(made) for _ in range(100)}


def test_greedy_is_the_best_so_far() -> None:
    """As `candidate_selection: current_best` says."""
    made = grown(greedy=True)

    assert {made.blocks.get_best_program(made)} == {made.blocks.select_candidate_idx(made) for _ in range(5)}


def test_before_there_is_a_model_shared_examples_decide() -> None:
    """And it says so."""
    made = evolution()
    made.add(3.0, [0])
    made.add(-3.0, [0])

    assert 1 == made.blocks.get_best_program(made)
    assert "wanted: at least 100 cells of 8 candidates" in made.blocks.doubt
    assert made.blocks.select_candidate_idx(made) in (0, 1, 2)


def test_the_best_are_ranked_each_once() -> None:
    """A text that came twice is one candidate."""
    made = grown()
    made.program_candidates.append(dict(made.program_candidates[-1]))
    made.prog_candidate_val_subscores.append(dict(made.prog_candidate_val_subscores[-1]))
    first = made.adapter.candidate(made.program_candidates[made.blocks.get_best_program(made)])
    best = made.blocks.best(12)

    assert first == best[0]
    assert 12 == len(best) == len({one.fingerprint for one in best})
    assert len(made.blocks.best(100)) == len(made.program_candidates) - 1


def test_whoever_hurts_a_guardrail_stands_behind() -> None:
    """However good it is otherwise: the optimizer would not choose it."""
    guarded = Objectives(
        items=(Objective(metric="exact_match"), Objective(metric="polite", guardrail=True, margin=0.1)),
        scales={"polite": 1.0},
        ceilings={"exact_match": 1.0},
    )
    made = grown(objectives=guarded)
    ranked = [int(str(one.components[ComponentName("self")].instructions).split()[1]) for one in made.blocks.best(100)]
    means = made.blocks.expected(made).means

    # Every third one is rude.
    assert sorted(ranked, key=lambda number: (number % 3 == 2, -means[number])) == ranked
    assert max(means[number] for number in ranked if number % 3 == 2) > means[ranked[2]]


def test_nobody_was_run_yet() -> None:
    """Then there is nobody to name."""
    agent = agent_of()
    blocks = ValBlocks(problem_of(GEPA(), agent), FakeRun(agent), block=4, greedy=False)

    assert [] == blocks.best(12)
    assert blocks.doubt is None
