"""What the choice of algorithms goes by: known before anything is spent, and nothing that tells what a target says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dspy_optimization.agents.config import AgentKind
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.metrics import METRIC_TYPES
from dspy_optimization.agents.objective import Objective
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.events import Json
from dspy_optimization.optimization.held_back import PerExample, search_limits

_OTHER_METRIC = "other"
_READ_EXAMPLES = 100
_ONE_CALL = PerExample(calls=1.0, tokens=0.0, cost_usd=0.0, seconds=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A target, its data and its bounds, in numbers and kinds."""

    kind: AgentKind
    n_train: int
    n_val: int
    n_test: int
    optimizable_components: int
    can_propose: bool
    """Whether the reflection model can be trusted to write instructions; the embedded one can not."""
    max_lm_calls: int | None
    metric: str
    """Type of the primary objective's metric; `other` for one that has no type of ours."""
    goals: int
    """Objectives that are no guardrails, at least 1."""
    input_length: int
    """Characters of an example's inputs as JSON, the mean over the first 100 of train."""

    @property
    def search_calls(self) -> int | None:
        """Calls left for searching at one call an example, at least 1; None: as many as a search wants."""
        if self.max_lm_calls is None:
            return None
        limits = Limits(max_lm_calls=self.max_lm_calls)
        left = search_limits(limits, _ONE_CALL, n_test=self.n_test, n_val=self.n_val).max_lm_calls
        return max((0 if left is None else left) - self.n_val, 1)


def metric_type(objectives: Sequence[Objective], metrics: Sequence[Mapping[str, Json]]) -> str:
    """Return the type of the primary objective's metric, as its specification says it."""
    primary = next(one.metric for one in objectives if not one.guardrail)
    specified = {str(one.get("name", one.get("type"))): str(one.get("type")) for one in metrics}
    found = specified.get(primary, primary)
    return found if found in METRIC_TYPES else _OTHER_METRIC


def input_length(dataset: Dataset) -> int:
    """Return the mean characters of an example's inputs; 0 without train examples."""
    read = dataset[Split.TRAIN][:_READ_EXAMPLES]
    if not read:
        return 0
    return round(sum(len(json.dumps(dict(one.inputs), ensure_ascii=False)) for one in read) / len(read))
