"""New instructions: how answers are read, what is refused, what prompts show and what they never show."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import pytest
from evolution_world import Place
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.agents.candidate import ComponentName
from dspy_optimization.agents.config import AgentConfig, AgentKind
from dspy_optimization.agents.example import Example, ExampleId, Prediction, Step
from dspy_optimization.agents.metric import Score
from dspy_optimization.algorithms.proposals import LONGEST_VALUE, Proposals, _Template, instruction_in
from dspy_optimization.algorithms.watching import Watched
from dspy_optimization.errors import AlgorithmError, ModelRequestError, TurnOver
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.testing.scripted_model import chat_response

STEP = ComponentName("answer")
SECRET = "metadata-of-the-generator"
EXAMPLE = Example(
    id=ExampleId("e1"),
    inputs={"question": "What is {x} + {0}?"},
    expected={"answer": "{y!r}"},
    cluster="cluster-of-it",
    metadata={"scorer": SECRET},
)


@dataclass
class Model:
    """Answers in turn, the last answer ever after."""

    answers: Sequence[str | Exception]
    requests: list[ModelRequest] = field(default_factory=list)
    roles: list[Role] = field(default_factory=list)

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        self.requests.append(request)
        self.roles.append(role)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return chat_response(answer)

    @property
    def prompts(self) -> list[str]:
        return [str(request.body["messages"][0]["content"]) for request in self.requests]  # type: ignore[index,call-overload]


def tagged(text: str) -> str:
    return f"<instruction>{text}</instruction>"


def proposals_of(model: Model, *, most: int = 100, agent: AgentConfig | None = None) -> Proposals:
    return Proposals(
        agent=agent if agent is not None else Place().agent.config,
        calls=model,
        algorithm="genetic",
        temperature=0.9,
        most=most,
    )


def seen(*, failure: str | None = None, answer: str = "{z}", steps: tuple[Step, ...] | None = None) -> Watched:
    own = Step(component=STEP, inputs={}, outputs={"answer": answer}, failure=failure)
    score = Score(value=0.0, feedback="not {that}")
    result = ExampleResult(example_id=EXAMPLE.id, scores={"right": score}, outputs={}, failure=failure)
    prediction = Prediction(outputs={"answer": answer}, steps=(own,) if steps is None else steps, failure=failure)
    return Watched(example=EXAMPLE, prediction=prediction, result=result)


def fresh(proposals: Proposals, known: Sequence[str] = (), number: int = 0) -> str | None:
    return proposals.fresh(STEP, "Answer.", [EXAMPLE], number, known)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("<instruction>Say why.</instruction>", "Say why."),
        ("Sure!\n<instruction>\n  Say why.\nBe short. \n</instruction> Done.", "Say why.\nBe short."),
        ("It goes between <instruction> and </instruction>.\n<INSTRUCTION>Say why.</Instruction>", "Say why."),
        ("```\nSay why.\n```", "Say why."),
        ("```text\nSay why.\n\nBe short.\n```", "Say why.\n\nBe short."),
        ("```\nnot this\n```\n<instruction>Say why.</instruction>", "Say why."),
        ("<instruction>Use ```code``` and {braces}.</instruction>", "Use ```code``` and {braces}."),
        ("```\none\n```\nor\n```\ntwo\n```", None),
        ("```\n \n```", None),
        ("<instruction> \n </instruction>", None),
        ("<instruction>cut off", None),
        ("Say why.", None),
        ("", None),
    ],
)
def test_how_answers_are_read(answer: str, found: str | None) -> None:
    """Between the tags, the last ones; else in the only block of code; what could be anything is nothing."""
    assert found == instruction_in(answer)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=200))
def test_any_answer_can_be_read(answer: str) -> None:
    """To a text that says something, or to nothing."""
    for one in (answer, tagged(answer), f"```\n{answer}\n```"):
        found = instruction_in(one)
        assert found is None or found == found.strip() != ""


def test_what_comes_is_returned_and_counted() -> None:
    model = Model([tagged("Say why.")])
    proposals = proposals_of(model)

    assert "Say why." == fresh(proposals, ["Answer."])
    assert (1, 99, 0, 0, None) == (
        proposals.asked,
        proposals.left,
        proposals.unreadable,
        proposals.refused,
        proposals.last_failure,
    )
    assert [Role.REFLECTION] == model.roles
    assert 0.9 == model.requests[0].body["temperature"]
    assert "genetic/fresh/answer/0/0" == model.requests[0].sample


def test_garbage_is_asked_again_once_and_counted() -> None:
    """With another draw: the same question would get the same answer."""
    model = Model(["Say why.", "no"])
    proposals = proposals_of(model)

    assert fresh(proposals) is None
    assert (2, 2) == (proposals.asked, proposals.unreadable)
    assert proposals.last_failure is not None
    assert proposals.last_failure.startswith(
        "wanted: a text between <instruction> and </instruction>; found: 'no'; possible:"
    )
    assert 2 == len({request.sample for request in model.requests})
    assert "Be short." == fresh(proposals_of(Model(["no", tagged("Be short.")])))


LONG = " ".join(f"word{number}" for number in range(500))


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("Check the units first, then answer.", "check the UNITS first, then answer"),
        (f"{LONG} at most 3.", f"{LONG} at most 5."),
        ("…", "…"),
    ],
)
def test_who_says_the_same_is_refused(known: str, said: str) -> None:
    model = Model([tagged(said)])
    proposals = proposals_of(model)

    assert fresh(proposals, ["Another one.", known]) is None
    assert (2, 2, 0) == (proposals.asked, proposals.refused, proposals.unreadable)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("Answer the question.", "Answer the question in one word."),
        (LONG, f"{LONG} Round the result to whole numbers before you write it down."),
        (LONG, " ".join(LONG.split()[:-8])),
        ("Be short.", "Answer as an expert of spelling would."),
    ],
)
def test_who_says_more_or_less_is_not(known: str, said: str) -> None:
    """One rule more in a long text is what an answer to failures looks like."""
    assert said == fresh(proposals_of(Model([tagged(said)])), [known])


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_never_more_calls_than_agreed(most: int) -> None:
    model = Model(["garbage"])
    proposals = proposals_of(model, most=most)

    for number in range(4):
        assert fresh(proposals, number=number) is None
        assert proposals.mutated(STEP, "Answer.", [seen()], f"{number}", ()) is None
        assert proposals.crossed(STEP, ("A", "B"), (0.5, 0.6), f"{number}", ()) is None

    assert most == len(model.requests) == proposals.asked
    assert 0 == proposals.left


def test_a_request_that_the_model_refuses_is_counted_and_not_raised() -> None:
    """A prompt that is too long for the model ends no search."""
    model = Model([ModelRequestError("too long for 4096 tokens")])
    proposals = proposals_of(model)

    assert fresh(proposals) is None
    assert (2, 2, "too long for 4096 tokens") == (proposals.asked, proposals.unreadable, proposals.last_failure)


def test_the_end_passes_through() -> None:
    with pytest.raises(TurnOver):
        fresh(proposals_of(Model([TurnOver("over")])))  # type: ignore[list-item]


def test_an_answer_without_text_is_unreadable() -> None:
    class Silent(Model):
        def call(self, role: Role, request: ModelRequest) -> ModelResponse:
            response = super().call(role, request)
            return ModelResponse(
                body={"choices": [{"message": {"content": None}}]},
                prompt_tokens=response.prompt_tokens,
                completion_tokens=0,
                latency_seconds=0.0,
            )

    proposals = proposals_of(Silent([""]))

    assert fresh(proposals) is None
    assert 2 == proposals.unreadable


Asked = Callable[[Proposals], str | None]
WAYS: tuple[Asked, ...] = (
    lambda one: fresh(one),
    lambda one: one.mutated(STEP, "Keep {this}.", [seen(), seen(failure="no {field}")], "3/0", ()),
    lambda one: one.crossed(STEP, ("First {a}.", "Second {b}."), (0.25, 0.8), "3/0", ()),
)


@pytest.mark.parametrize("ask", WAYS)
def test_prompts_are_whole_and_show_no_metadata(ask: Asked) -> None:
    """No gap is left, braces in texts stand as they are, nothing is shown that is for metrics alone."""
    model = Model([tagged("New.")])
    ask(proposals_of(model))
    prompt = model.prompts[0]

    assert "Put it between <instruction> and </instruction>, and write nothing else." in prompt
    assert 'The step is called "answer".' in prompt
    assert "It is given question and gives answer (str)." in prompt
    for name in ("purpose", "component", "current", "examples", "tip", "runs", "first", "second", "first_score"):
        assert f"{{{name}}}" not in prompt
    assert SECRET not in prompt
    assert "cluster-of-it" not in prompt


def test_what_each_prompt_shows() -> None:
    model = Model([tagged("New.")])
    proposals = proposals_of(model)
    for ask in WAYS:
        ask(proposals)
    propose, mutate, cross = model.prompts

    assert '{"question":"What is {x} + {0}?"} -> {"answer":"{y!r}"}' in propose
    for text in ("Keep {this}.", "{x} + {0}", '{"answer":"{z}"}', "not {that}", "no {field}", '{"answer":"{y!r}"}'):
        assert text in mutate
    for text in ("First {a}.", "Second {b}.", "25%", "80%"):
        assert text in cross


def test_a_run_shows_its_own_step_where_there_is_one_and_the_answer_otherwise() -> None:
    """Steps of other components are not shown as this one's."""
    other = Step(component=ComponentName("draft"), inputs={}, outputs={"draft": "OTHER"})
    own = Step(component=STEP, inputs={}, outputs={"answer": "OWN"})
    model = Model([tagged("New.")])
    proposals = proposals_of(model)
    proposals.mutated(STEP, "", [seen(steps=(other, own), answer="LAST")], "0", ())
    proposals.mutated(STEP, "", [seen(steps=(other,), answer="LAST")], "1", ())

    assert "OWN" in model.prompts[0]
    assert "LAST" not in model.prompts[0]
    assert "LAST" in model.prompts[1]
    assert not any("OTHER" in prompt for prompt in model.prompts)


