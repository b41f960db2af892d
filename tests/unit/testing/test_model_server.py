"""The server that misbehaves as it is told; its own behaviour, over plain sockets and httpx."""

import subprocess
import sys
import threading
import time

import httpx
import pytest

from dspy_optimization.testing.model_server import (
    ModelServer,
    Received,
    Reply,
    answer,
    garbage,
    hang_up,
    refused,
    silence,
    too_many_requests,
)

QUESTION = {"messages": [{"role": "user", "content": "hello"}]}


def _ask(server: ModelServer, **options: float) -> httpx.Response:
    return httpx.post(f"{server.base_url}/chat/completions", json=QUESTION, trust_env=False, **options)


def test_the_script_comes_first_then_the_default() -> None:
    """In order of arrival; every call is counted and kept."""
    with ModelServer(answer("always"), script=[too_many_requests("3"), refused(500, "x"), garbage()]) as server:
        answers = [_ask(server) for _ in range(5)]

    assert [reply.status_code for reply in answers] == [429, 500, 200, 200, 200]
    assert answers[0].headers["retry-after"] == "3"
    assert answers[4].json()["choices"][0]["message"]["content"] == "always"
    assert (5, 5, 1) == (server.calls, len(server.requests), server.max_in_flight)


def test_a_reply_may_depend_on_the_request() -> None:
    """A function gets what arrived."""

    def echo(received: Received) -> Reply:
        return answer(str(received.body["messages"][0]["content"]), usage=None)

    with ModelServer(echo) as server:
        body = _ask(server).json()

    assert body["choices"][0]["message"]["content"] == "hello"
    assert "usage" not in body


def test_it_never_answers_or_hangs_up() -> None:
    """And closing it frees whoever still waits."""
    with ModelServer(silence(), script=[hang_up()]) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            _ask(server)
        with pytest.raises(httpx.ReadTimeout):
            _ask(server, timeout=0.1)


def test_beyond_its_capacity_it_refuses() -> None:
    """The most it ever answered at once is its capacity."""
    with ModelServer(answer().after(0.1), capacity=2) as server:
        threads = [threading.Thread(target=_ask, args=(server,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert 1 <= server.max_in_flight <= 2
    assert server.refusals + 2 <= server.calls == 6


def test_it_lists_its_models_and_knows_no_other_path() -> None:
    """As OpenAI does."""
    with ModelServer(models=("a", "b")) as server:
        listed = httpx.get(f"{server.base_url}/models", trust_env=False).json()
        missing = httpx.get(f"{server.base_url}/nothing", trust_env=False)

    assert [entry["id"] for entry in listed["data"]] == ["a", "b"]
    assert missing.status_code == 404


def test_an_answer_in_pieces_takes_its_time() -> None:
    """But arrives whole."""
    whole = answer("a longer text")
    with ModelServer(Reply(content=whole.content, pieces=4, pause_seconds=0.02)) as server:
        started = time.monotonic()
        reply = _ask(server)

    assert reply.content == whole.content
    assert time.monotonic() - started >= 0.06


def test_it_runs_as_a_program() -> None:
    """For measurements: in a process of its own."""
    command = [sys.executable, "-m", "dspy_optimization.testing.model_server", "--latency", "0", "--text", "there"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        said = httpx.post(f"{address}/chat/completions", json=QUESTION, trust_env=False).json()
        process.terminate()

    assert said["choices"][0]["message"]["content"] == "there"
