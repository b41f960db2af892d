"""What a report knows of several goals: whom it lists, who is left, and how values are written."""

from dataclasses import replace
from statistics import fmean

import pytest
from pareto_samples import DOLLARS, POOL, QUALITY, SECONDS, TOKENS, several
from report_sample import NOON, sample

from dspy_optimization.adapters.report.facts import Material, report
from dspy_optimization.adapters.report.pareto import Goal, Pareto
from dspy_optimization.agents.objective import Direction, Objective


def shown(material: Material) -> Pareto:
    found = report(material, NOON).pareto
    assert found is not None
    return found


def test_one_goal_makes_no_front_to_show() -> None:
    """Guardrails make none either; nor does a result that an older engine wrote, nor none at all."""
    assert report(several((QUALITY, DOLLARS)), NOON).pareto is None
    assert sample().pareto is None
    material = several()
    assert material.result is not None
    assert report(replace(material, result=replace(material.result, front=None)), NOON).pareto is None
    assert report(replace(material, result=None), NOON).pareto is None


def test_everybody_is_listed_or_faint_once() -> None:
    """The front, then the baseline and the chosen one where they are beside it; the rest with its means."""
    found = shown(several())
    listed = {one.point.candidate for one in found.listed}
    others = {one.candidate for one in found.others}

    assert len(POOL) == len(listed) + len(others)
    assert set() == listed & others
    assert {"baseline", "chosen"} <= {one.name for one in found.listed}
    assert [one.point for one in found.listed][: len(found.front.points)] == list(found.front.points)
    assert ["exact_match", "tokens"] == [one.name for one in found.goals]
    assert ["cost_usd"] == [one.name for one in found.guardrails]


def test_means_of_the_others_are_those_of_their_trials() -> None:
    """Held against the trials themselves."""
    material = several()
    found = shown(material)
    of = {trial.candidate.fingerprint: trial for trial in material.trials}

    assert found.others
    for one in found.others:
        values = [result.scores["tokens"].value for result in of[one.candidate].results]
        assert fmean(values) == pytest.approx(one.means["tokens"])


def test_who_is_beside_the_front_is_listed_all_the_same() -> None:
    """A chosen one that is dominated, as an earlier policy may have left it."""
    material = several()
    assert material.result is not None
    assert material.result.front is not None
    front = material.result.front
    points = tuple(one for one in front.points if not one.is_chosen)
    beaten = replace(front.chosen, on_front=False)
    moved = replace(material.result, front=replace(front, points=points, chosen=beaten))

    found = shown(replace(material, result=moved))

    assert ("chosen", "chosen, not on the front") == (found.listed[-1].name, found.listed[-1].words)


def test_doubts_name_candidates_as_the_pictures_do() -> None:
    """Those that are not listed are left out; the surest dominator first."""
    found = shown(several())
    first, second, last = found.listed[0], found.listed[1], found.listed[-1]
    doubted = replace(
        last, point=replace(last.point, dominated_by={first.point.candidate: 0.31, second.point.candidate: 0.62})
    )

    assert (f"{second.name} in 62%", f"{first.name} in 31%") == found.dominators(doubted)
    assert (first.name, second.name) == found.names([second.point.candidate, first.point.candidate])
    assert "hurts a guardrail" in first.words


def test_which_goals_are_drawn_against_each_other() -> None:
    """Two: one picture. Three: every pair. More: the primary one against each."""
    extra = Objective(metric="lm_calls", direction=Direction.MINIMIZE)
    goals = tuple(Goal(objective=one, is_share=False) for one in (QUALITY, TOKENS, SECONDS, extra))
    found = shown(several())

    def pairs(count: int) -> list[tuple[str, str]]:
        return [(across.name, up.name) for across, up in replace(found, goals=goals[:count]).pairs]

    assert [("tokens", "exact_match")] == pairs(2)
    assert [("tokens", "exact_match"), ("latency_seconds", "exact_match"), ("latency_seconds", "tokens")] == pairs(3)
    assert [("tokens", "exact_match"), ("latency_seconds", "exact_match"), ("lm_calls", "exact_match")] == pairs(4)


@pytest.mark.parametrize(
    ("objective", "is_share", "value", "text"),
    [
        (QUALITY, True, 0.5667, "56.7%"),
        (QUALITY, False, 0.5667, "0.567"),
        (TOKENS, False, 1234.4, "1,234"),
        (SECONDS, False, 1.42, "1.42 s"),
        (DOLLARS, False, 0.000099, "$0.000099"),
        (DOLLARS, False, 0.0, "$0"),
        (DOLLARS, False, 0.0123, "$0.0123"),
    ],
)
def test_values_have_the_unit_of_their_metric(objective: Objective, is_share: bool, value: float, text: str) -> None:
    """Dollars without an exponent, however little an answer costs."""
    assert text == Goal(objective=objective, is_share=is_share).text(value)


def test_shares_are_told_from_scores() -> None:
    """Metrics of which every score is 0 or 1 are shares; a single half makes it a mean."""
    material = several()
    first = material.trials[-1]
    half = replace(first.results[0], scores={**first.results[0].scores, "exact_match": replace(
        first.results[0].scores["exact_match"], value=0.5)})  # fmt: skip
    spoiled = replace(first, results=(half, *first.results[1:]))

    assert [True, False] == [one.is_share for one in shown(material).goals]
    assert not shown(replace(material, trials=(*material.trials[:-1], spoiled))).goals[0].is_share
