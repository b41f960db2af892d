"""The pictures of several goals: marks, intervals, which way is up."""

import re
from dataclasses import replace

from pareto_samples import DOLLARS, QUALITY, SECONDS, TOKENS, several
from report_sample import NOON

from dspy_optimization.adapters.report.facts import report
from dspy_optimization.adapters.report.pareto import Other, Pareto
from dspy_optimization.adapters.report.pareto_charts import (
    MOST_OTHERS,
    key_marks,
    pair_charts,
    parallel_chart,
    trust_chart,
    volume_chart,
)
from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.objective import Objective


def shown(*objectives: Objective) -> Pareto:
    found = report(several(objectives or (QUALITY, TOKENS, DOLLARS)), NOON).pareto
    assert found is not None
    return found


def places(drawn: str, name: str) -> list[tuple[float, float]]:
    """Where the mark with that title lies, in the wide and in the narrow picture."""
    found = re.findall(
        rf'<(?:circle|polygon)[^>]*?(?:cx="([\d.]+)" cy="([\d.]+)"|points="([\d.,]+) [^"]*")[^>]*><title>{name}[,:]',
        drawn,
    )
    return [
        (float(x), float(y)) if x else (float(corner.split(",")[0]), float(corner.split(",")[1]))
        for x, y, corner in found
    ]


def bars(drawn: str, kind: str, mark: tuple[float, float]) -> list[tuple[float, float, float]]:
    """The two whiskers of the wide picture, across and up: where each begins, its mark lies, and it ends."""
    ends = re.findall(rf'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" class="cross {kind}"', drawn)[:2]
    (left, y, right, same_y), (x, bottom, same_x, top) = [[float(one) for one in each] for each in ends]
    assert (y, x) == (same_y, same_x) == (mark[1], mark[0])
    return [(left, mark[0], right), (top, mark[1], bottom)]


def test_every_candidate_is_drawn_with_its_intervals_both_ways() -> None:
    """A mark each, faint ones for the dominated, two whiskers where both means have an interval."""
    found = shown()
    (pair,) = pair_charts(found)
    drawn = str(pair.drawn)

    assert 2 == drawn.count("<svg")
    assert 2 * 2 * len(found.listed) == len(re.findall(r'<line[^>]*class="cross ', drawn))
    assert all(low < at < high for low, at, high in bars(drawn, "s2", places(drawn, "chosen")[0]))
    assert 2 * len(found.others) == drawn.count('class="mark base part"')
    assert 2 == drawn.count('class="ring"')
    assert 2 * sum(not one.point.guardrails_hold for one in found.listed) == drawn.count('class="mark s1"') > 0
    assert 2 == drawn.count('class="front-line"')
    assert "nan" not in drawn


def test_axes_keep_the_metrics_own_direction_and_say_which_is_better() -> None:
    """More tokens lie further right whoever is better; a better share lies higher."""
    found = shown()
    drawn = str(pair_charts(found)[0].drawn)
    by_name = {one.name: one.point.means for one in found.listed}
    chosen, baseline = places(drawn, "chosen")[-2:], places(drawn, "baseline")[-2:]

    assert by_name["chosen"]["tokens"].value > by_name["baseline"]["tokens"].value
    assert all(one[0] > other[0] and one[1] < other[1] for one, other in zip(chosen, baseline, strict=True))
    assert "← tokens (less is better)" in drawn
    assert "↑ exact_match (more is better)" in drawn


def test_the_line_is_the_edge_of_what_the_front_dominates() -> None:
    """Between two points the corner that is the worse of both ways: further right at the height of the lower one."""
    found = shown()
    path = re.findall(r'd="M([^"]+)" class="front-line"', str(pair_charts(found)[0].drawn))[0]
    corners = [tuple(float(one) for one in place.split(",")) for place in path.split("L")]
    able = [one for one in found.listed if one.point.guardrails_hold]

    assert 2 * len(able) - 1 == len(corners)
    for before, corner, after in zip(corners[::2], corners[1::2], corners[2::2], strict=False):
        assert (after[0], before[1]) == corner
        assert after[1] < before[1]


