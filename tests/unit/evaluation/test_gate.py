"""The gate: what the sealed split allows to be said."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.example import Example, ExampleId, Usage
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.gate import GateTerms, Measurement, ValidatedResult, paired_difference, validate
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.statistics import Verdict

ACCURACY = Objective(metric="accuracy")
COST = Objective(metric="cost", direction=Direction.MINIMIZE, guardrail=True, margin=0.1)


def _examples(n: int, clusters: int | None = None) -> list[Example]:
    return [
        Example(
            id=ExampleId(f"e{index:04}"),
            inputs={"question": str(index)},
            expected={"answer": str(index)},
            cluster=None if clusters is None else f"c{index % clusters}",
        )
        for index in range(n)
    ]


def _measured(name: str, examples: Sequence[Example], **scores: Sequence[float]) -> Measurement:
    candidate = Candidate(components={ComponentName("self"): ComponentValue(instructions=name)})
    results = [
        ExampleResult(
            example_id=example.id,
            scores={metric: Score(value=values[index]) for metric, values in scores.items()},
            outputs={},
        )
        for index, example in enumerate(examples)
    ]
    return Measurement(candidate=candidate, results=results)


def _terms(*objectives: Objective, minimum_effect: float = 0.0, use: int = 1, alpha: float = 0.05) -> GateTerms:
    return GateTerms(
        dataset=DatasetVersion("d" * 64),
        objectives=Objectives(items=objectives),
        alpha=alpha,
        minimum_effect=minimum_effect,
        test_split_use=use,
        seed=7,
    )


def _binary(n: int, ones: int) -> list[float]:
    return [1.0 if index < ones else 0.0 for index in range(n)]


def test_a_clear_gain_is_improved_with_the_exact_p_value() -> None:
    """40 of 100 against 70 of 100, 30 won and none lost: exact McNemar, held against scipy's binomial test."""
    examples = _examples(100)

    result = validate(
        examples,
        _measured("old", examples, accuracy=_binary(100, 40)),
        _measured("new", examples, accuracy=_binary(100, 70)),
        _terms(ACCURACY),
    )

    accuracy = result.objectives["accuracy"]
    assert Verdict.IMPROVED is result.verdict
    assert stats.binomtest(0, 30, 0.5).pvalue == pytest.approx(accuracy.p_value)
    assert (0.4, 0.7, 0.3) == pytest.approx(
        (accuracy.baseline.value, accuracy.optimized.value, accuracy.difference.value)
    )
    assert accuracy.improvement_percentage == pytest.approx(75.0)
    assert 30 == accuracy.discordant
    assert accuracy.difference.low is not None
    assert accuracy.difference.low > 0.0


def test_a_reused_test_split_needs_stronger_evidence() -> None:
    """b = 1, c = 9 has p = .0215: enough at the first use (.025), not at the second (.0083)."""
    examples = _examples(60)
    old = _measured("old", examples, accuracy=_binary(60, 1))
    new = _measured("new", examples, accuracy=[0.0] + [1.0] * 9 + [0.0] * 50)

    first = validate(examples, old, new, _terms(ACCURACY, use=1))
    second = validate(examples, old, new, _terms(ACCURACY, use=2))

    assert (Verdict.IMPROVED, 0.025) == (first.verdict, first.alpha)
    assert (Verdict.INDECISIVE, 0.05 / 6) == (second.verdict, second.alpha)


def test_a_loss_is_regressed() -> None:
    """Worse is said as plainly as better."""
    examples = _examples(100)

    result = validate(
        examples,
        _measured("old", examples, accuracy=_binary(100, 70)),
        _measured("new", examples, accuracy=_binary(100, 40)),
        _terms(ACCURACY),
    )

    assert Verdict.REGRESSED is result.verdict


