"""One event as one line: for people, and as JSON for programs."""

import json
from collections.abc import Mapping

from dspy_optimization.adapters.report.numbers import dollars, duration
from dspy_optimization.adapters.report.numbers import number as digits
from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.events import EventType, Json, RecordedEvent
from dspy_optimization.optimization.standing import number, text


def json_line(recorded: RecordedEvent) -> str:
    """Return the event as one line of JSON: id, type, optimization_id, at, data."""
    event = recorded.event
    return json.dumps(
        {
            "id": recorded.id,
            "type": event.type.value,
            "optimization_id": str(event.optimization_id),
            "at": event.at.isoformat(),
            "data": dict(event.data),
        },
        ensure_ascii=False,
    )


def plain_line(recorded: RecordedEvent) -> str:
    """Return the event as one line for people; the time is local."""
    event = recorded.event
    said = visible(_said(event.type, event.data)).replace("\n", " ")
    return f"{event.at.astimezone():%H:%M:%S}  {said}"


def _said(kind: EventType, data: Mapping[str, Json]) -> str:
    match kind:
        case EventType.OPTIMIZATION_STARTED:
            return (
                f"started: {text(data, 'target')}, by {_joined(data, 'algorithms')}, for {_joined(data, 'objectives')}"
            )
        case EventType.OPTIMIZATION_ACCEPTED:
            return f"accepted; about {duration(number(data, 'estimated_seconds') or 0.0)} once it runs"
        case EventType.OPTIMIZATION_QUEUED:
            seconds = number(data, "retry_in_seconds") or 0.0
            return f"waits for a worker, to go on in {duration(seconds)}" if seconds > 0.0 else "waits for a worker"
        case EventType.OPTIMIZATION_RESUMED:
            return "resumed: what was answered before is not paid again"
        case EventType.OPTIMIZATION_PAUSED:
            return f"paused: {text(data, 'error')}" if data.get("error") is not None else "paused"
        case EventType.OPTIMIZATION_CANCELLED:
            return "cancelled; the best so far is kept"
        case EventType.OPTIMIZATION_FAILED:
            return f"failed: {text(data, 'error')}"
        case EventType.OPTIMIZATION_COMPLETED:
            return (
                f"completed: {text(data, 'verdict')} ({text(data, 'ended_because')}), {text(data, 'lm_calls')} calls, "
                f"{dollars(number(data, 'cost_usd') or 0.0)}"
            )
        case EventType.PHASE_STARTED:
            return f"phase {text(data, 'phase')}"
        case EventType.ALGORITHM_STARTED:
            return f"{text(data, 'algorithm')} begins: {text(data, 'reason')}"
        case EventType.ALGORITHM_ENDED:
            broke = f": {text(data, 'error')}" if data.get("error") is not None else ""
            return f"{text(data, 'algorithm')} ended, {text(data, 'outcome')}, best {_score(data, 'best_score')}{broke}"
        case EventType.PROGRESS:
            return _progress(data)
        case EventType.TRIAL_RECORDED:
            return (
                f"candidate {text(data, 'candidate')[:8]} of {text(data, 'algorithm')}: {_score(data, 'score')} on "
                f"{text(data, 'n_examples')} {text(data, 'split')} examples, after {text(data, 'paid_calls')} calls"
            )
        case EventType.BUDGET_WARNING:
            share = number(data, "share") or 0.0
            return f"warning: {share:.0%} of {text(data, 'cap')} = {number(data, 'limit') or 0.0:g} is used"
        case EventType.MODEL_FALLBACK:
            return (
                f"warning: for the role {text(data, 'role')} {text(data, 'used')} answers instead of "
                f"{text(data, 'wanted')}: {text(data, 'reason')}"
            )
        case EventType.DEVICE_FALLBACK:
            return f"warning: {text(data, 'reason')}"
        case EventType.VERDICT:
            return f"verdict on the sealed test split: {text(data, 'verdict')}. {text(data, 'reason')}"
        case EventType.EXPERIMENT_ALERT:
            return f"experiment {text(data, 'experiment_id')}: {text(data, 'alert')}. {text(data, 'reason')}"
        case EventType.EXPERIMENT_RESULT:
            recommended = ", deployment recommended" if data.get("deployment_recommended") is True else ""
            return (
                f"experiment {text(data, 'experiment_id')} ended: {text(data, 'winner')}, confidence "
                f"{number(data, 'confidence') or 0.0:.4g}{recommended}"
            )
        case _:
            return f"{kind.value} {json.dumps(dict(data), ensure_ascii=False)}"


def _progress(data: Mapping[str, Json]) -> str:
    of = f"/{text(data, 'iterations')}" if data.get("iterations") is not None else ""
    said = f"{text(data, 'algorithm')} {text(data, 'phase')} {text(data, 'iteration')}{of}"
    if data.get("score") is not None:
        said += f", score {_score(data, 'score')}"
    said += f", best {_score(data, 'best_score')}; {text(data, 'lm_calls')} calls"
    seconds = number(data, "elapsed_seconds")
    return f"{said}, {dollars(number(data, 'cost_usd') or 0.0)}" + ("" if seconds is None else f", {duration(seconds)}")


def _score(data: Mapping[str, Json], key: str) -> str:
    value = number(data, key)
    return "–" if value is None else digits(value)


def _joined(data: Mapping[str, Json], key: str) -> str:
    value = data.get(key)
    return ", ".join(str(one) for one in value) if isinstance(value, list) else text(data, key)
