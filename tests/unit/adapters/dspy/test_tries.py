"""Agents that try several times."""

import re

import dspy
import pytest
from dspy_agents import HERE, config, length_reward, parts
from dspy_fakes import FakeCalls, chat_response, echo

from dspy_optimization.adapters.dspy.components import components, freeze
from dspy_optimization.adapters.dspy.engine import language_model
from dspy_optimization.adapters.dspy.runnable import DspyAgents
from dspy_optimization.adapters.dspy.tries import BestOfN, Refine, Trying, drawn
from dspy_optimization.evaluation.model import Role


class Drawing(FakeCalls):
    """Answers each draw with the next of these texts; None: with nothing anybody can read."""

    def __init__(self, texts):
        super().__init__()
        self.texts = list(texts)

    def call(self, role, request):
        self.asked.append((role, request))
        prompt = str(request.body["messages"])
        if "`[[ ## advice ## ]]`" in prompt:
            text = self.texts.pop(0)
            return chat_response("nothing" if text is None else f"[[ ## advice ## ]]\n{text}\n[[ ## completed ## ]]")
        text = self.texts.pop(0)
        return chat_response("nothing" if text is None else f"[[ ## answer ## ]]\n{text}\n[[ ## completed ## ]]")


def run(kind, calls, **options):
    made = config(kind, options={"n": 3, "reward": f"{HERE}:length_reward"} | options)
    agent = DspyAgents(parts()).build(made)
    return agent.run(agent.baseline, {"question": "why?"}, calls)


def test_the_best_answer_is_kept():
    """Every try is a draw of its own at temperature 1, the highest reward wins."""
    calls = Drawing(["aa", "aaaa", "a"])
    answer = run("best_of_n", calls)

    assert "aaaa" == answer.outputs["answer"]
    assert ["0", "1", "2"] == calls.samples
    assert [1.0] * 3 == [request.body["temperature"] for _, request in calls.asked]


def test_the_first_of_equal_answers_is_kept():
    """A tie changes nothing, so results do not depend on how many tries follow."""
    assert "ab" == run("best_of_n", Drawing(["ab", "cd", "e"])).outputs["answer"]


def test_good_enough_ends_the_tries():
    """A reward at the threshold saves the rest."""
    calls = Drawing(["a", "aaa", "never asked"])

    assert "aaa" == run("best_of_n", calls, threshold=3.0).outputs["answer"]
    assert 2 == len(calls.asked)


def test_failed_tries_leave_the_others_their_chance():
    """By default all tries but one may fail; the steps tell which did."""
    answer = run("best_of_n", Drawing([None, "a", None]))

    assert ("a", None) == (answer.outputs["answer"], answer.failure)
    assert [True, False, True] == [step.failure is not None for step in answer.steps]


def test_too_many_failed_tries_fail_the_example():
    """One failure beyond fail_count ends it with its reason; all of them too."""
    strict = run("best_of_n", Drawing([None, "a", "a"]), fail_count=0)
    hopeless = run("best_of_n", Drawing([None, None, None]))
    patient = run("best_of_n", Drawing([None, None, None]), fail_count=3)

    assert strict.failure.startswith("module: the answer is not in the format that ChatAdapter reads")
    assert hopeless.failure.startswith("module: the answer is not in the format")
    assert patient.failure.startswith("ProgramError: none of 3 tries gave an answer; the last: ")


def test_failures_of_one_example_are_not_counted_for_the_next():
    """DSPy's own version wears out: after a few examples every failure is fatal."""
    made = config("best_of_n", options={"n": 2, "reward": f"{HERE}:length_reward"})
    agent = DspyAgents(parts()).build(made)
    answers = [agent.run(agent.baseline, {"question": "q"}, Drawing([None, "a"])) for _ in range(10)]

    assert [None] * 10 == [answer.failure for answer in answers]


def test_a_reward_that_is_no_number_fails_the_example():
    """NaN compares with nothing."""
    answer = run("best_of_n", Drawing(["a"] * 3), reward=f"{HERE}:endless_reward")

    assert "the reward of a try is to be a finite number, found nan" in answer.failure