def test_cheaper_is_better_when_the_objective_says_so() -> None:
    """A metric to minimize: the difference keeps its own sign, the verdict turns it."""
    examples = _examples(60)
    cost = Objective(metric="cost", direction=Direction.MINIMIZE)
    noise = random.Random(1)
    before = [2.0 + noise.random() for _ in examples]

    result = validate(
        examples,
        _measured("old", examples, cost=before),
        _measured("new", examples, cost=[value - 1.0 - noise.random() / 10 for value in before]),
        _terms(cost),
    )

    found = result.objectives["cost"]
    assert Verdict.IMPROVED is result.verdict
    assert found.difference.value < 0.0
    assert found.difference.low is not None
    assert found.difference.high is not None
    assert found.difference.low <= found.difference.value <= found.difference.high < 0.0
    assert found.improvement_percentage is not None
    assert found.improvement_percentage > 0.0


@pytest.mark.parametrize(
    ("factor", "verdict", "says"),
    [
        (1.0, Verdict.IMPROVED, "better"),
        (1.5, Verdict.REGRESSED, "guardrail is broken"),
        (1.1, Verdict.INDECISIVE, "not shown to hold"),
    ],
)
def test_a_guardrail_has_to_be_shown_to_hold(factor: float, verdict: Verdict, says: str) -> None:
    """Same cost: holds. Half as much again: broken. At the margin itself: not shown, so nothing is claimed."""
    examples = _examples(100)
    noise = random.Random(2)
    before = [1.0 + noise.random() for _ in examples]
    after = [value * factor + noise.uniform(-0.1, 0.1) for value in before]

    result = validate(
        examples,
        _measured("old", examples, accuracy=_binary(100, 40), cost=before),
        _measured("new", examples, accuracy=_binary(100, 70), cost=after),
        _terms(ACCURACY, COST),
    )

    assert verdict is result.verdict
    assert says in result.reason


def test_a_second_objective_that_got_worse_keeps_the_claim_back() -> None:
    """One objective up, another down: not an improvement, and both are named."""
    examples = _examples(100)
    clarity = Objective(metric="clarity")

    result = validate(
        examples,
        _measured("old", examples, accuracy=_binary(100, 40), clarity=_binary(100, 90)),
        _measured("new", examples, accuracy=_binary(100, 70), clarity=_binary(100, 50)),
        _terms(ACCURACY, clarity),
    )

    assert Verdict.INDECISIVE is result.verdict
    assert "clarity is worse" in result.reason


def test_objectives_share_the_level() -> None:
    """Two objectives with p = .0215 each: Holm doubles the smaller, so neither is significant."""
    examples = _examples(60)
    old, new = [1.0] + [0.0] * 59, [0.0] + [1.0] * 9 + [0.0] * 50

    result = validate(
        examples,
        _measured("old", examples, accuracy=old, clarity=old),
        _measured("new", examples, accuracy=new, clarity=new),
        _terms(ACCURACY, Objective(metric="clarity")),
    )

    p_value = result.objectives["accuracy"].p_value
    assert 2 * stats.binomtest(1, 10, 0.5).pvalue == pytest.approx(p_value)
    assert Verdict.INDECISIVE is result.verdict


def test_clusters_count_once() -> None:
    """The same answers are strong evidence alone and weak evidence when they come from four conversations."""
    alone, together = _examples(80), _examples(80, clusters=4)
    old = [0.0] * 80
    new = [1.0 if index % 4 != 3 else 0.0 for index in range(80)]

    independent = validate(
        alone, _measured("old", alone, accuracy=old), _measured("new", alone, accuracy=new), _terms(ACCURACY)
    )
    clustered = validate(
        together, _measured("old", together, accuracy=old), _measured("new", together, accuracy=new), _terms(ACCURACY)
    )

    assert Verdict.IMPROVED is independent.verdict
    assert Verdict.INSUFFICIENT_DATA is clustered.verdict


def test_what_val_settled_is_not_tested() -> None:
    """No headroom: the numbers are reported, no p-value is."""
    examples = _examples(50)
    baseline = _measured("old", examples, accuracy=_binary(50, 50))

    result = validate(
        examples, baseline, baseline, _terms(ACCURACY), settled=(Verdict.NO_HEADROOM, "The baseline is at the top.")
    )

    assert (Verdict.NO_HEADROOM, "The baseline is at the top.") == (result.verdict, result.reason)
    assert result.objectives["accuracy"].p_value is None
    assert 1.0 == result.objectives["accuracy"].baseline.value


