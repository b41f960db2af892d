"""InferRules: rules that stay with their candidate, asked for at once."""

import pytest
from search_world import FakeRun, Shouter, agent_of, problem_of

from dspy_optimization.adapters.dspy.infer_rules import InferRules, InferRulesOptions
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.errors import InvalidRequestError, ModelRequestError
from dspy_optimization.evaluation.model import ModelRequest, Role


class Numbering(Shouter):
    """Every set of rules it writes is another one; the first of them alone helps."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def answer(self, role: Role, request: ModelRequest) -> str:
        if role is not Role.REFLECTION:
            return super().answer(role, request)
        self.sizes.append(str(request.body["messages"][-1]["content"]).count("Output Fields"))
        rule = "SHOUT" if not hasattr(self, "first") or self.first == request.sample else "whisper"
        self.first = getattr(self, "first", request.sample)
        return f"[[ ## reasoning ## ]]\nso\n\n[[ ## natural_language_rules ## ]]\n{rule} {request.sample}\n"


def searched(model: Shouter, kind: AgentKind = AgentKind.PREDICT, **settings: object) -> FakeRun:
    """Return the run of a finished search."""
    agent = agent_of(kind)
    options = InferRulesOptions(candidates=3, max_bootstrapped_demos=1, max_labeled_demos=0, **settings)
    run = FakeRun(agent, model=model, latency_seconds=0.002)
    InferRules().search(problem_of(InferRules(), agent, options), run)
    return run


def test_rules_stay_with_their_candidate() -> None:
    """DSPy writes them into a class that all candidates share: the best would end with the rules of the last."""
    run = searched(Numbering())
    (best,) = run.submitted
    texts = [part.instructions for one, *_ in run.recorded for part in one.components.values()]

    assert 3 == len(set(texts))
    assert all(1 == text.count("Please adhere to the following rules") for text in texts)
    assert "SHOUT" in next(iter(best.components.values())).instructions
    assert all("rules" not in part.instructions for part in run.agent.baseline.components.values())


@pytest.mark.parametrize("kind", [AgentKind.PREDICT, AgentKind.PIPELINE])
def test_rules_are_asked_for_at_once(kind: AgentKind) -> None:
    """No set needs another."""
    run = searched(Numbering(), kind)

    assert run.calls_by_role[Role.REFLECTION] == 3 * len(run.agent.baseline.components)
    assert run.most_in_flight > 1


class Narrow(Numbering):
    """Takes no more than three examples."""

    def answer(self, role: Role, request: ModelRequest) -> str:
        said = super().answer(role, request)
        if role is Role.REFLECTION and self.sizes[-1] > 3:
            raise ModelRequestError("maximum context length exceeded")
        return said


def test_fewer_examples_are_shown_where_they_do_not_fit() -> None:
    """Half of them, and half again; a refused request is not asked again by anybody else."""
    agent = agent_of()
    model = Narrow()

    class Uncoalesced(FakeRun):
        def call(self, role: Role, request: ModelRequest) -> object:
            if role is Role.REFLECTION:
                from search_world import _response

                return _response(model.answer(role, request))
            return super().call(role, request)

    options = InferRulesOptions(candidates=1, max_bootstrapped_demos=1, examples_shown=8)
    run = Uncoalesced(agent, model=model)
    InferRules().search(problem_of(InferRules(), agent, options), run)

    assert [8, 4, 2] == model.sizes
    assert any("SHOUT" in part.instructions for part in run.submitted[0].components.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "candidates: wanted 1"),
        ({"rules": 0}, "rules: wanted 1"),
        ({"examples_shown": 0}, "examples_shown: wanted 1"),
        ({"max_rounds": 0}, "max_rounds: wanted 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], message: str) -> None:
    """What was wanted and what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        InferRulesOptions(**options)
