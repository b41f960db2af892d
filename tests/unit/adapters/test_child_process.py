"""What a worker makes of its children: how they end, what they say, what they are told. The children are stubs."""

import json
import logging
import os
import signal
import threading
import time
import tracemalloc
from pathlib import Path
from uuid import UUID

import pytest

from dspy_optimization.adapters import child_process as module
from dspy_optimization.adapters.child_process import ChildProcesses
from dspy_optimization.errors import (
    CancelRequested,
    ConflictError,
    InfrastructureError,
    PauseRequested,
    ProcessDiedError,
    StopSearch,
    StoreError,
)
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.handling import HandoverRequested
from dspy_optimization.tenancy import LOCAL_TENANT

SUBJECT = OptimizationId(UUID(int=7))
SECRET = "sk-very-secret-key"


@pytest.fixture(autouse=True)
def _stub_is_found(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    caplog.set_level(logging.INFO, logger="dspy_optimization")


def _run(what: str, stop: StopSignal | None = None, grace_seconds: float = 10.0) -> None:
    children = ChildProcesses(module="child_stub", settings={"key": SECRET}, worker=what, grace_seconds=grace_seconds)
    children.run(LOCAL_TENANT, SUBJECT, StopSignal() if stop is None else stop)


def test_a_child_that_came_to_its_end_is_done() -> None:
    """The store says what became of it."""
    _run("ends:done")


@pytest.mark.parametrize(
    ("ended", "kind"),
    [("conflict", ConflictError), ("away", StoreError), ("infrastructure", InfrastructureError)],
)
def test_what_kept_a_child_from_it_is_raised_here(ended: str, kind: type[Exception]) -> None:
    """As if it had happened in this process."""
    with pytest.raises(kind, match="as told") as raised:
        _run(f"ends:{ended}")

    assert kind is type(raised.value)


@pytest.mark.parametrize(
    ("number", "words", "may_pass"),
    [
        (signal.SIGKILL, r"killed by signal 9, SIGKILL \(out of memory", True),
        (signal.SIGTERM, r"killed by signal 15, SIGTERM \(somebody ended it\)", True),
        (signal.SIGSEGV, r"killed by signal 11, SIGSEGV \(native code crashed\)", False),
        (signal.SIGABRT, r"killed by signal 6, SIGABRT \(native code crashed\)", False),
    ],
)
def test_a_killed_child_is_told_by_its_signal(number: signal.Signals, words: str, may_pass: bool) -> None:
    """From outside it may pass; a crash does not."""
    with pytest.raises(ProcessDiedError, match=words) as raised:
        _run(f"dies:{int(number)}")

    assert may_pass is raised.value.may_pass


@pytest.mark.parametrize("status", [0, 3])
def test_a_child_that_ended_itself_is_told_by_its_status_and_last_words(status: int) -> None:
    """Also with status 0, for it did not say that it was done; no key is repeated."""
    with pytest.raises(ProcessDiedError, match=f"with exit status {status} before") as raised:
        _run(f"leaves:{status}")

    assert raised.value.may_pass is False
    assert "last words" in str(raised.value)
    assert "sk-abcdefghijklmnop" not in str(raised.value)


def test_what_a_child_logs_and_prints_stands_in_the_log_of_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """With the optimization, at the level of the worker; facts may be called anything."""
    _run("logs")
    records = {record.getMessage(): vars(record) for record in caplog.records}

    assert "counted" == records["100 % done"]["action"]
    assert 3 == records["100 % done"]["n"]
    assert "dspy_optimization.x" == records["100 % done"]["name"]
    assert "too quiet" not in records
    assert "printed by an agent" == records["Process said"]["words"]
    assert {str(SUBJECT)} == {facts["optimization"] for facts in records.values()}
    assert {"Process begun", "Process ended"} < records.keys()


def test_a_child_that_shouts_fills_neither_memory_nor_log(caplog: pytest.LogCaptureFixture) -> None:
    """Lines are cut, and after a while nothing more is written; its last words are known all the same."""
    tracemalloc.start()
    try:
        with pytest.raises(ProcessDiedError, match="its last words: the end"):
            _run("shouts")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    said = [vars(record)["words"] for record in caplog.records if record.getMessage() == "Process said"]
    assert max(map(len, said)) <= 8 * 1024
    assert 0.9 * 1024**2 < sum(map(len, said)) < 1.1 * 1024**2
    assert 1 == sum("says too much" in record.getMessage() for record in caplog.records)
    assert peak < 10 * 1024**2


def test_a_message_without_end_is_taken_for_words_and_the_next_one_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    _run("tells")

    (said,) = (vars(record)["words"] for record in caplog.records if record.getMessage() == "Process said")
    assert "{" * len(said) == said


def test_what_is_withheld_does_not_reach_the_environment_of_an_agent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything else does: tools of users read it."""
    monkeypatch.setenv("HIDDEN_FROM_AGENTS", SECRET)
    monkeypatch.setenv("MEANT_FOR_TOOLS", "open")
    ChildProcesses(
        module="child_stub",
        settings={},
        worker="shows:HIDDEN_FROM_AGENTS,MEANT_FOR_TOOLS",
        withheld=frozenset({"HIDDEN_FROM_AGENTS"}),
    ).run(LOCAL_TENANT, SUBJECT, StopSignal())
    (record,) = (record for record in caplog.records if record.name == "child")

    assert {"HIDDEN_FROM_AGENTS": None, "MEANT_FOR_TOOLS": "open"} == json.loads(record.getMessage())


def test_secrets_go_by_the_pipe_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Everybody on the machine can read a command line."""
    _run("echoes")
    (record,) = (record for record in caplog.records if record.name == "child")

    assert SECRET == json.loads(record.getMessage())["settings"]["key"]
    assert os.getpid() == json.loads(record.getMessage())["parent"]
    assert [str(LOCAL_TENANT), str(SUBJECT), "echoes"] == vars(record)["words"][1:]
    assert SECRET not in repr(ChildProcesses(module="m", settings={"key": SECRET}, worker="w"))


@pytest.mark.parametrize(
    ("reason", "order"),
    [
        (HandoverRequested("goes"), {"stop": "handover", "why": "goes"}),
        (PauseRequested("rest"), {"stop": "pause", "why": "rest"}),
        (CancelRequested("end"), {"stop": "cancel", "why": "end"}),
    ],
)
@pytest.mark.parametrize("when", [0.0, 0.4])
def test_a_child_is_told_to_stop(
    reason: StopSearch, order: object, when: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when that was said before it began."""
    stop = StopSignal()
    timer = threading.Timer(when, stop.stop, [reason])
    timer.start()
    if when == 0.0:
        timer.join()
    _run("obeys", stop)
    (record,) = (record for record in caplog.records if record.name == "child")

    assert order == json.loads(record.getMessage())


def test_a_child_that_does_not_hand_over_is_ended() -> None:
    """The worker has to go, and would be killed itself."""
    stop = StopSignal()
    stop.stop(HandoverRequested("goes"))
    began = time.monotonic()
    with pytest.raises(ProcessDiedError):
        _run("disobeys", stop, grace_seconds=0.5)

    assert 0.5 <= time.monotonic() - began < 5.0


def test_what_a_child_leaves_behind_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """Also when it holds the child's output open: nobody waits for that."""
    began = time.monotonic()
    with pytest.raises(ProcessDiedError):
        _run("litters")
    (record,) = (record for record in caplog.records if record.name == "child")
    left = int(record.getMessage())
    until = time.monotonic() + 5.0
    while _lives(left) and time.monotonic() < until:
        time.sleep(0.05)

    assert _lives(left) is False
    assert time.monotonic() - began < 10.0


def test_a_process_that_cannot_be_started_may_be_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many processes, too little memory: no defect of the optimization."""
    monkeypatch.setattr(module.sys, "executable", "/no/such/python")
    with pytest.raises(InfrastructureError, match=r"found: .*No such file"):
        _run("ends:done")


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
