"""When something recurs: five fields of cron on the clocks of a place."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterBadDateError, croniter

from dspy_optimization.agents.untrusted import closest, shown
from dspy_optimization.errors import InvalidRequestError

FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_SIGNS = re.compile(r"[0-9A-Za-z*/,#?-]+")
# Jenkins' "somewhen in the hour": another time whenever it is read.
_CHANCE = re.compile(r"[hHrR](/[0-9]+)?")
# Not places: what this machine happens to be set to, and clocks that count leap seconds.
_NO_PLACES = frozenset({"localtime", "posix", "posixrules", "right"})
_POSSIBLE = "possible: 0 3 * * 1 (Mondays at 3:00), */30 * * * * (every half an hour)"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """Due times, whole minutes. Raises `InvalidRequestError` for what cannot be read and for what is never due.

    Where clocks change: a time that the clock jumps over is due at the moment it jumps, and a time that comes twice is
    due once, at the first. With `*` as its hour it follows the time that passes instead of the clock: nothing is made
    up for, nothing is left out.
    """

    expression: str
    """minute hour day-of-month month day-of-week."""
    timezone: str = "UTC"
    """Of which place; a name of the IANA."""

    def __post_init__(self) -> None:
        self._check_zone()
        fields = self.expression.split()
        if len(fields) != len(FIELDS):
            raise InvalidRequestError(
                f"cron: wanted: five fields ({', '.join(FIELDS)}); found: {len(fields)} in {shown(self.expression)}; "
                f"{_POSSIBLE}"
            )
        for name, field in zip(FIELDS, fields, strict=True):
            if _SIGNS.fullmatch(field) is None or _CHANCE.fullmatch(field) is not None:
                raise self._unreadable(f"{shown(field)} as the {name}")
        try:
            next(self._walk(_LONG_AGO, back=False))
        except CroniterBadDateError as error:
            raise InvalidRequestError(
                f"cron: wanted: times that come; found: {shown(self.expression)}, which is never due; {_POSSIBLE}"
            ) from error
        except (ValueError, KeyError, IndexError) as error:
            raise self._unreadable(shown(self.expression)) from error

    def next(self, after: datetime) -> datetime:
        """Return the first due time later than this, UTC."""
        return next(self._walk(after, back=False))

    def newest(self, at: datetime) -> datetime:
        """Return the last due time up to this one, itself included, UTC."""
        return next(self._walk(at.replace(microsecond=0) + timedelta(seconds=1), back=True))

    def upcoming(self, after: datetime, count: int) -> Sequence[datetime]:
        """Return the next due times in order, UTC."""
        return list(islice(self._walk(after, back=False), count))

    def _walk(self, start: datetime, *, back: bool) -> Iterator[datetime]:
        follows_time = self.expression.split()[1] == "*"
        zone = self._zone
        steps = croniter(self.expression, start.astimezone(zone))
        while True:
            step: datetime = steps.get_prev(datetime) if back else steps.get_next(datetime)
            found = step.astimezone(UTC).replace(fold=0)
            # croniter marks times as the second ones that come once; there and back is what can be trusted.
            if follows_time or not found.astimezone(zone).fold:
                yield found

    @property
    def _zone(self) -> tzinfo:
        return UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)

    def _check_zone(self) -> None:
        try:
            if self.timezone.partition("/")[0] not in _NO_PLACES and self._zone.utcoffset(_LONG_AGO) is not None:
                return
        except (KeyError, ValueError, OSError) as error:
            raise self._unknown_zone() from error
        raise self._unknown_zone()

    def _unknown_zone(self) -> InvalidRequestError:
        known = sorted(available_timezones() - _NO_PLACES)
        where = "UTC, Europe/Berlin, America/New_York" if known else "UTC; this machine knows no others (tzdata)"
        return InvalidRequestError(
            f"timezone: wanted: a time zone of the IANA; found: {shown(self.timezone)}"
            f"{closest(self.timezone, known)}; possible: {where}"
        )

    def _unreadable(self, found: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"cron: wanted: numbers, names (mon, jan), *, lists, ranges and steps in five fields; found: {found}; "
            f"{_POSSIBLE}"
        )
