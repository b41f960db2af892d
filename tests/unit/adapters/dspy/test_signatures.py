"""Field types and signatures as DSPy's own."""

from typing import Any, Literal

import dspy
import pytest
from dspy_agents import QUESTION, config, parts
from dspy_fakes import FakeCalls

from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.adapters.dspy.signatures import canonical_instructions, dspy_signature, python_type
from dspy_optimization.agents.config import Field, Signature
from dspy_optimization.agents.field_type import parse_field_type
from dspy_optimization.errors import InvalidRequestError

TYPES = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "list[int]": list[int],
    "dict": dict[str, Any],
    "dict[str, list[float]]": dict[str, list[float]],
    "Literal['a', 'b']": Literal["a", "b"],
    "Literal[1, True]": Literal[1, True],
    "int | None": int | None,
    "Optional[list[str]]": list[str] | None,
    "list[int | None]": list[int | None],
}


@pytest.mark.parametrize("text", TYPES)
def test_types_of_the_grammar_are_python_types(text):
    """Every type of the closed grammar has one Python type."""
    assert TYPES[text] == python_type(parse_field_type(text))


PLAIN = [
    ("str", "x"),
    ("int", 3),
    ("float", 0.5),
    ("bool", True),
    ("Literal['yes', 'no']", "no"),
    ("int | None", None),
]
NESTED = [("list[int]", [1, 2]), ("dict", {"a": [1]}), ("dict[str, int]", {"a": 1})]
CASES = [(text, answer, adapter) for text, answer in PLAIN + NESTED for adapter in ("chat", "json")]
CASES += [(text, answer, "xml") for text, answer in PLAIN]


@pytest.mark.parametrize(("text", "answer", "adapter"), CASES)
def test_typed_answers_arrive_as_json(text, answer, adapter):
    """An answer of each type comes back as the same JSON value, whatever the layout."""
    signature = Signature(instructions="Do.", inputs=(Field(name="q"),), outputs=(Field(name="a", type=text),))
    agent = DspyAgents(parts()).build(config("predict", signature=signature, adapter=adapter))
    prediction = agent.run(agent.baseline, {"q": "?"}, FakeCalls(lambda prompt, wanted: {"a": answer}))

    assert (None, {"a": answer}) == (prediction.failure, prediction.outputs)


def test_descriptions_and_instructions_reach_the_signature():
    """What the configuration says is what DSPy shows."""
    made = dspy_signature(QUESTION)

    assert "Answer the question." == made.instructions
    assert ["question"] == list(made.input_fields)
    assert "short" == made.output_fields["answer"].json_schema_extra["desc"]


@pytest.mark.parametrize("text", ["", "  hi  ", "a\n  b\n", "\n\n x", "plain"])
def test_canonical_instructions_are_what_dspy_reads_back(text):
    """DSPy strips indentation and has a default for nothing; the canonical text does not change again."""
    signature = dspy.Signature("q -> a")
    canonical = canonical_instructions(signature, text)

    assert signature.with_instructions(text).instructions == canonical
    assert canonical_instructions(signature, canonical) == canonical


@pytest.mark.parametrize("name", ["config", "demos", "lm", "signature", "new_signature", "prediction"])
def test_arguments_of_predict_are_no_inputs(name):
    """An input of a name that Predict keeps for itself would never reach the prompt."""
    with pytest.raises(InvalidRequestError, match=f"found {name}; possible: rename it"):
        dspy_signature(Signature(instructions="", inputs=(Field(name=name),), outputs=(Field(name="a"),)))


@pytest.mark.filterwarnings("ignore:Field name:UserWarning")
@pytest.mark.parametrize("name", ["fields", "instructions", "model_config", "_private"])
def test_names_dspy_cannot_hold_are_refused(name):
    """What breaks inside DSPy or pydantic is said in words."""
    with pytest.raises(InvalidRequestError, match="a signature is wanted that DSPy can hold"):
        dspy_signature(Signature(instructions="", inputs=(Field(name="q"),), outputs=(Field(name=name),)))
