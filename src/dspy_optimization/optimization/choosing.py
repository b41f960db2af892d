"""Which algorithms `auto` stands for, and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from dspy_optimization.agents.config import AgentKind
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import AlgorithmChoice

AUTO = "auto"
_FEW_EXAMPLES = 20
_CALLS_FOR_PROPOSALS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the choice depends on."""

    kind: AgentKind
    n_train: int
    n_val: int
    optimizable_components: int
    can_propose: bool
    """Whether the reflection model can be trusted to write instructions; the embedded one can not."""
    max_lm_calls: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The algorithms in their order, and the reason in a sentence."""

    algorithms: tuple[AlgorithmChoice, ...]
    reason: str


def choose(situation: Situation) -> Choice:
    """Return the portfolio for a situation.

    The rules, first match counts. Why: instructions need a model that can write them (a 135 M one repeats the
    prompt); proposals cost calls before they pay; demos need examples to come from; no single algorithm wins
    everywhere (arXiv 2507.19457 tables 1 and 2), so two share the budget where there is room for two.
    """
    if situation.kind is AgentKind.HTTP:
        return _choice("the agent is a black box that only takes texts: gepa rewrites texts", {"gepa": {}})
    if not situation.can_propose:
        if situation.n_train < _FEW_EXAMPLES:
            return _choice(
                f"the reflection model is too small to write instructions and {situation.n_train} training examples "
                "are few: show them as they are",
                {"labeled_fewshot": {}, "bootstrap_fewshot": {}},
            )
        return _choice(
            "the reflection model is too small to write instructions: search over demos that the metric approved",
            {"bootstrap_random_search": {}},
        )
    if situation.max_lm_calls is not None and situation.max_lm_calls < _CALLS_FOR_PROPOSALS:
        return _choice(
            f"{situation.max_lm_calls} calls are too few to try many instructions: bootstrap demos",
            {"bootstrap_random_search": {}},
        )
    if situation.n_train < _FEW_EXAMPLES:
        return _choice(
            f"{situation.n_train} training examples are too few for demo sets: reflect on their failures",
            {"gepa": {}},
        )
    return _choice(
        "enough examples and budget for both: instructions and demos together, and reflection on failures; the "
        "better one gets the rest of the budget",
        {"miprov2": {}, "gepa": {}},
    )


def _choice(reason: str, algorithms: Mapping[str, Mapping[str, Json]]) -> Choice:
    return Choice(
        algorithms=tuple(AlgorithmChoice(name=name, options=options) for name, options in algorithms.items()),
        reason=reason,
    )
