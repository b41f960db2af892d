"""Reading objectives: which metric, which way, how much it counts, when it is good enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspy_optimization.agents.metrics import NamedMetric
from dspy_optimization.agents.objective import Direction, Objective
from dspy_optimization.agents.operational_metrics import Quantity
from dspy_optimization.agents.untrusted import Block, checked_json, closest
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

MAX_OBJECTIVES = 16
KEYS = ("metric", "direction", "weight", "target_value", "guardrail", "margin")

ALIASES: Mapping[str, str] = {
    "success_rate": "the first metric of correctness",
    "quality_score": "the first judge, or else the first metric of correctness",
    "cost_efficiency": "cost_usd, to be minimized",
    "latency": "latency_seconds, to be minimized",
}
"""Names of the request format, and what they stand for where no metric of that very name is specified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    """Which metric a name means, and whether "maximize" means less of it."""

    metric: str
    turned: bool = False


def objectives_from_json(data: object, metrics: Mapping[str, NamedMetric]) -> tuple[Objective, ...]:
    """Return the objectives of a request, in their order; the first that is no guardrail is the primary one.

    A metric's name alone is short for `{"metric": name}`. Where no direction is given, cost, latency, tokens and calls
    are minimized, everything else is maximized.

    Args:
        data: a list of mappings or names.
        metrics: what `metrics_from_specs` made.
    Raises:
        InvalidRequestError: names the objective, what stands there and what is possible.
    """
    plain = checked_json(data, "objectives")
    if not isinstance(plain, list) or not 1 <= len(plain) <= MAX_OBJECTIVES:
        found = f"{len(plain)} objectives" if isinstance(plain, list) else type(plain).__name__
        raise InvalidRequestError(
            f"objectives: a list of 1 to {MAX_OBJECTIVES} is wanted, found {found}; possible: "
            f'[{{"metric": "{next(iter(metrics), "exact_match")}"}}]'
        )
    objectives = tuple(_objective(one, f"objectives[{number}]", metrics) for number, one in enumerate(plain))
    _check_together(objectives)
    return objectives


def _objective(value: Json, where: str, metrics: Mapping[str, NamedMetric]) -> Objective:
    block = Block({"metric": value} if isinstance(value, str) else value, where, KEYS)
    asked = block.text("metric", possible=_names(metrics))
    meaning = _meaning(asked, where, metrics)
    usual = Direction.MINIMIZE if meaning.metric in set(Quantity) else Direction.MAXIMIZE
    direction = block.one_of("direction", Direction, usual)
    target = block.number("target_value", None, low=-1e12, high=1e12) if "target_value" in block else None
    if meaning.turned and direction is Direction.MAXIMIZE:
        if target is not None:
            raise block.wrong(
                "target_value", f"no target for {asked} (it stands for {ALIASES[asked]})",
                f'"metric": "{meaning.metric}" with "direction": "minimize" and a target in its own unit',
            )  # fmt: skip
        direction = Direction.MINIMIZE
    if direction is not usual and meaning.metric in set(Quantity):
        raise block.wrong("direction", f"{meaning.metric} is better when it is less: minimize", "minimize")
    guardrail = block.flag("guardrail", False)
    if "margin" in block and not guardrail:
        raise block.wrong("margin", "a margin on a guardrail only: guardrail: true", "remove it, or guardrail: true")
    return Objective(
        metric=meaning.metric,
        direction=direction,
        weight=block.number("weight", 1.0, low=0.0, high=1e6, open_low=True),
        target_value=target,
        guardrail=guardrail,
        margin=block.number("margin", 0.1, low=0.0, high=1.0),
    )


def _meaning(asked: str, where: str, metrics: Mapping[str, NamedMetric]) -> _Meaning:
    if asked in metrics:
        return _Meaning(metric=asked)
    correctness = [name for name in metrics if name not in set(Quantity)]
    judges = [name for name in correctness if hasattr(metrics[name], "score_with")]
    scorers = [name for name in correctness if name not in judges] or judges
    match asked:
        case "success_rate" if scorers:
            return _Meaning(metric=scorers[0])
        case "quality_score" if correctness:
            return _Meaning(metric=(judges or scorers)[0])
        case "cost_efficiency":
            return _Meaning(metric=Quantity.COST_USD.value, turned=True)
        case "latency":
            return _Meaning(metric=Quantity.LATENCY_SECONDS.value)
    raise InvalidRequestError(
        f"{where}: a metric that is specified is wanted, found {asked}{closest(asked, [*metrics, *ALIASES])}; "
        f"possible: {_names(metrics)}"
    )


def _names(metrics: Mapping[str, NamedMetric]) -> str:
    return ", ".join((*metrics, *(name for name in ALIASES if name not in metrics)))


def _check_together(objectives: Sequence[Objective]) -> None:
    names = [objective.metric for objective in objectives]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise InvalidRequestError(
            f"objectives: every metric stands once, found twice: {', '.join(doubles)}; possible: remove one"
        )
    if all(objective.guardrail for objective in objectives):
        raise InvalidRequestError(
            f"objectives: at least one that is no guardrail is wanted, found {len(objectives)} guardrail(s); possible: "
            "guardrail: false on the one to improve"
        )
