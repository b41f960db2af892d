"""Keep-alive connections for many threads."""

import httpx
import pytest

from dspy_optimization.adapters.models.connections import ConnectionStack
from dspy_optimization.testing.fixed_clock import FixedClock
from dspy_optimization.testing.model_server import ModelServer


def test_an_idle_connection_is_closed_when_its_time_is_over() -> None:
    """The server may have closed it long ago; the latest is kept."""
    clock = FixedClock()
    stack = ConnectionStack(idle_seconds=4.0, clock=clock.seconds)
    with ModelServer() as server, httpx.Client(transport=stack) as client:
        first = client.send(client.build_request("GET", f"{server.base_url}/models"), stream=True)
        second = client.send(client.build_request("GET", f"{server.base_url}/models"), stream=True)
        first.read()
        clock.sleep(5.0)
        second.read()
        kept = stack.idle

    assert (1, 0) == (kept, stack.idle)


def test_a_body_read_after_closing_closes_its_connection() -> None:
    """Nothing is kept by a stack that is closed; closing a body twice is closing it once."""
    stack = ConnectionStack(idle_seconds=4.0, clock=FixedClock().seconds)
    with ModelServer() as server:
        client = httpx.Client(transport=stack)
        answer = client.send(client.build_request("GET", f"{server.base_url}/models"), stream=True)
        client.close()
        answer.read()
        answer.stream.close()

    assert stack.idle == 0


def test_a_connection_that_fails_is_not_kept() -> None:
    """Also with TLS: certificates are read once."""
    stack = ConnectionStack(idle_seconds=4.0, clock=FixedClock().seconds)
    with ModelServer() as server, httpx.Client(transport=stack) as client:
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                client.get(f"https://127.0.0.1:{server.port}/v1/models")

    assert stack.idle == 0
