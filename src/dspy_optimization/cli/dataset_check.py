"""`datasets check`: the verdict on a dataset before money is spent."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from dspy_optimization.agents.checking import check_dataset
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.cli.exits import ExitCode
from dspy_optimization.cli.job_file import DataSource, data_source, read_job_file
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.settings import read_settings
from dspy_optimization.statistics import reuse_level

_JOB_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be checked, as it was typed."""

    source: str
    agent: Path | None
    inputs: str | None
    expected: str | None
    cluster: str | None


def check_source(wanted: Wanted, *, as_json: bool) -> ExitCode:
    """Print what was found and return the exit code.

    Raises:
        InvalidRequestError: the source cannot be read.
    """
    agent, dataset = _read(wanted)
    report = check_dataset(dataset, agent, alpha=reuse_level(read_settings().significance_threshold, 1))
    if as_json:
        told: dict[str, Json] = {
            "name": dataset.name,
            "version": dataset.version,
            "usable": report.usable,
            "sentence": report.sentence,
            "train": report.n_train,
            "val": report.n_val,
            "test": report.n_test,
            "detectable_gain": report.detectable_gain,
            "findings": [
                {"severity": one.severity.value, "code": one.code, "message": one.message} for one in report.findings
            ],
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        typer.echo(f"{dataset.name} ({dataset.version[:12]}): {report.sentence}")
        for one in report.findings:
            typer.echo(f"  {one.severity.value:<8}{one.code}: {one.message}")
    return ExitCode.OK if report.usable else ExitCode.WRONG_INPUT


def _read(wanted: Wanted) -> tuple[AgentConfig, Dataset]:
    if wanted.source.endswith(_JOB_SUFFIXES):
        job = read_job_file(Path(wanted.source), read_settings().allow)
        source, agent = job.needed_data, job.agent
    else:
        source = DataSource(source=data_source(wanted.source, Path.cwd(), "FILE"))
        agent = _agent(wanted)
    if wanted.cluster is not None:
        source = replace(source, cluster=wanted.cluster)
    return agent, source.read(agent)


def _agent(wanted: Wanted) -> AgentConfig:
    if wanted.agent is not None:
        return read_job_file(wanted.agent, read_settings().allow).agent
    inputs, expected = _names(wanted.inputs), _names(wanted.expected)
    if not inputs or not expected:
        raise InvalidRequestError(
            f"{wanted.source}: what goes in and what should come out is wanted, found "
            f"{'only --inputs' if inputs else 'only --expected' if expected else 'neither'}; possible: --agent "
            "agent.yaml, or --inputs question --expected answer"
        )
    return AgentConfig(
        name="any",
        kind=AgentKind.PREDICT,
        signature=Signature(
            instructions="",
            inputs=tuple(Field(name=name) for name in inputs),
            outputs=tuple(Field(name=name) for name in expected),
        ),
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
