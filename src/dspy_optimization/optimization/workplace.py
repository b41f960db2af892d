"""Everything one optimization works with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.metric import Metric
from dspy_optimization.agents.objective import Objectives
from dspy_optimization.algorithms.problem import Algorithm
from dspy_optimization.compute.computing import Computing
from dspy_optimization.evaluation.agent import RunnableAgent
from dspy_optimization.evaluation.calls import LedgerSession
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.judge import ModelMetric
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Event
from dspy_optimization.optimization.front import Completed
from dspy_optimization.optimization.policy import Policy
from dspy_optimization.optimization.request import AlgorithmChoice, OptimizationRequest
from dspy_optimization.optimization.search import TrialSink


@dataclass(frozen=True, slots=True, kw_only=True)
class Portfolio:
    """The algorithms of one optimization with their options."""

    choices: tuple[AlgorithmChoice, ...]
    algorithms: Mapping[str, Algorithm]
    options: Mapping[str, object]
    """Algorithm → an instance of its options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Everything one optimization works with."""

    request: OptimizationRequest
    dataset: Dataset
    agent: RunnableAgent
    objectives: Objectives
    metrics: Mapping[str, Metric | ModelMetric]
    policy: Policy
    evaluator: Evaluator
    session: LedgerSession
    computing: Computing
    portfolio: Portfolio
    stop: StopSignal
    trials: TrialSink
    completed: Callable[[], Sequence[Completed]]
    """Says when the candidates were measured on all of val, over all resumes."""
    open_test_split: Callable[[], int]
    """Records durably that the sealed split is opened, and says which use it is."""
    alpha: float
    elapsed_seconds: Callable[[], float]
    """Over all resumes."""
    now: Callable[[], datetime]
    emit: Callable[[Event], None]
    advance: Callable[[float], None]
    """Told how far the optimization is, 0 to 1."""
