"""Turns the events of one optimization into messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspy_optimization.agents.example import Split
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import EventType, Json, RecordedEvent
from dspy_optimization.optimization.request import Optimization, OptimizationStatus
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.optimization.standing import Standing, number
from dspy_optimization.optimization.store import Stores
from dspy_optimization.web.streams.hub import EventHub
from dspy_optimization.web.streams.messages import Message, MessageType, Page, Place, SplitSizes

PAGE = 500
"""Events read at once."""
STATE = "state"
"""Stands for the event in a message that tells where an optimization stands."""
ENDS: Mapping[OptimizationStatus, MessageType] = {
    OptimizationStatus.COMPLETED: MessageType.RESULT,
    OptimizationStatus.CANCELLED: MessageType.RESULT,
    OptimizationStatus.FAILED: MessageType.ERROR,
}
_ENDING_EVENTS: Mapping[EventType, OptimizationStatus] = {
    EventType.OPTIMIZATION_COMPLETED: OptimizationStatus.COMPLETED,
    EventType.OPTIMIZATION_CANCELLED: OptimizationStatus.CANCELLED,
    EventType.OPTIMIZATION_FAILED: OptimizationStatus.FAILED,
}
_STEPS = frozenset(
    {
        *_ENDING_EVENTS,
        EventType.OPTIMIZATION_STARTED,
        EventType.OPTIMIZATION_QUEUED,
        EventType.OPTIMIZATION_RESUMED,
        EventType.OPTIMIZATION_PAUSED,
    }
)
"""Events that go with a step of the status."""
LISTED = frozenset({*_STEPS, EventType.PHASE_STARTED, EventType.ALGORITHM_STARTED, EventType.PROGRESS})
"""Events after which a list of optimizations looks different."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """The `Source` of one optimization: turns its events into messages."""

    stores: Stores
    optimization_id: OptimizationId
    hub: EventHub

    def read(self, place: Place | None) -> Page:
        """Return the next messages; the state is that after the last event there is, or newer."""
        place = self._beginning() if place is None else place
        recorded = list(self._events(place.id))
        optimization = self.stores.optimizations.get(self.optimization_id)
        if optimization.status in ENDS and len(recorded) < PAGE:
            # It may have ended between the two looks; the event that says so was written with the status.
            recorded += self._events(recorded[-1].id if recorded else place.id)
        is_full = len(recorded) >= PAGE
        if is_full:
            recorded = _without_open_failure(recorded)
        result = self._result(optimization)
        last_step = next((one.id for one in reversed(recorded) if one.event.type in _STEPS), None)
        standing, end, messages = place.standing, place.end, []
        for one in recorded:
            standing = standing.after(one.event)
            kind = _kind(one, optimization, is_last_step=one.id == last_step)
            if one.event.type in _STEPS:
                end = None if kind is MessageType.PROGRESS else one.id
            messages.append(_message(one, kind, optimization, standing, result))
        reached = Place(id=recorded[-1].id if recorded else place.id, standing=standing, end=end)
        return Page(
            place=reached,
            messages=messages,
            state=_state(optimization, reached, result),
            is_over=optimization.status in ENDS and not is_full,
            is_full=is_full,
        )

    def _events(self, after: int) -> Sequence[RecordedEvent]:
        return self.stores.events.events(self.optimization_id, after=after, limit=PAGE)

    def _beginning(self) -> Place:
        version = self.stores.optimizations.get(self.optimization_id).request.dataset
        sizes = self.hub.sizes.get(version)
        if sizes is None:
            dataset = self.stores.datasets.get(version)
            sizes = SplitSizes(val=len(dataset[Split.VAL]), test=len(dataset[Split.TEST]))
            self.hub.remember(version, sizes)
        return Place(id=0, standing=Standing(n_val=sizes.val, n_test=sizes.test))

    def _result(self, optimization: Optimization) -> OptimizationResult | None:
        if ENDS.get(optimization.status) is not MessageType.RESULT:
            return None
        return self.stores.results.result(self.optimization_id)


def _kind(recorded: RecordedEvent, optimization: Optimization, *, is_last_step: bool) -> MessageType:
    """Return what the event is: an end, unless the optimization went on after it."""
    ending = _ENDING_EVENTS.get(recorded.event.type)
    if ending is None or (ending is OptimizationStatus.FAILED and not (is_last_step and optimization.status is ending)):
        return MessageType.PROGRESS
    return ENDS[ending]


def _without_open_failure(recorded: list[RecordedEvent]) -> list[RecordedEvent]:
    """Return a full page without its end when that is a failure: only what comes next says whether it was the last."""
    for place in range(len(recorded) - 1, 0, -1):
        if recorded[place].event.type in _STEPS:
            return recorded[:place] if recorded[place].event.type is EventType.OPTIMIZATION_FAILED else recorded
    return recorded


def _message(
    recorded: RecordedEvent,
    kind: MessageType,
    optimization: Optimization,
    standing: Standing,
    result: OptimizationResult | None,
) -> Message:
    own = dict(recorded.event.data)
    if kind is MessageType.RESULT:
        own |= _evidence(result)
    return Message(
        id=recorded.id,
        type=kind,
        optimization_id=optimization.request.id,
        at=recorded.event.at,
        event=recorded.event.type.value,
        data=_data(optimization, standing, own),
    )


def _state(optimization: Optimization, place: Place, result: OptimizationResult | None) -> Message:
    kind = ENDS.get(optimization.status, MessageType.PROGRESS)
    own: dict[str, Json] = {} if optimization.error is None else {"error": optimization.error}
    if kind is MessageType.RESULT:
        own |= _evidence(result)
    return Message(
        id=place.id,
        type=kind,
        optimization_id=optimization.request.id,
        at=optimization.updated_at,
        event=STATE,
        data=_data(optimization, place.standing, own),
    )


def _data(optimization: Optimization, standing: Standing, own: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return what a message says: the event's own words, and where the optimization stood after it."""
    return {
        "status": optimization.status.value,
        "phase": standing.phase,
        **own,
        "progress": optimization.progress,
        "current_iteration": standing.iteration,
        "best_score": number(own, "best_score") if standing.best is None else standing.best,
        "algorithm": own.get("algorithm") if standing.algorithm is None else standing.algorithm,
    }


def _evidence(result: OptimizationResult | None) -> dict[str, Json]:
    """Return what the sealed split allowed to be said; nothing but None when it was not opened."""
    validated = None if result is None else result.validated
    primary = None if validated is None else validated.objectives[validated.primary]
    if validated is None or primary is None:
        return dict.fromkeys(
            ("verdict", "improvement_percentage", "statistical_significance", "confidence_interval"), None
        )
    low, high = primary.difference.low, primary.difference.high
    return {
        "verdict": validated.verdict.value,
        "improvement_percentage": primary.improvement_percentage,
        "statistical_significance": primary.p_value,
        "confidence_interval": None if low is None or high is None else [low, high],
    }
