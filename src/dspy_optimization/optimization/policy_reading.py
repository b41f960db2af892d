"""Reading a policy: which one, and whether it fits the objectives."""

import re
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.objective import Direction, Objective, Objectives
from dspy_optimization.agents.operational_metrics import Quantity
from dspy_optimization.agents.untrusted import Block, checked_json, closest, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.optimization.contender import goals_of
from dspy_optimization.optimization.policy import (
    Knee,
    Lexicographic,
    MaxCost,
    Picked,
    Policy,
    TargetValues,
    Weights,
)

WEIGHTS: Mapping[str, Json] = {"type": Weights.type}
"""What is meant where nobody says."""
POLICIES: Mapping[str, tuple[str, ...]] = {
    Weights.type: (),
    TargetValues.type: ("least",),
    Lexicographic.type: ("order", "tolerance"),
    Knee.type: (),
    MaxCost.type: ("metric", "at_most"),
    Picked.type: ("candidate", "optimization"),
}
"""Type → what it takes."""
_COSTS = (Quantity.COST_USD, Quantity.LATENCY_SECONDS, Quantity.TOKENS, Quantity.LM_CALLS)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def policy_from_json(
    data: object, objectives: Sequence[Objective], called: Mapping[str, str] | None = None, *, where: str = "policy"
) -> Policy:
    """Return the policy of a request; its name alone is short for `{"type": name}`, None is `weights`.

    Args:
        data: as it came.
        objectives: of the same request, checked.
        called: how the request calls a metric → the metric; None: by their names alone.
        where: the place, as messages name it.
    Raises:
        InvalidRequestError: an unknown policy or field, or one that contradicts the objectives.
    """
    plain = checked_json({"type": Weights.type} if data is None else data, where)
    value: Json = plain
    if isinstance(plain, str):
        value = {"type": plain}
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in POLICIES:
        near = closest(kind, POLICIES) if isinstance(kind, str) else ""
        found = shown(kind) if isinstance(value, dict) else f"{type(value).__name__} {shown(value)}"
        raise InvalidRequestError(
            f"{where}.type: a policy is wanted, found {found}{near}; possible: {', '.join(POLICIES)}"
        )
    block = Block(value, where, ("type", *POLICIES[kind]))
    return _READERS[kind](block, _Goals(objectives, called or {}))


class _Goals:
    """The objectives of a request, found by what it calls them."""

    def __init__(self, objectives: Sequence[Objective], called: Mapping[str, str]) -> None:
        self.objectives = Objectives(items=tuple(objectives))
        self._called = called
        self._items = {item.metric: item for item in objectives}

    def found(self, block: Block, key: str, name: str) -> Objective:
        """Return the objective of that name. Raises `InvalidRequestError`."""
        metric = name if name in self._items else self._called.get(name, name)
        if metric not in self._items:
            raise InvalidRequestError(
                f"{block.at(key)}: an objective of this request is wanted, found {shown(name)}"
                f"{closest(name, self._items)}; possible: {', '.join(self._items)}"
            )
        return self._items[metric]

    def goal(self, block: Block, key: str, name: str) -> Objective:
        """Return the objective of that name, which is no guardrail. Raises `InvalidRequestError`."""
        item = self.found(block, key, name)
        if item.guardrail:
            raise InvalidRequestError(
                f"{block.at(key)}: an objective to be improved is wanted, found the guardrail {item.metric}; possible: "
                f"{', '.join(one.metric for one in goals_of(self.objectives))}, or guardrail: false on it"
            )
        return item


def _weights(_block: Block, goals: _Goals) -> Policy:
    return Weights(objectives=goals.objectives)


def _target_values(block: Block, goals: _Goals) -> Policy:
    if not any(item.target_value is not None for item in goals_of(goals.objectives)):
        raise InvalidRequestError(
            f"{block.where}: target_values needs an objective to be improved that has a target_value, found none; "
            f'possible: {{"metric": "{goals.objectives.primary.metric}", "target_value": 0.9}}, or another policy'
        )
    least = block.text("least") if "least" in block else None
    if least is None:
        return TargetValues(objectives=goals.objectives)
    item = goals.goal(block, "least", least)
    _check_minimized(block, "least", item, goals)
    return TargetValues(objectives=goals.objectives, least=item.metric)


