"""A process that fires what is due, says how many it dealt with, and may be killed on the way."""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from dspy_optimization.adapters.postgres.schedule_store import Firing, PostgresSchedules
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.jobs.queue import Transaction
from dspy_optimization.serving import ServiceRole, open_serving
from dspy_optimization.settings import read_settings
from dspy_optimization.web import firing
from dspy_optimization.web.firing import Firer, FiringTerms

LEASE_SECONDS = 1.0

whole = PostgresSchedules.firing


def die(*_: object) -> NoReturn:
    """Go as nobody can prepare for."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit


def then_die(step: Callable[..., object]) -> Callable[..., object]:
    """Return the step, after which nothing comes."""

    def last(*given: object) -> object:
        step(*given)
        die()

    return last


def dying_inside(schedules: PostgresSchedules, made: Firing, optimization_id: OptimizationId) -> object:
    """Everything is written, nothing is committed."""
    note = whole(schedules, made, optimization_id)

    def hook(transaction: Transaction) -> None:
        note(transaction)
        die()

    return hook


def fire(where: str) -> None:
    """Fire all that is due, and say how much that was.

    Args:
        where: `claimed`, `handing in` and `handed in`: the process dies there; `ends`: it does not.
    """
    match where:
        case "claimed":
            firing.fire = die
        case "handing in":
            PostgresSchedules.firing = dying_inside
        case "handed in":
            firing.hand_in = then_die(firing.hand_in)
        case "ends":
            pass
    with open_serving(read_settings(), ServiceRole.API) as serving:
        firer = Firer(serving, terms=FiringTerms(lease_seconds=LEASE_SECONDS))
        sys.stdout.write(f"{sum(iter(firer.step, False))}\n")
