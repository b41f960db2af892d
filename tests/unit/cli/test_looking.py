import json
from dataclasses import replace
from pathlib import Path

import pytest

from cli_world import CliWorld, said
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.cli.house import opened
from dspy_optimization.cli.outcome import exit_code, gate_met
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.settings import Settings, read_settings


@pytest.fixture
def done(world: CliWorld) -> CliWorld:
    """A world with one optimization that has ended."""
    world.write_job()
    assert 0 == world.run("optimize", "agent.yaml", "--display", "none").exit_code
    return world


def test_runs_are_listed_shown_and_watched(done: CliWorld) -> None:
    """The newest is `last`; a beginning of the id is enough; one that has ended is told from the beginning."""
    listed = done.run("runs", "ls").stdout.splitlines()
    row = json.loads(done.run("runs", "ls", "--json").stdout)
    shown = done.run("runs", "show", row["optimization_id"][:6])
    watched = done.run("runs", "watch", "last")

    assert ["id", "agent", "status", "verdict", "gain", "calls", "time", "started"] == listed[0].split()
    assert ["capitals", "completed", "improved"] == listed[1].split()[1:4]
    assert (row["optimization_id"][:8], "improved") == (listed[1].split()[0], row["verdict"])
    assert "capitals: improved" in shown.stdout
    assert "improved" == json.loads(done.run("runs", "show", "--json").stdout)["verdict"]
    assert (0, True) == (watched.exit_code, "phase baseline" in watched.stdout)


def test_a_run_is_found_by_a_beginning_that_is_its_own(done: CliWorld) -> None:
    """What is ambiguous or unknown is answered with what exists."""
    done.run("optimize", "agent.yaml", "--display", "none")
    first, second = (
        json.loads(line)["optimization_id"] for line in done.run("runs", "ls", "--json").stdout.splitlines()
    )

    several = done.run("runs", "show", first[:3])
    none = done.run("runs", "show", "zzz")

    assert (2, True) == (several.exit_code, "found: 2; possible" in several.stderr)
    assert (2, True, True) == (none.exit_code, first in none.stderr, second in none.stderr)


def test_differences_are_marked_by_signs(done: CliWorld) -> None:
    """From the baseline to the result, and between two results."""
    changed = done.run("runs", "diff").stdout
    same = done.run("runs", "diff", "last", "last").stdout

    assert 4 == changed.count("+ demo  ")
    assert "Nothing differs." == same.strip()


def test_words_of_instructions_and_kept_demos_are_shown(done: CliWorld) -> None:
    """An agent that began with demos and another text."""
    done.write_job(
        "other.yaml",
        agent={
            "name": "other", "kind": "predict",
            "signature": {"instructions": "Shout it.", "inputs": [{"name": "word"}], "outputs": [{"name": "answer"}]},
        },
    )  # fmt: skip
    done.run("optimize", "other.yaml", "--display", "none", "--option", "labeled_fewshot.demos=2")
    ids = [json.loads(line)["optimization_id"] for line in done.run("runs", "ls", "--json").stdout.splitlines()]

    text = done.run("runs", "diff", ids[1], ids[0]).stdout

    assert "[-" in text
    assert "{+" in text
    assert "- demo" in text
    assert "kept" in text


def test_a_result_becomes_files(done: CliWorld) -> None:
    """Agent, evidence and report; what is there is never overwritten."""
    exported = done.run("runs", "export", "last", "--to", "out")
    again = done.run("runs", "export", "last", "--to", "out")
    named = done.run("runs", "export")
    report = done.run("runs", "report")

    assert (0, 1, 0, 0) == (exported.exit_code, again.exit_code, named.exit_code, report.exit_code), report.output
    assert f"How to use it, with and without the engine: {done.folder / 'out' / 'README.md'}" in exported.stdout
    there = {path.name for path in (done.folder / "out").iterdir()}
    assert {"README.md", "agent", "evidence.json", "report.html"} == there
    evidence = json.loads((done.folder / "out" / "evidence.json").read_text(encoding="utf-8"))
    assert "improved" == evidence["result"]["noun"]["validated"]["verdict"]
    written = Path(report.stdout.strip().removeprefix("Written: "))
    assert "<html" in written.read_text(encoding="utf-8")
    read_only = done.run("runs", "export", "last", "--to", "words.jsonl/x")
    assert (2, True) == (read_only.exit_code, "a place that can be written" in read_only.stderr)
    assert [] == [path.name for path in done.folder.iterdir() if path.name.startswith(".")]


def test_a_run_without_a_result_has_nothing_to_export(done: CliWorld, tmp_path: Path) -> None:
    """The message says how to get one."""
    nobody = {"model": {"base_url": "http://127.0.0.1:9/v1", "model": "x"}, "max_attempts": 1}
    (tmp_path / "config.yaml").write_text(json.dumps({"models": {"task": nobody}}), encoding="utf-8")
    assert 1 == done.run("optimize", "agent.yaml", "--display", "none").exit_code

    for words in (("runs", "export"), ("runs", "diff")):
        result = done.run(*words)
        assert (2, True) == (result.exit_code, "wanted: an optimization with a result" in result.stderr)
    assert 0 == done.run("runs", "report").exit_code


