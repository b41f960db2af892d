"""Leaks across splits are found and named."""

from agent_samples import example

from dspy_optimization.agents.example import Split
from dspy_optimization.agents.leaks import find_leaks

TEXT = "please tell me how i can get the money back that i paid for the parcel that never came to my house"
TRAIN, VAL, TEST = Split


def test_equal_and_near_inputs() -> None:
    """Both examples are named with split, text and likeness."""
    examples = [example(TEXT, "a"), example(TEXT.upper(), "b"), example(f"{TEXT} today", "c"), example("other", "d")]
    leaks = find_leaks(examples, [TRAIN, VAL, TEST, TEST])
    texts = [str(leak) for leak in leaks]

    assert ["equal", "near", "near"] == [leak.reason for leak in leaks]
    assert texts[0].startswith(
        f"{examples[0].id[:12]} in train and {examples[1].id[:12]} in val (equal inputs): 'please"
    )
    assert "% alike): " in texts[1]


def test_no_leak_within_a_split() -> None:
    """Repeats inside one split are not leaks."""
    assert find_leaks([example(TEXT, "a"), example(TEXT, "b")], [TRAIN, TRAIN]) == ()


def test_an_indirect_leak() -> None:
    """Equal texts hang on the first of them: the pair between the others is named too."""
    examples = [example(TEXT, str(number)) for number in range(4)]
    leaks = find_leaks(examples, [TRAIN, VAL, TEST, VAL])
    pairs = {(leak.first_split, leak.second_split) for leak in leaks}

    assert pairs == {(TRAIN, VAL), (TRAIN, TEST), (VAL, TEST)}


def test_a_cluster_in_two_splits() -> None:
    """A conversation cut in two leaks although its texts differ."""
    examples = [
        example("one thing", cluster="c"),
        example("another matter", cluster="c"),
        example("third", cluster="d"),
    ]
    leaks = find_leaks(examples, [TRAIN, TEST, VAL])

    assert ["cluster"] == [leak.reason for leak in leaks]
    assert "(the same cluster c)" in str(leaks[0])


def test_a_leak_is_told_once() -> None:
    """Equal texts of one cluster are one leak, not two."""
    examples = [example(TEXT, "a", cluster="c"), example(TEXT, "b", cluster="c")]

    assert ["equal"] == [leak.reason for leak in find_leaks(examples, [TRAIN, TEST])]
