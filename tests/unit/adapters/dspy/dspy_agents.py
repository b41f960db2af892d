"""Configurations and installed code that the tests of this folder share."""

import dspy

from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, PipelineStep, Signature

HERE = "dspy_agents"
ALLOWED = AllowList(
    tools=frozenset({f"{HERE}:look_up", f"{HERE}:broken_tool", f"{HERE}:Shouter"}),
    entrypoints=frozenset({f"{HERE}:two_steps", f"{HERE}:no_program", f"{HERE}:raising", f"{HERE}:with_own_model"}),
    metrics=frozenset({f"{HERE}:length_reward", f"{HERE}:endless_reward"}),
    http_hosts=frozenset({"agent.example"}),
)


def parts(**changes):
    return Parts(allowed=ALLOWED, **changes)


def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word} is a word"


def broken_tool(word: str) -> str:
    """Fail."""
    raise RuntimeError("no dictionary")


class Shouter:
    """A callable that is no function."""

    def __call__(self, word: str) -> str:
        return word.upper()


Shouter = Shouter()


def length_reward(inputs, outputs):
    return float(len(str(outputs["answer"])))


def endless_reward(inputs, outputs):
    return float("nan")


class TwoSteps(dspy.Module):
    def __init__(self):
        super().__init__()
        self.draft = dspy.Predict("question -> draft")
        self.answer = dspy.ChainOfThought("question, draft -> answer")

    def forward(self, question):
        return self.answer(question=question, draft=self.draft(question=question).draft)


def two_steps():
    return TwoSteps()


def no_program():
    return "a string"


def raising():
    raise OSError("disk gone")


def with_own_model():
    program = TwoSteps()
    program.set_lm(dspy.LM("openai/somebody-elses"))
    return program


QUESTION = Signature(
    instructions="Answer the question.",
    inputs=(Field(name="question"),),
    outputs=(Field(name="answer", description="short"),),
)


def config(kind, **changes):
    given = {"name": "agent", "kind": AgentKind(kind), "signature": QUESTION} | changes
    return AgentConfig(**given)


def pipeline():
    first = config("predict", name="first")
    second = AgentConfig(
        name="second",
        kind=AgentKind.CHAIN_OF_THOUGHT,
        signature=Signature(
            instructions="Shorten it.",
            inputs=(Field(name="text"), Field(name="limit", type="int")),
            outputs=(Field(name="short"),),
        ),
        adapter="json",
    )
    return AgentConfig(
        name="agent",
        kind=AgentKind.PIPELINE,
        steps=(
            PipelineStep(name="first", agent=first, inputs={"question": "input.question"}),
            PipelineStep(name="second", agent=second, inputs={"text": "first.answer", "limit": "input.limit"}),
        ),
    )


REWARD = f"{HERE}:length_reward"

KINDS = {
    "predict": config("predict"),
    "chain_of_thought": config("chain_of_thought"),
    "react": config("react", tools=(f"{HERE}:look_up",), options={"max_iters": 3}),
    "program_of_thought": config("program_of_thought", options={"max_iters": 2}),
    "code_act": config("code_act", tools=(f"{HERE}:look_up",), options={"max_iters": 2}),
    "best_of_n": config("best_of_n", options={"n": 3, "reward": REWARD, "module": "chain_of_thought"}),
    "refine": config("refine", options={"n": 3, "reward": REWARD, "threshold": 100.0}),
    "multi_chain": config("multi_chain", options={"m": 2, "temperature": 0.9}),
    "pipeline": pipeline(),
    "entrypoint": config("entrypoint", signature=None, entrypoint=f"{HERE}:two_steps"),
}
"""One configuration a kind that needs no network."""


def scripted(prompt, wanted):
    """Answer what each kind asks for."""
    values = {
        "generated_code": "```python\nprint(6 * 7)\n```",
        "finished": "True",
        "next_thought": "I know it",
        "next_tool_name": "finish",
        "next_tool_args": {},
        "advice": "be longer",
    }
    return {name: values.get(name, f"some {name}") for name in wanted}
