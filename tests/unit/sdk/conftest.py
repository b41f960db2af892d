"""A service to talk to, and a client whose time and chance are told."""

from collections.abc import Iterator

import pytest
from sdk_service import Service, Time

from dspy_optimization.sdk import Client, Retries


@pytest.fixture
def told_time() -> Time:
    """The time the client lives in."""
    return Time()


@pytest.fixture(scope="session")
def running_service() -> Iterator[Service]:
    """The service; all tests of a run share it."""
    with Service() as running:
        yield running


@pytest.fixture
def service(running_service: Service) -> Service:
    """A service that has heard nothing yet and answers as told."""
    running_service.forget()
    return running_service


@pytest.fixture
def client(service: Service, told_time: Time) -> Iterator[Client]:
    """A client of that service that makes three attempts."""
    retries = Retries(attempts=3, first_delay_seconds=1.0, max_delay_seconds=4.0, max_retry_after_seconds=30.0)
    with Client(
        service.url, "dso_secret", timeout_seconds=5, retries=retries, surroundings=told_time.surroundings()
    ) as one:
        yield one
