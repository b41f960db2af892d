"""Several algorithms on one ledger and one budget; the better one gets the rest.

Turn by turn: every algorithm gets an equal part of half the calls there are; then the one with the best candidate
on val goes on with what is left, then the next. Going on is running the same search again: the ledger answers
what was asked before, so nothing is paid twice and no algorithm has to know how to continue.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dspy_optimization.optimization.request import AlgorithmChoice


class TurnOutcome(StrEnum):
    """How a turn ended."""

    FINISHED = "finished"  # the algorithm had nothing more to try
    OUT_OF_CALLS = "out_of_calls"  # its turn was over before it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One algorithm, once."""

    choice: AlgorithmChoice
    number: int
    """0 is its first."""
    allowance_calls: int | None
    """How many distinct calls it may ask for, from its own beginning; None: as many as it wants."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnReport:
    """What a turn came to."""

    outcome: TurnOutcome
    asked_calls: int
    """Distinct calls the algorithm has asked for since its own beginning."""
    iterations: int
    best_score: float | None
    """Of its candidates on all of val; None when it has none."""


def run_portfolio(
    choices: Sequence[AlgorithmChoice], *, max_calls: int | None, take: Callable[[Turn], TurnReport]
) -> tuple[TurnReport, ...]:
    """Give every algorithm its turns and return the last report of each, in the order of `choices`.

    Args:
        choices: at least one.
        max_calls: distinct calls for all searches together; None: no bound.
        take: carries out one turn; lets `StopSearch` other than `TurnOver` pass.
    """
    shared = len(choices) > 1 and max_calls is not None
    first = max_calls // (2 * len(choices)) if shared and max_calls is not None else max_calls
    reports: list[TurnReport] = []
    for choice in choices:
        why = f"first turn, {first} of {max_calls} calls" if shared else "runs until it is done"
        reports.append(take(Turn(choice=choice, number=0, allowance_calls=first, reason=why)))
    if not shared or max_calls is None:
        return tuple(reports)
    turns = [0] * len(choices)
    while True:
        open_ones = [index for index, report in enumerate(reports) if report.outcome is TurnOutcome.OUT_OF_CALLS]
        left = max_calls - sum(report.asked_calls for report in reports)
        if not open_ones or left <= 0:
            return tuple(reports)
        leader = max(open_ones, key=lambda index: (_rank(reports[index]), -index))
        turns[leader] += 1
        reports[leader] = take(
            Turn(
                choice=choices[leader],
                number=turns[leader],
                allowance_calls=reports[leader].asked_calls + left,
                reason=f"best on val so far ({_rank(reports[leader]):.3f}): gets the {left} calls that are left",
            )
        )


def _rank(report: TurnReport) -> float:
    return report.best_score if report.best_score is not None else float("-inf")
