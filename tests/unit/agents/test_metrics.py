"""Metrics from their specifications, and objectives over them."""

import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
from agent_samples import ALLOWED, answered, example

from dspy_optimization.agents.example import Prediction, Usage
from dspy_optimization.agents.metric import Metric, Score
from dspy_optimization.agents.metrics import METRIC_TYPES, metrics_from_specs
from dspy_optimization.agents.objective import Direction, Objective, Objectives, mean_scalar
from dspy_optimization.agents.objective_loading import objectives_from_json
from dspy_optimization.agents.operational_metrics import Quantity
from dspy_optimization.errors import InvalidRequestError

OPERATIONAL = ["cost_usd", "latency_seconds", "tokens", "lm_calls"]


@dataclass(frozen=True)
class FakeJudge:
    """A judge that grades nothing: has a name and the method by which judges are known."""

    name: str
    rubric: str
    floor: float = 0.0
    ceiling: float | None = 1.0

    def score_with(self, example, prediction, calls) -> Score:
        return Score(value=1.0)


def _judge(spec) -> FakeJudge:
    if "rubric" not in spec:
        raise InvalidRequestError("judge: rubric is missing")
    return FakeJudge(name=spec.get("name", spec["type"]), rubric=spec["rubric"])


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sample_metrics")
    exec("def half(example, prediction): return 0.5\nminus = lambda e, p: -5", module.__dict__)
    monkeypatch.setitem(sys.modules, "sample_metrics", module)


@pytest.mark.usefixtures("functions")
def test_every_type_is_built_and_scores() -> None:
    """Each type of the catalogue is a Metric that scores within its bounds."""
    needs = {"function": {"function": "sample_metrics:half"}, "judge": {"rubric": "good"}}
    specs = [{"type": name, "name": f"my_{name}", **needs.get(name, {})} for name in METRIC_TYPES]
    metrics = metrics_from_specs(specs, allowed=ALLOWED, judge=_judge)
    scored = {
        name: metric.score(example("q", "3"), answered("3"))
        for name, metric in metrics.items()
        if isinstance(metric, Metric) and name != "my_reasoning_gym"
    }

    assert [f"my_{name}" for name in METRIC_TYPES] + OPERATIONAL == list(metrics)
    assert all(isinstance(metric, Metric) for name, metric in metrics.items() if name != "my_judge")
    assert {1.0, 0.5} == {
        score.value for name, score in scored.items() if name not in OPERATIONAL and "my_" in name
    } - {0.0}


def test_short_forms_and_names() -> None:
    """A text is a type; without a name the type is the name; operational ones are always there, once."""
    metrics = metrics_from_specs(
        ["exact_match", {"type": "llm_judge", "rubric": "x"}, "tokens"], allowed=ALLOWED, judge=_judge
    )

    assert ["exact_match", "judge", "tokens", "cost_usd", "latency_seconds", "lm_calls"] == list(metrics)
    assert OPERATIONAL == list(metrics_from_specs([], allowed=ALLOWED))


def test_options_reach_the_metric() -> None:
    """Field, tolerance, bounds, fields."""
    metrics = metrics_from_specs(
        [
            {"type": "numeric", "field": "answer", "tolerance": 1, "extract": True},
            {"type": "json_match", "fields": ["answer"], "normalize": True},
            {"type": "semantic_similarity"},
        ],
        allowed=ALLOWED,
        embed=lambda texts: [[1.0, 0.0] for _ in texts],
    )
    three = example("q", "3")

    assert 1.0 == metrics["numeric"].score(three, answered("about 4 apples")).value
    assert 1.0 == metrics["json_match"].score(three, answered("3!")).value
    assert 1.0 == metrics["semantic_similarity"].score(three, answered("nothing alike")).value


def test_operational_metrics() -> None:
    """What the run took, in the unit of the name; a failed run is not free."""
    usage = Usage(cost_usd=0.5, latency_seconds=2.0, prompt_tokens=10, completion_tokens=5, lm_calls=3)
    metrics = metrics_from_specs([], allowed=ALLOWED)
    scores = {
        name: metric.score(example("q"), Prediction(outputs={}, usage=usage, failure="no JSON"))
        for name, metric in metrics.items()
    }

    assert {"cost_usd": 0.5, "latency_seconds": 2.0, "tokens": 15.0, "lm_calls": 3.0} == {
        name: score.value for name, score in scores.items()
    }
    assert {"no JSON"} == {score.failure for score in scores.values()}
    assert scores["tokens"].feedback == "It took 10 prompt and 5 completion tokens."
    assert {one.value for one in Quantity} == set(scores)


