"""The verdict in words: every one there is has its own sentence and its own advice."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from report_sample import ACCURACY, BASELINE, COST, dataset, material, optimization, result, sample, story, validated

from dspy_optimization.adapters.report.wording import Scale, Statement, Tone, statement
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.evaluation.gate import ValidatedResult
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.statistics import Verdict

DATA = dataset()
CHOSEN = story(DATA).chosen
RIGHT = Scale(objective=ACCURACY, right_or_wrong=True)


def _ones(n: int, ones: int) -> list[float]:
    return [1.0] * ones + [0.0] * (n - ones)


def _said(proof: ValidatedResult, scale: Scale = RIGHT, minimum_effect: float = 0.05) -> Statement:
    asked = optimization()
    constraints = replace(asked.request.constraints, min_improvement_threshold=minimum_effect)
    asked = replace(asked, request=replace(asked.request, constraints=constraints))
    said = statement(asked, result(CHOSEN, proof), scale)
    return replace(said, evidence=said.evidence.replace("\u00a0", " "))


def _proof(
    before: Sequence[float], after: Sequence[float], minimum_effect: float = 0.05, **changes: object
) -> ValidatedResult:
    data = dataset(n_test=len(before))
    return validated(data, CHOSEN, values=(before, after), minimum_effect=minimum_effect, **changes)


def test_improved_counts_cases_in_a_hundred_and_says_how_sure() -> None:
    """80 of 200 against 126 of 200, 46 won and none lost."""
    said = _said(_proof(_ones(200, 80), _ones(200, 126)))

    assert (Tone.GOOD, "improved", "Yes, it is better.") == (said.tone, said.label, said.headline)
    assert said.sentence.startswith(
        "Out of 100 cases, about 23 more are answered right (between 16 and 29, 97.5% sure)"
    )
    assert said.sentence.endswith("63% instead of 40%.")
    assert said.evidence.startswith("Proven on 200 cases nobody optimized on; p < 0.0001")
    assert "Put it into use" in said.next_step


def test_an_improvement_below_what_matters_says_so() -> None:
    """Real, and too small: a manager has to weigh it."""
    said = _said(_proof(_ones(400, 200), _ones(400, 210), minimum_effect=0.1), minimum_effect=0.1)

    assert "improved" == said.label
    assert "smaller than the 10 in 100 cases you asked for" in said.sentence
    assert said.next_step.startswith("Weigh gain against price")


def test_no_improvement_after_a_test_says_what_is_ruled_out() -> None:
    """Six won, eight lost of 1000: a gain of 10 in 100 is out of the question."""
    before = _ones(1000, 500)
    after = [1.0 - value if index in {*range(8), *range(500, 506)} else value for index, value in enumerate(before)]

    said = _said(_proof(before, after, minimum_effect=0.1), minimum_effect=0.1)

    assert "no improvement" == said.label
    assert said.sentence.startswith("A gain of 10 in 100 cases is ruled out. Out of 100 cases, about 0.2 fewer")
    assert "try another algorithm" in said.next_step


def test_no_improvement_without_a_candidate_says_where_it_stands() -> None:
    """Nothing was tested, so no p-value is spoken of."""
    settled = (Verdict.NO_IMPROVEMENT, "No candidate was better than the baseline on val.")
    said = _said(_proof(_ones(200, 80), _ones(200, 80), settled=settled))

    assert "No. The agent you have stays the best." == said.headline
    assert said.sentence.startswith("No candidate beat it on the val examples")
    assert "It answers 40% of the sealed cases right (between" in said.sentence
    assert "Measured on 200 cases nobody optimized on." == said.evidence


def test_no_headroom_says_that_no_search_was_paid_for() -> None:
    """The reason is the one the engine found on val."""
    settled = (Verdict.NO_HEADROOM, "The baseline scores 0.99 on 100 examples.")
    said = _said(_proof(_ones(200, 198), _ones(200, 198), settled=settled))

    assert ("no headroom", "There is nothing left to improve here.") == (said.label, said.headline)
    assert said.sentence.startswith("The baseline scores 0.99 on 100 examples. It answers 99%")
    assert "no search was paid for" in said.evidence


def test_regressed_warns() -> None:
    """More wrong than before."""
    said = _said(_proof(_ones(200, 120), _ones(200, 90)))

    assert (Tone.BAD, "regressed") == (said.tone, said.label)
    assert "about 15 fewer are answered right (between" in said.sentence
    assert said.next_step.startswith("Keep the agent you have.")


def test_a_broken_guardrail_is_told_even_when_the_main_goal_is_better() -> None:
    """Better answers at five times the price, where ten percent were allowed."""
    guardrail = replace(COST, margin=0.1)
    said = _said(
        _proof(_ones(200, 80), _ones(200, 130), objectives=(ACCURACY, guardrail), tokens=900),
    )

    assert "regressed" == said.label
    assert said.sentence.startswith("Something you wanted protected was hurt. The guardrail is broken: cost_usd")
    assert "wider margin" in said.next_step


def test_indecisive_says_what_so_many_cases_could_find() -> None:
    """Twelve won, six lost of 100."""
    before = _ones(100, 50)
    after = [1.0 - value if index in {*range(6), *range(50, 62)} else value for index, value in enumerate(before)]

    said = _said(_proof(before, after))

    assert ("indecisive", "It cannot be said yet.") == (said.label, said.headline)
    assert "fewer and" in said.sentence
    assert "So many cases find a difference of" in said.evidence
    assert "collect more test cases" in said.next_step


def test_indecisive_with_a_better_main_goal_names_the_other_goal() -> None:
    """A second objective got worse: the main one is not kept quiet."""
    other = Objective(metric="cost_usd", direction=Direction.MINIMIZE)
    said = _said(_proof(_ones(200, 80), _ones(200, 130), objectives=(ACCURACY, other), tokens=900))

    assert said.headline.startswith("Better at the main goal")
    assert "cost_usd is worse" in said.sentence


def test_insufficient_data_asks_for_examples() -> None:
    """Three differences cannot reach any level."""
    said = _said(_proof(_ones(20, 10), _ones(20, 13)))

    assert "too little data" == said.label
    assert "the two differ on 3 of them" in said.evidence
    assert "add examples" in said.next_step


def test_a_few_cases_that_can_show_nothing_are_named() -> None:
    """No difference at all would be found on two cases."""
    said = _said(_proof(_ones(2, 1), _ones(2, 1)))

    assert "So few cases cannot show any difference." in said.evidence
    assert "as many are answered right as before" in said.sentence


@pytest.mark.parametrize(
    ("ended", "words"),
    [("cancelled", "It was cancelled before"), ("max_lm_calls", "It reached its cap max_lm_calls before")],
)
def test_not_validated_claims_nothing(ended: str, words: str) -> None:
    """Scores on val are no evidence."""
    said = statement(optimization(), result(CHOSEN, None, ended_because=ended), RIGHT)
    nothing = statement(optimization(), result(BASELINE, None, ended_because=ended), RIGHT)

    assert ("not validated", Tone.OPEN) == (said.label, said.tone)
    assert said.sentence.startswith(words)
    assert "best candidate so far was kept" in said.sentence
    assert "Nothing better" in nothing.sentence


@pytest.mark.parametrize("status", list(OptimizationStatus))
def test_every_state_without_a_result_has_its_sentence(status: OptimizationStatus) -> None:
    """A report can be looked at any time."""
    said = statement(optimization(status, error="the model is away"), None, RIGHT)

    assert status.value == said.label
    assert said.sentence
    assert said.next_step
    assert ("the model is away" in said.sentence) is (status.value in {"failed", "paused"})


def test_a_second_use_of_the_test_split_is_told() -> None:
    """The bar is higher and the reader knows why."""
    said = _said(_proof(_ones(200, 80), _ones(200, 126), use=2))

    assert "opened for the 2. time" in said.evidence


def test_scores_that_are_no_right_or_wrong_are_told_in_their_own_unit() -> None:
    """A mean F1 is no share of cases; a falling cost is better."""
    rising = [0.2 + 0.005 * (index % 100) for index in range(200)]
    f1 = _said(_proof(rising, [value + 0.1 for value in rising]), Scale(objective=ACCURACY, right_or_wrong=False))
    cheaper = Objective(metric="cost_usd", direction=Direction.MINIMIZE)
    cost = _said(
        _proof(_ones(50, 20), _ones(50, 20), objectives=(cheaper,), tokens=90, minimum_effect=0.0),
        Scale(objective=cheaper, right_or_wrong=False),
    )
    same = _said(
        _proof(rising, rising, settled=(Verdict.NO_IMPROVEMENT, "none")),
        Scale(objective=ACCURACY, right_or_wrong=False),
    )

    assert f1.sentence.startswith("exact_match rises to 0.547 from 0.448 (better), a change of 0.1 (between")
    assert cost.sentence.startswith("cost_usd falls to 0.000108 from 0.000216 (better), a change of −0.000108")
    assert "Its exact_match is 0.448 on the sealed cases (between" in same.sentence


def test_the_report_reads_right_or_wrong_off_the_trials() -> None:
    """Scores other than 0 and 1 make it a mean; without trials the test of the gate tells."""
    whole = material()
    cost_first = replace(whole.optimization.request, objectives=(replace(COST, guardrail=False),))

    assert sample().scale.right_or_wrong is True
    assert sample(trials=()).scale.right_or_wrong is True
    assert sample(trials=(), result=None).scale.right_or_wrong is False
    assert (
        sample(optimization=replace(whole.optimization, request=cost_first), result=None).scale.right_or_wrong is False
    )
