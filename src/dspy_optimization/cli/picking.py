"""What `runs pick` does."""

from dspy_optimization.cli.carrying_out import carry_out
from dspy_optimization.cli.displays import DisplayKind, open_display
from dspy_optimization.cli.ending import Wishes, conclude
from dspy_optimization.cli.exits import ExitCode
from dspy_optimization.cli.house import House
from dspy_optimization.optimization.picking import measured_candidates, pick_candidate
from dspy_optimization.optimization.request import Optimization


def start_pick(
    house: House, picked_from: Optimization, candidate: str, kind: DisplayKind | None, wishes: Wishes
) -> ExitCode:
    """Take the candidate to the gate in a new optimization, carry it out, and conclude.

    Raises:
        NotFoundError: there is no such candidate.
        ConflictError: the optimization has not ended, or the candidate was at the gate already.
    """
    engine = house.engine
    known = measured_candidates(engine.stores.trials, picked_from.request.id)
    picked = pick_candidate(engine.intake, picked_from, candidate.strip().lower(), known)
    display = open_display(kind, as_json=wishes.as_json)
    try:
        display.note(picked.sentence)
        optimization = engine.intake.accept(picked.checked)
        display.note(f"optimization {optimization.request.id}")
    except BaseException:
        display.end()
        raise
    return conclude(house, carry_out(engine, optimization.request.id, display), wishes)
