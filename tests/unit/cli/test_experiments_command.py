"""Experiments at the command line: planned, started, shown, steered, ended."""

import json

import pytest

from cli_world import CliWorld, said


@pytest.fixture
def done(world: CliWorld) -> CliWorld:
    """A world with one optimization that has ended with a gain."""
    world.write_job()
    result = world.run("optimize", "agent.yaml", "--display", "none")
    assert 0 == result.exit_code, result.output
    return world


def test_from_the_plan_to_the_end(done: CliWorld) -> None:
    """Nothing is there; one is planned, started, steered and stopped; what is not allowed is said."""
    nothing = done.run("experiments", "ls")
    planned = done.run("experiments", "plan", "last", "--split", "0.5", "--units-per-day", "1000")
    none = done.run("experiments", "ls", "--json")
    refused = done.run("experiments", "start", "last", "--units-per-day", "1e13")
    started = done.run("experiments", "start", "last", "--split", "0.5", "--json")
    twice = done.run("experiments", "start", "last")
    made = json.loads(started.stdout)
    raised = json.loads(done.run("experiments", "split", made["experiment_id"][:18], "0.75", "--json").stdout)
    lowered = done.run("experiments", "split", "last", "0.2")
    extended = json.loads(done.run("experiments", "extend", "last", "336", "--json").stdout)
    shown = json.loads(done.run("experiments", "show", "--json").stdout)
    words = done.run("experiments", "show").stdout
    stopped = done.run("experiments", "stop", "last", "--because", "the campaign is over")
    unknown = done.run("experiments", "show", "zz")

    assert "No experiments yet" in nothing.stdout
    assert "seven days show differences of" in planned.stdout
    assert "" == none.stdout
    assert 0 != refused.exit_code
    assert ("running", 0.5, 168) == (made["status"], made["traffic_split"], made["until_hours"])
    assert 0 != twice.exit_code
    assert "wait until it ends, or stop it" in said(twice)
    assert (0.75, 336) == (raised["traffic_split"], extended["until_hours"])
    assert "a split only rises" in said(lowered)
    assert made["experiment_id"] == shown["experiment_id"]
    assert 0 == shown["evidence"]["exposed_baseline"]
    assert "0 exposed, 0 with an outcome: no outcome yet" in words
    assert "the campaign is over" in stopped.stdout
    assert made["experiment_id"] in said(unknown)
