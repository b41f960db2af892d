"""Two objectives at the command line: the table of the front, policies, and picking another candidate."""

import json
from pathlib import Path

import pytest

from cli_world import CliWorld, said

CANDIDATES = [
    {
        "components": {
            "self": {"demos": [{"word": f"some{n:03}", "answer": f"SOME{n:03}"} for n in range(900, 900 + count)]}
        }
    }
    for count in (1, 2)
]
JOB = {
    "objectives": ["exact_match", {"metric": "tokens", "guardrail": False}],
    "algorithms": [{"given": {"candidates": CANDIDATES}}],
    "policy": {"type": "lexicographic", "order": ["exact_match"], "tolerance": 0},
}


@pytest.fixture
def done(world: CliWorld) -> CliWorld:
    """A world with one optimization that has ended."""
    world.write_job(**JOB)
    result = world.run("optimize", "agent.yaml", "--display", "none")
    assert 0 == result.exit_code, result.output
    return world


def test_the_front_is_shown_with_who_was_chosen_and_why(done: CliWorld) -> None:
    """A row for each point; one objective makes no table."""
    shown = done.run("runs", "show").stdout
    told = json.loads(done.run("runs", "show", "--json").stdout)
    done.write_job("one.yaml")
    one = done.run("optimize", "one.yaml", "--display", "none").stdout

    assert "Pareto front on val (" in shown
    assert "Policy lexicographic: by priority on val" in shown
    rows = [line for line in shown.splitlines() if line.startswith("  ") and "chosen" in line]
    assert 1 == len(rows)
    assert told["pareto_front"][0]["candidate"][:12] in rows[0]
    assert ("lexicographic", True) == (told["policy"], told["pareto_front"][0]["is_chosen"])
    assert "Pareto front" not in one


def test_another_one_is_picked(done: CliWorld) -> None:
    """Told beforehand at which level; carried out; unknown ones are refused with those there are."""
    run = json.loads(done.run("runs", "ls", "--json").stdout)["optimization_id"]
    trials = [
        json.loads(line)
        for line in done.run("runs", "watch", "last", "--json").stdout.splitlines()
        if "candidate" in line
    ]
    chosen = json.loads(done.run("runs", "show", "--json").stdout)["pareto_front"][0]["candidate"]
    names = {
        found for one in trials for found in [one.get("data", {}).get("candidate")]
        if found and one.get("data", {}).get("algorithm") == "given"
    }  # fmt: skip
    (other,) = names - {chosen}

    picked = done.run("runs", "pick", run, other[:10], "--display", "plain")
    unknown = done.run("runs", "pick", run, "zz")
    again = done.run("runs", "pick", run, chosen)

    assert 0 == picked.exit_code, picked.output
    assert "use 2 of the test split" in said(picked)
    assert "Policy picked: a person picked it from optimization" in said(picked)
    assert (2, True) == (unknown.exit_code, "possible, on the front" in unknown.stderr)
    assert (1, True) == (again.exit_code, "the chosen one" in said(again))


def test_a_policy_may_be_said_at_the_command_line(done: CliWorld, tmp_path: Path) -> None:
    """A name, or YAML; it goes before that of the file."""
    knee = done.run("optimize", "agent.yaml", "--display", "none", "--policy", "knee")
    capped = done.run("optimize", "agent.yaml", "--display", "none", "--policy", "{type: max_cost, at_most: 0.5}")

    assert "Policy knee: " in said(knee)
    assert "Policy max_cost: the baseline stays" in said(capped)
