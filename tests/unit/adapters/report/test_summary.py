"""The report on a terminal."""

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_kinds import ALL, EVIL
from report_sample import BASELINE, agent, bill, dataset, optimization, result, sample, story, validated

from dspy_optimization.adapters.report.summary import Block, Line, Summary, plain, summary
from dspy_optimization.adapters.report.wording import Statement, Tone
from dspy_optimization.evaluation.ledger import Bill
from dspy_optimization.evaluation.model import Role
from dspy_optimization.optimization.request import OptimizationStatus

TOLD = Statement(tone=Tone.GOOD, label="improved", headline="h", sentence="s", evidence="e", next_step="n")


def _columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in {"W", "F"} else 1 for one in line)


@pytest.mark.parametrize("name", list(ALL))
def test_no_line_is_wider_than_a_terminal_and_none_acts(name: str) -> None:
    """80 columns, and what strangers wrote cannot move the cursor."""
    text = plain(summary(ALL[name]))

    assert 80 >= max(_columns(line) for line in text.split("\n"))
    assert not {"\x1b", "\u202e", "\r"} & set(text)


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="ab 漢字é \n\x1b", max_size=200), st.text(alphabet="ab 漢é", max_size=80), st.integers(40, 120))
def test_any_text_fits_in_any_width(text: str, name: str, columns: int) -> None:
    """Wide characters count as two; a word without an end is cut."""
    shown = plain(
        Summary(agent=name, statement=TOLD, blocks=(Block(title="t", lines=(Line(name=name, text=text),)),)), columns
    )

    assert columns >= max(_columns(line) for line in shown.split("\n"))


def test_it_says_what_the_page_says() -> None:
    """Verdict, numbers, changes, worth, cost, and the same again."""
    text = plain(summary(sample())).replace("\u00a0", " ")

    for line in (
        "support-triage: improved",
        "  Before → after          40.5% → 69.5%  (answered right, 200 sealed test cases)",
        "  Difference              +29 in 100  (between +21 and +36, 97.5% sure)",
        "  classify                instructions +55 −4 words, demos +2 −1 (0 kept)",
        "  classify: demos         +5 in 100 (−2 to +12)",
        "  100 val examples        28 better, 0 worse, 72 the same",
        "  reflection              64 calls, 182,200 tokens, $0.40",
        "  saved by the ledger     1,187 calls, 33.3% of all",
        "  lost                    2 calls, billed at the most they can have cost",
        "  time worked             12 min 34 s",
        "  --algorithm miprov2 --option miprov2.num_candidates=6 --algorithm gepa \\",
    ):
        assert line in text.splitlines()


def test_a_mean_score_and_a_change_of_order_are_told() -> None:
    """Other units, other kinds of change."""
    data = dataset()
    told = story(data)
    shown = sample()
    mean = replace(shown, scale=replace(shown.scale, right_or_wrong=False))
    turned = replace(
        shown, changes=(replace(shown.changes[0], words=(), demos_added=(), demos_removed=(), demos_reordered=True),)
    )
    unsure = result(told.chosen, validated(data, told.chosen))
    improvement = replace(unsure.key_improvements[0], worth=replace(unsure.key_improvements[0].worth, low=None))

    assert "+0.17 (+0.08 to +0.26)" in plain(summary(mean))
    assert "demos in another order" in plain(summary(turned))
    assert "+17 in 100\n" in plain(summary(sample(result=replace(unsure, key_improvements=(improvement,)))))


def test_before_anything_was_measured_it_is_short() -> None:
    """Only what there is: no empty titles."""
    shown = summary(
        sample(
            result=None,
            optimization=optimization(OptimizationStatus.QUEUED, elapsed_seconds=0.0),
            trials=(),
            bill=Bill(),
            events=(),
        )
    )

    assert ["Result", "The same again"] == [block.title for block in shown.blocks]
    assert "nothing was measured yet" in plain(shown)


def test_nothing_better_shows_where_it_stands() -> None:
    """One figure and its interval instead of a difference."""
    settled = sample(result=result(BASELINE, validated(dataset(), BASELINE, settled=_none())), agent=agent(EVIL))

    text = plain(summary(settled))

    assert "It stands at            40.5%" in text
    assert "Difference" not in text


def test_a_bill_without_roles_that_saved_nothing_is_quiet() -> None:
    """No line about nothing."""
    spend = replace(bill(), answered_from_ledger=0, by_role={Role.TASK: replace(bill().total, lost_calls=0)})

    text = plain(summary(sample(bill=spend)))

    assert "saved by" not in text
    assert "billed at the most" not in text


def _none() -> tuple[object, str]:
    from dspy_optimization.statistics import Verdict

    return Verdict.NO_IMPROVEMENT, "No candidate was better than the baseline on val."