def test_refine_gives_advice_on_the_last_answer():
    """The second try sees a hint, demos count as complete, and the first try sees none."""
    calls = Drawing(["a", "be longer", "aaa"])
    made = config(
        "refine",
        options={"n": 2, "reward": f"{HERE}:length_reward"},
        demos=({"question": "2+2", "answer": "4"},),
    )
    agent = DspyAgents(parts()).build(made)
    answer = agent.run(agent.baseline, {"question": "why?"}, calls)
    first, advice, second = (str(request.body["messages"]) for _, request in calls.asked)

    assert "aaa" == answer.outputs["answer"]
    assert "hint_" not in first
    assert re.search(r"task.*Answer the question.*inputs.*why\?.*reward.*1\.0.*as high as possible", advice)
    assert "be longer" in second
    assert "not supplied" not in second


def test_refine_goes_on_without_advice():
    """Advice that cannot be read costs the hint, not the try."""
    calls = Drawing(["a", None, "aaa"])
    answer = run("refine", calls, n=2, threshold=9.0)

    assert ("aaa", None) == (answer.outputs["answer"], answer.failure)
    assert "at least 9" in str(calls.asked[1][1].body["messages"])
    assert "hint_" not in str(calls.asked[2][1].body["messages"])


def test_refine_after_a_failed_try_has_nothing_to_advise_on():
    """A try nobody could read gives no advice."""
    calls = Drawing([None, "aaa"])

    assert "aaa" == run("refine", calls, n=2).outputs["answer"]
    assert 2 == len(calls.asked)


def test_frozen_parts_draw_too():
    """A frozen predictor inside tries is asked for the same draws."""
    program = BestOfN(dspy.ChainOfThought("question -> answer"), length_reward, Trying(n=2))
    program = freeze(program, ["module.predict"])
    calls = FakeCalls()
    with dspy.context(lm=language_model(calls, Role.TASK, {}, "m"), adapter=dspy.ChatAdapter(), trace=None):
        program(question="why?")

    assert ["0", "1"] == calls.samples
    assert {"module.predict"} == set(components(program))


def test_only_the_best_try_is_in_the_trace():
    """What optimizers learn from is the answer that counted."""
    program = BestOfN(dspy.Predict("question -> answer"), length_reward, Trying(n=3))
    calls = Drawing(["a", "aaa", "aa"])
    with dspy.context(lm=language_model(calls, Role.TASK, {}, "m"), adapter=dspy.ChatAdapter(), trace=[]):
        program(question="why?")
        trace = list(dspy.settings.trace)

    assert ["aaa"] == [prediction.answer for _, _, prediction in trace]


def test_tries_inside_a_rollout_do_not_meet_those_of_another():
    """An optimizer's rollout and a try are one draw together."""
    program = BestOfN(dspy.Predict("question -> answer"), length_reward, Trying(n=2))
    calls = FakeCalls()
    lm = language_model(calls, Role.TASK, {}, "m")
    for rollout in (0, 1):
        with dspy.context(lm=lm.copy(rollout_id=rollout), adapter=dspy.ChatAdapter()):
            program(question="why?")

    assert ["1000", "1001", "2000", "2001"] == calls.samples


def test_a_callers_own_model_draws_too():
    """With LMs on the predictors and none configured, tries still differ, and the predictors keep theirs."""
    program = Refine(dspy.Predict("question -> answer"), length_reward, Trying(n=2, threshold=0.0))
    calls = FakeCalls(echo)
    lm = language_model(calls, Role.TASK, {}, "m")
    program.set_lm(lm)
    with dspy.context(lm=None, adapter=dspy.ChatAdapter()):
        program(question="why?")

    assert ["0"] == calls.samples
    assert program.module.lm is lm
    with drawn(program.module, 1, 0.5) as module:
        assert {"rollout_id": 1, "temperature": 0.5} == {
            name: module.lm.kwargs[name] for name in ("rollout_id", "temperature")
        }


@pytest.mark.parametrize("kind", ["best_of_n", "refine"])
def test_states_load_into_dspys_own(kind, tmp_path):
    """The structure is DSPy's, so a saved state serves there."""
    agent = DspyAgents(parts()).build(config(kind, options={"reward": f"{HERE}:length_reward"}))
    agent.module().save(tmp_path / "state.json")
    native = dspy.BestOfN(dspy.Predict("question -> answer"), 2, length_reward, 1.0)
    native.load(tmp_path / "state.json")

    assert "Answer the question." == native.module.signature.instructions