def _lexicographic(block: Block, goals: _Goals) -> Policy:
    names = block.items("order", 16)
    texts = [one for one in names if isinstance(one, str)]
    possible = ", ".join(item.metric for item in goals_of(goals.objectives))
    if not names or len(texts) < len(names):
        raise InvalidRequestError(
            f"{block.at('order')}: the objectives to be improved are wanted, the most important one first, found "
            f"{shown(names) if names else 'none'}; possible: [{possible}]"
        )
    order = tuple(goals.goal(block, "order", name).metric for name in texts)
    if len(set(order)) < len(order):
        raise InvalidRequestError(
            f"{block.at('order')}: every objective once is wanted, found {', '.join(order)}; possible: [{possible}]"
        )
    tolerance = float(block.number("tolerance", 0.02, low=0.0, high=1.0))
    return Lexicographic(objectives=goals.objectives, order=order, tolerance=tolerance)


def _knee(block: Block, goals: _Goals) -> Policy:
    wanted = goals_of(goals.objectives)
    if len(wanted) < 2:
        raise InvalidRequestError(
            f"{block.where}: knee needs at least two objectives to be improved, found {wanted[0].metric} alone; "
            "possible: guardrail: false on another one, or the policy weights"
        )
    return Knee(objectives=goals.objectives)


def _max_cost(block: Block, goals: _Goals) -> Policy:
    usual = next((one.value for one in _COSTS if any(item.metric == one for item in goals.objectives.items)), None)
    named = block.text("metric") if "metric" in block else usual
    if named is None:
        raise InvalidRequestError(
            f"{block.where}: max_cost needs an objective of what an answer takes, found "
            f"{', '.join(item.metric for item in goals.objectives.items)}; possible: also the objective "
            f"{' or '.join(_COSTS[:2])}, as a guardrail too"
        )
    item = goals.found(block, "metric", named)
    _check_minimized(block, "metric", item, goals)
    if "at_most" not in block:
        raise InvalidRequestError(
            f'{block.where}: at_most is missing; possible: {{"type": "max_cost", "metric": "{item.metric}", "at_most": '
            "0.01}, the mean that one answer may take"
        )
    at_most = float(block.number("at_most", None, low=0.0, high=1e12, open_low=True))
    return MaxCost(objectives=goals.objectives, metric=item.metric, at_most=at_most)


def _picked(block: Block, goals: _Goals) -> Policy:
    candidate = block.text("candidate", possible="the fingerprint of a candidate, 64 hexadecimal digits")
    if _FINGERPRINT.fullmatch(candidate) is None:
        raise block.wrong("candidate", "a fingerprint of 64 hexadecimal digits", "what runs pick and /pick write")
    origin = block.text("optimization") if "optimization" in block else None
    if origin is not None:
        try:
            origin = str(UUID(origin))
        except ValueError as error:
            raise block.wrong("optimization", "the id of an optimization", "leave it out") from error
    return Picked(objectives=goals.objectives, candidate=Fingerprint(candidate), optimization=origin)


def _check_minimized(block: Block, key: str, item: Objective, goals: _Goals) -> None:
    if item.direction is Direction.MINIMIZE:
        return
    possible = ", ".join(one.metric for one in goals.objectives.items if one.direction is Direction.MINIMIZE)
    raise InvalidRequestError(
        f"{block.at(key)}: an objective to be minimized is wanted, found {item.metric}, which is maximized; possible: "
        f"{possible or 'none of this request, add one such as cost_usd'}"
    )


_READERS: Mapping[str, Callable[[Block, _Goals], Policy]] = {
    Weights.type: _weights,
    TargetValues.type: _target_values,
    Lexicographic.type: _lexicographic,
    Knee.type: _knee,
    MaxCost.type: _max_cost,
    Picked.type: _picked,
}
