"""`experiments`: looking at A/B tests on live traffic, and steering them."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Id = Annotated[str, typer.Argument(help="The id or its beginning; `last` is the newest.", show_default=False)]
Run = Annotated[str, typer.Argument(help="Of an optimization: the id or its beginning, or `last`.", show_default=False)]
Share = Annotated[str, typer.Option("--split", metavar="X", help="Of the units, for the optimized version.")]
Traffic = Annotated[str | None, typer.Option(metavar="N", help="For the forecast: units of both versions a day.")]


def experiments_group() -> typer.Typer:
    """Return the group."""
    group = typer.Typer(no_args_is_help=True, help="Look at experiments on live traffic, and steer them.")
    group.command("ls", epilog="Example: `dspy-opt experiments ls --count 50`.")(ls)
    group.command(epilog="Example: `dspy-opt experiments show last`.")(show)
    group.command(epilog="Example: `dspy-opt experiments plan last --split 0.5 --units-per-day 1000`.")(plan)
    group.command(epilog="Example: `dspy-opt experiments start last --split 0.1`.")(start)
    group.command("split", epilog="Example: `dspy-opt experiments split last 0.5`; a split only rises.")(raise_split)
    group.command(epilog="Example: `dspy-opt experiments extend last 336`, which is 14 days since the start.")(extend)
    group.command(epilog='Example: `dspy-opt experiments stop last --because "the campaign is over"`.')(stop)
    return group


def ls(
    count: Annotated[str, typer.Option(metavar="N", help="How many, newest first.")] = "20",
    as_json: AsJson = False,
) -> None:
    """List the newest experiments."""
    from dspy_optimization.cli.amounts import whole_number_of
    from dspy_optimization.cli.experiments import list_experiments
    from dspy_optimization.cli.house import opened

    most = whole_number_of(count, "--count", low=1, high=10_000)
    with opened() as house:
        list_experiments(house, most, as_json=as_json)


def show(experiment: Id = "last", as_json: AsJson = False) -> None:
    """Show where an experiment stands, with the evidence of its newest look."""
    from dspy_optimization.cli.experiments import show_experiment
    from dspy_optimization.cli.house import opened

    with opened() as house:
        show_experiment(house, experiment, as_json=as_json)


def plan(run: Run = "last", split: Share = "0.1", units_per_day: Traffic = None, as_json: AsJson = False) -> None:
    """Say what an experiment on the result of an optimization could find. Nothing is started."""
    from dspy_optimization.cli.experiments import plan_experiment
    from dspy_optimization.cli.house import opened

    with opened() as house:
        plan_experiment(house, run, split, units_per_day, as_json=as_json)


def start(run: Run = "last", split: Share = "0.1", units_per_day: Traffic = None, as_json: AsJson = False) -> None:
    """Start an experiment on the result of an optimization; the service looks at it, so one has to run."""
    from dspy_optimization.cli.experiments import start_experiment
    from dspy_optimization.cli.house import opened

    with opened() as house:
        start_experiment(house, run, split, units_per_day, as_json=as_json)


def raise_split(
    experiment: Id, share: Annotated[str, typer.Argument(help="More than now, below 1.")], as_json: AsJson = False
) -> None:
    """Give the optimized version more traffic; units that were served keep what they had."""
    from dspy_optimization.cli.amounts import number_of
    from dspy_optimization.cli.experiments import found_experiment, tell_experiment
    from dspy_optimization.cli.house import opened

    wanted = number_of(share, "share", above=0.0)
    with opened() as house:
        one = found_experiment(house, experiment).plan.experiment_id
        tell_experiment(house.engine.conductor.raise_split(one, wanted), as_json=as_json)


def extend(
    experiment: Id, hours: Annotated[str, typer.Argument(help="Since its start.")], as_json: AsJson = False
) -> None:
    """Give it more time, within the longest time of its plan; free of statistical cost."""
    from dspy_optimization.cli.amounts import number_of
    from dspy_optimization.cli.experiments import found_experiment, tell_experiment
    from dspy_optimization.cli.house import opened

    until_hours = number_of(hours, "hours", above=0.0)
    with opened() as house:
        one = found_experiment(house, experiment).plan.experiment_id
        tell_experiment(house.engine.conductor.extend(one, until_hours), as_json=as_json)


def stop(
    experiment: Id,
    because: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the result.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """End it: everybody gets the baseline, its newest decision is its last."""
    from dspy_optimization.cli.experiments import found_experiment, tell_experiment
    from dspy_optimization.cli.house import opened

    with opened() as house:
        one = found_experiment(house, experiment).plan.experiment_id
        tell_experiment(house.engine.conductor.stop(one, because), as_json=as_json)
