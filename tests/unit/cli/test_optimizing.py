import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cli_world import CliWorld, config_file, said
from dspy_optimization.cli.carrying_out import carry_out
from dspy_optimization.cli.displays import Lines
from dspy_optimization.cli.house import opened
from dspy_optimization.cli.job_changes import JobChanges
from dspy_optimization.cli.optimizing import check_file, read_job
from dspy_optimization.errors import InvalidRequestError, StoreError
from dspy_optimization.events import RecordedEvent
from dspy_optimization.optimization.proposing import checked
from dspy_optimization.testing.model_server import ModelServer, refused


def outcome(world: CliWorld, *words: str) -> dict[str, object]:
    result = world.run("optimize", "agent.yaml", "--json", *words)
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["exit_code"] == result.exit_code
    return last


def test_a_run_ends_with_a_verdict_and_a_report(world: CliWorld) -> None:
    """`optimize` goes the whole way with a scripted model."""
    world.write_job()

    result = world.run("optimize", "agent.yaml", "--report", "report.html")

    assert (0, True) == (result.exit_code, "capitals: improved" in result.stdout), result.output
    assert "<html" in (world.folder / "report.html").read_text(encoding="utf-8")
    assert "Usable (30 train, 30 val, 60 test examples)" in result.stderr


def test_json_is_one_event_a_line_and_an_outcome_at_the_end(world: CliWorld) -> None:
    """Standard output holds JSON lines and nothing else."""
    world.write_job()

    result = world.run("optimize", "agent.yaml", "--json")

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    types = [line["type"] for line in lines]
    assert ["optimization.started", "phase.started"] == types[:2]
    assert ["optimization.completed", "outcome"] == types[-2:]
    assert ("improved", 0, "exact_match") == tuple(lines[-1][key] for key in ("verdict", "exit_code", "objective"))
    assert {"id", "type", "optimization_id", "at", "data"} == set(lines[0])


@pytest.mark.parametrize(("bound", "code"), [("0.05", 0), ("0.9", 3)])
def test_fail_under_asks_for_a_proven_gain(world: CliWorld, bound: str, code: int) -> None:
    """The lower end of the interval decides, not the measured gain."""
    world.write_job()

    result = world.run("optimize", "agent.yaml", "--fail-under", bound, "--display", "none")

    assert code == result.exit_code
    assert ("not met" if code else "met") in result.stdout


def test_no_gain_is_no_success_for_fail_under(world: CliWorld) -> None:
    """Nothing to improve: an honest verdict is code 0, and 3 for who asked for a gain."""
    world.write_job(objectives=["always"], metrics=[{"type": "contains", "name": "always", "field": "answer"}])
    rows = [
        {"word": f"word{n:03}", "answer": "w" if n % 2 else "W", "split": ("train", "val", "test")[n % 3]}
        for n in range(90)
    ]
    world.write_lines("words.jsonl", rows)

    assert 0 == world.run("optimize", "agent.yaml", "--display", "none").exit_code
    assert 3 == world.run("optimize", "agent.yaml", "--fail-under", "0", "--display", "none").exit_code


def test_a_cap_that_ends_it_before_the_proof_is_code_4(world: CliWorld) -> None:
    """Nothing is claimed then."""
    world.write_job()

    last = outcome(world, "--max-tokens", "200")

    assert ("max_tokens", 4) == (last["ended_because"], last["exit_code"])
    assert "verdict" not in last


def test_a_refused_key_is_code_5_and_a_lost_server_code_1(world: CliWorld, tmp_path: Path) -> None:
    """Scripts can tell a wrong key from a server that is away."""
    world.write_job()
    with ModelServer(refused(401, "no such key")) as server:
        (tmp_path / "config.yaml").write_text(config_file(server), encoding="utf-8")
        refused_key = outcome(world)
    away = outcome(world)

    assert (5, "failed") == (refused_key["exit_code"], refused_key["status"])
    assert (1, "paused") == (away["exit_code"], away["status"])


def test_resume_pays_only_for_what_is_missing(world: CliWorld, tmp_path: Path, model_server: ModelServer) -> None:
    """A run that stopped for a lost server goes on with `runs resume`."""
    world.write_job()
    with ModelServer(refused(401, "no such key")) as server:
        (tmp_path / "config.yaml").write_text(config_file(server), encoding="utf-8")
        stopped = outcome(world)
    (tmp_path / "config.yaml").write_text(config_file(model_server), encoding="utf-8")

    result = world.run("runs", "resume", str(stopped["optimization_id"])[:8], "--report", "report.html")

    assert (0, True) == (result.exit_code, "capitals: improved" in result.stdout), result.output
    assert "resumed" in result.stdout
    assert "started" not in result.stdout, "what happened before is not told again"
    again = world.run("runs", "resume", "last")
    assert (1, True) == (again.exit_code, "that is final" in again.stderr)


