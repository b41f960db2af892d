"""What `auto` stands for."""

from dataclasses import replace

import pytest

from dspy_optimization.agents.config import AgentKind
from dspy_optimization.optimization.choosing import Situation, choose

ROOMY = Situation(
    kind=AgentKind.PREDICT, n_train=100, n_val=100, optimizable_components=1, can_propose=True, max_lm_calls=None
)


@pytest.mark.parametrize(
    ("situation", "algorithms", "because"),
    [
        (ROOMY, ["miprov2", "gepa"], "the better one gets the rest"),
        (replace(ROOMY, kind=AgentKind.HTTP), ["gepa"], "black box"),
        (replace(ROOMY, can_propose=False), ["bootstrap_random_search"], "too small to write instructions"),
        (replace(ROOMY, can_propose=False, n_train=19), ["labeled_fewshot", "bootstrap_fewshot"], "19 training"),
        (replace(ROOMY, can_propose=False, n_train=20), ["bootstrap_random_search"], "too small"),
        (replace(ROOMY, max_lm_calls=299), ["bootstrap_random_search"], "299 calls are too few"),
        (replace(ROOMY, max_lm_calls=300), ["miprov2", "gepa"], "enough examples and budget"),
        (replace(ROOMY, n_train=10), ["gepa"], "10 training examples are too few"),
    ],
)
def test_the_choice_follows_the_situation(situation: Situation, algorithms: list[str], because: str) -> None:
    """Target, data, model and budget decide, and the reason says which of them did."""
    choice = choose(situation)

    assert algorithms == [one.name for one in choice.algorithms]
    assert because in choice.reason
