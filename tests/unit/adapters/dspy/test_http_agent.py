"""Agents behind an address."""

import json
from itertools import count

import dspy
import httpx
import pytest
from dspy_agents import QUESTION, config, parts
from dspy_fakes import FakeCalls

from dspy_optimization.adapters.dspy import http_agent
from dspy_optimization.adapters.dspy.http_agent import HttpBox
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.agents.config import Component, HttpEndpoint
from dspy_optimization.agents.example import Usage
from dspy_optimization.errors import InfrastructureFailed, InvalidRequestError, ProgramError

URL = "https://agent.example/run"


def box(*answers, seconds=None, timeout=5.0):
    """Return a box that answers these in turn, the requests it got, and the pauses it made."""
    waiting = list(answers)
    got = []
    pauses = []

    def handle(request):
        got.append(json.loads(request.content))
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    endpoint = HttpEndpoint(url=URL, timeout_seconds=timeout)
    ticks = count()
    made = HttpBox(
        endpoint,
        transport=httpx.MockTransport(handle),
        sleep=pauses.append,
        seconds=seconds if seconds is not None else lambda: float(next(ticks)),
    )
    return made, got, pauses


def ok(**outputs):
    return httpx.Response(200, json={"outputs": outputs})


def agent(handle, **changes):
    given = {"components": {"tone": Component(value=ComponentValue(instructions="Be kind."))}} | changes
    made = config("http", http=HttpEndpoint(url=URL), **given)
    return DspyAgents(parts(http_transport=httpx.MockTransport(handle))).build(made)


def test_texts_travel_with_the_input():
    """The box gets the inputs and what every component says, and its outputs are the answer."""
    seen = []

    def handle(request):
        seen.append(json.loads(request.content))
        return httpx.Response(
            200,
            json={
                "outputs": {"answer": "42"},
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "lm_calls": 2, "cost_usd": 0.5},
            },
        )

    built = agent(handle)
    better = Candidate(components={"tone": ComponentValue(instructions="Be brief.", demos=({"question": "a"},))})
    answer = built.run(better, {"question": "why?"}, FakeCalls())

    assert {
        "inputs": {"question": "why?"},
        "components": {"tone": {"instructions": "Be brief.", "demos": [{"question": "a"}]}},
    } == seen[0]
    assert ({"answer": "42"}, None) == (answer.outputs, answer.failure)
    assert (0.5, 7, 3, 2) == (
        answer.usage.cost_usd,
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.usage.lm_calls,
    )
    assert answer.usage.latency_seconds > 0


def test_a_box_without_components_can_be_measured():
    """No texts, no signature: nothing to optimize, and it runs."""
    built = agent(lambda request: ok(a=1), components={}, signature=None)

    assert {} == built.baseline.components
    assert {"a": 1} == built.run(built.baseline, {"q": 1}, FakeCalls()).outputs


def test_reflection_sees_what_components_took_part_in():
    """Every component that may change is in the trace with inputs and outputs; frozen ones are not."""
    built = agent(
        lambda request: ok(answer="42"),
        components={"tone": Component(value=None), "rules": Component(frozen=True)},
        signature=QUESTION,
    )
    student = built.student()
    with dspy.context(trace=[]):
        student(question="why?")
        trace = list(dspy.settings.trace)
    with dspy.context(trace=None):
        student(question="why?")

    assert ["tone"] == [name for name, _ in student.named_predictors()]
    assert [(student.tone, {"question": "why?"}, "42")] == [(p, i, o.answer) for p, i, o in trace]


def test_a_box_that_stumbles_is_asked_again():
    """Timeouts, broken connections, 429 and 5xx are tried four times, with growing pauses."""
    made, got, pauses = box(httpx.ReadTimeout("slow"), httpx.Response(503), httpx.Response(429), ok(a=1))
    answer = made.ask({"q": 1}, {})

    assert {"outputs": {"a": 1}} == answer.body
    assert 1.0 < answer.seconds < 5.0
    assert [0.5, 1.0, 2.0] == pauses
    assert 4 == len(got)


