"""Combinations of instructions and demo sets: which there are, and in what order they are drawn."""

import random

import dspy
from search_world import FakeRun, agent_of, problem_of

from dspy_optimization.adapters.dspy.combinations import Combinations, _drawn, drawn_combinations
from dspy_optimization.adapters.dspy.miprov2 import MIPROv2
from dspy_optimization.adapters.dspy.search import dspy_search
from dspy_optimization.agents.config import AgentKind


def demos(*words: str) -> list[dspy.Example]:
    return [dspy.Example(augmented=True, word=word, draft=word, answer=word.upper()) for word in words]


INSTRUCTIONS = {0: ["Say the word.", "SHOUT.", "Whisper."], 1: ["Say the word.", "Repeat."]}
DEMO_SETS = {0: [[], demos("a")], 1: [[], demos("b"), demos("b", "c")]}


def drawn(most: int, *, seed: int = 1, demo_sets: object = DEMO_SETS) -> Combinations:
    agent = agent_of(AgentKind.PIPELINE)
    with dspy_search(problem_of(MIPROv2(), agent), FakeRun(agent), "miprov2") as search:
        return drawn_combinations(
            search.student, INSTRUCTIONS, demo_sets, search.book, most=most, rng=random.Random(seed)
        )


def test_all_combinations_race_where_there_are_few() -> None:
    """Each once, the default program first; it is one of the combinations here."""
    found = drawn(100)
    said = [tuple((part.instructions, len(part.demos)) for part in one.components.values()) for one in found.candidates]

    assert 3 * 2 * 2 * 3 == found.possible
    assert 36 == len(found.candidates) == len(set(said))
    assert (("Say the word.", 0), ("Say the word.", 0)) == said[0]
    assert set(said) == {
        ((a, len(b)), (c, len(d)))
        for a in INSTRUCTIONS[0]
        for b in DEMO_SETS[0]
        for c in INSTRUCTIONS[1]
        for d in DEMO_SETS[1]
    }


def test_a_draw_depends_on_the_seed_alone() -> None:
    """Ten of thirty-six, and the default program in any case."""
    first, again, other = drawn(10), drawn(10), drawn(10, seed=2)

    assert first.candidates == again.candidates
    assert first.candidates[0] == other.candidates[0]
    assert first.candidates[1:] != other.candidates[1:]
    assert 10 <= len(first.candidates) <= 11
    assert {"miprov2"} == {one.origin for one in first.candidates[1:]}


def test_without_demo_sets_demos_stay() -> None:
    """Instructions alone."""
    found = drawn(100, demo_sets=None)

    assert 6 == found.possible == len(found.candidates)
    assert all(part.demos == () for one in found.candidates for part in one.components.values())


def test_more_combinations_than_fit_any_sequence_are_drawn_from() -> None:
    """A dozen components with a dozen choices each are more than 2 ** 64."""
    found = _drawn(12**24, 50, random.Random(0))

    assert 50 == len(set(found))
    assert max(found) > 2**64


def test_the_model_sees_which_instruction_and_which_demos() -> None:
    """Candidates that share neither differ most."""
    found = drawn(100)
    agent = agent_of(AgentKind.PIPELINE)
    features = found.features(problem_of(MIPROv2(), agent))(found.candidates)
    first = [[part.instructions for part in one.components.values()] for one in found.candidates]
    same = [place for place, said in enumerate(first) if said == first[0]]

    assert len(found.candidates) == len(features)
    assert len({tuple(row) for row in features.tolist()}) == len(found.candidates)
    assert len(same) > 1
    alike = max(((features[0] - features[place]) ** 2).sum() for place in same)
    assert all(
        ((features[0] - features[place]) ** 2).sum() > 0.0 for place in range(1, len(features)) if place not in same
    )
    assert alike < max(((features[0] - row) ** 2).sum() for row in features)