def test_three_goals_have_every_pair_and_no_line_of_a_front() -> None:
    """In two of three goals a point of the front may look beaten."""
    pairs = pair_charts(shown(QUALITY, TOKENS, SECONDS))

    assert [
        "exact_match against tokens", "exact_match against latency_seconds", "tokens against latency_seconds",
    ] == [one.title for one in pairs]  # fmt: skip
    assert not any("front-line" in str(one.drawn) for one in pairs)


def test_the_best_is_on_top_of_every_axis() -> None:
    """Also of a metric of which less is better; the ends have the metric's own values."""
    found = shown()
    drawn = str(parallel_chart(found))
    least = min(found.listed, key=lambda one: one.point.means["tokens"].value)
    most = max(found.listed, key=lambda one: one.point.means["tokens"].value)
    low, high = (found.goals[1].text(one.point.means["tokens"].value) for one in (least, most))
    wide = drawn[: drawn.index("</svg>")]
    ends = {text: float(y) for y, text in re.findall(r'y="([\d.]+)"[^>]*class="tick">([^<]+)<', wide)}

    assert ends[low] < ends[high]
    ((_, chosen),) = [one for one in places(wide, "chosen") if one[0] > 400]
    ((_, baseline),) = [one for one in places(wide, "baseline") if one[0] > 400]
    assert baseline + 10 < chosen  # fewer tokens, so nearer to the top
    assert 2 * len(found.listed) == len(re.findall(r'<path[^>]*class="lane ', drawn))
    assert 2 == len(re.findall(r'class="lane s2 chosen"', drawn))
    assert "lane s1 hurts" in drawn


def test_a_goal_in_which_all_are_equal_is_an_axis_all_the_same() -> None:
    """Nothing is divided by nothing."""
    found = shown()
    even = tuple(
        replace(one, point=replace(one.point, means={
            **one.point.means, "tokens": replace(one.point.means["tokens"], value=7.0, low=None, high=None)}))
        for one in found.listed
    )  # fmt: skip
    flat = replace(found, listed=even, others=())

    drawn = str(parallel_chart(flat)) + str(pair_charts(flat)[0].drawn)

    assert "nan" not in drawn
    assert "inf" not in drawn
    assert 2 == drawn.count(">all 7<")


def test_how_the_front_grew_never_falls() -> None:
    """From the first step to the last call; one step alone is no picture."""
    found = shown()
    drawn = str(volume_chart(found))
    heights = [float(one) for one in re.findall(r"V([\d.]+)", re.findall(r'd="(M[^"]+)" class="best"', drawn)[0])]

    assert heights == sorted(heights, reverse=True)
    assert f"after {found.front.course[-1].paid_calls} calls" in drawn
    assert volume_chart(replace(found, front=replace(found.front, course=found.front.course[:1]))) is None


def test_thousands_are_thinned() -> None:
    """Faint marks nobody can tell apart are not written."""
    many = tuple(
        Other(candidate=Fingerprint(f"{place:064}"), algorithm="gepa", means={"exact_match": 0.3, "tokens": place})
        for place in range(5_000)
    )

    drawn = str(pair_charts(replace(shown(), others=many))[0].drawn)

    assert 0 < drawn.count('class="mark base part"') <= 2 * MOST_OTHERS


def test_names_that_would_stand_on_each_other_are_left_to_the_titles() -> None:
    """Baseline and chosen one are always named."""
    found = shown()
    means = found.listed[0].point.means
    heap = replace(found, listed=tuple(replace(one, point=replace(one.point, means=means)) for one in found.listed))

    drawn = str(pair_charts(heap)[0].drawn)
    wide = drawn[: drawn.index("</svg>")]
    names = re.findall(r'class="node-text[^"]*">([^<]+)<', wide)

    assert {"baseline", "chosen"} <= set(names)
    assert len(names) < len(found.listed)
    assert all(f"<title>{one.name}" in wide for one in heap.listed)


def test_trust_is_drawn_by_round() -> None:
    """One bar a span; the words say the numbers."""
    drawn = str(trust_chart([(1, 2, 0.0, 0.0), (3, 5, 0.3, 0.6)], "genetic"))

    assert 4 == drawn.count('class="trust"')
    assert "3 to 5: 30% to 60%" in drawn


def test_marks_are_explained() -> None:
    """Every kind of mark, with a shape of its own."""
    marks = dict(key_marks())

    assert ["baseline", "chosen", "on the front", "hurts a guardrail", "dominated"] == list(marks)
    assert 5 == len({str(one) for one in marks.values()})