def test_agents_are_listed_shown_and_exported(done: CliWorld) -> None:
    """Both versions are kept; the exported file is one that `optimize` reads."""
    listed = [json.loads(line) for line in done.run("agents", "ls", "--json").stdout.splitlines()]
    shown = json.loads(done.run("agents", "show", listed[1]["version"][:10]).stdout)
    exported = done.run("agents", "export", "capitals")
    again = done.run("agents", "export", "capitals")
    dry = done.run("optimize", "capitals.json", "--data", "words.jsonl", "-o", "exact_match", "--dry-run")

    assert ["capitals", "capitals"] == [one["name"] for one in listed]
    assert ("capitals", 0, 1, 0) == (shown["name"], exported.exit_code, again.exit_code, dry.exit_code), dry.output
    assert "capitals" in done.run("agents", "ls").stdout
    unknown = done.run("agents", "show", "capitols")
    assert (2, True) == (unknown.exit_code, 'did you mean "capitals"' in unknown.stderr)
    assert (2, True) == (done.run("agents", "export", "capitals", "--to", ".").exit_code, True)
    assert "words" in done.run("datasets", "ls").stdout


def test_an_empty_engine_says_what_to_do_first(world: CliWorld) -> None:
    """Nothing is kept yet."""
    assert "Start one: dspy-opt optimize" in world.run("runs", "ls").stdout
    assert "No agents yet" in world.run("agents", "ls").stdout
    assert "No datasets yet" in world.run("datasets", "ls").stdout
    assert "none yet" in world.run("runs", "show").stderr
    assert "none yet" in world.run("agents", "show", "x").stderr


def test_datasets_are_checked_without_an_engine(world: CliWorld) -> None:
    """With an agent, with a job, or with the names of the fields."""
    world.write_job()
    rows = "".join(f"text number {n} of many words {n * n},{'ab'[n % 2]}\n" for n in range(60))
    world.write("rows.csv", f"text,label\n{rows}")
    names = ("--inputs", "text", "--expected", "label")

    by_job = world.run("datasets", "check", "agent.yaml")
    by_agent = json.loads(world.run("datasets", "check", "words.jsonl", "--agent", "agent.yaml", "--json").stdout)
    by_names = world.run("datasets", "check", "rows.csv", *names, "--cluster", "text")
    neither = world.run("datasets", "check", "rows.csv", "--inputs", "text")
    small = world.run("datasets", "check", "small.csv", *names)
    world.write("small.csv", "text,label\na,1\nb,2\nc,1\n")
    too_small = world.run("datasets", "check", "small.csv", *names)

    assert (0, True) == (by_job.exit_code, "Usable" in by_job.stdout)
    assert (True, 60) == (by_agent["usable"], by_agent["test"])
    assert 0 == by_names.exit_code, by_names.output
    assert (2, "found only --inputs" in neither.stderr) == (neither.exit_code, True)
    assert 2 == small.exit_code
    assert (2, True) == (too_small.exit_code, "too_small" in too_small.stdout)


def test_algorithms_and_metrics_are_listed_with_their_options(world: CliWorld) -> None:
    """One, all, and as JSON."""
    one = world.run("algorithms", "labeled_fewshot").stdout
    every = {entry["name"] for entry in json.loads(world.run("algorithms", "--json").stdout)}
    types = {entry["name"] for entry in json.loads(world.run("metrics", "--json").stdout)}
    unknown = world.run("algorithms", "gepaa")

    assert "labeled_fewshot.demos = 4  (int)" in one
    assert {"gepa", "miprov2", "simba"} <= every
    assert {"exact_match", "judge", "cost_usd"} <= types
    assert "judge: a model grades" in world.run("metrics").stdout
    assert (2, True) == (unknown.exit_code, "did you mean gepa?" in said(unknown))
    assert "gepa" in world.run("algorithms").stdout


def test_exit_codes_follow_the_state(done: CliWorld) -> None:
    """Also states that only another process can leave behind."""
    with opened(replace(read_job_settings(done), mlflow_tracking_uri=None)) as house:
        stores = house.engine.stores
        ended = stores.optimizations.newest(1)[0]
        result = stores.results.result(ended.request.id)
        assert result is not None
        states = {
            status: exit_code(stores, replace(ended, status=status), result, None) for status in OptimizationStatus
        }
        unproven = replace(result, validated=None)
        cap = exit_code(stores, ended, replace(unproven, ended_because="max_tokens"), None)
        other = exit_code(stores, ended, replace(unproven, ended_because="finished"), None)
        cheaper = replace(
            ended,
            request=replace(ended.request, objectives=(Objective(metric="exact_match", direction=Direction.MINIMIZE),)),
        )

    assert {
        OptimizationStatus.COMPLETED: 0,
        OptimizationStatus.CANCELLED: 130,
        OptimizationStatus.PAUSED: 130,
        OptimizationStatus.FAILED: 1,
        OptimizationStatus.QUEUED: 1,
        OptimizationStatus.RUNNING: 1,
    } == states
    assert (4, 1) == (cap, other)
    assert not gate_met(unproven, ended, 0.0)
    assert not gate_met(result, cheaper, 0.0), "a rise is no gain where less is better"


def read_job_settings(world: CliWorld) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment.items():
            patch.setenv(name, value or "")
        return read_settings()


def test_how_components_are_asked_is_part_of_what_differs(done: CliWorld) -> None:
    """An agent that says of its component how it is sampled, and that it reasons."""
    done.write_job(
        "told.yaml",
        agent={
            "name": "told", "kind": "predict",
            "signature": {"instructions": "Shout it.", "inputs": [{"name": "word"}], "outputs": [{"name": "answer"}]},
            "components": {"self": {"settings": {"parameters": {"temperature": 0.25, "max_tokens": 64}}}},
        },
    )  # fmt: skip
    done.run("optimize", "told.yaml", "--display", "none")
    ids = [json.loads(line)["optimization_id"] for line in done.run("runs", "ls", "--json").stdout.splitlines()]

    text = done.run("runs", "diff", ids[1], ids[0]).stdout

    assert "~ parameters: as the agent says → max_tokens 64, temperature 0.25" in text
