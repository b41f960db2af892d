"""One agent with versions that were really validated, a rollout of it, and simulated users."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, Fingerprint
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.agents.dataset import DatasetVersion
from dspy_optimization.agents.example import Example, ExampleId, Usage
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.deployments.approval import ApprovalPolicy, Clearance, clear, impact_of
from dspy_optimization.deployments.pointer import Pointer
from dspy_optimization.deployments.rollout_plan import RolloutPlan, StagePlan, rollout_plan
from dspy_optimization.deployments.stage import StageAnalysis, StageLook
from dspy_optimization.deployments.version import Version
from dspy_optimization.evaluation.gate import GateTerms, Measurement, ValidatedResult, validate
from dspy_optimization.evaluation.ledger import Bill, OptimizationId
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.experiments.assignment import ExperimentId
from dspy_optimization.experiments.log import ExperimentLog
from dspy_optimization.experiments.outcome import Outcome
from dspy_optimization.experiments.plan import ExperimentPlan, MissingOutcome, PrimaryMetric, Window
from dspy_optimization.experiments.recording import check_exposure, exposure_of
from dspy_optimization.experiments.split import Split, Variant
from dspy_optimization.optimization.result import Artifact, OptimizationResult
from dspy_optimization.tenancy import LOCAL_TENANT

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
OPTIMIZATION = OptimizationId(UUID("0199c1d2-0000-7000-8000-0000000000a1"))
SOLVED = Objective(metric="solved")
SAFETY = Objective(metric="safety", guardrail=True, margin=0.2)
SELF = ComponentName("self")
PRODUCTION = "production"


def hours(number: float) -> datetime:
    """The moment so many hours after the start."""
    return START + timedelta(hours=number)


def rollout_id(number: int) -> ExperimentId:
    """One of many ids."""
    return ExperimentId(UUID(int=(0x0199C1D2_0000_7000_8000 << 48) + number))


def candidate(text: str) -> Candidate:
    """A candidate that says so."""
    return Candidate(components={SELF: ComponentValue(instructions=text)})


BASE = AgentConfig(
    name="support",
    kind=AgentKind.PREDICT,
    signature=Signature(instructions="Help.", inputs=(Field(name="question"),), outputs=(Field(name="answer"),)),
)
OLD, NEW, NEWER = candidate("Help."), candidate("Help, step by step."), candidate("Help, and check your answer.")
CONFIG = BASE.with_candidate(NEW)


def validated(
    baseline: Candidate = OLD, optimized: Candidate = NEW, *, right: tuple[int, int] = (40, 80), **usage: float
) -> ValidatedResult:
    """What the gate says of two candidates of which so many in a hundred answers are right.

    Args:
        baseline: the one before.
        optimized: the one after.
        right: of the baseline, of the optimized one.
        usage: cost_before and cost_after (dollars an answer), safety_before and safety_after (in [0, 1]).
    """
    examples = [
        Example(id=ExampleId(f"e{number:03}"), inputs={"question": str(number)}, expected={"answer": "yes"})
        for number in range(100)
    ]

    def measured(one: Candidate, ones: int, when: str) -> Measurement:
        safety, cost = usage.get(f"safety_{when}", 1.0), usage.get(f"cost_{when}", 0.01)
        return Measurement(
            candidate=one,
            results=[
                ExampleResult(
                    example_id=example.id,
                    scores={"solved": Score(value=float(number < ones)), "safety": Score(value=safety)},
                    outputs={},
                    usage=Usage(cost_usd=cost),
                )
                for number, example in enumerate(examples)
            ],
        )

    terms = GateTerms(
        dataset=DatasetVersion("d" * 64),
        objectives=Objectives(items=(SOLVED, SAFETY)),
        alpha=0.05,
        minimum_effect=0.0,
        test_split_use=1,
        seed=7,
    )
    return validate(examples, measured(baseline, right[0], "before"), measured(optimized, right[1], "after"), terms)


def result(**changed: Any) -> OptimizationResult:
    """What an optimization that improved the agent ended with; every field may be another."""
    fields: dict[str, Any] = {
        "optimization_id": OPTIMIZATION,
        "baseline": OLD,
        "optimized": NEW,
        "validated": validated(),
        "algorithm_used": "gepa",
        "bill": Bill(),
        "artifact": Artifact(agent_version=CONFIG.version, checksum=CONFIG.version),
        "ended_because": "finished",
        "completed_at": hours(-2),
    }
    return OptimizationResult(**(fields | changed))


def version(before: Candidate = OLD, after: Candidate = NEW, **said: Any) -> Version:
    """A validated version."""
    return Version(
        config=BASE.with_candidate(after),
        candidate=after.fingerprint,
        created_at=hours(-2),
        optimization_id=OPTIMIZATION,
        validated=validated(before, after, **said),
    )


BASELINE = Version.baseline(BASE, OLD.fingerprint, created_at=hours(-9))
OPTIMIZED = version()
NEWEST = version(NEW, NEWER)
ASKS_NOTHING = ApprovalPolicy()


def leave(of: Version = OPTIMIZED, environment: str = PRODUCTION) -> Clearance:
    """Leave to deploy it, which nobody has to give."""
    impact = impact_of(of, (SOLVED, SAFETY), environment=environment)
    return clear(ASKS_NOTHING, impact, None, at=START)


def traffic(number: int = 1, *, before: Fingerprint = BASELINE.checksum, **changed: Any) -> ExperimentPlan:
    """The terms of a rollout to the optimized version: an hour of window, a minute of grace."""
    fields: dict[str, Any] = {
        "experiment_id": rollout_id(number),
        "tenant": LOCAL_TENANT,
        "optimization_id": OPTIMIZATION,
        "agent": "support",
        "baseline": before,
        "optimized": OPTIMIZED.checksum,
        "primary": PrimaryMetric(metric="solved", mde=0.05, expected=0.8, missing=MissingOutcome.EXCLUDE),
        "window": Window(seconds=3_600.0, grace_seconds=60.0),
        "split": Split(buckets=1_000),
        "salt": f"salt-{number}",
    }
    return ExperimentPlan(**(fields | changed))


PLAN = rollout_plan(traffic())


def stages(*of: tuple[int, float, int]) -> tuple[StagePlan, ...]:
    """Stages of so many buckets, hours and units."""
    return tuple(
        StagePlan(split=Split(buckets=buckets), dwell_hours=dwell, minimum_units=units) for buckets, dwell, units in of
    )


def created(at: datetime = START) -> Pointer:
    """The baseline is live in production."""
    return Pointer.create(BASELINE, PRODUCTION, actor="ana", at=at)


def rolling(plan: RolloutPlan = PLAN, at: datetime = START) -> Pointer:
    """A rollout has just begun."""
    return created(at).begin(plan, OPTIMIZED, clearance=leave(), actor="ana", at=at)


Chance = Callable[[int, Variant], float]
"""Stage and variant → how often a unit succeeds."""


@dataclass
class Users:
    """Users who come one after the other, are served by the pointer, and tell what became of it."""

    plan: RolloutPlan
    chance: Chance
    apart: timedelta
    seed: int = 0
    latency_ms: tuple[float, float] = (400.0, 400.0)
    at: datetime = START
    count: int = 0
    log: ExperimentLog = field(init=False)
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.log, self.rng = ExperimentLog(self.plan.traffic), random.Random(self.seed)

    def come(self, pointer: Pointer, until: datetime) -> None:
        """Everybody who comes before a moment, with the split as it is."""
        while self.at < until:
            self.count += 1
            self._comes(pointer, f"user-{self.seed}-{self.count}", self.at)
            self.at += self.apart

    def _comes(self, pointer: Pointer, unit_id: str, at: datetime) -> None:
        answering = pointer.answering(unit_id)
        if answering.assignment is None or pointer.rollout is None:
            return
        row = exposure_of(self.plan.traffic, answering.assignment, exposed_at=at, received_at=at)
        check_exposure(self.plan.traffic, row)
        self.log.add_exposure(row)
        told = at + timedelta(seconds=self.rng.uniform(0.0, 3_600.0))
        self.log.add_outcome(
            Outcome(
                experiment_id=row.experiment_id,
                exposure_id=row.id,
                event_id=unit_id,
                received_at=told,
                score=float(self.rng.random() < self.chance(pointer.rollout.stage, row.variant)),
                latency_ms=self.rng.uniform(0.5, 1.5) * self.latency_ms[row.variant is Variant.OPTIMIZED],
            )
        )


@dataclass
class Course:
    """A rollout that is asked what is next whenever it says so, by a process that keeps nothing else."""

    pointer: Pointer
    users: Users
    analysis: StageAnalysis | None = None
    looks: list[StageLook] = field(default_factory=list)

    def look(self, now: datetime) -> StageLook:
        """The look at the stage it is at."""
        rollout = self.pointer.rollout
        assert rollout is not None
        if self.analysis is None or self.analysis.stage != rollout.stage:
            self.analysis = StageAnalysis.start(rollout.plan, rollout.stage, since=rollout.stage_started_at)
        self.analysis = self.analysis.extend(rollout.plan, self.users.log, now)
        self.looks.append(self.analysis.look(rollout.plan, now))
        return self.looks[-1]

    def follow(self, every: timedelta, *, most: int = 10_000) -> Iterator[datetime]:
        """Step whenever so much time has passed, until nothing more happens by itself."""
        for number in range(1, most):
            now = START + number * every
            self.users.come(self.pointer, now)
            self.pointer = self.pointer.step(self.look(now), now).pointer
            yield now
            if self.pointer.rollout is None or self.pointer.rollout.ended_at is not None:
                return

    def run(self, every: timedelta) -> Pointer:
        """The pointer at the end."""
        for _ in self.follow(every):
            pass
        return self.pointer


def evidence_of_nothing(number: int = 1, **changed: Any) -> StageLook:
    """A look at the first stage of `PLAN` at which nobody was exposed, an hour after its start."""
    plan = rollout_plan(traffic(number))
    look = StageAnalysis.start(plan, 0, since=START).look(plan, hours(1))
    return look._replace(evidence=replace(look.evidence, **changed))


COST = Objective(metric="cost_usd", direction=Direction.MINIMIZE, guardrail=True, margin=0.2)
