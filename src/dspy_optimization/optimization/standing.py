"""Where an optimization stands, as its events tell: the same for who carries it out and who only watches."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from dspy_optimization.agents.example import Split
from dspy_optimization.evaluation.ledger import Bill
from dspy_optimization.events import Event, EventType, Json
from dspy_optimization.optimization.request import Optimization

SHOWN_CANDIDATES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """One candidate measured on val."""

    fingerprint: str
    algorithm: str
    score: float
    n_examples: int
    paid_calls: int
    is_complete: bool
    """Measured on all of val: only then its score can be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known so far."""

    n_val: int
    n_test: int
    phase: str = "waiting"
    phase_began: datetime | None = None
    algorithm: str | None = None
    step: str | None = None
    """What the algorithm calls the part of the search it is in."""
    steps_began: Mapping[str, datetime] = field(default_factory=dict)
    """Step → when it was first met, of the present algorithm: steps may take turns."""
    iteration: int | None = None
    iterations: int | None = None
    """None: the algorithm does not know how many there will be."""
    baseline: float | None = None
    best: float | None = None
    course: tuple[float, ...] = ()
    """The best score on val after each complete trial."""
    candidates: tuple[CandidateRow, ...] = ()
    """The newest last."""
    notes: tuple[str, ...] = ()
    """Warnings a person must see, the newest last."""

    def after(self, event: Event) -> "Standing":
        """Return where it stands once this has happened."""
        data = event.data
        match event.type:
            case EventType.PHASE_STARTED:
                return replace(self._stepless(), phase=text(data, "phase"), phase_began=event.at)
            case EventType.ALGORITHM_STARTED:
                return replace(self._stepless(), algorithm=text(data, "algorithm"))
            case EventType.PROGRESS:
                return self._with_progress(data, event.at)
            case EventType.TRIAL_RECORDED if data.get("split") == Split.VAL.value:
                return self._with_trial(data)
            case EventType.BUDGET_WARNING:
                return self._noting(
                    f"{number(data, 'share') or 0.0:.0%} of {text(data, 'cap')} = {number(data, 'limit'):g} is used"
                )
            case EventType.MODEL_FALLBACK:
                return self._noting(f"{text(data, 'role')}: {text(data, 'used')} answers for {text(data, 'wanted')}")
            case EventType.DEVICE_FALLBACK:
                return self._noting(text(data, "reason"))
            case EventType.ALGORITHM_ENDED if data.get("error") is not None:
                return self._noting(f"{text(data, 'algorithm')} broke: {text(data, 'error')}")
            case EventType.TRACKING_FAILED:
                return self._noting(f"MLflow did not take it: {text(data, 'error')}")
            case _:
                return self

    def seconds_left(self, bill: Bill, now: datetime) -> float | None:
        """Return about how long the present phase, or step of the search, goes on at its pace so far.

        None: it cannot be told.
        """
        share = self._share_of_phase(bill)
        began = self.steps_began.get(self.step or "") if self.phase == "search" else self.phase_began
        if share is None or began is None or share <= 0.0:
            return None
        return max((now - began).total_seconds(), 0.0) * (1.0 - share) / share

    def _share_of_phase(self, bill: Bill) -> float | None:
        match self.phase:
            case "search":
                if self.iteration is None or not self.iterations:
                    return None
                return min(self.iteration / self.iterations, 1.0)
            case "baseline":
                return _share(bill, "baseline", self.n_val)
            case "gate":
                return _share(bill, "gate", 2 * self.n_test)
            case _:
                return None

    def _stepless(self) -> "Standing":
        return replace(self, step=None, steps_began={}, iteration=None, iterations=None)

    def _with_progress(self, data: Mapping[str, Json], at: datetime) -> "Standing":
        step, iteration, iterations = text(data, "phase"), number(data, "iteration"), number(data, "iterations")
        return replace(
            self,
            algorithm=text(data, "algorithm"),
            step=step,
            steps_began={step: at, **self.steps_began},
            iteration=None if iteration is None else int(iteration),
            iterations=None if iterations is None else int(iterations),
        )

    def _with_trial(self, data: Mapping[str, Json]) -> "Standing":
        score = number(data, "score")
        if score is None:
            return self
        row = CandidateRow(
            fingerprint=text(data, "candidate"),
            algorithm=text(data, "algorithm"),
            score=score,
            n_examples=int(number(data, "n_examples") or 0),
            paid_calls=int(number(data, "paid_calls") or 0),
            is_complete=(number(data, "n_examples") or 0) >= self.n_val,
        )
        candidates = (*self.candidates, row)[-SHOWN_CANDIDATES:]
        if not row.is_complete:
            return replace(self, candidates=candidates)
        best = score if self.best is None else max(self.best, score)
        baseline = score if row.algorithm == "baseline" and self.baseline is None else self.baseline
        return replace(self, candidates=candidates, best=best, baseline=baseline, course=(*self.course, best))

    def _noting(self, note: str) -> "Standing":
        return replace(self, notes=(*self.notes, note)[-3:])


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything a display shows at one moment."""

    optimization: Optimization
    agent: str
    standing: Standing
    bill: Bill
    now: datetime


def text(data: Mapping[str, Json], key: str) -> str:
    """Return what stands there as text; nothing is a dash."""
    value = data.get(key)
    return "–" if value is None else str(value)


def number(data: Mapping[str, Json], key: str) -> float | None:
    """Return the number there; None when there is none."""
    value = data.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _share(bill: Bill, label: str, total: int) -> float | None:
    spend = bill.by_label.get(label)
    return None if spend is None or total == 0 else min(spend.calls / total, 1.0)
