"""An optimization as it could have been, built from nouns: a support agent, two algorithms, a real gate."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from dspy_optimization.adapters.report.facts import Material, Report, report
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue, Fingerprint
from dspy_optimization.agents.config import AgentConfig, AgentKind, Component, Field, Signature
from dspy_optimization.agents.dataset import Dataset, DatasetVersion
from dspy_optimization.agents.example import Example, ExampleId, Split, Usage
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.evaluation.gate import Estimate, GateTerms, Measurement, ValidatedResult, validate
from dspy_optimization.evaluation.ledger import Bill, OptimizationId, Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.trial import ExampleResult, Trial
from dspy_optimization.events import Event, EventType, Json, RecordedEvent
from dspy_optimization.optimization.request import (
    AlgorithmChoice,
    Constraints,
    Optimization,
    OptimizationRequest,
    OptimizationStatus,
    Target,
)
from dspy_optimization.optimization.result import Artifact, Improvement, OptimizationResult
from dspy_optimization.statistics import Verdict

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ID = OptimizationId(UUID("0193a5f0-7c1e-7b44-9d1f-2f6f0f3b8a11"))
ACCURACY = Objective(metric="exact_match")
COST = Objective(metric="cost_usd", direction=Direction.MINIMIZE, guardrail=True, margin=1.5)
CLASSIFY = ComponentName("classify")
SUMMARIZE = ComponentName("summarize")

BASELINE_TEXT = "Read the customer's message and answer with the team that should handle it."
BETTER_TEXT = (
    "Read the customer's message and decide which team should handle it. Answer with exactly one word, in lower case: "
    "billing, shipping, returns or technical.\n\n"
    "Look for what the customer wants to happen next, not for the product they name. A late parcel is shipping even "
    "when a refund is asked for; a charge that appears twice is billing even when the item was returned."
)
QUESTIONS = (
    "My parcel was due on Monday and the tracking page has not changed since. Where is it?",
    "I was charged twice for order 5512, please send one payment back.",
    "The headset does not pair with my phone any more after the update.",
    "These shoes are a size too small, how do I send them back?",
)
TEAMS = ("shipping", "billing", "technical", "returns")


def agent(name: str = "support-triage") -> AgentConfig:
    return AgentConfig(
        name=name,
        kind=AgentKind.CHAIN_OF_THOUGHT,
        signature=Signature(instructions=BASELINE_TEXT, inputs=(Field(name="message"),), outputs=(Field(name="team"),)),
        components={SUMMARIZE: Component(frozen=True)},
    )


def candidate(
    text: str,
    demos: Sequence[Mapping[str, Json]] = (),
    origin: str = "gepa",
    parents: Sequence[Candidate] = (),
) -> Candidate:
    return Candidate(
        components={
            CLASSIFY: ComponentValue(instructions=text, demos=tuple(demos)),
            SUMMARIZE: ComponentValue(instructions="Say in one sentence what the customer wants."),
        },
        origin=origin,
        parents=tuple(parent.fingerprint for parent in parents),
    )


BASELINE = candidate(BASELINE_TEXT, [{"message": "Hello?", "team": "support"}], origin="baseline")
CHOSEN_DEMOS = (
    {"message": QUESTIONS[1], "reasoning": "A double charge: money, whatever was bought.", "team": "billing"},
    {"message": QUESTIONS[0], "reasoning": "It has not arrived.", "team": "shipping"},
)


def examples(prefix: str, n: int) -> tuple[Example, ...]:
    return tuple(
        Example(
            id=ExampleId(f"{prefix}-{index:03}"),
            inputs={"message": f"{QUESTIONS[index % 4]} (ticket {prefix}-{index})"},
            expected={"team": TEAMS[index % 4]},
        )
        for index in range(n)
    )


def dataset(n_val: int = 100, n_test: int = 200) -> Dataset:
    return Dataset(
        name="tickets-2026-q3",
        version=DatasetVersion("9f2c" + "ab" * 30),
        splits={
            Split.TRAIN: examples("train", 80),
            Split.VAL: examples("val", n_val),
            Split.TEST: examples("sealed", n_test),
        },
        seed=7,
    )


def results(
    cases: Sequence[Example], share: float, *, tokens: int = 180, salt: str = "", values: Sequence[float] | None = None
) -> tuple[ExampleResult, ...]:
    """Right on about this share of the cases; a better agent is right where a worse one was, mostly."""
    found = []
    for index, case in enumerate(cases):
        hard = 0.82 * random.Random(case.id).random() + 0.18 * random.Random(f"{salt}/{case.id}").random()
        value = values[index] if values is not None else float(hard < share)
        team = case.expected["team"]
        found.append(
            ExampleResult(
                example_id=case.id,
                scores={
                    ACCURACY.metric: Score(value=value, feedback="" if value else f"expected {team!r}, came 'support'"),
                    COST.metric: Score(value=tokens * 1.2e-6),
                },
                outputs={"team": team if value else "support"},
                usage=Usage(
                    cost_usd=tokens * 1.2e-6,
                    latency_seconds=0.4 + tokens / 2000,
                    prompt_tokens=tokens,
                    completion_tokens=38,
                    lm_calls=1,
                ),
            )
        )
    return tuple(found)


def trial(
    one: Candidate,
    measured: Sequence[ExampleResult],
    *,
    algorithm: str,
    iteration: int,
    paid_calls: int,
    split: Split = Split.VAL,
) -> Trial:
    return Trial(
        algorithm=algorithm,
        candidate=one,
        split=split,
        results=tuple(measured),
        score=sum(result.scores[ACCURACY.metric].value for result in measured) / len(measured),
        iteration=iteration,
        paid_calls=paid_calls,
        recorded_at=NOON + timedelta(seconds=paid_calls),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The trials of the sample and who won."""

    trials: tuple[Trial, ...]
    chosen: Candidate


