"""What an optimization will take, before anything is spent."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from dspy_optimization.agents.example import Example, Split
from dspy_optimization.algorithms.problem import Shape
from dspy_optimization.errors import StopSearch
from dspy_optimization.evaluation.agent import Calls, RunnableAgent
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import LanguageModel, ModelRequest, ModelResponse, Price, Role
from dspy_optimization.optimization.collaborators import AlgorithmRegistry
from dspy_optimization.optimization.held_back import PerExample, search_limits
from dspy_optimization.optimization.intake import Checked

_BYTES_A_TOKEN = 4.0
"""English prose under the tokenizers of today's models; code and other scripts take more tokens."""
_ANSWER_TOKENS = 120
_PROPOSAL_PROMPT_TOKENS = 3000
_PROPOSAL_ANSWER_TOKENS = 600
_DEMOS_LENGTHEN = 2.5
"""How much longer prompts get once demos are in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """An upper estimate: the ledger answers repeats, so most optimizations take less."""

    task_calls: int
    reflection_calls: int
    judge_calls: int
    tokens: int
    cost_usd: float | None
    """None: a model has no known price."""
    minutes: float
    seconds_a_call: float
    """What `minutes` assumes of one call."""
    by_phase: Mapping[str, int]
    """Phase or algorithm → calls."""
    search_calls: int | None
    """What a cap on calls leaves for the algorithms, all together: the baseline, and what is held back for gate and
    ablation, are taken off. None: there is no cap."""

    @property
    def calls(self) -> int:
        """All roles together."""
        return self.task_calls + self.reflection_calls + self.judge_calls


class _Seen(StopSearch):
    """The first request of a run was seen; nothing was sent."""


class _Listening(Calls):
    """Sees what an agent would ask and sends nothing."""

    def __init__(self) -> None:
        self.request: ModelRequest | None = None

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        self.request = request
        raise _Seen(role.value)


def prompt_tokens(agent: RunnableAgent, example: Example) -> int:
    """Return about how many tokens the agent's first call on the example sends; nothing is sent."""
    listening = _Listening()
    with suppress(_Seen):
        agent.run(agent.baseline, example.inputs, listening)
    if listening.request is None:
        return 0
    return round(len(str(listening.request.body.get("messages", "")).encode()) / _BYTES_A_TOKEN)


def estimate(
    checked: Checked,
    agent: RunnableAgent,
    algorithms: AlgorithmRegistry,
    models: Mapping[Role, LanguageModel],
    *,
    named: Mapping[str, LanguageModel] | None = None,
    judge_calls: int,
    seconds_a_call: float,
) -> CostEstimate:
    """Return what carrying out the proposal takes at most.

    Args:
        checked: the proposal.
        agent: built from it.
        algorithms: to ask for forecasts.
        models: for prices; nothing is sent to them.
        named: the same, for components that choose a model by name: the dearest that is asked counts.
        judge_calls: calls of the judge model an example.
        seconds_a_call: how long one call takes; the estimate of minutes stands on it.
    """
    proposal = checked.proposal
    dataset = proposal.dataset
    shape = Shape.of(agent, dataset)
    runs = {"baseline": shape.n_val, "gate": 2 * len(dataset[Split.TEST]), "ablation": 2 * shape.n_val}
    proposals: dict[str, int] = {}
    for choice in checked.algorithms:
        algorithm = algorithms.get(choice.name)
        forecast = algorithm.forecast(algorithms.options(choice.name, choice.options), shape)
        runs[choice.name] = forecast.runs
        proposals[choice.name] = forecast.proposals
    task = sum(runs.values())
    reflection = sum(proposals.values())
    limit = proposal.constraints.limits.max_lm_calls
    judge = task * judge_calls
    if limit is not None and task + reflection + judge > limit:
        share = limit / (task + reflection + judge)
        reflection, judge = int(reflection * share), int(judge * share)
        task = limit - reflection - judge
    length = prompt_tokens(agent, dataset[Split.TRAIN][0])
    sent = {
        Role.TASK: (round(task * length * _DEMOS_LENGTHEN), task * _ANSWER_TOKENS),
        Role.REFLECTION: (reflection * _PROPOSAL_PROMPT_TOKENS, reflection * _PROPOSAL_ANSWER_TOKENS),
        Role.JUDGE: (judge * length, judge * _ANSWER_TOKENS),
    }
    busy = (task + judge) / max(proposal.constraints.concurrency, 1) + reflection
    return CostEstimate(
        task_calls=task,
        reflection_calls=reflection,
        judge_calls=judge,
        tokens=sum(prompt + answer for prompt, answer in sent.values()),
        cost_usd=_cost(sent, _prices(agent, models, {} if named is None else named)),
        minutes=busy * seconds_a_call / 60.0,
        seconds_a_call=seconds_a_call,
        by_phase={name: count + proposals.get(name, 0) + count * judge_calls for name, count in runs.items()},
        search_calls=_left_for_searching(
            proposal.constraints.limits, 1.0 + judge_calls, n_test=len(dataset[Split.TEST]), n_val=shape.n_val
        ),
    )


def _left_for_searching(limits: Limits, calls_an_example: float, *, n_test: int, n_val: int) -> int | None:
    each = PerExample(calls=calls_an_example, tokens=0.0, cost_usd=0.0, seconds=0.0)
    left = search_limits(limits, each, n_test=n_test, n_val=n_val).max_lm_calls
    return None if left is None else max(left - round(n_val * calls_an_example), 0)


def _prices(
    agent: RunnableAgent, models: Mapping[Role, LanguageModel], named: Mapping[str, LanguageModel]
) -> dict[Role, Price | None]:
    """Return what a token costs at most, by role; None: one that is asked has no known price."""
    prices = {role: model.price for role, model in models.items()}
    names = {value.settings.model for value in agent.baseline.components.values()}
    asked = [prices.get(Role.TASK) if name is None else named[name].price for name in names]
    known = [price for price in asked if price is not None]
    prices[Role.TASK] = None
    if known and len(known) == len(asked):
        prices[Role.TASK] = Price(
            prompt_usd=max(price.prompt_usd for price in known),
            completion_usd=max(price.completion_usd for price in known),
        )
    return prices


def _cost(sent: Mapping[Role, tuple[int, int]], prices: Mapping[Role, Price | None]) -> float | None:
    total = 0.0
    for role, (prompt, answer) in sent.items():
        if prompt == 0 and answer == 0:
            continue
        price = prices.get(role)
        if price is None:
            return None
        total += price.cost_usd(prompt, answer)
    return total
