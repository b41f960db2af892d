"""Streams end with the key that opened them."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from dspy_optimization.adapters.postgres import Database, PostgresKeys
from dspy_optimization.errors import StoreError
from dspy_optimization.tenancy import LOCAL_TENANT, AccessRole, Permission, Principal
from dspy_optimization.web.access import still_admitted, while_admitted
from dspy_optimization.web.problems import AccessError
from loops import run


class AwayKeys:
    """Keys while the database is away."""

    def principal(self, key: str) -> Principal | None:
        raise StoreError("away")


def connection(keys: Any, key: str | None, *, require_keys: bool = True, cookie: bool = False) -> HTTPConnection:
    serving = SimpleNamespace(keys=keys, settings=SimpleNamespace(service=SimpleNamespace(require_keys=require_keys)))
    headers = [] if key is None else [(b"cookie", f"dspy_opt_key={key}".encode())] if cookie else [
        (b"authorization", f"Bearer {key}".encode())
    ]  # fmt: skip
    app = SimpleNamespace(state=SimpleNamespace(serving=serving))
    return HTTPConnection({"type": "http", "headers": headers, "app": app})


@pytest.fixture
def keys(database: Database) -> PostgresKeys:
    return PostgresKeys(database)


@pytest.mark.parametrize("cookie", [False, True])
def test_a_key_admits_until_it_ends(keys: PostgresKeys, cookie: bool) -> None:
    """Valid, revoked, too old, another one's; from the header and from the browser's cookie."""
    key = keys.create(LOCAL_TENANT, AccessRole.VIEWER, "v")
    old = keys.create(LOCAL_TENANT, AccessRole.VIEWER, "old", datetime.now(UTC) - timedelta(seconds=1))
    before = run(still_admitted(connection(keys, key, cookie=cookie), Permission.READ))
    more = run(still_admitted(connection(keys, key, cookie=cookie), Permission.RUN))
    keys.revoke(key.split("_")[1])
    after = run(still_admitted(connection(keys, key, cookie=cookie), Permission.READ))

    assert (True, False, False) == (before, more, after)
    assert not run(still_admitted(connection(keys, old, cookie=cookie), Permission.READ))
    assert not run(still_admitted(connection(keys, None), Permission.READ))


def test_nobody_is_turned_out_for_what_cannot_be_known() -> None:
    """Without keys, and while the database is away."""
    assert run(still_admitted(connection(AwayKeys(), None, require_keys=False), Permission.READ))
    assert run(still_admitted(connection(AwayKeys(), "dso_x"), Permission.READ))


def test_a_stream_ends_with_its_key(keys: PostgresKeys) -> None:
    """Asked when it is due and not before; what told it is closed."""
    key = keys.create(LOCAL_TENANT, AccessRole.VIEWER, "v")
    clock, asked, closed = [0.0], [], []

    class Counted:
        def principal(self, given: str) -> Principal | None:
            asked.append(clock[0])
            return keys.principal(given)

    async def messages() -> AsyncGenerator[int]:
        try:
            for number in range(100):
                clock[0] = 10.0 * number
                if number == 5:
                    keys.revoke(key.split("_")[1])
                yield number
        finally:
            closed.append(True)

    told: list[int] = []

    async def watch() -> None:
        admitted = connection(Counted(), key)
        async for one in while_admitted(
            admitted, Permission.READ, messages(), every_seconds=30.0, seconds=lambda: clock[0]
        ):
            told.append(one)

    with pytest.raises(AccessError) as refused:
        run(watch())

    assert 401 == refused.value.status
    assert [0, 1, 2, 3, 4, 5] == told
    assert [30.0, 60.0] == asked
    assert [True] == closed


def test_who_leaves_closes_what_told(keys: PostgresKeys) -> None:
    """The end of the wrapper is the end of what it wraps."""
    closed = []

    async def messages() -> AsyncGenerator[int]:
        try:
            yield 1
            await asyncio.sleep(60.0)
        finally:
            closed.append(True)

    async def look() -> int:
        watched = while_admitted(connection(keys, None, require_keys=False), Permission.READ, messages())
        first = await anext(watched)
        await watched.aclose()
        return first

    assert 1 == run(look())
    assert [True] == closed
