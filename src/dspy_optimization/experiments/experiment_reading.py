"""Reading an experiment that was kept: the same experiment, with the same plan."""

from collections.abc import Mapping
from datetime import datetime

from dspy_optimization.agents.untrusted import Block
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.bounds import checked_moment
from dspy_optimization.experiments.decision import Decision
from dspy_optimization.experiments.experiment import EXPERIMENT_VERSION, Experiment, ExperimentStatus, SplitChange
from dspy_optimization.experiments.plan import LONGEST_HOURS
from dspy_optimization.experiments.plan_reading import plan_from_json
from dspy_optimization.experiments.split import BUCKETS, Split

_KEYS = (
    "version", "plan", "status", "created_at", "splits", "until_hours", "started_at", "decision", "alerted_at",
    "ended_at", "ended_because",
)  # fmt: skip


def experiment_from_json(data: Mapping[str, Json]) -> Experiment:
    """Return the experiment that `Experiment.to_json` wrote.

    Raises:
        InvalidRequestError: another version, a missing or unknown field, or a value that an experiment refuses.
    """
    block = Block(dict(data), "experiment", _KEYS)
    if block.get("version") != EXPERIMENT_VERSION:
        raise InvalidRequestError(
            f"experiment: wanted: version {EXPERIMENT_VERSION}; found: {block.get('version')}; possible: what to_json "
            "of an experiment returned"
        )
    # Each is a bucket more than the one before.
    splits = tuple(_split(one, number) for number, one in enumerate(block.items("splits", BUCKETS)))
    if not splits:
        raise block.wrong("splits", "at least the split of the plan", "what to_json returned")
    because = block.get("ended_because")
    if because is not None and not isinstance(because, str):
        raise block.wrong("ended_because", "text", "what to_json returned")
    return Experiment(
        plan=plan_from_json(block.mapping("plan")),
        status=block.one_of("status", ExperimentStatus),
        created_at=_moment(block, "created_at"),
        splits=splits,
        until_hours=block.number("until_hours", None, low=0.0, high=LONGEST_HOURS),
        started_at=_moment_or_none(block, "started_at"),
        decision=Decision.from_json(block.mapping("decision")) if "decision" in block else None,
        alerted_at=_moment_or_none(block, "alerted_at"),
        ended_at=_moment_or_none(block, "ended_at"),
        ended_because=because,
    )


def _split(data: Json, number: int) -> SplitChange:
    block = Block(data, f"experiment.splits[{number}]", ("at", "split_buckets"))
    return SplitChange(_moment(block, "at"), Split(buckets=block.whole("split_buckets", None, low=1, high=BUCKETS - 1)))


def _moment_or_none(block: Block, key: str) -> datetime | None:
    return _moment(block, key) if key in block else None


def _moment(block: Block, key: str) -> datetime:
    try:
        return checked_moment(block.at(key), datetime.fromisoformat(block.text(key)))
    except ValueError as error:
        raise block.wrong(key, "a moment in ISO 8601", "2026-03-01T12:00:00+00:00") from error
