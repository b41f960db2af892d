import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_world import CliWorld, config_file, spelling
from dspy_optimization.cli.carrying_out import interruptible
from dspy_optimization.testing.model_server import ModelServer, Received, Reply, silence


def slowly(request: Received) -> Reply:
    return spelling(request).after(0.05)


@pytest.fixture
def slow_world(world: CliWorld, tmp_path: Path) -> Iterator[CliWorld]:
    """Every answer takes a while and comes alone."""
    world.write_job(constraints={"concurrency": 1})
    with ModelServer(slowly) as server:
        (tmp_path / "config.yaml").write_text(config_file(server), encoding="utf-8")
        yield world


def until_phase(process: "subprocess.Popen[str]", phase: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "phase.started" and event["data"]["phase"] == phase:
            return
    raise AssertionError(process.communicate())


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    try:
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, out, errors


def test_the_first_ctrl_c_pauses_and_resume_goes_on(slow_world: CliWorld) -> None:
    """Code 130, the command to resume, and not a call paid twice."""
    process = slow_world.start("optimize", "agent.yaml", "--json")
    until_phase(process, "baseline")
    process.send_signal(signal.SIGINT)

    code, out, errors = ended(process)

    outcome = json.loads(out.splitlines()[-1])
    assert (130, "paused", 130) == (code, outcome["status"], outcome["exit_code"])
    assert "Pausing after the calls in flight" in errors
    assert "Traceback" not in errors
    resumed = slow_world.run("runs", "resume", outcome["optimization_id"][:13], "--json")
    after = json.loads(resumed.stdout.splitlines()[-1])
    assert (0, "completed", "improved") == (resumed.exit_code, after["status"], after["verdict"])
    # baseline, one candidate and nothing twice: the call in flight at the pause was answered and kept
    assert 30 + 30 + 120 <= after["lm_calls"] <= 30 + 30 + 120 + 30


def test_the_second_ctrl_c_aborts_and_what_is_left_can_be_steered(world: CliWorld, tmp_path: Path) -> None:
    """A model that never answers cannot hold the terminal; the row it leaves is put right by pause and cancel."""
    world.write_job(constraints={"concurrency": 1})
    with ModelServer(silence()) as server:
        (tmp_path / "config.yaml").write_text(config_file(server), encoding="utf-8")
        process = world.start("optimize", "agent.yaml", "--json")
        until_phase(process, "baseline")
        deadline = time.monotonic() + 20
        while not server.calls and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)

        code, _, errors = ended(process)

    assert (130, True) == (code, "Aborted. Go on with: dspy-opt runs resume" in errors)
    assert "running" in world.run("runs", "ls").stdout
    paused = world.run("runs", "pause", "last")
    assert (0, True) == (paused.exit_code, "no process was working on it" in paused.stdout)
    again = world.run("runs", "pause", "last")
    assert (1, True) == (again.exit_code, "is paused" in again.stderr)
    assert "is cancelled" in world.run("runs", "cancel", "last").stdout
    assert 1 == world.run("runs", "cancel", "last").exit_code


@pytest.mark.parametrize(("wish", "status"), [("pause", "paused"), ("cancel", "cancelled")])
def test_another_terminal_pauses_cancels_and_watches(slow_world: CliWorld, wish: str, status: str) -> None:
    """The process obeys within a call; who watches sees it end."""
    process = slow_world.start("optimize", "agent.yaml", "--json")
    until_phase(process, "baseline")

    asked = slow_world.run("runs", wish, "last")
    watched = slow_world.run("runs", "watch", "last", "--json")

    code, out, _ = ended(process)
    assert (0, True) == (asked.exit_code, f"to {wish}" in asked.stdout), asked.output
    assert (130, status) == (code, json.loads(out.splitlines()[-1])["status"])
    assert (130, status) == (watched.exit_code, json.loads(watched.stdout.splitlines()[-1])["status"])
    assert "optimization.started" == json.loads(watched.stdout.splitlines()[0])["type"]


def test_ctrl_c_in_the_very_process_pauses_too(slow_world: CliWorld) -> None:
    """And the handlers that were there before are back afterwards."""
    before = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    keep = signal.signal(signal.SIGTERM, lambda *_: None)
    timer.start()
    try:
        result = slow_world.run("optimize", "agent.yaml")
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, keep)

    assert (130, before) == (result.exit_code, signal.getsignal(signal.SIGINT))
    assert "Resume with: dspy-opt runs resume" in result.stdout


def test_the_second_signal_interrupts_whatever_waits() -> None:
    """`KeyboardInterrupt`, as if nobody listened."""
    heard: list[str] = []

    def twice() -> None:
        with interruptible(lambda: heard.append("first")):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()

    assert ["first"] == heard
