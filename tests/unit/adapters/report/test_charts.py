"""The pictures: what is drawn, and that it stays small."""

from report_sample import candidate, dataset, results, sample, trial

from dspy_optimization.adapters.report.charts import MOST_POINTS, Row, interval_chart, score_chart, share_bar
from dspy_optimization.adapters.report.curves import score_curves
from dspy_optimization.adapters.report.lineage_chart import MOST_SHOWN, lineage_chart
from dspy_optimization.adapters.report.numbers import number
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.objective import Objectives


def test_scores_are_drawn_for_wide_and_narrow_screens_with_titles_and_axis_names() -> None:
    """A mark a measurement, its words on hovering, both axes named, the picture told in words."""
    curves = sample().curves

    drawn = str(score_chart(curves, "answered right on val", number, unit_range=True))

    assert 2 == drawn.count("<svg")
    assert 2 == drawn.count(">paid model calls</text>")
    assert 2 == drawn.count(">answered right on val</text>")
    assert 2 * (len(curves.points) + 1) == drawn.count("<title>")
    assert "24 measurements by miprov2, gepa, the best so far 0.71" in drawn


def test_a_single_measurement_is_a_chart() -> None:
    """The axis of one value is not empty."""
    val = dataset(n_val=3)[Split.VAL]
    only = trial(candidate("x"), results(val, 0.5), algorithm="gepa", iteration=0, paid_calls=0)
    curves = score_curves(Objectives(items=sample().objectives), val, [only])

    drawn = str(score_chart(curves, "score", number, unit_range=False))

    assert "nan" not in drawn
    assert 2 == drawn.count("1 measurement by gepa")


def test_many_measurements_are_thinned_but_the_best_stay() -> None:
    """Ten thousand marks nobody can see are not written."""
    val = dataset(n_val=1)[Split.VAL]
    trials = [
        trial(
            candidate(f"x{index}"),
            results(val, 0, values=[index / 5000]),
            algorithm="gepa",
            iteration=index,
            paid_calls=index,
        )
        for index in range(0, 5000, 2)
    ]
    curves = score_curves(Objectives(items=(sample().objectives[0],)), val, trials[::-1])

    drawn = str(score_chart(curves, "score", number, unit_range=False))

    assert 2 * MOST_POINTS >= drawn.count("<circle")
    assert 2 == drawn.count(f"candidate {trials[-1].candidate.fingerprint[:7]}")


def test_intervals_show_zero_and_long_names_are_cut() -> None:
    """A row without an interval is a mark alone; the hover title has the whole name."""
    name = "a component with a very long name indeed: instructions"
    rows = [
        Row(name=name, value=0.1, low=-0.1, high=0.3, text="+0.1"),
        Row(name="b", value=0.2, low=None, high=None, text="+0.2"),
    ]

    drawn = str(interval_chart(rows, "score", number, zero=True, bounds=None))

    assert 2 == drawn.count('class="zero"')
    assert 2 == drawn.count('class="whisker mark"')
    assert "…</text>" in drawn
    assert f"<title>{name}: +0.1</title>" in drawn


def test_a_bar_stays_within_its_room() -> None:
    """Nothing, something, all."""
    widths = [str(share_bar(share)).split('width="')[2].split('"')[0] for share in (0.0, 0.001, 0.5, 3.0)]

    assert ["0", "0.8", "50", "100"] == widths


def test_a_large_family_shows_the_ancestors_and_the_best() -> None:
    """The table lists all; the picture what matters."""
    shown = sample()
    crowd = tuple(shown.family) * 4
    many = [
        type(one)(
            **{name: getattr(one, name) for name in one.__dataclass_fields__ if name != "fingerprint"},
            fingerprint=f"{index:03}{one.fingerprint}",
        )
        for index, one in enumerate(crowd)
    ]

    drawn = str(lineage_chart(many, shown.curves.algorithms, number))

    assert 2 == drawn.count(f"{MOST_SHOWN} candidates in")
    assert 'class="ring"' in drawn
    assert "not on all of val" in str(lineage_chart(shown.family, (), number))