METRICS = metrics_from_specs(
    ["exact_match", {"type": "judge", "rubric": "x", "name": "style"}, {"type": "token_f1"}],
    allowed=ALLOWED,
    judge=_judge,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("exact_match", Objective(metric="exact_match")),
        ({"metric": "success_rate", "target_value": 0.9}, Objective(metric="exact_match", target_value=0.9)),
        ("quality_score", Objective(metric="style")),
        ("cost_efficiency", Objective(metric="cost_usd", direction=Direction.MINIMIZE)),
        (
            {"metric": "cost_efficiency", "direction": "maximize", "weight": 0.4},
            Objective(metric="cost_usd", direction=Direction.MINIMIZE, weight=0.4),
        ),
        (
            {"metric": "latency", "direction": "minimize"},
            Objective(metric="latency_seconds", direction=Direction.MINIMIZE),
        ),
        ("tokens", Objective(metric="tokens", direction=Direction.MINIMIZE)),
    ],
)
def test_objectives(given: object, expected: Objective) -> None:
    """Names of the request format stand for metrics; cost, latency, tokens and calls go down."""
    assert (expected,) == objectives_from_json([given], METRICS)


def test_a_guardrail_has_a_margin() -> None:
    """Beside at least one goal."""
    found = objectives_from_json(["exact_match", {"metric": "latency", "guardrail": True, "margin": 0.2}], METRICS)

    assert (False, True, 0.2) == (found[0].guardrail, found[1].guardrail, found[1].margin)


def test_names_where_there_is_only_one_kind() -> None:
    """Without a judge quality is correctness, and the other way round; a metric of that very name wins."""
    plain = metrics_from_specs(["contains"], allowed=ALLOWED)
    judged = metrics_from_specs([{"type": "judge", "rubric": "x"}], allowed=ALLOWED, judge=_judge)
    named = metrics_from_specs(["contains", {"type": "token_f1", "name": "success_rate"}], allowed=ALLOWED)

    assert ["contains", "judge", "success_rate"] == [
        objectives_from_json([name], metrics)[0].metric
        for name, metrics in (("quality_score", plain), ("success_rate", judged), ("success_rate", named))
    ]


def test_full_marks() -> None:
    """Every metric to maximize at its best value; a failure never is; guardrails and costs do not count."""
    cost = Objective(metric="cost", direction=Direction.MINIMIZE)
    objectives = Objectives(
        items=(Objective(metric="guard", guardrail=True), Objective(metric="right"), Objective(metric="grade"), cost),
        ceilings={"grade": 5.0},
    )
    best = {"guard": Score(value=0.0), "right": Score(value=1.0), "grade": Score(value=5.0), "cost": Score(value=9.0)}

    assert objectives.full_marks(best)
    assert not objectives.full_marks({**best, "grade": Score(value=4.0)})
    assert not objectives.full_marks({**best, "right": Score(value=1.0, failure="x")})
    assert not Objectives(items=(cost,)).full_marks(best)


def test_utility() -> None:
    """Worked by hand: to maximize as it is, to minimize 1/(1 + value/baseline), guardrails not at all."""
    objectives = Objectives(
        items=(
            Objective(metric="guard", guardrail=True),
            Objective(metric="right", weight=3.0),
            Objective(metric="cost", direction=Direction.MINIMIZE),
        )
    ).with_scales({"cost": 2.0})
    scores = {"guard": Score(value=9.0), "right": Score(value=0.5), "cost": Score(value=6.0)}
    free = {**scores, "cost": Score(value=0.0)}

    assert objectives.primary.metric == "right"
    assert objectives.scalar(scores) == pytest.approx((3 * 0.5 + 0.25) / 4)
    assert mean_scalar(objectives, [scores, free]) == pytest.approx(((3 * 0.5 + 0.25) / 4 + (3 * 0.5 + 1.0) / 4) / 2)
    assert objectives.with_scales({"cost": 0.0}).scalar(scores) == pytest.approx((3 * 0.5 + 1 / 7) / 4)
    assert [0.5, -0.5] == [item.oriented(0.5) for item in objectives.items[1:]]