def story(data: Dataset, best_share: float = 0.68) -> Story:
    """MIPROv2 tries demos, GEPA rewrites; one of GEPA's grandchildren wins."""
    val = data[Split.VAL]
    trials = [trial(BASELINE, results(val, 0.42), algorithm="baseline", iteration=0, paid_calls=len(val))]
    paid = len(val)
    rng = random.Random(5)
    for index in range(9):
        one = candidate(
            f"{BASELINE_TEXT} Attempt {index}.", CHOSEN_DEMOS[: index % 3], origin="miprov2", parents=[BASELINE]
        )
        share = 0.40 + 0.015 * index + rng.uniform(-0.06, 0.05)
        part = val if index in {0, 3, 5, 8} else val[:35]
        paid += round(len(part) * 0.7)
        trials.append(
            trial(one, results(part, share, salt=str(index)), algorithm="miprov2", iteration=index + 1, paid_calls=paid)
        )
    family = [BASELINE]
    chosen = BASELINE
    for index in range(14):
        parent = family[-1] if index % 3 else family[max(0, len(family) - 3)]
        last = index == 12
        one = candidate(
            BETTER_TEXT if last else f"{BASELINE_TEXT} Rule {index}: one word.",
            CHOSEN_DEMOS if last else (),
            origin="gepa",
            parents=[parent],
        )
        share = best_share if last else 0.46 + 0.012 * index + rng.uniform(-0.05, 0.03)
        part = val if index % 4 != 1 else val[:20]
        paid += round(len(part) * 0.8)
        trials.append(
            trial(
                one,
                results(part, share, tokens=410 if last else 220, salt=f"g{index}"),
                algorithm="gepa",
                iteration=index + 1,
                paid_calls=paid,
            )
        )
        if part is val:
            family.append(one)
        chosen = one if last else chosen
    return Story(trials=tuple(trials), chosen=chosen)


def optimization(status: OptimizationStatus = OptimizationStatus.COMPLETED, **changes: object) -> Optimization:
    request = OptimizationRequest(
        id=ID,
        target=Target(id="support-triage", version=Fingerprint("3c" * 32)),
        dataset=DatasetVersion("9f2c" + "ab" * 30),
        objectives=(ACCURACY, COST),
        algorithms=(
            AlgorithmChoice(name="miprov2", options={"num_candidates": 6}),
            AlgorithmChoice(name="gepa", options={"note": "it's"}),
        ),
        constraints=Constraints(
            limits=Limits(max_lm_calls=4000, max_cost_usd=5.0), min_improvement_threshold=0.05, seed=7
        ),
        created_at=NOON,
    )
    return replace(
        Optimization(request=request, status=status, progress=1.0, elapsed_seconds=754.0, updated_at=NOON), **changes
    )


