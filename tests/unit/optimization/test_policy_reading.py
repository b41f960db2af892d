"""Policies as requests name them."""

from dataclasses import replace

import pytest
from contender_samples import BOTH, COST, QUALITY
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.optimization.policy import Lexicographic, MaxCost, Picked, Weights
from dspy_optimization.optimization.policy_reading import POLICIES, policy_from_json

LATENCY = Objective(metric="latency_seconds", direction=Direction.MINIMIZE, guardrail=True)
ALL = (replace(QUALITY, target_value=0.8), COST, LATENCY)
NAME = "a" * 64
ID = "0199ab00-0000-7000-8000-000000000000"


def test_a_policy_is_weights_where_nobody_says() -> None:
    """And its name alone is enough."""
    assert Weights(objectives=BOTH) == policy_from_json(None, BOTH.items) == policy_from_json("weights", BOTH.items)


@pytest.mark.parametrize(
    "given",
    [
        {"type": "weights"},
        {"type": "target_values"},
        {"type": "target_values", "least": "cost_usd"},
        {"type": "lexicographic", "order": ["cost_usd", "quality"], "tolerance": 0.1},
        {"type": "knee"},
        {"type": "max_cost", "metric": "latency_seconds", "at_most": 2.0},
        {"type": "picked", "candidate": NAME, "optimization": ID},
        {"type": "picked", "candidate": NAME},
    ],
)
def test_what_is_written_reads_back(given: dict[str, object]) -> None:
    """Every type, with all it takes."""
    assert given == policy_from_json(given, ALL).to_json()


def test_what_is_not_given_is_as_usual() -> None:
    """Dollars before seconds; names that a request uses for metrics are known."""
    assert MaxCost(objectives=policy_from_json(None, ALL).objectives, metric="cost_usd", at_most=1.0) == (
        policy_from_json({"type": "max_cost", "at_most": 1}, ALL)
    )
    by_alias = policy_from_json(
        {"type": "lexicographic", "order": ["cost_efficiency"]}, ALL, {"cost_efficiency": "cost_usd"}
    )
    assert isinstance(by_alias, Lexicographic)
    assert (("cost_usd",), 0.02) == (by_alias.order, by_alias.tolerance)
    found = policy_from_json({"type": "picked", "candidate": NAME, "optimization": ID.upper()}, ALL)
    assert isinstance(found, Picked)
    assert ID == found.optimization


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("pareto", "policy.type: a policy is wanted, found 'pareto'; possible: weights, target_values"),
        ("kne", 'did you mean "knee"'),
        (["knee"], r"a policy is wanted, found list \['knee'\]"),
        ({}, "policy.type: a policy is wanted, found None"),
        ({"type": 3}, "policy.type: a policy is wanted, found 3"),
        ({"type": "weights", "quality": 1}, "'quality' is no known key"),
        ({"type": "lexicographic"}, r"policy.order: .* found none; possible: \[quality, cost_usd\]"),
        ({"type": "lexicographic", "order": "quality"}, "policy.order: a list is wanted"),
        ({"type": "lexicographic", "order": [1]}, "policy.order: .* found"),
        ({"type": "lexicographic", "order": ["qualty"]}, 'found \'qualty\' .did you mean "quality"'),
        ({"type": "lexicographic", "order": ["latency_seconds"]}, "found the guardrail latency_seconds"),
        ({"type": "lexicographic", "order": ["quality", "quality"]}, "every objective once is wanted"),
        ({"type": "lexicographic", "order": ["quality"], "tolerance": 2}, "policy.tolerance: a number from 0 to 1"),
        ({"type": "lexicographic", "order": ["quality"], "tolerance": float("nan")}, "a finite number is wanted"),
        ({"type": "target_values", "least": "quality"}, "found quality, which is maximized; possible: cost_usd"),
        ({"type": "target_values", "least": "latency_seconds"}, "found the guardrail latency_seconds"),
        ({"type": "max_cost"}, "policy: at_most is missing"),
        ({"type": "max_cost", "at_most": "1"}, "policy.at_most: a number is wanted"),
        ({"type": "max_cost", "at_most": 0}, "policy.at_most: a number above 0"),
        ({"type": "max_cost", "metric": "quality", "at_most": 1}, "to be minimized is wanted, found quality"),
        ({"type": "max_cost", "metric": "tokens", "at_most": 1}, "of this request is wanted, found 'tokens'"),
        ({"type": "picked", "candidate": "abc"}, "a fingerprint of 64 hexadecimal digits is wanted"),
        ({"type": "picked", "candidate": NAME, "optimization": "x"}, "the id of an optimization is wanted"),
    ],
)  # fmt: skip
def test_contradictions_are_sentences(given: object, said: str) -> None:
    """They say what is wanted, what was found and what is possible."""
    with pytest.raises(InvalidRequestError, match=said):
        policy_from_json(given, ALL)


def test_policies_need_objectives_that_they_can_work_with() -> None:
    """One goal has no knee, none with a target no targets, none of cost no cap."""
    for kind, said in (
        ("knee", "knee needs at least two objectives to be improved, found quality alone"),
        ("target_values", "that has a target_value, found none"),
        ("max_cost", "max_cost needs an objective of what an answer takes, found quality"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            policy_from_json(kind, (QUALITY,))


@given(
    st.sampled_from(sorted(POLICIES)),
    st.dictionaries(
        st.sampled_from(["order", "tolerance", "least", "metric", "at_most", "candidate", "optimization", "x"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text() | st.integers()),
    ),
)
def test_whatever_is_given_ends_in_a_policy_or_a_message(kind: str, more: dict[str, object]) -> None:
    """Never in a traceback."""
    try:
        policy = policy_from_json({**more, "type": kind}, ALL)
    except InvalidRequestError:
        return
    assert policy == policy_from_json(policy.to_json(), ALL)
