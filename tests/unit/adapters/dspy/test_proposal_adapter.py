"""Proposals that do not keep to the format."""

import dspy
import pytest

from dspy_optimization.adapters.dspy.proposal_adapter import ProposalAdapter

INSTRUCTION = dspy.Signature("task -> proposed_instruction, proposed_prefix")
RULES = dspy.Signature("examples -> reasoning, rules")
ADVICE = dspy.Signature("examples -> advice: dict[str, str]")


@pytest.mark.parametrize(
    ("signature", "said", "found"),
    [
        (INSTRUCTION, "Be brief.", {"proposed_instruction": "Be brief.", "proposed_prefix": ""}),
        (INSTRUCTION, "[[ ## proposed_instruction ## ]]\nA", {"proposed_instruction": "A", "proposed_prefix": ""}),
        (
            INSTRUCTION,
            "[[ ## proposed_instruction ## ]]\nA\n[[ ## proposed_prefix ## ]]\nB",
            {"proposed_instruction": "A", "proposed_prefix": "B"},
        ),
        (INSTRUCTION, "Be brief.\n[[ ## oops ## ]]\nx", {"proposed_instruction": "Be brief.", "proposed_prefix": ""}),
        (RULES, "1. Shout.", {"reasoning": "", "rules": "1. Shout."}),
    ],
)
def test_text_is_taken_for_what_was_asked(signature: object, said: str, found: dict[str, str]) -> None:
    """The whole answer, or as much of it as carries a marker."""
    assert found == ProposalAdapter().parse(signature, said)


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        (INSTRUCTION, ""),
        (INSTRUCTION, "[[ ## proposed_prefix ## ]]\nB"),
        (ADVICE, "Be brief."),
        (dspy.Signature("examples -> reasoning"), ""),
    ],
)
def test_what_is_no_text_stays_unreadable(signature: object, said: str) -> None:
    """Nothing is made up."""
    with pytest.raises(dspy.AdapterParseError):
        ProposalAdapter().parse(signature, said)
