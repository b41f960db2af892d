"""The optimizable parts of programs."""

import enum

import dspy
import pydantic
import pytest
from dspy.teleprompt import LabeledFewShot
from dspy_agents import KINDS, TwoSteps, parts
from dspy_fakes import FakeCalls
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.adapters.dspy.components import (
    Frozen,
    apply,
    components,
    demo_to_json,
    detach_models,
    freeze,
    read_candidate,
)
from dspy_optimization.adapters.dspy.engine import language_model
from dspy_optimization.adapters.dspy.programs import build_program
from dspy_optimization.adapters.dspy.signatures import canonical_instructions
from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.model import Role

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def value_of(predictor):
    fields = list(predictor.signature.fields)
    demos = st.lists(st.dictionaries(st.sampled_from(fields), JSON, min_size=1), max_size=3)
    texts = TEXT.map(lambda text: canonical_instructions(predictor.signature, text))
    return st.builds(lambda text, demo: ComponentValue(instructions=text, demos=tuple(demo)), texts, demos)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["predict", "react", "pipeline", "entrypoint", "multi_chain"]), st.booleans())
def test_what_is_set_is_what_is_read(data, kind, frozen):
    """Any candidate applied to any program is read back equal, frozen components included."""
    program = build_program(KINDS[kind], parts())
    found = components(program)
    candidate = Candidate(components={name: data.draw(value_of(one)) for name, one in found.items()})
    if frozen:
        program = freeze(program, [sorted(found)[0]])
    apply(program, candidate)

    assert candidate == read_candidate(program)
    assert candidate == read_candidate(program.deepcopy())


def test_demos_of_optimizers_are_read_as_fields():
    """Marks of DSPy and columns of other components are left out; order is kept; empty demos vanish."""
    program = TwoSteps()
    program.draft.demos = [
        dspy.Example(augmented=True, question="b", draft="B", answer="other"),
        {"question": "a", "dspy_uuid": "x"},
        dspy.Example(unrelated=1),
    ]

    assert ({"question": "b", "draft": "B"}, {"question": "a"}) == read_candidate(program).components["draft"].demos


def test_leaving_columns_out_changes_no_prompt():
    """What is dropped from a demo was never shown: the requests before and after are the same."""
    student = TwoSteps()
    train = [dspy.Example(question=f"q{i}", answer=f"a{i}", extra=i).with_inputs("question") for i in range(4)]
    compiled = LabeledFewShot(k=2).compile(student, trainset=train)
    again = TwoSteps()
    apply(again, read_candidate(compiled))
    calls = FakeCalls()
    with dspy.context(lm=language_model(calls, Role.TASK, {}, "m"), adapter=dspy.ChatAdapter()):
        compiled(question="why?")
        again(question="why?")

    assert calls.asked[:2] == calls.asked[2:]


class Mood(enum.Enum):
    GOOD = "good"


class Person(pydantic.BaseModel):
    name: str
    age: int = 3


def test_objects_in_demos_survive():
    """pydantic objects and enums become JSON and objects again, so a demo looks the same after a restart."""
    signature = dspy.Signature(
        {
            "person": (Person, dspy.InputField()),
            "friends": (list[Person] | None, dspy.InputField()),
            "mood": (Mood, dspy.OutputField()),
        }
    )
    program = dspy.Predict(signature)
    program.demos = [dspy.Example(person=Person(name="Ada"), friends=[Person(name="Bob")], mood=Mood.GOOD)]
    candidate = read_candidate(program)
    again = dspy.Predict(signature)
    apply(again, candidate)
    adapter = dspy.ChatAdapter()

    assert {"name": "Ada", "age": 3} == candidate.components["self"].demos[0]["person"]
    assert Person(name="Ada") == again.demos[0].person
    assert adapter.format_demos(signature, program.demos) == adapter.format_demos(signature, again.demos)
    assert candidate == read_candidate(again)


def test_values_that_no_longer_fit_stay_json():
    """A demo written for an older program is kept as it is."""
    program = dspy.Predict(dspy.Signature({"person": (Person, dspy.InputField()), "a": (str, dspy.OutputField())}))
    demos = ({"person": "just a name", "a": "b"},)
    apply(program, Candidate(components={"self": ComponentValue(instructions="x", demos=demos)}))

    assert demos == read_candidate(program).components["self"].demos


