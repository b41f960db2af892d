"""`dspy-opt algorithms`: listing, registering, checking and comparing, on the real command line."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cli_world import CliWorld, config_file
from dspy_optimization.testing.model_server import ModelServer

TESTS = Path(__file__).parent.parent.parent


@pytest.fixture
def allowing(world: CliWorld, model_server: ModelServer) -> Iterator[CliWorld]:
    """A world whose owner allows two plug-ins."""
    allow = {"algorithms": ["bad_algorithms:Trying", "bad_algorithms:Printing"]}
    config = {**yaml.safe_load(config_file(model_server)), "allow": allow}
    (world.folder.parent / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    sys.path.insert(0, str(TESTS))
    yield world
    sys.path.remove(str(TESTS))


def test_what_there_is(world: CliWorld) -> None:
    """`ls` may be left out; one name shows one; an unknown one names the closest."""
    every = world.run("algorithms")
    one = world.run("algorithms", "gepa")
    told = json.loads(world.run("algorithms", "--json").stdout)
    wrong = world.run("algorithms", "ls", "geppa")

    assert every.stdout == world.run("algorithms", "ls").stdout
    assert one.stdout in every.stdout
    assert ("gepa", "dspy-optimization", False, "utility") == next(
        (row["name"], row["source"], row["custom"], row["objectives"]) for row in told if row["name"] == "gepa"
    )
    assert (2, True) == (wrong.exit_code, "did you mean gepa?" in wrong.stderr)


def test_registering_using_and_forgetting(allowing: CliWorld) -> None:
    """What is registered is listed, optimizes, and is gone again."""
    made = allowing.run("algorithms", "add", "bad_algorithms:Trying", "--name", "mine")
    assert 0 == made.exit_code, made.stderr
    assert made.stdout.startswith("Registered: mine (bad_algorithms:Trying, sha256:")
    listed = json.loads(allowing.run("algorithms", "mine", "--json").stdout)
    assert [("mine", True, "bad_algorithms:Trying")] == [(one["name"], one["custom"], one["source"]) for one in listed]

    allowing.write_job()
    ran = allowing.run("optimize", "agent.yaml", "--algorithm", "mine", "--display", "none")
    assert ran.exit_code in {0, 3}, ran.stderr

    assert "Forgotten: mine" in allowing.run("algorithms", "rm", "mine").stdout
    gone = allowing.run("algorithms", "rm", "mine")
    assert (2, True) == (gone.exit_code, "possible: none yet" in gone.stderr)


def test_what_is_refused(allowing: CliWorld) -> None:
    """A broken rule is told with all findings; what is not allowed is told with what is."""
    broken = allowing.run("algorithms", "add", "bad_algorithms:Printing", "--name", "printing")
    foreign = allowing.run("algorithms", "add", "os:system")
    taken = allowing.run("algorithms", "add", "bad_algorithms:Trying", "--name", "gepa")

    assert (2, True) == (broken.exit_code, "leaves no thread: kept" in broken.stdout)
    assert "breaks 1 of" in broken.stderr
    assert "standard output, by printing" in broken.stderr
    assert (2, True) == (
        foreign.exit_code,
        "possible: bad_algorithms:Printing, bad_algorithms:Trying" in foreign.stderr,
    )
    assert (1, True) == (taken.exit_code, "gepa is installed" in taken.stderr)


def test_checking_keeps_nothing(allowing: CliWorld) -> None:
    """For authors: every rule, and an exit code for CI."""
    good = allowing.run("algorithms", "check", "bad_algorithms:Trying", "--json")
    bad = allowing.run("algorithms", "check", "bad_algorithms:Breaking")

    assert (0, {"kept"}) == (good.exit_code, {one["outcome"] for one in json.loads(good.stdout)})
    assert (2, True, True) == (
        bad.exit_code,
        "ZeroDivisionError" in bad.stdout,
        "more were not checked" in bad.stdout,
    )
    assert "bad_algorithms" not in allowing.run("algorithms").stdout


def test_a_comparison_on_equal_terms(allowing: CliWorld) -> None:
    """Demos help this model and instructions do not: the table says so, with an interval, and nothing is used up."""
    allowing.write_job()
    assert 0 == allowing.run("algorithms", "add", "bad_algorithms:Trying").exit_code
    words = ("algorithms", "compare", "trying", "labeled_fewshot", "--tasks", "agent.yaml", "--seeds", "2")

    compared = allowing.run(*words, "--max-calls", "400", "--json")

    assert 0 == compared.exit_code, compared.stderr
    told = json.loads(compared.stdout)
    first, second = told["standings"]
    assert ("trying", None, 2) == (first["algorithm"], first["difference"], first["searches"])
    assert "better than the first" == second["sentence"]
    assert 0.2 < second["low"] < second["difference"] < second["high"]
    assert second["difference"] == pytest.approx(second["score"] - first["score"])
    assert 4 == len(told["searches"])
    # The second seed asks the baseline's questions again: a ledger of its own, so they are paid again.
    mine = [one["paid_calls"] for one in told["searches"] if one["algorithm"] == "trying"]
    assert mine[0] == mine[1] > 0
    assert [] == json.loads(f"[{','.join(allowing.run('runs', 'ls', '--json').stdout.splitlines())}]")


def test_a_comparison_with_itself_shows_nothing(world: CliWorld) -> None:
    """Two names of the same are refused; one is no comparison."""
    for names in (("gepa",), ("gepa", "gepa")):
        refused = world.run("algorithms", "compare", *names)

        assert (2, True) == (refused.exit_code, "wanted: two or more, each once" in refused.stderr)