def test_long_values_are_cut() -> None:
    model = Model([tagged("New.")])
    proposals_of(model).mutated(STEP, "", [seen(answer="x" * 10 * LONGEST_VALUE)], "0", ())

    assert len(model.prompts[0]) < 4 * LONGEST_VALUE
    assert " …" in model.prompts[0]


def test_other_numbers_other_tips() -> None:
    model = Model([tagged("New.")])
    proposals = proposals_of(model)
    for number in range(8):
        fresh(proposals, number=number)

    assert 6 == len(set(model.prompts))
    assert 8 == len({request.sample for request in model.requests})


def test_an_agent_without_a_signature_is_called_by_its_name() -> None:
    model = Model([tagged("New.")])
    fresh(proposals_of(model, agent=AgentConfig(name="the-one", kind=AgentKind.PIPELINE)))

    assert "<purpose>\nthe-one\n</purpose>" in model.prompts[0]


def test_a_prompt_whose_gaps_are_others_says_so() -> None:
    with pytest.raises(AlgorithmError, match="wanted: values for current, x; found: current; possible: install again"):
        _Template("{x} {current}").format(current="")
    shipped = files("dspy_optimization.algorithms").joinpath("prompts")
    assert {"cross.md", "mutate.md", "propose.md"} == {one.name for one in shipped.iterdir()}


def test_chance_plays_no_part() -> None:
    """The same questions whatever global generators say."""
    prompts = []
    for seed in (1, 2):
        random.seed(seed)
        model = Model(["garbage", tagged("New.")])
        proposals = proposals_of(model)
        for ask in WAYS:
            ask(proposals)
        prompts.append([(request.sample, request.body) for request in model.requests])

    assert prompts[0] == prompts[1]
