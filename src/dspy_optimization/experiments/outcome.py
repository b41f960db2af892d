"""What became of a unit after its exposure."""

from dataclasses import dataclass
from datetime import datetime

from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.agents.untrusted import listed, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.assignment import ExperimentId, ExposureId
from dspy_optimization.experiments.bounds import checked_moment, checked_name, checked_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One row of the log: something that happened after an exposure, told once or several times."""

    experiment_id: ExperimentId
    exposure_id: ExposureId
    event_id: str
    """Its own within the experiment: the same one told again is the same event."""
    happened_at: datetime | None = None
    """As the teller says, aware; None: when it was received."""
    received_at: datetime
    """When the engine took it in, aware; the rows of one event are ordered by it."""
    score: float | None = None
    """Of the primary metric, in [0, 1], higher is better; None: this event says nothing of it."""
    failed: bool = False
    """The agent gave no usable answer: a score of 0 where none is given."""
    cost_usd: float | None = None
    latency_ms: float | None = None
    scores: tuple[tuple[str, float], ...] = ()
    """Of other metrics that guardrails name, each in [0, 1], higher is better; by name."""
    feedback: str | None = None
    """Words of a person; kept, not counted."""

    def __post_init__(self) -> None:
        where = f"outcome {checked_name('outcome: event_id', self.event_id)}"
        set_ = object.__setattr__
        set_(self, "received_at", checked_moment(f"{where}: received_at", self.received_at))
        if self.happened_at is not None:
            set_(self, "happened_at", checked_moment(f"{where}: happened_at", self.happened_at))
            self._check_order(where)
        if self.score is not None:
            set_(self, "score", _score(f"{where}: score", self.score))
        for name in ("cost_usd", "latency_ms"):
            amount = getattr(self, name)
            if amount is not None:
                set_(self, name, checked_number(f"{where}: {name}", amount, possible="0 or more, or leave it out"))
        set_(
            self,
            "scores",
            tuple(
                sorted(
                    (checked_name(f"{where}: scores", name), _score(f"{where}: scores: {name}", score))
                    for name, score in self.scores
                )
            ),
        )
        names = [name for name, _ in self.scores]
        if len(set(names)) != len(names):
            raise InvalidRequestError(
                f"{where}: wanted: one score a metric; found: {listed(name for name in names if names.count(name) > 1)}"
                " more than once; possible: one of them"
            )
        if self._says_nothing:
            raise InvalidRequestError(
                f"{where}: wanted: at least one thing that happened; found: none; possible: score, success, cost_usd, "
                "latency_ms, failed, scores, feedback"
            )

    @property
    def at(self) -> datetime:
        """When it happened, UTC."""
        return self.received_at if self.happened_at is None else self.happened_at

    @property
    def primary(self) -> float | None:
        """What it says of the primary metric, in [0, 1]; a failure without a score is 0."""
        return 0.0 if self.score is None and self.failed else self.score

    @property
    def content(self) -> str:
        """Everything but the time of receipt, as one text: rows of equal content tell the same."""
        return canonical_json(
            {
                "exposure_id": str(self.exposure_id),
                "happened_at": None if self.happened_at is None else self.happened_at.isoformat(),
                "score": self.score,
                "failed": self.failed,
                "cost_usd": self.cost_usd,
                "latency_ms": self.latency_ms,
                "scores": dict(self.scores),
                "feedback": self.feedback,
            }
        )

    def to_json(self) -> dict[str, Json]:
        """Return it as plain JSON."""
        return {
            "event_id": self.event_id,
            "exposure_id": str(self.exposure_id),
            "at": self.at.isoformat(),
            "received_at": self.received_at.isoformat(),
            "score": self.score,
            "failed": self.failed,
            "cost_usd": self.cost_usd,
            "latency_ms": self.latency_ms,
            "scores": dict(self.scores),
            "feedback": self.feedback,
        }

    @property
    def _says_nothing(self) -> bool:
        told = (self.score, self.cost_usd, self.latency_ms, self.feedback)
        return not self.failed and not self.scores and all(one is None for one in told)

    def _check_order(self, where: str) -> None:
        if self.at > self.received_at:
            raise InvalidRequestError(
                f"{where}: wanted: something that has happened; found: happened_at {self.at.isoformat()}, after it was "
                f"received at {self.received_at.isoformat()}; possible: leave happened_at out, and the time of receipt "
                "counts"
            )


def score_of(event_id: str, *, score: object = None, success: object = None) -> float | None:
    """Return the score of an outcome that is told as a score or as a success; None when as neither.

    Args:
        event_id: named in the message.
        score: in [0, 1].
        success: true is 1, false is 0.
    Raises:
        InvalidRequestError: both are given, or one that is none.
    """
    if success is None:
        return None if score is None else _score(f"outcome {shown(event_id)}: score", score)
    if score is not None:
        raise InvalidRequestError(
            f"outcome {shown(event_id)}: wanted: score or success; found: both; possible: one of them"
        )
    if not isinstance(success, bool):
        raise InvalidRequestError(
            f"outcome {shown(event_id)}: success: wanted: true or false; found: {type(success).__name__} "
            f"{shown(success)}; possible: true, false, or a score in [0, 1]"
        )
    return float(success)


def _score(name: str, value: object) -> float:
    return checked_number(name, value, high=1.0, possible="a number from 0 to 1, or leave it out")
