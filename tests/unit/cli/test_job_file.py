from pathlib import Path

import pytest

from cli_world import AGENT, CliWorld, records
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.dataset import SplitShares
from dspy_optimization.agents.example import Split
from dspy_optimization.cli.job_changes import JobChanges
from dspy_optimization.cli.job_file import Job, read_job_file
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.optimization.proposing import with_implied
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints


@pytest.fixture
def place(tmp_path: Path) -> CliWorld:
    """Files alone; these tests need no database."""
    return CliWorld(folder=tmp_path, environment={})


def read(place: CliWorld, **changes: object) -> Job:
    return read_job_file(place.write_job(**changes), AllowList())


def test_everything_a_file_may_say_is_read(place: CliWorld) -> None:
    """Files are looked for beside the file that names them."""
    place.write_lines("other/rows.jsonl", [{"w": n, "a": n, "who": n} for n in range(9)])
    job = read(
        place,
        data={
            "path": "other/rows.jsonl", "name": "rows", "inputs": ["w"], "expected": "a", "cluster": "who",
            "split": "part", "shares": {"train": 0.2, "val": 0.3, "test": 0.5}, "seed": 4,
        },
        metrics=["exact_match", {"type": "numeric", "name": "near"}],
        objectives=["near", {"metric": "cost_usd", "guardrail": True}],
        algorithms=["gepa", {"miprov2": {"auto": "light"}}],
        constraints={
            "max_calls": 10, "max_usd": 1.5, "max_tokens": 100, "time_limit": "1h", "min_gain": 0.1, "seed": 5,
            "concurrency": 6,
        },
    )  # fmt: skip

    assert job.data is not None
    assert (str(place.folder / "other" / "rows.jsonl"), "who", "part", 4) == (
        job.data.source, job.data.cluster, job.data.split, job.data.seed,
    )  # fmt: skip
    assert SplitShares(train=0.2, val=0.3, test=0.5) == job.data.shares
    assert (("w",), ("a",)) == (job.data.inputs, job.data.expected)
    assert ({"type": "exact_match"}, {"type": "numeric", "name": "near"}) == job.metrics
    assert (AlgorithmChoice(name="gepa"), AlgorithmChoice(name="miprov2", options={"auto": "light"})) == job.algorithms
    limits = Limits(max_cost_usd=1.5, max_lm_calls=10, max_tokens=100, max_seconds=3600.0)
    assert Constraints(limits=limits, min_improvement_threshold=0.1, seed=5, concurrency=6) == job.constraints
    assert 9 == len(job.data.read(job.agent).examples)


def test_short_forms_mean_the_same(place: CliWorld) -> None:
    """One text stands for a list of one; nothing said is auto and no caps."""
    job = read(place, objectives="exact_match", algorithms="gepa", constraints={"time_limit": 90})
    bare = read(place, objectives=None, algorithms=[], constraints=None, data=None)

    assert ({"metric": "exact_match"},) == job.objectives
    assert ((AlgorithmChoice(name="gepa"),), 90) == (job.algorithms, job.constraints.limits.max_seconds)
    assert ((AlgorithmChoice(name="auto"),), Constraints(), None) == (bare.algorithms, bare.constraints, bare.data)


def test_an_agent_alone_is_a_job_without_data(place: CliWorld) -> None:
    """Also an agent in a file of its own; without a name the file's counts."""
    place.write("mine.yaml", {key: value for key, value in AGENT.items() if key != "name"})
    alone = read_job_file(place.folder / "mine.yaml", AllowList())
    named = read(place, agent="mine.yaml")

    assert ("mine", "mine", None) == (alone.agent.name, named.agent.name, alone.data)
    with pytest.raises(InvalidRequestError, match="data: the examples of mine are wanted, found none"):
        _ = alone.needed_data
    nameless = read(place, agent={key: value for key, value in AGENT.items() if key != "name"}, name="jobs.yaml")
    assert "jobs" == nameless.agent.name


def test_data_may_be_three_files_or_a_task(place: CliWorld) -> None:
    """Each split its file; a reasoning-gym task is no file."""
    rows = records()
    for split in Split:
        place.write_lines(f"d/{split}.jsonl", [row for row in rows if row["split"] == split.value])
    files = {"train": "d/train.jsonl", "val": "d/val.jsonl", "test": "d/test.jsonl"}
    three = read(place, data={"path": files})
    task = read(place, data="reasoning_gym:spell_backward?size=20")

    assert three.data is not None
    dataset = three.data.read(three.agent)
    assert ("d", 60) == (dataset.name, len(dataset[Split.TEST]))
    assert task.data is not None
    assert "reasoning_gym:spell_backward?size=20" == task.data.source
    assert "spell_backward" == task.data._called()


