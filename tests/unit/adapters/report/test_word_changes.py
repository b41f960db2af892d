"""Word diffs of instructions, and demos that came and went."""

from hypothesis import given
from hypothesis import strategies as st
from report_sample import BASELINE, CHOSEN_DEMOS, CLASSIFY, SUMMARIZE, candidate

from dspy_optimization.adapters.report.word_changes import (
    LONGEST_BY_WORD,
    Edit,
    Piece,
    component_changes,
    word_diff,
)
from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.agents.component_settings import ComponentSettings

TEXTS = st.text(alphabet="ab ,.\nö", max_size=60)


@given(TEXTS, TEXTS)
def test_kept_and_added_are_the_new_text_kept_and_removed_the_old(before: str, after: str) -> None:
    """Nothing is lost or invented by a diff."""
    pieces = word_diff(before, after)

    assert after == "".join(piece.text for piece in pieces if piece.edit is not Edit.REMOVED)
    assert before == "".join(piece.text for piece in pieces if piece.edit is not Edit.ADDED)


def test_words_are_compared_not_letters() -> None:
    """`the team` becomes `one team`; a phrase that is replaced stays together."""
    assert (
        Piece(edit=Edit.KEPT, text="Answer with "),
        Piece(edit=Edit.REMOVED, text="the best"),
        Piece(edit=Edit.ADDED, text="one single"),
        Piece(edit=Edit.KEPT, text=" team."),
    ) == word_diff("Answer with the best team.", "Answer with one single team.")


def test_words_only_added_stay_where_they_were_added() -> None:
    """Runs of one kind are not rewritten."""
    pieces = word_diff("a b", "a x b y")

    assert {Edit.KEPT, Edit.ADDED} == {piece.edit for piece in pieces}


def test_a_very_long_text_is_compared_line_by_line() -> None:
    """The work of a diff grows as the square; a megabyte of prompt must not stop the report."""
    before = "\n".join(f"line {index} of many words" for index in range(LONGEST_BY_WORD // 8))
    after = before.replace("line 7 of", "line seven of")

    pieces = word_diff(before, after)

    assert [Piece(edit=Edit.REMOVED, text="line 7 of many words\n")] == [
        piece for piece in pieces if piece.edit is Edit.REMOVED
    ]


def test_demos_are_counted_as_a_bag_and_their_order_is_told() -> None:
    """The same demo twice is two demos; another order alone is a change too."""
    first, second = CHOSEN_DEMOS
    before = candidate("same", [first, first, second])

    added = component_changes(before, candidate("same", [second, first, {"message": "new"}]), frozenset())[0]
    turned = component_changes(before, candidate("same", [second, first, first]), frozenset())[0]

    assert (({"message": "new"},), (first,), 2, False) == (
        added.demos_added,
        added.demos_removed,
        added.demos_kept,
        added.demos_reordered,
    )
    assert (True, True, False) == (turned.demos_reordered, turned.changed, turned.instructions_changed)


def test_every_component_is_listed_with_what_changed() -> None:
    """Frozen and unchanged ones too: a reader sees that nothing else was touched."""
    classify, summarize = component_changes(
        BASELINE, candidate("Read the customer's message twice."), frozenset({SUMMARIZE})
    )

    assert (CLASSIFY, True, False) == (classify.component, classify.changed, classify.frozen)
    assert (SUMMARIZE, False, True) == (summarize.component, summarize.changed, summarize.frozen)
    assert (1, 9) == (classify.words_added, classify.words_removed)


def test_a_component_of_one_candidate_alone_is_all_new() -> None:
    """Candidates of another shape do not break the report."""
    only = component_changes(Candidate(components={}), BASELINE, frozenset())[0]

    assert (Edit.ADDED,) == tuple(piece.edit for piece in only.words)


def test_changed_settings_are_told_in_words() -> None:
    """Each on its own, with what it was before; a change of nothing else is a change."""

    def told(**said: object) -> Candidate:
        return Candidate(
            components={CLASSIFY: ComponentValue(instructions="Sort.", settings=ComponentSettings(**said))}
        )

    before = told(parameters={"temperature": 0.25, "max_tokens": 5}, kind="predict")
    after = told(model="large", parameters={"temperature": 1}, kind="predict", tools=())

    (change,) = component_changes(before, after, frozenset())
    (same,) = component_changes(after, after, frozenset())

    assert [
        "model: as the agent says → large",
        "parameters: max_tokens 5, temperature 0.25 → temperature 1.0",
        "tools: as the agent says → none",
    ] == sorted(setting.words for setting in change.settings)
    assert (True, False, ()) == (change.changed, same.changed, same.settings)
