"""The log of an experiment: rows in any order, any number of times, and the one state they make.

What a row is worth depends on the rows alone, never on the order in which they came:

- of the exposures of a unit that were received by `exposed_at` + grace, the earliest counts;
- of the rows of one event, the one received first counts (by `received_at`, then by content): told again with equal
  content it is a repetition, with other content a conflict;
- an event counts that happened in [t0, t0 + W] and was received by t0 + W + grace.

So nothing that arrives after t0 + W + grace can change a unit, and a unit may be analysed from then on, once.
"""

import bisect
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import ExperimentId, ExposureId, UnitId
from dspy_optimization.experiments.bounds import checked_moment
from dspy_optimization.experiments.exposure import Exposure
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.plan import ExperimentPlan
from dspy_optimization.experiments.unit import Place, Unit, is_timely, timeliness, unit_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCounts:
    """What is in a log, and what of it does not count."""

    units: int = 0
    """With a timely exposure."""
    repeated_exposures: int = 0
    """Timely rows beyond the first of each unit: users who came again."""
    late_exposures: int = 0
    """Received after `exposed_at` + grace: ignored."""
    crossovers: int = 0
    """Units that were also served the other version later; they stay where they were first."""
    events: int = 0
    """Different event ids."""
    counted_events: int = 0
    """Of them, how many belong to a unit and its window; of units still in their window, so far."""
    repeated_outcomes: int = 0
    """Rows that tell what was told before."""
    conflicting_outcomes: int = 0
    """Rows with a known event id and other content: ignored."""
    early_outcomes: int = 0
    """Happened before the exposure: ignored."""
    outside_window: int = 0
    """Happened after t0 + W: ignored."""
    late_outcomes: int = 0
    """Received after t0 + W + grace: ignored."""
    unknown_exposures: int = 0
    """Events whose exposure is not in the log, or was itself too late."""

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class ExperimentLog:
    """All rows of one experiment, or of some of its units with all their rows; in memory."""

    def __init__(self, plan: ExperimentPlan) -> None:
        self._plan = plan
        self._exposures: dict[UnitId, set[Exposure]] = defaultdict(set)
        self._first: dict[UnitId, Exposure] = {}
        self._by_id: dict[ExposureId, Exposure] = {}
        self._order: list[Place] = []
        self._events: dict[str, set[Outcome]] = defaultdict(set)
        self._winners: dict[str, Outcome] = {}
        self._of_exposure: dict[ExposureId, set[str]] = defaultdict(set)

    def add_exposure(self, exposure: Exposure) -> None:
        """Take a row in; the same row again changes nothing.

        Raises:
            InvalidRequestError: of another experiment.
        """
        self._check(exposure.experiment_id, f"exposure of unit {exposure.unit_id}")
        rows = self._exposures[exposure.unit_id]
        if exposure in rows:
            return
        rows.add(exposure)
        first = self._first.get(exposure.unit_id)
        if not is_timely(self._plan, exposure) or (first is not None and first.order <= exposure.order):
            return
        if first is not None:
            del self._order[bisect.bisect_left(self._order, _place(first))]
            del self._by_id[first.id]
        self._first[exposure.unit_id] = exposure
        self._by_id[exposure.id] = exposure
        bisect.insort(self._order, _place(exposure))

    def add_outcome(self, outcome: Outcome) -> None:
        """Take a row in, also before its exposure; the same row again changes nothing.

        Raises:
            InvalidRequestError: of another experiment.
        """
        self._check(outcome.experiment_id, f"outcome {outcome.event_id}")
        rows = self._events[outcome.event_id]
        if outcome in rows:
            return
        rows.add(outcome)
        winner = self._winners.get(outcome.event_id)
        if winner is not None:
            if _precedence(winner) <= _precedence(outcome):
                return
            self._of_exposure[winner.exposure_id].discard(winner.event_id)
        self._winners[outcome.event_id] = outcome
        self._of_exposure[outcome.exposure_id].add(outcome.event_id)

    def first_exposure(self, exposure_id: ExposureId) -> Exposure | None:
        """Return the exposure that counts for a unit; None when there is none."""
        return self._by_id.get(exposure_id)

    def exposed(self, as_of: datetime, after: Place | None = None) -> list[Exposure]:
        """Return the first exposures that nothing can change any more, in order.

        Args:
            as_of: every row received until then is in the log; exposures up to `as_of` - grace are returned.
            after: those of later places only.
        """
        until = checked_moment("as_of", as_of) - self._plan.window.grace
        return [self._first[place.unit_id] for place in self._between(after, until)]

    def usable(self, as_of: datetime, after: Place | None = None) -> list[Unit]:
        """Return the units that nothing can change any more, in order.

        Args:
            as_of: every row received until then is in the log; units exposed up to `as_of` - W - grace are returned.
            after: those of later places only.
        """
        until = checked_moment("as_of", as_of) - self._plan.window.grace - self._plan.window.length
        return [self._unit(place.unit_id) for place in self._between(after, until)]

    def counts(self) -> LogCounts:
        """Return what is in the log, and what of it does not count; reads all of it."""
        crossovers = repeated = late = 0
        for unit_id, rows in self._exposures.items():
            timely = [row for row in rows if is_timely(self._plan, row)]
            late += len(rows) - len(timely)
            repeated += max(len(timely) - 1, 0)
            first = self._first.get(unit_id)
            crossovers += first is not None and any(row.variant is not first.variant for row in timely)
        told_again = conflicts = 0
        for event_id, outcomes in self._events.items():
            content = self._winners[event_id].content
            same = sum(outcome.content == content for outcome in outcomes)
            told_again += same - 1
            conflicts += len(outcomes) - same
        counted = early = outside = late_outcomes = unknown = 0
        for exposure_id, event_ids in self._of_exposure.items():
            exposure = self._by_id.get(exposure_id)
            if exposure is None:
                unknown += len(event_ids)
                continue
            parts = timeliness(self._plan, exposure.exposed_at, self._outcomes(event_ids))
            counted += len(parts.counted)
            early += len(parts.before_exposure)
            outside += len(parts.after_window)
            late_outcomes += len(parts.received_late)
        return LogCounts(
            units=len(self._first),
            repeated_exposures=repeated,
            late_exposures=late,
            crossovers=crossovers,
            events=len(self._events),
            counted_events=counted,
            repeated_outcomes=told_again,
            conflicting_outcomes=conflicts,
            early_outcomes=early,
            outside_window=outside,
            late_outcomes=late_outcomes,
            unknown_exposures=unknown,
        )

    def _unit(self, unit_id: UnitId) -> Unit:
        first = self._first[unit_id]
        return unit_of(self._plan, first, self._outcomes(self._of_exposure.get(first.id, ())))

    def _outcomes(self, event_ids: Iterable[str]) -> list[Outcome]:
        return [self._winners[event_id] for event_id in event_ids]

    def _between(self, after: Place | None, until: datetime) -> list[Place]:
        start = 0 if after is None else bisect.bisect_right(self._order, after)
        stop = bisect.bisect_right(self._order, until, key=lambda place: place.exposed_at)
        return self._order[start:stop]

    def _check(self, experiment_id: ExperimentId, what: str) -> None:
        if experiment_id != self._plan.experiment_id:
            raise InvalidRequestError(
                f"{what}: wanted: a row of experiment {self._plan.experiment_id}; found: one of {experiment_id}; "
                "possible: the log of its own experiment"
            )


def _place(exposure: Exposure) -> Place:
    return Place(exposure.exposed_at, exposure.unit_id)


def _precedence(outcome: Outcome) -> tuple[datetime, str]:
    return outcome.received_at, outcome.content
