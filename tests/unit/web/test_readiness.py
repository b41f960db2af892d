"""One look answers everybody who asks whether the process can do its work."""

import asyncio
import threading
from collections.abc import Mapping

import pytest

from dspy_optimization.errors import StoreError
from dspy_optimization.web.readiness import Check, Readiness
from loops import run


class Lens:
    """Finds something else at every look, once it is let."""

    def __init__(self) -> None:
        self.looks = 0
        self.at_once = self.most = 0
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def look(self) -> Mapping[str, Check]:
        self.looks += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        assert self.open.wait(20.0)
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return {"look": Check(told=str(self.looks))}


def test_a_crowd_is_answered_by_one_look() -> None:
    """Those who ask meanwhile wait for it: it takes one thread, however many they are."""
    lens = Lens()

    async def ask() -> list[Mapping[str, Check]]:
        readiness = Readiness(lens.look)
        lens.open.clear()
        asked = [asyncio.create_task(readiness.checks()) for _ in range(120)]
        await asyncio.sleep(0.05)
        lens.open.set()
        return await asyncio.gather(*asked)

    told = run(ask())

    assert (1, 1) == (lens.looks, lens.most)
    assert {"1"} == {one["look"].told for one in told}


def test_what_was_found_is_told_for_a_while() -> None:
    """Two seconds from the end of the look; then it is looked again."""
    lens, clock = Lens(), [100.0]

    async def ask() -> list[str]:
        readiness = Readiness(lens.look, lambda: clock[0])
        found = []
        for now in (100.0, 101.9, 102.0, 103.9, 104.1):
            clock[0] = now
            found.append((await readiness.checks())["look"].told)
        return found

    assert ["1", "1", "2", "2", "3"] == run(ask())


def test_who_goes_away_takes_nobodys_answer_along() -> None:
    lens = Lens()

    async def ask() -> Mapping[str, Check]:
        readiness = Readiness(lens.look)
        lens.open.clear()
        leaving = asyncio.create_task(readiness.checks())
        staying = asyncio.create_task(readiness.checks())
        await asyncio.sleep(0.02)
        leaving.cancel()
        await asyncio.sleep(0)
        lens.open.set()
        return await staying

    assert "1" == run(ask())["look"].told


def test_a_look_that_broke_is_not_remembered() -> None:
    lens = Lens()

    async def ask() -> Mapping[str, Check]:
        readiness = Readiness(lens.look)
        lens.error = StoreError("away")
        with pytest.raises(StoreError):
            await readiness.checks()
        lens.error = None
        return await readiness.checks()

    assert "2" == run(ask())["look"].told


def test_places_are_told_to_who_may_know_them() -> None:
    hidden, plain = Check(told="the database is away", place="h:5432 is away"), Check(told="ok")

    assert ("the database is away", "h:5432 is away") == (hidden.sentence(False), hidden.sentence(True))
    assert ("ok", "ok", True, False) == (plain.sentence(False), plain.sentence(True), plain.is_ok, hidden.is_ok)