@pytest.mark.parametrize(
    ("answer", "tries", "said"),
    [
        (httpx.Response(500, text="boom"), 4, "found HTTP 500: boom"),
        (httpx.ConnectError("refused"), 4, "found ConnectError: refused"),
        (httpx.Response(404), 1, "found HTTP 404"),
        (httpx.Response(401), 1, "found HTTP 401"),
        (httpx.Response(302, headers={"location": "http://169.254.169.254/"}), 1, "redirects are not followed"),
    ],
)
def test_a_broken_box_is_never_a_score(answer, tries, said):
    """What no try mends stops the search, with what to do; redirects are not followed."""
    made, got, _ = box(*[answer] * 4)
    with pytest.raises(InfrastructureFailed, match=said):
        made.ask({"q": 1}, {})

    assert tries == len(got)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(422, text="too long"), "refuses this input, HTTP 422: too long"),
        (httpx.Response(200, text="hello"), "JSON is wanted, found b'hello'"),
        (httpx.Response(200, json=[1]), "is wanted, found"),
        (httpx.Response(200, json={"outputs": "x"}), "is wanted, found"),
    ],
)
def test_a_refused_input_is_a_score(answer, said):
    """What the box says about this very input fails the example."""
    made, got, _ = box(answer)
    with pytest.raises(ProgramError, match=said):
        made.ask({"q": 1}, {})

    assert 1 == len(got)


def test_sizes_are_capped(monkeypatch):
    """Neither a huge input nor a huge answer is carried."""
    monkeypatch.setattr(http_agent, "ANSWER_BYTES", 100)
    made, _, _ = box(ok(a="x" * 200))
    with pytest.raises(ProgramError, match="more than 100 bytes"):
        made.ask({"q": 1}, {})
    monkeypatch.setattr(http_agent, "REQUEST_BYTES", 100)
    made, got, _ = box(ok(a=1))
    with pytest.raises(ProgramError, match="at most 100 bytes"):
        made.ask({"q": "x" * 200}, {})

    assert [] == got


def test_an_answer_that_trickles_is_too_late():
    """The limit is on the whole answer, not on each piece."""
    clock = count(step=10)
    made, got, _ = box(*[ok(a=1)] * 4, seconds=lambda: float(next(clock)), timeout=5.0)
    with pytest.raises(InfrastructureFailed, match="no whole answer within 5 s"):
        made.ask({"q": 1}, {})

    assert 4 == len(got)


def test_nonsense_bills_count_nothing():
    """A box cannot make runs cheaper than free."""
    built = agent(
        lambda request: httpx.Response(
            200, json={"outputs": {"a": 1}, "usage": {"cost_usd": -5, "prompt_tokens": "many", "lm_calls": None}}
        )
    )
    usage = built.run(built.baseline, {"q": 1}, FakeCalls()).usage

    assert Usage(latency_seconds=usage.latency_seconds) == usage


def test_boxes_are_shared_by_copies_and_closed():
    """A program's copies use the same connections."""
    built = agent(lambda request: ok(a=1))
    one, two = built.student(), built.student()

    assert one.box is two.box
    one.box.close()
    assert one.box._client.is_closed


@pytest.mark.parametrize("name", ["forward", "a-b", "history"])
def test_component_names_are_identifiers(name):
    """Names DSPy cannot hold as attributes are refused with another."""
    with pytest.raises(InvalidRequestError, match=f"found {name}; possible: "):
        agent(lambda request: ok(), components={name: Component()})


def test_hosts_are_checked_when_building():
    """A configuration made in code is checked like one from a file."""
    made = config("http", http=HttpEndpoint(url="http://169.254.169.254/latest"))
    with pytest.raises(InvalidRequestError, match="not on the allow-list"):
        DspyAgents(parts()).build(made)
