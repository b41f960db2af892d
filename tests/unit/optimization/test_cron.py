"""When something recurs: what is read, what is refused, and clocks that change."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.optimization.cron import Cron

NEW_YORK, BERLIN = "America/New_York", "Europe/Berlin"
MINUTE = timedelta(minutes=1)
WHOLE = (range(60), range(24), range(1, 32), range(1, 13), range(7))
CHANGES = (
    (NEW_YORK, "2026-03-08"),
    (NEW_YORK, "2026-11-01"),
    (BERLIN, "2026-03-29"),
    (BERLIN, "2026-10-25"),
    ("America/Santiago", "2026-09-06"),  # midnight does not exist
    ("America/Santiago", "2026-04-05"),  # neither is it one
    ("Africa/Cairo", "2026-04-24"),
    ("Asia/Kolkata", "2026-05-05"),  # nothing changes
)


def times(cron: Cron, after: str, count: int) -> list[str]:
    """Return due times as the clocks of the place show them."""
    zone = ZoneInfo(cron.timezone)
    return [
        f"{one.astimezone(zone):%d %H:%M%z}"[:9]
        for one in cron.upcoming(datetime.fromisoformat(after).replace(tzinfo=zone), count)
    ]


def test_the_usual() -> None:
    """Names, steps, lists and ranges; two days mean either."""
    assert ["05 03:00+", "12 03:00+"] == times(Cron(expression="0 3 * * mon"), "2026-01-01", 2)
    assert ["01 00:15+", "01 00:45+"] == times(Cron(expression="15-45/30 * * * *"), "2026-01-01T00:00", 2)
    assert ["02 00:00+", "09 00:00+", "13 00:00+"] == times(Cron(expression="0 0 13 * 5"), "2026-01-01T12:00", 3)
    assert ["29 00:00+"] == times(Cron(expression="0 0 29 2 *"), "2026-01-01", 1)


def test_a_time_that_does_not_exist_is_due_when_the_clock_jumps() -> None:
    """In New York 2:30 does not exist on the 8th of March 2026: at 3:00, once, though 3:00 is due itself."""
    assert ["07 02:30-", "08 03:00-", "09 02:30-"] == times(
        Cron(expression="30 2 * * *", timezone=NEW_YORK), "2026-03-07T00:00", 3
    )
    assert ["08 03:00-", "09 02:00-"] == times(Cron(expression="0 2,3 * * *", timezone=NEW_YORK), "2026-03-08T00:00", 2)


def test_a_time_that_comes_twice_is_due_once() -> None:
    """In New York 1:30 comes twice on the 1st of November 2026: the first one counts."""
    cron = Cron(expression="30 1 * * *", timezone=NEW_YORK)
    first, second = cron.upcoming(datetime(2026, 11, 1, tzinfo=ZoneInfo(NEW_YORK)), 2)

    assert (datetime(2026, 11, 1, 5, 30, tzinfo=UTC), datetime(2026, 11, 2, 6, 30, tzinfo=UTC)) == (first, second)


@pytest.mark.parametrize("day", ["2026-03-08", "2026-11-01"])
def test_every_hour_is_every_hour(day: str) -> None:
    """With * as its hour it follows the time that passes: 23 hours or 25, none longer."""
    cron = Cron(expression="0 * * * *", timezone=NEW_YORK)
    found = cron.upcoming(datetime.fromisoformat(day).replace(tzinfo=UTC), 30)

    assert {timedelta(hours=1)} == {after - before for before, after in pairwise(found)}


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("* * * *", "found: 4"),
        ("0 * * * * *", "found: 6"),
        ("0 0 0 * * * 2030", "found: 7"),
        ("@hourly", "found: 1"),
        ("", "found: 0"),
        ("60 * * * *", "60"),
        ("*/0 * * * *", "0"),
        ("a b c d e", "found: 'a b c d e'"),
        ("R * * * *", "'R' as the minute"),
        ("0 h/5 * * *", "'h/5' as the hour"),
        ("R(0-5) * * * *", "as the minute"),
        ("٣ * * * *", "as the minute"),
        ("0 0 30 2 *", "never due"),
        ("0 0 31 2,4,6,9,11 *", "never due"),
    ],
)
def test_what_cannot_be_read_is_refused(expression: str, said: str) -> None:
    """Seconds, nicknames, chance, and what never comes; with what is possible."""
    with pytest.raises(InvalidRequestError, match="possible: 0 3") as error:
        Cron(expression=expression)

    assert said in str(error.value)


@pytest.mark.parametrize(
    "name", ["Europe/Berln", "", "/etc/passwd", "../x", "Europe", "localtime", "right/UTC", "a" * 300, "\0", "\udcff"]
)
def test_other_places_are_refused(name: str) -> None:
    """Nothing that means another time on another machine."""
    with pytest.raises(InvalidRequestError, match="timezone: wanted: a time zone of the IANA"):
        Cron(expression="0 3 * * *", timezone=name)


def test_a_near_miss_is_named() -> None:
    """The place that was meant."""
    with pytest.raises(InvalidRequestError, match='did you mean "Europe/Berlin"'):
        Cron(expression="0 3 * * *", timezone="europe/Berlin")


def reference(fields: Sequence[set[int]], follows_time: bool, zone: ZoneInfo, begin: datetime) -> Iterator[datetime]:
    """Yield due times of two days and a half by looking at the clock every minute."""
    before = (begin - MINUTE).astimezone(zone).replace(tzinfo=None)
    for number in range(60 * 60):
        here = (begin + number * MINUTE).astimezone(zone)
        clock = here.replace(tzinfo=None)
        jumped = [before + n * MINUTE for n in range(1, max(1, (clock - before) // MINUTE))]
        shown = [clock] if follows_time else [*jumped, *([] if here.fold else [clock])]
        before = clock
        if any(is_due(fields, one) for one in shown):
            yield begin + number * MINUTE


def is_due(fields: Sequence[set[int]], clock: datetime) -> bool:
    minute, hour, day, month, weekday = fields
    by_day, by_weekday = clock.day in day, clock.isoweekday() % 7 in weekday
    is_any_day, is_any_weekday = len(day) == 31, len(weekday) == 7
    fits = (by_day or by_weekday) if not (is_any_day or is_any_weekday) else (by_day and by_weekday)
    return clock.minute in minute and clock.hour in hour and clock.month in month and fits


@some.composite
def fields_of(draw: some.DrawFn) -> tuple[str, list[set[int]]]:
    """Return an expression that is due often near the night, and what its fields mean."""
    texts, meanings = [], []
    for place, whole in enumerate(WHOLE):
        is_all = draw(some.booleans()) if place in (0, 1) else draw(some.integers(0, 9)) > 1
        chosen = draw(some.sets(some.sampled_from(whole[:6] if place == 1 else whole), min_size=1, max_size=3))
        texts.append("*" if is_all or place == 3 else ",".join(map(str, sorted(chosen))))
        meanings.append(set(whole) if is_all or place == 3 else chosen)
    return " ".join(texts), meanings


@settings(deadline=None)
@given(fields_of(), some.sampled_from(CHANGES), some.integers(0, 36 * 60 * 60), some.integers(0, 999_999))
@example(("30 2 * * *", [{30}, {2}, *map(set, WHOLE[2:])]), CHANGES[0], 0, 0)
@example(("30 1 * * *", [{30}, {1}, *map(set, WHOLE[2:])]), CHANGES[1], 0, 0)
def test_due_times_are_those_the_clock_shows(
    drawn: tuple[str, list[set[int]]], change: tuple[str, str], second: int, microsecond: int
) -> None:
    """Held against a look at the clock every minute, around nights in which clocks change."""
    expression, fields = drawn
    name, day = change
    zone = ZoneInfo(name)
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(hours=18)
    at = begin + timedelta(seconds=second, microseconds=microsecond)
    cron = Cron(expression=expression, timezone=name)
    known = list(reference(fields, expression.split()[1] == "*", zone, begin))
    later, earlier = [one for one in known if one > at], [one for one in known if one <= at]

    assert later[:5] == list(cron.upcoming(at, len(later[:5])))
    assert earlier[-1:] == [cron.newest(at)][: len(earlier[-1:])]


@settings(deadline=None)
@given(
    fields_of(),
    some.sampled_from([NEW_YORK, BERLIN, "UTC"]),
    some.integers(0, 20 * 365 * 86_400_000),
)
def test_the_next_is_later_and_a_whole_minute(drawn: tuple[str, list[set[int]]], name: str, passed: int) -> None:
    """Strictly, never nearer than a minute to the one before, and nothing lies between."""
    cron = Cron(expression=drawn[0], timezone=name)
    after = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(milliseconds=passed)
    first, second = cron.upcoming(after, 2)

    assert after < first
    assert first + MINUTE <= second
    assert (0, 0) == (first.second, first.microsecond)
    assert first == cron.newest(first) == cron.newest(second - timedelta(microseconds=1))
    assert second == cron.next(first)
    assert cron.newest(after) <= after


def test_whatever_is_typed_is_read_or_refused() -> None:
    """No other error escapes, whatever the library thinks of it."""
    chance = random.Random(0)
    signs = "0123456789*/,#?-LWlwhrMONJANsunthu5"
    read = 0
    for _ in range(3000):
        parts = [
            chance.choice(["*", "0", "*/5", "1-5", "".join(chance.choices(signs, k=chance.randint(1, 5)))])
            for _ in range(5)
        ]
        try:
            Cron(expression=" ".join(parts))
            read += 1
        except InvalidRequestError:
            pass

    assert 200 < read < 2800