def test_dry_run_and_estimate_spend_and_keep_nothing(world: CliWorld, model_server: ModelServer) -> None:
    """Both say what it will take at most."""
    world.write_job()
    before = model_server.calls

    dry = world.run("optimize", "agent.yaml", "--dry-run")
    estimated = json.loads(world.run("estimate", "agent.yaml", "--json", "--seconds-a-call", "1").stdout)

    assert (0, before) == (dry.exit_code, model_server.calls)
    assert {"baseline": 30, "gate": 120, "ablation": 60, "labeled_fewshot": 30} == estimated["calls_by_phase"]
    assert 240 == estimated["calls"]
    # Of 1,000: 30 for the baseline, and 2 x (60 + 30) a quarter more for the proof.
    assert (
        1000 - 30 - 225
        == json.loads(world.run("estimate", "agent.yaml", "--json", "--max-calls", "1000").stdout)["search_calls"]
    )
    assert pytest.approx(240 / 8 / 60) == estimated["minutes"]
    assert estimated["cost_usd"] > 0
    assert "at most 240" in dry.stdout
    assert "No optimizations yet" in world.run("runs", "ls").stdout


def test_estimate_says_when_a_price_is_not_known_and_why_auto_chose(world: CliWorld, tmp_path: Path) -> None:
    """Dollars are not guessed; the embedded model answers one call at a time."""
    world.write_job(algorithms="auto")
    (tmp_path / "config.yaml").write_text(
        json.dumps({"models": {"task": {"model": {"base_url": "http://127.0.0.1:9/v1", "model": "x"}}}}),
        encoding="utf-8",
    )

    assert "not known" in world.run("estimate", "agent.yaml").stdout

    (tmp_path / "config.yaml").write_text("{}", encoding="utf-8")
    local = world.run("estimate", "agent.yaml")
    assert "the reflection model is too small" in said(local)
    assert "at 0.5 s a call" in local.stdout


def test_judges_are_counted(world: CliWorld) -> None:
    """Each grade is a call."""
    judge = {"type": "judge", "name": "tone", "rubric": "is polite", "samples": 2}
    world.write_job(metrics=[judge], objectives=["tone"])

    told = json.loads(world.run("estimate", "agent.yaml", "--json").stdout)

    assert {"task": 240, "reflection": 0, "judge": 480} == told["calls_by_role"]


def test_options_of_the_command_line_win_over_the_file(world: CliWorld) -> None:
    """Objective, option, seed and cap are the typed ones."""
    world.write_job(constraints={"seed": 3, "max_calls": 500}, metrics=[{"type": "exact_match", "name": "same"}])

    last = outcome(
        world, "--seed", "7", "--max-calls", "400", "-o", "same:max:2", "--option", "labeled_fewshot.demos=2"
    )

    assert ("same", "improved") == (last["objective"], last["verdict"])


@pytest.mark.parametrize("place", ["folder", "file.txt/report.html"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_spent(tmp_path: Path, place: str) -> None:
    """Not after an hour of work."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.txt").write_text("", encoding="utf-8")

    with pytest.raises(InvalidRequestError, match="a file is wanted"):
        check_file(tmp_path / place, "--report")


def test_auto_says_what_it_chose_and_why(world: CliWorld) -> None:
    """Before it begins."""
    world.write_job(algorithms="auto", constraints={"max_calls": 250, "concurrency": 8})

    result = world.run("optimize", "agent.yaml")

    assert "auto chose bootstrap_random_search: 250 calls are too few" in said(result)
    assert 0 == result.exit_code


def test_a_display_that_breaks_pauses_the_work(world: CliWorld) -> None:
    """The terminal is left as it was, and the optimization can be resumed."""
    world.write_job()
    job, settings = read_job(world.folder / "agent.yaml", JobChanges())
    settings = replace(settings, database_url=world.environment["DATABASE_URL"])
    ended: list[bool] = []

    class Ending(Lines):
        def end(self) -> None:
            ended.append(True)

    def refuse(event: RecordedEvent) -> str:
        raise StoreError("away")

    with opened(settings) as house:
        proposal = checked(job.wanted(), house.engine.intake)
        optimization = house.engine.intake.accept(proposal)
        with pytest.raises(StoreError, match="away"):
            carry_out(house.engine, optimization.request.id, Ending(refuse, sys.stdout, sys.stderr))
        standing = house.engine.stores.optimizations.get(optimization.request.id)

    assert ([True], "paused") == (ended, standing.status.value)