def test_metric_types_need_no_specification(place: CliWorld) -> None:
    """An objective may name a type; what is always measured is not specified again."""
    job = read(place, objectives=["token_f1", "cost_usd", "tone"], metrics=[{"type": "judge", "name": "tone"}])

    assert ({"type": "judge", "name": "tone"}, {"type": "token_f1"}) == with_implied(job.metrics, job.objectives)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": [3]}, "agent.yaml.metrics\\[0\\]: a metric is wanted, found int 3"),
        ({"objectives": [["x"]]}, "agent.yaml.objectives\\[0\\]: an objective is wanted, found list"),
        ({"algorithms": [{"gepa": 1}]}, "agent.yaml.algorithms\\[0\\]: an algorithm is wanted, found dict"),
        ({"data": {"path": 7}}, "agent.yaml.data.path: a file is wanted, found 7"),
        ({"data": {"path": "x", "inputs": [1]}}, "agent.yaml.data.inputs: a list of field names is wanted"),
        ({"data": {"path": "x", "shares": {"train": 0.5, "val": 0.3, "test": 0.5}}}, "sum to 1 are wanted, found 1.3"),
        ({"constraints": {"max_call": 1}}, 'did you mean "max_calls"'),
        ({"constraints": {"time_limit": "soon"}}, "agent.yaml.constraints.time_limit: a time with its unit is wanted"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(place: CliWorld, changes: dict[str, object], message: str) -> None:
    """File, key and what is possible."""
    with pytest.raises(InvalidRequestError, match=message):
        read(place, **changes)


def test_the_command_line_changes_what_it_names_and_nothing_else(place: CliWorld) -> None:
    """Guardrails of the file stay; options go to the algorithm they name."""
    job = read(
        place,
        objectives=["exact_match", {"metric": "cost_usd", "guardrail": True}],
        algorithms=[{"gepa": {"auto": "light"}}, "copro"],
        constraints={"max_calls": 10, "seed": 3, "min_gain": 0.2},
    )
    changed = JobChanges(
        data="new.csv", objectives=["token_f1:min:2", "contains"], algorithms=["gepa"], options=["gepa.seed=[1, 2]"],
        max_usd="2", max_tokens="7", time_limit="1m", concurrency="2", min_gain="0",
    ).applied_to(job, Path("/else"))  # fmt: skip

    assert changed.data is not None
    assert "/else/new.csv" == changed.data.source
    wanted = (
        {"metric": "token_f1", "direction": "minimize", "weight": 2.0},
        {"metric": "contains"},
        {"metric": "cost_usd", "guardrail": True},
    )
    assert wanted == changed.objectives
    assert (AlgorithmChoice(name="gepa", options={"auto": "light", "seed": [1, 2]}),) == changed.algorithms
    limits = Limits(max_cost_usd=2.0, max_lm_calls=10, max_tokens=7, max_seconds=60.0)
    assert Constraints(limits=limits, min_improvement_threshold=0.0, seed=3, concurrency=2) == changed.constraints
    assert job == JobChanges().applied_to(job, Path("/else"))


def test_metrics_are_the_objectives_where_none_are_named(place: CliWorld) -> None:
    """Who specifies one metric means to improve it."""
    job = read(place, objectives=None, metrics=[{"type": "numeric", "name": "near"}, "exact_match"])

    assert ({"metric": "near"}, {"metric": "exact_match"}) == JobChanges().applied_to(job, place.folder).objectives
    assert JobChanges(data="words.jsonl").applied_to(read(place, data=None), place.folder).data is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            JobChanges(objectives=["x:sideways"]),
            r"--objective x:sideways: metric\[:max\|min\]\[:weight above 0\] is wanted",
        ),
        (JobChanges(objectives=["x:max:min"]), "one direction is wanted, found another"),
        (JobChanges(objectives=["x:0"]), "is wanted, found '0'"),
        (JobChanges(objectives=[":max"]), "a metric is wanted, found none"),
        (JobChanges(options=["gepa"]), "found no ="),
        (JobChanges(options=["=3"]), "found no option"),
        (JobChanges(options=["seed=3"]), "found no algorithm in front"),
        (JobChanges(options=["gepa.seed=3"]), "found 'gepa'; possible: labeled_fewshot.<option>=<value>"),
        (JobChanges(seed="-1"), "--seed: a whole number is wanted, found '-1'; possible: from 0"),
        (JobChanges(max_usd="-1"), "--max-usd: a finite number above 0"),
        (JobChanges(min_gain="-1"), "--min-gain: a finite number"),
    ],
)
def test_options_that_cannot_be_read_say_how_they_are_written(
    place: CliWorld, changes: JobChanges, message: str
) -> None:
    """What was typed stands in the message."""
    with pytest.raises(InvalidRequestError, match=message):
        changes.applied_to(read(place), place.folder)