def test_a_measurement_of_other_examples_is_refused() -> None:
    """Pairs have to be pairs."""
    examples = _examples(20)
    baseline = _measured("old", examples, accuracy=_binary(20, 5))
    short = _measured("new", examples[:19], accuracy=_binary(19, 5))
    shuffled = Measurement(candidate=baseline.candidate, results=list(reversed(baseline.results)))

    for other in (short, shuffled):
        with pytest.raises(InvalidRequestError, match="wanted: optimized results for the 20 test examples"):
            validate(examples, baseline, other, _terms(ACCURACY))


def test_nobody_else_makes_a_validated_result() -> None:
    """What may be deployed cannot be written by hand."""
    with pytest.raises(TypeError, match="made by hand"):
        ValidatedResult(
            dataset=DatasetVersion("d"),
            baseline=_measured("old", []).candidate.fingerprint,
            optimized=_measured("new", []).candidate.fingerprint,
            n_examples=0,
            alpha=0.05,
            test_split_use=1,
            objectives={},
            primary="accuracy",
            verdict=Verdict.IMPROVED,
            reason="because I say so",
            seal=object(),
        )


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_turning_the_pair_round_turns_the_verdict_round(pairs: list[tuple[bool, bool]]) -> None:
    """Law: who is called the baseline changes the sign and nothing else."""
    examples = _examples(len(pairs))
    old = _measured("old", examples, accuracy=[float(one) for one, _ in pairs])
    new = _measured("new", examples, accuracy=[float(other) for _, other in pairs])
    turned = {Verdict.IMPROVED: Verdict.REGRESSED, Verdict.REGRESSED: Verdict.IMPROVED}

    there = validate(examples, old, new, _terms(ACCURACY))
    back = validate(examples, new, old, _terms(ACCURACY))

    assert turned.get(there.verdict, there.verdict) is back.verdict
    assert there.objectives["accuracy"].p_value == back.objectives["accuracy"].p_value
    assert there.objectives["accuracy"].difference.value == pytest.approx(-back.objectives["accuracy"].difference.value)


def test_the_worth_of_a_change_is_with_minus_without() -> None:
    """Ten of forty more are right with the change: +0.25."""
    examples = _examples(40)
    without = _measured("without", examples, accuracy=_binary(40, 10))
    with_ = _measured("with", examples, accuracy=_binary(40, 20))

    worth = paired_difference(ACCURACY, examples, without.results, with_.results, seed=1)

    assert 0.25 == pytest.approx(worth.value)
    assert worth.low is not None
    assert worth.high is not None
    assert worth.low < 0.25 < worth.high


def test_the_performance_is_told_whatever_the_objectives_are() -> None:
    """Success rate, utility, dollars, milliseconds and tokens of both, on the sealed split."""
    examples = _examples(40)
    usage = Usage(cost_usd=0.01, latency_seconds=0.25, prompt_tokens=90, completion_tokens=10, lm_calls=1)
    baseline = _measured("old", examples, accuracy=_binary(40, 10))
    optimized = _measured("new", examples, accuracy=_binary(40, 30))
    costly = Measurement(
        candidate=optimized.candidate, results=[replace(result, usage=usage) for result in optimized.results]
    )

    result = validate(examples, baseline, costly, _terms(ACCURACY))

    assert {
        "success_rate": 0.75,
        "quality_score": 0.75,
        "avg_cost_per_task": 0.01,
        "avg_latency_ms": 250.0,
        "avg_tokens_per_task": 100.0,
    } == pytest.approx({name: one.value for name, one in result.optimized_performance.items()})
    assert 0.25 == result.baseline_performance["success_rate"].value
    assert 0.0 == result.baseline_performance["avg_cost_per_task"].value
    # Amounts that never vary tell nothing of how they might; 0 dollars each time are not a rate of 0.
    for performance in (result.baseline_performance, result.optimized_performance):
        assert (None, None) == (performance["avg_cost_per_task"].low, performance["avg_cost_per_task"].high)
        assert performance["success_rate"].high is not None
