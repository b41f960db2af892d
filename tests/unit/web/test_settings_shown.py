"""How components are asked, over HTTP and as the client reads it."""

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.sdk.evidence import CandidateTexts, Diff, SettingDiff
from dspy_optimization.sdk.reading import read
from dspy_optimization.web import views

NAME = ComponentName("answer")


def told(**said: object) -> Candidate:
    value = ComponentValue(instructions="Answer.", settings=ComponentSettings(**said))
    return Candidate(components={NAME: value})


def test_a_candidate_says_its_settings_and_a_difference_tells_them_in_words() -> None:
    """What is not said is not there; older services that say nothing are read all the same."""
    before, after = told(parameters={"temperature": 0.5}), told(model="large", tools=("a", "b"))

    detail = read(CandidateTexts, views.candidate_detail(after).model_dump(mode="json", by_alias=True), "detail")
    difference = read(Diff, views.diff(before, after).model_dump(mode="json", by_alias=True), "diff")

    assert {"model": "large", "tools": ["a", "b"]} == detail.components["answer"].settings
    assert [
        SettingDiff(name="model", before="as the agent says", after="large"),
        SettingDiff(name="parameters", before="temperature 0.5", after="as the agent says"),
        SettingDiff(name="tools", before="as the agent says", after="a, b"),
    ] == sorted(difference.components[0].settings, key=lambda one: one.name)
    assert {} == views.candidate_detail(told()).components["answer"].settings
    old = read(CandidateTexts, {"candidate": "f0", "components": {"answer": {"instructions": "x", "demos": []}}}, "old")
    assert {} == old.components["answer"].settings
