"""Compares algorithms: runs them all on the same tasks, each by itself, and prints the table."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from dspy_optimization.adapters.postgres import PostgresKeys
from dspy_optimization.adapters.postgres.algorithm_store import PostgresAlgorithms
from dspy_optimization.adapters.postgres.key_store import tenant_of
from dspy_optimization.algorithms.custom import CustomAlgorithm
from dspy_optimization.bootstrap import Foundation, open_foundation
from dspy_optimization.cli.carrying_out import interruptible
from dspy_optimization.cli.demonstration import demo_job
from dspy_optimization.cli.job_file import read_job_file
from dspy_optimization.cli.logs import quieten_libraries
from dspy_optimization.errors import InfrastructureError, InvalidRequestError, PauseRequested
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.comparing import SearchScores, Standing, sealed_scores, standings
from dspy_optimization.optimization.proposing import Wanted, algorithm_choices, checked
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.settings import Settings, read_settings
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId

DEMO = "demo"
_COLUMNS = ("algorithm", "sealed score", "difference", "95 % interval", "p", "over seeds", "calls paid", "in search")
_HONEST = (
    "Each search had a ledger of its own, in a database of the comparison's: your test splits are not used up. To "
    "choose an algorithm by this table is a use of these tasks all the same: for a claim about one of them, optimize "
    "it on data it was not chosen by."
)


def compare_algorithms(
    names: Sequence[str], tasks: Sequence[str], seeds: int, max_calls: int, directory: Path | None, *, as_json: bool
) -> None:
    """Run every algorithm on every task with every seed, and print how they stand.

    Args:
        names: two or more; installed, or registered in the user's own database.
        tasks: files of jobs with their data, or "demo".
        seeds: searches of each.
        max_calls: cap of every optimization: baseline, search and proof together.
        directory: where the database of the comparison is; None: a new one that is removed at the end.
        as_json: JSON alone on standard output.
    Raises:
        InvalidRequestError: an algorithm, a task or the cap cannot be used.
        InfrastructureError: a model or the database failed: what was done so far counts for nothing.
    """
    if len(set(names)) < max(2, len(names)):
        raise InvalidRequestError(
            f"algorithms: wanted: two or more, each once; found: {', '.join(names) or 'none'}; possible: dspy-opt "
            "algorithms lists them"
        )
    settings = read_settings()
    quieten_libraries()
    stop = StopSignal()
    with ExitStack() as opened:
        wanted = {name: opened.enter_context(_task(name, settings)) for name in dict.fromkeys(tasks)}
        registered = _registered(settings)
        folder = opened.enter_context(_place(directory))
        own = replace(settings, data_directory=folder, database_url=None, mlflow_tracking_uri=None)
        foundation = opened.enter_context(open_foundation(own, track=False))
        plan = [
            _Search(foundation, registered, name, task, wanted[task], seed, max_calls)
            for task in wanted
            for seed in range(seeds)
            for name in names
        ]
        for one in plan:
            one.check()
        opened.enter_context(interruptible(lambda: stop.stop(PauseRequested("Ctrl-C"))))
        found = []
        for number, one in enumerate(plan, start=1):
            if not as_json:
                typer.echo(f"[{number}/{len(plan)}] {one.name} on {one.task}, seed {one.seed}", err=True)
            found.append(one.run(stop))
        table = standings(found, {task: one.dataset for task, one in wanted.items()})
    tell(table, found, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Search:
    """One algorithm on one task with one seed, in a tenant of its own."""

    foundation: Foundation
    registered: Sequence[CustomAlgorithm]
    name: str
    task: str
    wanted: Wanted
    seed: int
    max_calls: int

    def check(self) -> None:
        """Refuse what cannot be run, before anything is paid. Raises `InvalidRequestError`."""
        checked(self._mine(), self.foundation.engine(self._tenant()).intake)

    def run(self, stop: StopSignal) -> SearchScores:
        """Return what it comes to. Raises `InfrastructureError` when it cannot be said."""
        engine = self.foundation.engine(self._tenant())
        optimization_id = engine.intake.accept(checked(self._mine(), engine.intake)).request.id
        ended = engine.optimizer.run(optimization_id, stop)
        if ended.status is OptimizationStatus.PAUSED:
            raise InfrastructureError(
                f"wanted: {self.name} on {self.task} to its end; found: it paused ({ended.error or 'Ctrl-C'}); "
                "possible: mend that and compare again, with --directory what was answered is not paid twice"
            )
        bill = engine.stores.ledger.bill(optimization_id)
        label = bill.by_label.get(self.name)
        scores, is_changed = sealed_scores(engine.optimizer, optimization_id)
        return SearchScores(
            algorithm=self.name,
            task=self.task,
            seed=self.seed,
            scores=scores,
            paid_calls=bill.total.calls,
            search_calls=0 if label is None else label.calls,
            is_changed=is_changed,
            error=ended.error if ended.status is OptimizationStatus.FAILED else None,
        )

    def _tenant(self) -> TenantId:
        tenant = tenant_of(f"comparison/{self.task}/{self.name}/{self.seed}/{self.max_calls}")
        PostgresKeys(self.foundation.database).add_tenant(tenant, f"{self.name} on {self.task}, seed {self.seed}")
        for one in self.registered:
            PostgresAlgorithms(self.foundation.database, tenant).keep(one)
        return tenant

    def _mine(self) -> Wanted:
        constraints = self.wanted.constraints
        options = {choice.name: choice for choice in self.wanted.algorithms}
        return replace(
            self.wanted,
            # With the options the task states for it, where it states some.
            algorithms=(options[self.name],) if self.name in options else algorithm_choices([self.name], "algorithms"),
            constraints=replace(
                constraints, seed=self.seed, limits=replace(constraints.limits, max_lm_calls=self.max_calls)
            ),
        )


@contextmanager
def _task(name: str, settings: Settings) -> Iterator[Wanted]:
    if name == DEMO:
        with demo_job(settings) as job:
            yield job.wanted()
    else:
        yield read_job_file(Path(name), settings.allow).wanted()


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory.expanduser().absolute()
        return
    with tempfile.TemporaryDirectory(prefix="dspy-opt-comparison-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        place.chmod(0o711)  # started by root, the database belongs to somebody else, who has to come through
        yield place


def _registered(settings: Settings) -> Sequence[CustomAlgorithm]:
    """Return what the user has registered; nothing is opened where nothing may be."""
    if not settings.allow.algorithms:
        return ()
    with open_foundation(settings, track=False) as foundation:
        return foundation.algorithms_of(LOCAL_TENANT).registered


def tell(table: Sequence[Standing], searches: Sequence[SearchScores], *, as_json: bool) -> None:
    """Print the standings, and every search in JSON."""
    if as_json:
        told = {
            "standings": [dataclasses.asdict(one) for one in table],
            "searches": [
                {
                    "algorithm": one.algorithm,
                    "task": one.task,
                    "seed": one.seed,
                    "score": sum(one.scores.values()) / len(one.scores),
                    "paid_calls": one.paid_calls,
                    "search_calls": one.search_calls,
                    "is_changed": one.is_changed,
                    "error": one.error,
                }
                for one in searches
            ],
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    shown = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        shown.add_column(column, justify="left" if column == "algorithm" else "right")
    for one in table:
        shown.add_row(
            one.algorithm,
            f"{one.score:.3f}",
            "" if one.difference is None else f"{one.difference:+.3f}",
            "" if one.low is None or one.high is None else f"{one.low:+.3f} to {one.high:+.3f}",
            "" if one.p_value is None else f"{one.p_value:.3f}",
            ""
            if one.lowest_of_seeds is None or one.highest_of_seeds is None
            else f"{one.lowest_of_seeds:+.3f} to {one.highest_of_seeds:+.3f}",
            f"{one.paid_calls:.0f}",
            f"{one.search_calls:.0f}",
        )
    console = Console(highlight=False)
    console.print(shown)
    for one in table[1:]:
        typer.echo(f"{one.algorithm}: {one.sentence}.")
    for failed in (one for one in searches if one.error is not None):
        where = f"{failed.algorithm} on {failed.task}, seed {failed.seed}"
        typer.echo(f"{where} failed and counts as no change: {failed.error}")
    typer.echo(_HONEST)