def test_frozen_parts_are_out_of_sight_and_work():
    """No optimizer finds a frozen predictor; programs call it and look at it as before."""
    program = freeze(TwoSteps(), ["draft"])
    calls = FakeCalls()
    with dspy.context(lm=language_model(calls, Role.TASK, {}, "m"), adapter=dspy.ChatAdapter()):
        answer = program(question="why?")

    assert ["answer.predict"] == [name for name, _ in program.named_predictors()]
    assert {"draft", "answer.predict"} == set(components(program))
    assert "some answer" == answer.answer
    assert ["question"] == list(program.draft.signature.input_fields)
    assert isinstance(program.deepcopy().draft, Frozen)
    with pytest.raises(AttributeError):
        _ = program.draft.nothing_like_it


def test_optimizers_leave_frozen_parts_alone():
    """LabeledFewShot gives demos to what may change and to nothing else."""
    train = [dspy.Example(question="q", draft="d", answer="a").with_inputs("question")]
    compiled = LabeledFewShot(k=1).compile(freeze(TwoSteps(), ["draft"]), trainset=train)

    assert {"draft": 0, "answer.predict": 1} == {
        n: len(v.demos) for n, v in read_candidate(compiled).components.items()
    }


def test_a_program_that_is_one_frozen_predictor():
    """The whole program may be frozen; what is left has nothing to optimize."""
    program = freeze(dspy.Predict("q -> a"), ["self"])

    assert [] == program.named_predictors()
    assert {"self"} == set(components(program))


def test_a_predictor_at_two_places_is_frozen_at_both():
    """The same predictor under two names would otherwise be found under the second."""
    program = TwoSteps()
    program.alias = program.draft
    program = freeze(program, ["draft"])

    assert ["answer.predict"] == [name for name, _ in program.named_predictors()]
    assert program.alias is program.draft


def test_parts_their_author_froze_are_no_components():
    """DSPy's own mark on a sub-module counts."""
    program = TwoSteps()
    program.answer._compiled = True

    assert {"draft"} == set(components(program))


def test_unknown_components_are_named():
    """Both lists are in the message."""
    with pytest.raises(InvalidRequestError, match=r"found nobody; possible: answer.predict, draft"):
        apply(TwoSteps(), Candidate(components={"nobody": ComponentValue(instructions="x")}))
    with pytest.raises(InvalidRequestError, match=r"frozen components: .* found x"):
        freeze(TwoSteps(), ["x"])
    with pytest.raises(InvalidRequestError, match="this agent has no components"):
        freeze(dspy.Module(), ["x"])


def test_models_are_detached_from_frozen_parts_too():
    """Wherever a predictor hides, its LM goes."""
    program = TwoSteps()
    program.set_lm(dspy.LM("openai/x"))
    program = freeze(program, ["draft"])
    detach_models(program)

    assert [None, None] == [one.lm for one in components(program).values()]


def test_equal_candidates_make_equal_prompts():
    """Stores may reorder the keys of JSON objects; the prompt does not notice."""
    signature = dspy.Signature({"record": (dict, dspy.InputField()), "a": (str, dspy.OutputField())})
    prompts = []
    for record in ({"b": 1, "a": [{"y": 1, "x": 2}]}, {"a": [{"x": 2, "y": 1}], "b": 1}):
        program = dspy.Predict(signature)
        demo = {"record": record, "a": "x"}
        apply(program, Candidate(components={"self": ComponentValue(instructions="x", demos=(demo,))}))
        prompts.append(dspy.ChatAdapter().format_demos(program.signature, program.demos))

    assert prompts[0] == prompts[1]


def test_demo_fields_stand_in_the_order_of_the_signature():
    """Equal demos are equal whatever order a file had."""
    predictor = dspy.Predict("a, b -> c")

    assert ["a", "b", "c"] == list(demo_to_json(predictor, {"c": 1, "b": 2, "a": 3}))
