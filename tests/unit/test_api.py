"""The Python interface, on a real database and a real server."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dspy
import pytest

from dspy_optimization import NotFinishedError, optimize, pick
from dspy_optimization.adapters.models import ModelSpec
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.errors import ConflictError, InvalidRequestError
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Role
from dspy_optimization.settings import Settings
from dspy_optimization.statistics import Verdict
from dspy_optimization.testing.model_server import ModelServer, Received, Reply, answer, refused

EXAMPLES = [{"number": f"{n:03}", "answer": f"{n:03}"} for n in range(120)]


def _repeat(received: Received) -> Reply:
    """Repeat the number: always with demos in the prompt, else every third."""
    messages = received.body["messages"]
    assert isinstance(messages, list)
    last = messages[-1]
    assert isinstance(last, dict)
    (number, *_) = re.findall(r"\b\d{3}\b", str(last["content"]))
    said = number if len(messages) > 2 or int(number) % 3 == 0 else "no idea"
    return answer(f"[[ ## answer ## ]]\n{said}\n\n[[ ## completed ## ]]")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(_repeat) as running:
        yield running


@pytest.fixture
def settings(server: ModelServer, database_url: str, tmp_path: Path) -> Settings:
    spec = ModelSpec(model="fake", base_url=server.base_url, max_attempts=2)
    return Settings(
        database_url=database_url,
        data_directory=tmp_path,
        config_path=None,
        mlflow_tracking_uri=None,
        significance_threshold=0.05,
        models=dict.fromkeys(Role, spec),
        named_models={},
        allow=AllowList(),
    )


def same(example: object, prediction: object, trace: object = None) -> bool:
    """Exact match, as people write it."""
    return getattr(example, "answer") == getattr(prediction, "answer")  # noqa: B009


def test_a_module_goes_in_and_a_better_one_comes_out(settings: Settings, server: ModelServer) -> None:
    """The result is a dspy.Module right away; the one that went in is unchanged."""
    program = dspy.Predict("number -> answer")

    optimized = optimize(program, EXAMPLES, same, algorithms="labeled_fewshot", settings=settings, track=False)

    lm = dspy.LM("openai/fake", api_base=server.base_url, api_key="none", cache=False)
    with dspy.context(lm=lm):
        said = optimized(number="007").answer
    assert Verdict.IMPROVED is optimized.verdict
    assert ("007", []) == (said, program.demos)
    assert isinstance(optimized.module, dspy.Module)


def test_a_configuration_and_a_named_metric_do_as_well(settings: Settings, tmp_path: Path) -> None:
    """An AgentConfig, a CSV file, a metric by name, options by algorithm."""
    agent = AgentConfig(
        name="repeater",
        kind=AgentKind.PREDICT,
        signature=Signature(instructions="Repeat.", inputs=(Field(name="number"),), outputs=(Field(name="answer"),)),
    )
    data = tmp_path / "numbers.csv"
    data.write_text("number,answer\n" + "".join(f"{n:03},{n:03}\n" for n in range(120)), encoding="utf-8")

    optimized = optimize(
        agent,
        data,
        {"type": "normalized_match", "name": "right"},
        algorithms={"labeled_fewshot": {"demos": 2}},
        settings=settings,
        track=False,
    )

    assert optimized.result.validated is not None
    assert "right" == optimized.result.validated.primary
    assert optimized.config.name == "repeater"


def test_what_stops_it_can_be_mended_and_resumed(settings: Settings, server: ModelServer) -> None:
    """The error carries the id; resuming pays for nothing again, and only the same agent can be resumed."""
    calls = 0

    def dying(received: Received) -> Reply:
        nonlocal calls
        calls += 1
        return _repeat(received) if calls <= 50 else refused(401, "Incorrect API key")

    program = dspy.Predict("number -> answer")
    with ModelServer(dying) as broken:
        spec = ModelSpec(model="fake", base_url=server.base_url.replace(str(server.port), str(broken.port)))
        with pytest.raises(NotFinishedError, match=r"failed: .*401") as stopped:
            optimize(
                program,
                EXAMPLES,
                same,
                algorithms="labeled_fewshot",
                settings=replace(settings, models=dict.fromkeys(Role, spec)),
                track=False,
            )

    another = dspy.Predict(dspy.Signature("number -> answer", "Another task."))
    with pytest.raises(InvalidRequestError, match="wanted: the agent Predict as it was"):
        optimize(another, EXAMPLES, same, settings=settings, track=False, resume=stopped.value.optimization_id)
    optimized = optimize(
        program,
        EXAMPLES,
        same,
        algorithms="labeled_fewshot",
        settings=settings,
        track=False,
        resume=stopped.value.optimization_id,
    )

    assert Verdict.IMPROVED is optimized.verdict


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": {"name": 3}}, "metric: wanted: a type"),
        ({"metric": "accuracy"}, "accuracy"),
        ({"examples": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"examples": EXAMPLES[:5]}, "possible"),
        ({"algorithms": "mipro"}, "did you mean miprov2"),
        ({"algorithms": {"gepa": {"iteration": 1}}}, "did you mean iterations"),
        ({"agent": "number -> answer"}, "a .yaml, .yml or .json file is wanted"),
        ({"agent": 7}, "found: int"),
        ({"limits": Limits(max_lm_calls=3)}, "found: 3"),
        ({"limits": Limits(max_cost_usd=3.0)}, "price"),
    ],
)
def test_wrong_requests_say_what_is_possible(settings: Settings, changes: dict[str, object], says: str) -> None:
    """Before anything is spent."""
    given: dict[str, object] = {
        "agent": dspy.Predict("number -> answer"),
        "examples": EXAMPLES,
        "metric": same,
        "settings": settings,
        "track": False,
        **changes,
    }

    with pytest.raises(InvalidRequestError) as refusal:
        optimize(given.pop("agent"), given.pop("examples"), given.pop("metric"), **given)  # type: ignore[arg-type]

    assert says in str(refusal.value)


def test_several_objectives_a_policy_and_another_pick(settings: Settings, tmp_path: Path) -> None:
    """A front comes out; the one that was not chosen goes through the gate as the next use of the test split."""
    config = AgentConfig(
        name="numbers",
        kind=AgentKind.PREDICT,
        signature=Signature(
            instructions="Repeat the number.", inputs=(Field(name="number"),), outputs=(Field(name="answer"),)
        ),
    )
    some = [{"components": {"self": {"demos": [{"number": "900", "answer": "900"}] * count}}} for count in (1, 2)]

    first = optimize(
        config,
        EXAMPLES,
        objectives=["lm_calls"],
        policy={"type": "lexicographic", "order": ["exact_match"], "tolerance": 0},
        algorithms={"given": {"candidates": some}},
        settings=settings,
        track=False,
    )
    gone = {first.result.optimized.fingerprint, first.result.baseline.fingerprint}
    (other,) = {name for one in first.pareto_front for name in (one.candidate, *one.equal)} - gone
    second = pick(first.result.optimization_id, other[:16], settings=settings, track=False)

    assert ("exact_match", "lm_calls") == (first.result.front and first.result.front.goals)
    assert first.result.pick is not None
    assert "lexicographic" == first.result.pick.policy
    assert other == second.result.optimized.fingerprint
    assert second.result.validated is not None
    assert (2, Verdict.IMPROVED) == (second.result.validated.test_split_use, second.verdict)
    with pytest.raises(ConflictError, match="the baseline"):
        pick(first.result.optimization_id, first.result.baseline.fingerprint, settings=settings, track=False)