def validated(
    data: Dataset,
    chosen: Candidate,
    *,
    before: float = 0.41,
    after: float = 0.64,
    minimum_effect: float = 0.05,
    settled: tuple[Verdict, str] | None = None,
    use: int = 1,
    objectives: Sequence[Objective] = (ACCURACY, COST),
    values: tuple[Sequence[float], Sequence[float]] | None = None,
    tokens: int = 410,
) -> ValidatedResult:
    """What the real gate says of two agents that are right on these shares of the test split."""
    test = data[Split.TEST]
    old = Measurement(candidate=BASELINE, results=results(test, before, values=values[0] if values else None))
    new = Measurement(
        candidate=chosen,
        results=results(test, after, tokens=tokens, salt="chosen", values=values[1] if values else None),
    )
    terms = GateTerms(
        dataset=data.version,
        objectives=Objectives(items=tuple(objectives)),
        alpha=0.05,
        minimum_effect=minimum_effect,
        test_split_use=use,
        seed=7,
    )
    return validate(test, old, old if settled is not None else new, terms, settled=settled)


def bill() -> Bill:
    return Bill(
        by_role={
            Role.TASK: Spend(
                calls=2310, lost_calls=2, cost_usd=0.8124, prompt_tokens=612_400, completion_tokens=88_210
            ),
            Role.REFLECTION: Spend(calls=64, cost_usd=0.4011, prompt_tokens=151_000, completion_tokens=31_200),
        },
        by_label={
            "baseline": Spend(calls=100, cost_usd=0.02, prompt_tokens=18_000, completion_tokens=3_800),
            "miprov2": Spend(calls=641, cost_usd=0.33, prompt_tokens=170_400, completion_tokens=30_210),
            "gepa": Spend(calls=1103, cost_usd=0.62, prompt_tokens=400_000, completion_tokens=60_000),
            "gate": Spend(calls=400, lost_calls=2, cost_usd=0.19, prompt_tokens=118_000, completion_tokens=15_400),
            "ablation": Spend(calls=130, cost_usd=0.0535, prompt_tokens=57_000, completion_tokens=10_000),
        },
        answered_from_ledger=1187,
    )


def result(chosen: Candidate, proof: ValidatedResult | None, **changes: object) -> OptimizationResult:
    return replace(
        OptimizationResult(
            optimization_id=ID,
            baseline=BASELINE,
            optimized=chosen,
            validated=proof,
            algorithm_used="gepa" if chosen != BASELINE else None,
            key_improvements=(
                Improvement(
                    component=CLASSIFY,
                    part="instructions",
                    worth=Estimate(value=0.17, low=0.08, high=0.26, n=100),
                ),
                Improvement(component=CLASSIFY, part="demos", worth=Estimate(value=0.05, low=-0.02, high=0.12, n=100)),
            )
            if proof is not None and chosen != BASELINE
            else (),
            iterations=23,
            trials=15,
            bill=bill(),
            artifact=Artifact(agent_version=Fingerprint("7e" * 32), checksum="7e" * 32),
            ended_because="finished",
            completed_at=NOON + timedelta(minutes=13),
        ),
        **changes,
    )


def events(*more: tuple[EventType, Mapping[str, Json]]) -> tuple[RecordedEvent, ...]:
    told = (
        (EventType.OPTIMIZATION_STARTED, {}),
        (EventType.PROGRESS, {"lm_calls": 100, "cost_usd": 0.02, "tokens": 21_800, "elapsed_seconds": 40.0}),
        (EventType.BUDGET_WARNING, {"cap": "max_lm_calls", "limit": 4000, "used": 2001, "share": 0.5}),
        (EventType.OPTIMIZATION_RESUMED, {}),
        (EventType.PROGRESS, {"lm_calls": 1741, "cost_usd": 0.97, "tokens": 700_000, "elapsed_seconds": 610.0}),
        *more,
    )
    return tuple(
        RecordedEvent(
            id=index + 1,
            event=Event(type=kind, optimization_id=ID, at=NOON + timedelta(seconds=60 * index), data=data),
        )
        for index, (kind, data) in enumerate(told)
    )


def material(**changes: object) -> Material:
    """The improved sample, with changes."""
    data = dataset()
    told = story(data)
    whole = Material(
        optimization=optimization(),
        result=result(told.chosen, validated(data, told.chosen)),
        trials=told.trials,
        events=events(),
        agent=agent(),
        dataset=data,
        bill=bill(),
        models={Role.TASK: "openai/gpt-5-mini @ api.openai.com", Role.REFLECTION: "openai/gpt-5 @ api.openai.com"},
    )
    return replace(whole, **changes)


def sample(**changes: object) -> Report:
    return report(material(**changes), NOON + timedelta(hours=1))
