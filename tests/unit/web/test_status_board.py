"""One query answers everybody who asks at the same moment."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import cast
from uuid import UUID, uuid4

import pytest

from dspy_optimization.adapters.postgres.overview_store import Moment
from dspy_optimization.errors import NotFoundError, StoreError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId
from dspy_optimization.web.status_board import MOST, StatusBoard
from loops import run

OTHER_TENANT = TenantId(UUID("00000000-0000-7000-8000-000000000002"))


class Shelf:
    """Answers with a new object at every reading, once it is let."""

    def __init__(self) -> None:
        self.readings: list[tuple[TenantId, list[OptimizationId]]] = []
        self.gone: set[OptimizationId] = set()
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def read(self, tenant: TenantId, ids: Sequence[OptimizationId]) -> Mapping[OptimizationId, Moment]:
        self.readings.append((tenant, list(ids)))
        assert self.open.wait(20.0)
        if self.error is not None:
            raise self.error
        return {one: cast("Moment", (one, len(self.readings))) for one in ids if one not in self.gone}


def new() -> OptimizationId:
    return OptimizationId(uuid4())


async def begun(shelf: Shelf, count: int) -> None:
    while len(shelf.readings) < count:
        await asyncio.sleep(0.001)


def test_those_who_ask_meanwhile_share_the_next_reading() -> None:
    """And nobody gets an answer that was read before he asked."""
    shelf, ids = Shelf(), [new() for _ in range(5)]

    async def ask() -> list[object]:
        board = StatusBoard(shelf.read)
        shelf.open.clear()
        first = asyncio.create_task(board.moment(LOCAL_TENANT, ids[0]))
        await begun(shelf, 1)
        others = [asyncio.create_task(board.moment(LOCAL_TENANT, one)) for one in (*ids, *ids)]
        await asyncio.sleep(0)
        shelf.open.set()
        return [await one for one in (first, *others)]

    told = run(ask())

    assert [[ids[0]], ids] == [read for _, read in shelf.readings]
    assert [(ids[0], 1), *[(one, 2) for one in (*ids, *ids)]] == told


def test_tenants_do_not_wait_for_each_other_nor_mix() -> None:
    shelf, one = Shelf(), new()

    async def ask() -> None:
        board = StatusBoard(shelf.read)
        shelf.open.clear()
        asked = [asyncio.create_task(board.moment(tenant, one)) for tenant in (LOCAL_TENANT, OTHER_TENANT)]
        await begun(shelf, 2)
        shelf.open.set()
        await asyncio.gather(*asked)

    run(ask())

    assert {LOCAL_TENANT, OTHER_TENANT} == {tenant for tenant, _ in shelf.readings}


def test_a_crowd_is_read_in_parts() -> None:
    shelf, ids = Shelf(), [new() for _ in range(2 * MOST + 1)]

    async def ask() -> None:
        board = StatusBoard(shelf.read)
        await asyncio.gather(*(board.moment(LOCAL_TENANT, one) for one in ids))

    run(ask())

    assert max(len(read) for _, read in shelf.readings) <= MOST
    assert set(ids) == {one for _, read in shelf.readings for one in read}


def test_one_that_is_not_there_fails_alone() -> None:
    shelf, there, gone = Shelf(), new(), new()
    shelf.gone.add(gone)

    async def ask() -> list[object]:
        board = StatusBoard(shelf.read)
        return await asyncio.gather(
            board.moment(LOCAL_TENANT, there), board.moment(LOCAL_TENANT, gone), return_exceptions=True
        )

    found, missing = run(ask())

    assert (there, 1) == found
    assert isinstance(missing, NotFoundError)


def test_after_a_failed_reading_it_reads_again() -> None:
    """A database that is away is told to those who asked, and to nobody later."""
    shelf, one = Shelf(), new()
    board = StatusBoard(shelf.read)

    async def ask() -> Moment:
        return await board.moment(LOCAL_TENANT, one)

    shelf.error = StoreError("the database is away")
    with pytest.raises(StoreError, match="away"):
        run(ask())
    shelf.error = None

    assert (one, 2) == run(ask())


def test_who_goes_away_takes_nobodys_answer_along() -> None:
    shelf, one = Shelf(), new()

    async def ask() -> Moment:
        board = StatusBoard(shelf.read)
        shelf.open.clear()
        leaving = asyncio.create_task(board.moment(LOCAL_TENANT, one))
        await begun(shelf, 1)
        staying = asyncio.create_task(board.moment(LOCAL_TENANT, one))
        waiting = asyncio.create_task(board.moment(LOCAL_TENANT, one))
        await asyncio.sleep(0)
        leaving.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
        shelf.open.set()
        return await staying

    assert (one, 2) == run(ask())
