"""`agents`, `datasets`, `algorithms` and `metrics`: what there is to work with."""

from pathlib import Path
from typing import Annotated

import typer

from dspy_optimization.cli.algorithm_commands import add_algorithms

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Version = Annotated[
    str, typer.Argument(help="The agent's name (its newest version) or the beginning of a version.", show_default=False)
]


def add_catalog(app: typer.Typer) -> None:
    """Add the groups and commands of this module."""
    agents = typer.Typer(no_args_is_help=True, help="Look at the agents that are kept.")
    agents.command("ls", epilog="Example: `dspy-opt agents ls`.")(list_agents)
    agents.command("show", epilog="Example: `dspy-opt agents show orders`.")(show_agent)
    agents.command("export", epilog="Example: `dspy-opt agents export orders --to better.json`.")(export_agent)
    datasets = typer.Typer(no_args_is_help=True, help="Look at datasets before money is spent on them.")
    datasets.command(
        epilog="Examples: `dspy-opt datasets check agent.yaml` · `dspy-opt datasets check tickets.csv --inputs text "
        "--expected label`."
    )(check)
    datasets.command("ls", epilog="Example: `dspy-opt datasets ls`.")(list_datasets)
    app.add_typer(agents, name="agents")
    app.add_typer(datasets, name="datasets")
    add_algorithms(app)
    app.command(epilog="Example: `dspy-opt metrics`.")(metrics)


def list_agents(as_json: AsJson = False) -> None:
    """List every version of every agent, newest first."""
    from dspy_optimization.cli.catalog import tell_agents
    from dspy_optimization.cli.house import opened

    with opened() as house:
        tell_agents(house, as_json=as_json)


def show_agent(agent: Version) -> None:
    """Show an agent as JSON."""
    from dspy_optimization.cli.catalog import agent_of, tell_agent
    from dspy_optimization.cli.house import opened

    with opened() as house:
        tell_agent(agent_of(house, agent))


def export_agent(
    agent: Version, to: Annotated[Path | None, typer.Option(help="The file; NAME.json if not given.")] = None
) -> None:
    """Write an agent as a file that `optimize` and the Python interface read."""
    from dspy_optimization.cli.catalog import agent_of
    from dspy_optimization.cli.exporting import write_agent
    from dspy_optimization.cli.house import opened

    with opened() as house:
        config = agent_of(house, agent)
        typer.echo(f"Written: {write_agent(config, Path(f'{config.name}.json') if to is None else to)}")


def check(
    file: Annotated[str, typer.Argument(help="agent.yaml with its data, a file of examples, or `reasoning_gym:TASK`.")],
    agent: Annotated[Path | None, typer.Option(help="The agent whose fields the examples should have.")] = None,
    inputs: Annotated[str | None, typer.Option(help="Without an agent: the fields that go in, with commas.")] = None,
    expected: Annotated[str | None, typer.Option(help="Without an agent: the fields that should come out.")] = None,
    cluster: Annotated[str | None, typer.Option(help="The field that names the cluster.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a dataset and how small a gain it can prove. Exit code 2 when it is not usable."""
    from dspy_optimization.cli.dataset_check import Wanted, check_source

    raise typer.Exit(
        check_source(
            Wanted(source=file, agent=agent, inputs=inputs, expected=expected, cluster=cluster), as_json=as_json
        )
    )


def list_datasets(as_json: AsJson = False) -> None:
    """List every dataset that is kept, newest first."""
    from dspy_optimization.cli.catalog import tell_datasets
    from dspy_optimization.cli.house import opened

    with opened() as house:
        tell_datasets(house, as_json=as_json)


def metrics(as_json: AsJson = False) -> None:
    """List the metric types with their options."""
    from dspy_optimization.cli.catalog import tell_metrics

    tell_metrics(as_json=as_json)
