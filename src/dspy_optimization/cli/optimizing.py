"""What `optimize`, `estimate` and `runs resume` do."""

import json
import os
from pathlib import Path

import typer

from dspy_optimization.adapters.report.numbers import dollars, duration
from dspy_optimization.agents.untrusted import closest, shown
from dspy_optimization.cli.amounts import number_of
from dspy_optimization.cli.carrying_out import carry_out
from dspy_optimization.cli.displays import DisplayKind, open_display
from dspy_optimization.cli.ending import Wishes, conclude
from dspy_optimization.cli.exits import ExitCode
from dspy_optimization.cli.house import House
from dspy_optimization.cli.job_changes import JobChanges
from dspy_optimization.cli.job_file import Job, read_job_file
from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.optimization.intake import Checked
from dspy_optimization.optimization.proposing import estimated
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.settings import Settings, read_settings


def read_job(path: Path, changes: JobChanges) -> tuple[Job, Settings]:
    """Return the job and the settings: what is wrong with either is said before anything is opened."""
    settings = read_settings()
    return changes.applied_to(read_job_file(path, settings.allow), Path.cwd()), settings


def checked_display(kind: str | None) -> DisplayKind | None:
    """Return the kind of display. Raises `InvalidRequestError` with the kinds there are."""
    if kind is None:
        return None
    if kind not in set(DisplayKind):
        raise InvalidRequestError(
            f"--display: one of {', '.join(DisplayKind)} is wanted, found {shown(kind)}{closest(kind, DisplayKind)}; "
            f"possible: {', '.join(DisplayKind)}"
        )
    return DisplayKind(kind)


def checked_wishes(fail_under: str | None, report: Path | None, *, as_json: bool) -> Wishes:
    """Return the wishes; what cannot be granted at the end is refused at the beginning."""
    bound = None if fail_under is None else number_of(fail_under, "--fail-under", possible="0, 0.05")
    if report is not None:
        check_file(report, "--report")
    return Wishes(fail_under=bound, report=report, as_json=as_json)


def check_file(path: Path, where: str) -> None:
    """Refuse a place where no file can be written. Raises `InvalidRequestError`."""
    possible = "possible: a file in a folder that can be written"
    if path.is_dir():
        raise InvalidRequestError(f"{where}: a file is wanted, found the folder {path}; {possible}")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        found = "which cannot be written" if folder.is_dir() else "which is a file"
        raise InvalidRequestError(f"{where}: a file is wanted, found {path} below {folder}, {found}; {possible}")


def start(house: House, proposal: Checked, kind: DisplayKind | None, wishes: Wishes) -> ExitCode:
    """Accept the proposal, carry it out, and conclude."""
    display = open_display(kind, as_json=wishes.as_json)
    try:
        display.note(proposal.report.sentence)
        if proposal.reason is not None:
            names = ", ".join(choice.name for choice in proposal.algorithms)
            display.note(f"auto chose {names}: {proposal.reason}")
        optimization = house.engine.intake.accept(proposal)
        display.note(f"optimization {optimization.request.id}")
    except BaseException:
        display.end()
        raise
    return conclude(house, carry_out(house.engine, optimization.request.id, display), wishes)


def go_on(house: House, optimization: Optimization, kind: DisplayKind | None, wishes: Wishes) -> ExitCode:
    """Resume, and conclude. Raises `ConflictError` when it has ended."""
    if optimization.status in {OptimizationStatus.COMPLETED, OptimizationStatus.CANCELLED}:
        raise ConflictError(
            f"wanted: an optimization that can go on; found: {optimization.request.id} is "
            f"{optimization.status.value}, that is final; possible: dspy-opt runs show, or dspy-opt optimize again "
            "(what was answered is not paid twice)"
        )
    display = open_display(kind, as_json=wishes.as_json)
    return conclude(house, carry_out(house.engine, optimization.request.id, display, resumed=True), wishes)


def tell_estimate(house: House, proposal: Checked, seconds_a_call: float | None, *, as_json: bool) -> None:
    """Print what the proposal takes at most."""
    found = estimated(proposal, house.engine.intake, house.engine.models, seconds_a_call=seconds_a_call)
    cost = found.cost
    algorithms = [choice.name for choice in proposal.algorithms]
    if as_json:
        told = {
            "calls": cost.calls,
            "calls_by_role": {"task": cost.task_calls, "reflection": cost.reflection_calls, "judge": cost.judge_calls},
            "calls_by_phase": dict(cost.by_phase),
            "search_calls": cost.search_calls,
            "tokens": cost.tokens,
            "cost_usd": cost.cost_usd,
            "minutes": cost.minutes,
            "seconds_a_call": cost.seconds_a_call,
            "algorithms": algorithms,
            "reason": proposal.reason,
            "models": {role.value: identity for role, identity in found.models.items()},
            "dataset": proposal.report.sentence,
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    usd = "not known: a model has no known price"
    if cost.cost_usd is not None:
        usd = f"at most about {dollars(cost.cost_usd)}" if cost.cost_usd else "$0: these models cost nothing"
    why = "" if proposal.reason is None else f" ({proposal.reason})"
    by_role = f"task {cost.task_calls:,}, reflection {cost.reflection_calls:,}, judge {cost.judge_calls:,}"
    calls = f"at most {cost.calls:,}: {by_role}"
    rows = [
        ("dataset", proposal.report.sentence),
        ("algorithms", f"{', '.join(algorithms)}{why}"),
        ("calls", calls),
        *((f"  {phase}", f"{taken:,}") for phase, taken in cost.by_phase.items()),
        *(() if cost.search_calls is None else (("  left to search", f"{cost.search_calls:,}, by the cap on calls"),)),
        ("tokens", f"about {cost.tokens:,}"),
        ("dollars", usd),
        ("time", f"about {duration(cost.minutes * 60)} at {cost.seconds_a_call:g} s a call"),
        *((f"{role.value} model", identity) for role, identity in found.models.items()),
    ]
    width = max(len(name) for name, _ in rows)
    for name, said in rows:
        typer.echo(f"{name:<{width}}  {said}")
    typer.echo("\nAn upper estimate: repeats are answered by the ledger, and most searches end earlier.")
