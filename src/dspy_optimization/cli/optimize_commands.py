"""`optimize` and `estimate`."""

from pathlib import Path
from typing import Annotated

import typer

from dspy_optimization.cli.exits import EXPLAINED

_BOUNDS = "Bounds"
_SHOWING = "Showing"

AgentFile = Annotated[Path, typer.Argument(help="agent.yaml, or the file of an agent alone.", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option(help="Examples: .jsonl, .json, .csv, .tsv, or `reasoning_gym:TASK?size=200`.", metavar="FILE"),
]
Objective = Annotated[
    list[str] | None,
    typer.Option(
        "--objective", "-o", metavar="METRIC", help="metric[:max|min][:weight]; repeatable, the first one decides."
    ),
]
Algorithm = Annotated[
    list[str] | None,
    typer.Option("--algorithm", "-a", metavar="NAME", help="A name, or auto; repeatable: they share one budget."),
]
Option = Annotated[
    list[str] | None, typer.Option(metavar="A.OPTION=VALUE", help="An option of an algorithm; repeatable.")
]
MaxCalls = Annotated[str | None, typer.Option(metavar="N", help="Calls to models, all roles.", rich_help_panel=_BOUNDS)]
MaxUsd = Annotated[str | None, typer.Option(metavar="USD", help="Dollars, all roles.", rich_help_panel=_BOUNDS)]
MaxTokens = Annotated[str | None, typer.Option(metavar="N", help="Tokens, all roles.", rich_help_panel=_BOUNDS)]
TimeLimit = Annotated[
    str | None, typer.Option(metavar="TIME", help="Time worked: 45s, 30m, 2h, 1h30m.", rich_help_panel=_BOUNDS)
]
MinGain = Annotated[
    str | None,
    typer.Option(metavar="X", help="The smallest gain that matters, in the metric's unit.", rich_help_panel=_BOUNDS),
]
Seed = Annotated[str | None, typer.Option(metavar="N", help="Of the search; the split keeps its own.")]
Concurrency = Annotated[str | None, typer.Option(metavar="N", help="Examples in flight at once.")]
Policy = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY",
        help="Which candidate goes to the gate: weights, knee, or YAML such as `{type: max_cost, at_most: 0.01}`.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.", rich_help_panel=_SHOWING)]


def add_optimize(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(
        epilog="Examples: `dspy-opt optimize agent.yaml` · `dspy-opt optimize agent.yaml -a gepa -a miprov2 "
        "--max-usd 5 --time-limit 2h` · `dspy-opt optimize agent.yaml --json --fail-under 0.05` (CI). " + EXPLAINED
    )(optimize)
    app.command(
        epilog="Example: `dspy-opt estimate agent.yaml -a miprov2`. Nothing is sent and nothing is kept.",
    )(estimate)


def optimize(
    agent: AgentFile,
    data: Data = None,
    objective: Objective = None,
    algorithm: Algorithm = None,
    option: Option = None,
    max_calls: MaxCalls = None,
    max_usd: MaxUsd = None,
    max_tokens: MaxTokens = None,
    time_limit: TimeLimit = None,
    min_gain: MinGain = None,
    seed: Seed = None,
    concurrency: Concurrency = None,
    policy: Policy = None,
    fail_under: Annotated[
        str | None,
        typer.Option(
            metavar="X",
            help="Exit with 3 unless it is improved and the lower end of the gain's interval is at least this.",
            rich_help_panel=_SHOWING,
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the HTML report there.", rich_help_panel=_SHOWING)] = None,
    as_json: AsJson = False,
    display: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="live, plain or none; live on a terminal if not given.", rich_help_panel=_SHOWING
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what it will take, and stop.")
    ] = False,
) -> None:
    """Optimize the agent of a file and prove the result on examples nobody optimized on."""
    from dspy_optimization.cli.house import opened
    from dspy_optimization.cli.job_changes import JobChanges
    from dspy_optimization.cli.optimizing import checked_display, checked_wishes, read_job, start, tell_estimate
    from dspy_optimization.optimization.proposing import checked

    changes = JobChanges(
        data=data,
        objectives=objective or (),
        algorithms=algorithm or (),
        options=option or (),
        max_calls=max_calls,
        max_usd=max_usd,
        max_tokens=max_tokens,
        time_limit=time_limit,
        min_gain=min_gain,
        seed=seed,
        concurrency=concurrency,
        policy=policy,
    )
    kind = checked_display(display)
    wishes = checked_wishes(fail_under, report, as_json=as_json)
    job, settings = read_job(agent, changes)
    with opened(settings) as house:
        proposal = checked(job.wanted(), house.engine.intake)
        if dry_run:
            tell_estimate(house, proposal, None, as_json=as_json)
            return
        raise typer.Exit(start(house, proposal, kind, wishes))


def estimate(
    agent: AgentFile,
    data: Data = None,
    objective: Objective = None,
    algorithm: Algorithm = None,
    option: Option = None,
    max_calls: MaxCalls = None,
    concurrency: Concurrency = None,
    seconds_a_call: Annotated[
        str | None,
        typer.Option(
            metavar="S", help="How long one call takes; 0.5 for the embedded model and 2 for others if not given."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what optimizing will take at most: calls, tokens, dollars, minutes. Before anything is spent."""
    from dspy_optimization.cli.amounts import number_of
    from dspy_optimization.cli.house import opened
    from dspy_optimization.cli.job_changes import JobChanges
    from dspy_optimization.cli.optimizing import read_job, tell_estimate
    from dspy_optimization.optimization.proposing import checked

    seconds = None if seconds_a_call is None else number_of(seconds_a_call, "--seconds-a-call", above=0.0)
    changes = JobChanges(
        data=data,
        objectives=objective or (),
        algorithms=algorithm or (),
        options=option or (),
        max_calls=max_calls,
        concurrency=concurrency,
    )
    job, settings = read_job(agent, changes)
    with opened(settings) as house:
        tell_estimate(house, checked(job.wanted(), house.engine.intake), seconds, as_json=as_json)
