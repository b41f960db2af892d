"""Reading pointers and rollouts that were kept: equal ones."""

from collections.abc import Mapping

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.untrusted import Block
from dspy_optimization.deployments.approval import ApprovalId
from dspy_optimization.deployments.change import Change, ChangeKind
from dspy_optimization.deployments.fields import moment_of, uuid_of
from dspy_optimization.deployments.gain import RealisedGain
from dspy_optimization.deployments.pointer import POINTER_VERSION, Pointer
from dspy_optimization.deployments.rollout import ClosedStage, Rollout, RolloutStatus, StopCause
from dspy_optimization.deployments.rollout_plan import RolloutPlan, StagePlan
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.plan_reading import plan_from_json
from dspy_optimization.experiments.split import BUCKETS, Split

_POINTER = ("version", "agent", "environment", "live", "rollout", "changes")
_CHANGE = (
    "number", "kind", "at", "actor", "reason", "live", "replaces", "rollout", "split_buckets", "approval", "evidence",
)  # fmt: skip
_ROLLOUT = (
    "traffic", "stages", "look_seconds", "patience_hours", "status", "stage", "started_at", "stage_started_at",
    "closed", "told_stalled", "gain", "cause", "ended_at", "ended_because",
)  # fmt: skip
_STAGE = ("split_buckets", "dwell_hours", "minimum_units")
_CLOSED = (
    "stage", "split_buckets", "started_at", "closed_at", "evidence_at", "n_baseline", "n_optimized", "by_hand",
)  # fmt: skip
_GAIN = ("difference", "interval", "alpha", "n_before", "n_after", "mean_before", "mean_after")
_MOST_STAGES = 100
_MOST_CHANGES = 1_000_000
_MOST = 1 << 53
_LONGEST = 1e6


def pointer_from_json(data: Mapping[str, Json]) -> Pointer:
    """Return the pointer that `Pointer.to_json` wrote.

    Raises:
        InvalidRequestError: another version, a missing or unknown field, or a value that a pointer refuses.
    """
    block = Block(dict(data), "pointer", _POINTER)
    if block.get("version") != POINTER_VERSION:
        raise InvalidRequestError(
            f"pointer: wanted: version {POINTER_VERSION}; found: {block.get('version')}; possible: what to_json of a "
            "pointer returned"
        )
    changes = tuple(change_from_json(one) for one in _mappings(block, "changes", _MOST_CHANGES))
    if not changes:
        raise block.wrong("changes", "at least the change that created it", "what to_json returned")
    return Pointer(
        agent=block.text("agent"),
        environment=block.text("environment"),
        live=Fingerprint(block.text("live")),
        rollout=rollout_from_json(block.mapping("rollout")) if "rollout" in block else None,
        changes=changes,
    )


def change_from_json(data: Mapping[str, Json]) -> Change:
    """Return the change that `Change.to_json` wrote. Raises as `pointer_from_json`."""
    block = Block(dict(data), "change", _CHANGE)
    return Change(
        number=block.whole("number", None, low=1, high=_MOST),
        kind=block.one_of("kind", ChangeKind),
        at=moment_of(block, "at"),
        actor=block.text("actor"),
        reason=block.text("reason"),
        live=Fingerprint(block.text("live")),
        replaces=Fingerprint(block.text("replaces")) if "replaces" in block else None,
        rollout=ExperimentId(uuid_of(block, "rollout")) if "rollout" in block else None,
        split=_split(block, low=0, high=BUCKETS) if "split_buckets" in block else None,
        approval=ApprovalId(uuid_of(block, "approval")) if "approval" in block else None,
        evidence=block.mapping("evidence"),
    )


def rollout_from_json(data: Mapping[str, Json]) -> Rollout:
    """Return the rollout that `Rollout.to_json` wrote. Raises as `pointer_from_json`."""
    block = Block(dict(data), "rollout", _ROLLOUT)
    stages = tuple(_stage(one) for one in _mappings(block, "stages", _MOST_STAGES))
    return Rollout(
        plan=RolloutPlan(
            traffic=plan_from_json(block.mapping("traffic")),
            stages=stages,
            look_seconds=block.number("look_seconds", None, low=0.0, high=_LONGEST),
            patience_hours=block.number("patience_hours", None, low=0.0, high=_LONGEST),
        ),
        status=block.one_of("status", RolloutStatus),
        stage=block.whole("stage", None, low=0, high=len(stages) - 1),
        started_at=moment_of(block, "started_at"),
        stage_started_at=moment_of(block, "stage_started_at"),
        closed=tuple(_closed(one) for one in _mappings(block, "closed", _MOST_STAGES)),
        told_stalled=block.flag("told_stalled", False),
        gain=_gain(Block(block.mapping("gain"), "rollout.gain", _GAIN)) if "gain" in block else None,
        cause=block.one_of("cause", StopCause) if "cause" in block else None,
        ended_at=moment_of(block, "ended_at") if "ended_at" in block else None,
        ended_because=block.text("ended_because") if "ended_because" in block else None,
    )


def _stage(data: Json) -> StagePlan:
    block = Block(data, "rollout.stages", _STAGE)
    return StagePlan(
        split=_split(block, low=1, high=BUCKETS - 1),
        dwell_hours=block.number("dwell_hours", None, low=0.0, high=_LONGEST),
        minimum_units=block.whole("minimum_units", None, low=0, high=_MOST),
    )


def _closed(data: Json) -> ClosedStage:
    block = Block(data, "rollout.closed", _CLOSED)
    return ClosedStage(
        stage=block.whole("stage", None, low=0, high=_MOST_STAGES),
        split=_split(block, low=1, high=BUCKETS - 1),
        started_at=moment_of(block, "started_at"),
        closed_at=moment_of(block, "closed_at"),
        evidence_at=moment_of(block, "evidence_at") if "evidence_at" in block else None,
        n_baseline=block.whole("n_baseline", None, low=0, high=_MOST),
        n_optimized=block.whole("n_optimized", None, low=0, high=_MOST),
        by_hand=block.flag("by_hand", False),
    )


def _gain(block: Block) -> RealisedGain:
    interval = block.items("interval", 2)
    bounds = [float(one) for one in interval if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(bounds) != len(interval) or len(interval) == 1:
        raise block.wrong("interval", "two numbers", "what to_json returned")
    return RealisedGain(
        difference=_number(block, "difference"),
        interval=(bounds[0], bounds[1]) if bounds else None,
        alpha=block.number("alpha", None, low=0.0, high=1.0),
        n_before=block.whole("n_before", None, low=0, high=_MOST),
        n_after=block.whole("n_after", None, low=0, high=_MOST),
        mean_before=_number(block, "mean_before"),
        mean_after=_number(block, "mean_after"),
    )


def _number(block: Block, key: str) -> float | None:
    return block.number(key, None, low=-_LONGEST, high=_LONGEST) if key in block else None


def _split(block: Block, *, low: int, high: int) -> Split:
    return Split(buckets=block.whole("split_buckets", None, low=low, high=high))


def _mappings(block: Block, key: str, most: int) -> list[dict[str, Json]]:
    items = block.items(key, most)
    mappings = [item for item in items if isinstance(item, dict)]
    if len(mappings) != len(items):
        raise block.wrong(key, "a list of mappings", "what to_json returned")
    return mappings
