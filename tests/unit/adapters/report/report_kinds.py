"""Every kind of report there is, among them one in which everything a stranger can write to is evil."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pareto_samples import DOLLARS, QUALITY, SECONDS, TOKENS, several
from report_sample import (
    BASELINE,
    NOON,
    agent,
    bill,
    dataset,
    events,
    examples,
    optimization,
    result,
    results,
    sample,
    story,
    trial,
    validated,
)

from dspy_optimization.adapters.report.facts import Report, report
from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.evaluation.ledger import Bill
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.events import EventType
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.statistics import Verdict

DATA = dataset()
STORY = story(DATA)
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg/onload=alert(3)>\u202e\x1b[2J</style>{{7*7}}"


def _evil() -> Report:
    """Every place a stranger can write to says something evil."""
    bad = ComponentName(EVIL)
    base = Candidate(components={bad: ComponentValue(instructions=EVIL, demos=({EVIL: EVIL},))}, origin="baseline")
    better = Candidate(
        components={bad: ComponentValue(instructions=f"{EVIL} more {EVIL}", demos=({EVIL: [EVIL, 1]},))},
        origin=EVIL,
        parents=(base.fingerprint,),
    )
    cases = tuple(replace(one, inputs={EVIL: EVIL}, expected={EVIL: EVIL}) for one in examples("val", 20))
    data = replace(DATA, name=EVIL, splits={**DATA.splits, Split.VAL: cases})

    def failing(values: Sequence[float]) -> tuple[ExampleResult, ...]:
        spoken = {"exact_match": Score(value=0.0, feedback=EVIL), "cost_usd": Score(value=0.0)}
        return tuple(
            replace(one, outputs={EVIL: EVIL}, failure=EVIL if index == 0 else None, scores={**spoken, **kept})
            for index, (one, kept) in enumerate(
                (one, {"exact_match": Score(value=value, feedback=EVIL)})
                for one, value in zip(results(examples("val", 20), 0), values, strict=True)
            )
        )

    trials = (
        trial(base, failing([0.0] * 19 + [1.0]), algorithm="baseline", iteration=0, paid_calls=20),
        trial(better, failing([1.0] * 19 + [0.0]), algorithm=EVIL, iteration=1, paid_calls=40),
    )
    spend = bill()
    return sample(
        optimization=optimization(OptimizationStatus.FAILED, error=EVIL),
        result=None,
        trials=trials,
        dataset=data,
        agent=agent(EVIL),
        bill=replace(spend, by_label={EVIL: spend.total}),
        events=events((EventType.MODEL_FALLBACK, dict.fromkeys(("role", "used", "wanted", "reason"), EVIL))),
        models={Role.TASK: EVIL},
    )


ALL: Mapping[str, Report] = {
    "improved": sample(),
    "nothing better": sample(
        result=result(BASELINE, validated(DATA, BASELINE, settled=(Verdict.NO_IMPROVEMENT, "No candidate was better.")))
    ),
    "indecisive": sample(result=result(STORY.chosen, validated(DATA, STORY.chosen, after=0.43))),
    "reused": sample(result=result(STORY.chosen, validated(DATA, STORY.chosen, use=3))),
    "not validated": sample(result=result(STORY.chosen, None, ended_because="max_lm_calls")),
    "running": sample(
        result=None, optimization=optimization(OptimizationStatus.RUNNING), trials=STORY.trials[:12], bill=bill()
    ),
    "just begun": sample(
        result=None, optimization=optimization(OptimizationStatus.RUNNING), trials=STORY.trials[:1], bill=Bill()
    ),
    "queued": sample(
        result=None, optimization=optimization(OptimizationStatus.QUEUED), trials=(), bill=Bill(), events=()
    ),
    "two goals": report(several(), NOON),
    "three goals": report(several((QUALITY, TOKENS, SECONDS, DOLLARS)), NOON),
    "evil": _evil(),
}
