"""What holds for every search with one of DSPy's optimizers."""

import sys
import threading
import time
from dataclasses import dataclass, replace

import pytest
from search_world import WORDS, FakeRun, Ledger, Shouter, agent_of, config_of, examples, problem_of

from dspy_optimization.adapters.dspy.bootstrap import (
    BootstrapFewShot,
    BootstrapOptions,
    BootstrapRandomSearch,
    LabeledFewShot,
    LabeledFewShotOptions,
    RandomSearchOptions,
)
from dspy_optimization.adapters.dspy.copro import COPRO, COPROOptions
from dspy_optimization.adapters.dspy.gepa import GEPA, GEPAOptions
from dspy_optimization.adapters.dspy.infer_rules import InferRules, InferRulesOptions
from dspy_optimization.adapters.dspy.miprov2 import MIPROv2, MIPROv2Options
from dspy_optimization.adapters.dspy.programs import Parts
from dspy_optimization.adapters.dspy.runnable import DspyAgents, Surroundings
from dspy_optimization.adapters.dspy.simba import SIMBA, SIMBAOptions
from dspy_optimization.agents.candidate import ComponentName
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.agents.config import AgentKind, Component
from dspy_optimization.agents.example import Example, ExampleId, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.algorithms.problem import Algorithm, Problem, Shape
from dspy_optimization.errors import (
    AlgorithmError,
    CancelRequested,
    InfrastructureFailed,
    InvalidRequestError,
    ModelError,
    ModelRequestError,
)
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role

pytestmark = pytest.mark.filterwarnings("ignore:Argument ``multivariate`` is an experimental feature")


@dataclass(frozen=True)
class Case:
    """An algorithm with small options."""

    algorithm: type[Algorithm]
    options: object
    races: bool = False

    @property
    def name(self) -> str:
        return f"{self.algorithm.name}, racing" if self.races else self.algorithm.name

    def problem(self, concurrency: int = 4, seed: int = 0, kind: AgentKind = AgentKind.PREDICT) -> Problem:
        agent = agent_of(kind)
        return problem_of(self.algorithm(), agent, self.options, concurrency=concurrency, seed=seed, train=8, val=6)


CASES = [
    Case(LabeledFewShot, LabeledFewShotOptions(sets=2)),
    Case(BootstrapFewShot, BootstrapOptions(max_bootstrapped_demos=3)),
    Case(BootstrapRandomSearch, RandomSearchOptions(candidates=3)),
    Case(GEPA, GEPAOptions(iterations=6)),
    Case(MIPROv2, MIPROv2Options(candidates=4, trials=5)),
    Case(SIMBA, SIMBAOptions(steps=2, minibatch_size=6, candidates=3)),
    Case(COPRO, COPROOptions(breadth=4, depth=2)),
    Case(InferRules, InferRulesOptions(candidates=3, max_bootstrapped_demos=2)),
    Case(GEPA, GEPAOptions(iterations=10, evaluation="racing", val_block=3), races=True),
    Case(MIPROv2, MIPROv2Options(candidates=3, trials=5, search="racing"), races=True),
]
every_algorithm = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_proposing_algorithm = pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.algorithm in (GEPA, MIPROv2, SIMBA, COPRO, InferRules)],
    ids=lambda case: case.name,
)


def searched(case: Case, problem: Problem, **settings: object) -> FakeRun:
    """Return the run of a finished search."""
    run = FakeRun(problem.runnable, **settings)
    case.algorithm().search(problem, run)
    return run


@every_algorithm
def test_it_finds_something_better(case: Case) -> None:
    """The baseline shouts a third of the words; demos and good instructions shout more."""
    problem = case.problem()
    run = searched(case, problem)
    _, best = run.best(problem)

    baseline = sum(result.scores["shout"].value for result in run.evaluate(problem.baseline, problem.val)) / len(
        problem.val
    )

    assert best > baseline


@every_algorithm
def test_the_same_seed_asks_the_same(case: Case) -> None:
    """A search is a function of the problem, the seed and the answers."""
    first, second = searched(case, case.problem()), searched(case, case.problem())

    assert sorted(first.asked) == sorted(second.asked)
    assert [(one, split, step) for one, split, _, step in first.recorded] == [
        (one, split, step) for one, split, _, step in second.recorded
    ]
    assert first.submitted == second.submitted


@every_algorithm
def test_threads_change_nothing_but_the_time(case: Case) -> None:
    """One example at a time and four at once find the same, with the same calls paid."""
    alone, together = searched(case, case.problem(concurrency=1)), searched(case, case.problem(concurrency=4))

    assert sorted(alone.paid) == sorted(together.paid)
    assert alone.submitted == together.submitted
    assert [(one, split, step) for one, split, _, step in alone.recorded] == [
        (one, split, step) for one, split, _, step in together.recorded
    ]


@every_algorithm
def test_a_replay_pays_nothing(case: Case) -> None:
    """Resume is to search again on the same ledger."""
    ledger = Ledger()
    searched(case, case.problem(), ledger=ledger)

    assert searched(case, case.problem(), ledger=ledger).paid == []


@every_algorithm
def test_the_result_is_measured_already_or_free(case: Case) -> None:
    """What a search measured with DSPy and what the engine measures are the same calls: the ledger knows them."""
    problem = case.problem()
    run = searched(case, problem)
    whole = {example.id for example in problem.val}
    paid = len(run.paid)
    for candidate, split, results, _ in run.recorded:
        if split is Split.VAL and {result.example_id for result in results} == whole:
            again = run.evaluate(candidate, problem.val)

            assert sorted(results, key=lambda one: one.example_id) == sorted(again, key=lambda one: one.example_id)

    assert len(run.paid) == paid


@every_algorithm
def test_nothing_but_train_and_val_is_looked_at(case: Case) -> None:
    """The test split is sealed."""
    problem = case.problem()
    run = searched(case, problem)

    assert set(run.scored) <= {example.id for example in (*problem.train, *problem.val)}
    for candidate in [*run.submitted, *(one for one, *_ in run.recorded)]:
        shown = {str(demo.get("word")) for part in candidate.components.values() for demo in part.demos}

        assert shown <= {str(example.inputs["word"]) for example in problem.train}


@every_algorithm
def test_it_tells_how_far_it_is(case: Case) -> None:
    """Every algorithm reports, with a candidate and its score for every trial; of a race only the winner."""
    run = searched(case, case.problem())
    scored = [one for one in run.progress if one.candidate is not None]
    if case.races:
        raced = [one.candidate for one in run.progress if one.phase == "raced"]

        assert [one.fingerprint for one in raced] in ([], [run.submitted[0].fingerprint])
        assert all(0.0 <= one.score <= 1.0 for one in scored if one.score is not None)
        return

    assert len(scored) == len(run.recorded)
    assert all(0.0 <= one.score <= 1.0 for one in scored if one.score is not None)
    assert [one.candidate for one in scored] == [candidate for candidate, *_ in run.recorded]
    assert len({one.phase for one in run.progress}) >= 1
    assert run.submitted


@every_algorithm
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_stop_ends_it_at_any_call(case: Case, concurrency: int) -> None:
    """The stop comes out as it went in, and nothing is asked after it, though it is raised only once."""
    whole = searched(case, case.problem(concurrency=concurrency)).calls
    for call in sorted({1, 2, whole // 3, 2 * whole // 3, whole}):
        problem = case.problem(concurrency=concurrency)
        run = FakeRun(problem.runnable, stop_at_call=call)
        with pytest.raises(CancelRequested, match=f"stopped at call {call}"):
            case.algorithm().search(problem, run)
        asked = run.calls
        time.sleep(0.01)

        # Calls of other threads that were past the gate when the stop was raised are the only ones.
        assert run.calls_after_stop <= concurrency
        assert run.calls == asked


@every_algorithm
def test_a_broken_metric_is_no_score(case: Case) -> None:
    """What the metric raises ends the search as the error it is, not as a 0 a good candidate gets."""
    problem = case.problem()

    def broken(example: Example, prediction: Prediction) -> Score:
        raise InvalidRequestError("the metric wants a field the agent lacks")

    with pytest.raises(InvalidRequestError, match="a field the agent lacks"):
        case.algorithm().search(problem, FakeRun(problem.runnable, metric=broken))


@every_algorithm
def test_a_bug_in_a_metric_is_no_score(case: Case) -> None:
    """The same for whatever nobody thought of."""
    problem = case.problem()

    def buggy(example: Example, prediction: Prediction) -> Score:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        case.algorithm().search(problem, FakeRun(problem.runnable, metric=buggy))


class DeadModel(Shouter):
    """Answers so many calls and then none."""

    def __init__(self, error: Exception, after: int) -> None:
        super().__init__()
        self._error = error
        self._left = after
        self._lock = threading.Lock()

    def answer(self, role: Role, request: ModelRequest) -> str:
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise self._error
        return super().answer(role, request)


class OpenRun(FakeRun):
    """Without coalescing: a call that fails leaves nobody waiting."""

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        known = self.ledger
        self.ledger = Ledger()
        try:
            return super().call(role, request)
        finally:
            self.ledger = known


@every_algorithm
def test_a_dead_model_is_no_score(case: Case) -> None:
    """An infrastructure failure ends the search with its error."""
    problem = case.problem(concurrency=1)
    run = OpenRun(problem.runnable, model=DeadModel(ModelError("the server is away"), after=7))

    with pytest.raises(InfrastructureFailed, match="the server is away"):
        case.algorithm().search(problem, run)
    assert all(result.failure is None for _, _, results, _ in run.recorded for result in results)


@every_algorithm
def test_unreadable_answers_are_scores_with_reasons(case: Case) -> None:
    """A model that breaks the format fails examples, never the search."""
    problem = case.problem()
    run = searched(case, problem, model=Shouter(garbled=lambda word: word.lower() in WORDS[::3]))
    failures = {result.failure for _, _, results, _ in run.recorded for result in results if result.failure}

    assert failures
    assert all("the model wrote: I would rather not." in failure for failure in failures)


@every_algorithm
def test_refused_requests_are_scores_with_reasons(case: Case) -> None:
    """A prompt the model refuses fails the example."""
    problem = case.problem(concurrency=1)

    class Picky(Shouter):
        def answer(self, role: Role, request: ModelRequest) -> str:
            if role is Role.TASK and "chair" in str(request.body["messages"][-1]).lower():
                raise ModelRequestError("no chairs here")
            return super().answer(role, request)

    run = OpenRun(problem.runnable, model=Picky())
    case.algorithm().search(problem, run)
    failures = {result.failure for _, _, results, _ in run.recorded for result in results if result.failure}

    assert all("no chairs here" in failure for failure in failures)


@every_algorithm
def test_frozen_components_stay_as_they_are(case: Case) -> None:
    """No candidate differs from the baseline in a frozen component."""
    agent = agent_of(AgentKind.PIPELINE, frozen=["first"])
    problem = problem_of(case.algorithm(), agent, case.options, train=8, val=4)
    run = FakeRun(agent)
    case.algorithm().search(problem, run)
    frozen = next(name for name in agent.frozen)

    assert {one.components[frozen] for one in run.submitted} == {problem.baseline.components[frozen]}
    assert all(len(one.components) == 2 for one in run.submitted)


@every_algorithm
def test_the_agent_itself_is_not_touched(case: Case) -> None:
    """Optimizers change copies."""
    problem = case.problem()
    before = problem.runnable.student().dump_state()
    searched(case, problem)

    assert before == problem.runnable.student().dump_state()


@every_algorithm
def test_the_terminal_stays_quiet(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """No print, no bar, no log line, and the streams are people's own again afterwards."""
    out, err = sys.stdout, sys.stderr
    searched(case, case.problem())
    captured = capsys.readouterr()

    assert ("", "") == (captured.out, captured.err)
    assert (out, err) == (sys.stdout, sys.stderr)


def test_others_may_print_while_a_search_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the search is quiet."""
    case = CASES[2]
    problem = case.problem(concurrency=1)
    run = FakeRun(problem.runnable, latency_seconds=0.001)
    worker = threading.Thread(target=lambda: case.algorithm().search(problem, run))
    worker.start()
    while worker.is_alive() and run.calls < 20:
        time.sleep(0.001)
    sys.stdout.write("somebody else\n")
    worker.join()

    assert "somebody else\n" == capsys.readouterr().out


@every_algorithm
def test_everything_frozen_is_refused(case: Case) -> None:
    """There must be something to change."""
    agent = agent_of()
    problem = problem_of(case.algorithm(), agent, case.options, frozen=list(agent.baseline.components))

    with pytest.raises(InvalidRequestError, match="all of shouter are frozen"):
        case.algorithm().search(problem, FakeRun(agent))


@every_algorithm
@pytest.mark.parametrize("empty", ["train", "val"])
def test_an_empty_split_is_refused(case: Case, empty: str) -> None:
    """There must be something to learn from and something to compare on."""
    agent = agent_of()
    problem = problem_of(case.algorithm(), agent, case.options, **{empty: 0})

    with pytest.raises(InvalidRequestError, match=f"examples are wanted in the {empty} split"):
        case.algorithm().search(problem, FakeRun(agent))


def test_an_agent_that_is_no_program_is_refused() -> None:
    """Others may run without DSPy; DSPy cannot optimize them."""
    case = CASES[1]
    problem = case.problem()

    class Elsewhere:
        config = problem.agent
        baseline = problem.baseline
        frozen: frozenset[ComponentName] = frozenset()

        def run(self, *_: object) -> Prediction:
            return Prediction(outputs={})

    object.__setattr__(problem, "runnable", Elsewhere())

    with pytest.raises(InvalidRequestError, match="an agent is wanted that runs as a DSPy program"):
        case.algorithm().search(problem, FakeRun(agent_of()))


class Mute(Shouter):
    """Never proposes anything."""

    def answer(self, role: Role, request: ModelRequest) -> str:
        return "" if role is Role.REFLECTION else super().answer(role, request)


@every_proposing_algorithm
def test_a_mute_proposer_costs_no_more_than_the_proposals(case: Case) -> None:
    """Algorithms go on without proposals, or say what they lack."""
    problem = case.problem()
    run = FakeRun(problem.runnable, model=Mute())
    if case.algorithm in (COPRO,):
        with pytest.raises(AlgorithmError, match="a stronger model for the role reflection"):
            case.algorithm().search(problem, run)
        return
    case.algorithm().search(problem, run)

    assert run.submitted


class Rambling(Shouter):
    """Proposes, but never in the format."""

    def answer(self, role: Role, request: ModelRequest) -> str:
        said = super().answer(role, request)
        return said if role is Role.TASK or "JSON" in str(request.body) else "SHOUT the word, always."


@pytest.mark.parametrize("case", [case for case in CASES if case.algorithm in (MIPROv2, COPRO, InferRules)])
def test_a_proposal_without_the_format_is_still_a_proposal(case: Case) -> None:
    """What a small model writes is tried out as it is."""
    problem = case.problem()
    run = searched(case, problem, model=Rambling())
    said = {part.instructions for one, *_ in run.recorded for part in one.components.values()}

    assert any("SHOUT the word, always." in text for text in said)


def test_parents_are_named() -> None:
    """Lineage: what is found comes from the baseline, or from what it was made of."""
    case = CASES[2]
    problem = case.problem()
    run = searched(case, problem)

    assert all(one.parents == (problem.baseline.fingerprint,) for one in run.submitted if one != problem.baseline)
    assert {one.origin for one, *_ in run.recorded} <= {"baseline", "bootstrap_random_search"}


def test_usage_counts_calls_whether_paid_or_known() -> None:
    """Operational metrics read what a run took; a replay takes the same."""
    case = CASES[2]
    ledger = Ledger()
    first, again = (searched(case, case.problem(), ledger=ledger) for _ in range(2))

    assert first.recorded == again.recorded
    assert {result.usage.lm_calls for _, _, results, _ in first.recorded for result in results} == {1}
    assert {result.usage.prompt_tokens for _, _, results, _ in first.recorded for result in results} == {10}


def test_a_test_split_is_really_there() -> None:
    """The words that no test hands out exist; else the check above would check nothing."""
    assert ExampleId(examples(WORDS[-1:])[0].id) not in {example.id for example in CASES[0].problem().val}


def test_slow_calls_are_made_at_once() -> None:
    """Evaluations and bootstrapping keep several calls in flight."""
    case = CASES[1]
    run = searched(case, case.problem(), latency_seconds=0.005)

    assert run.most_in_flight > 1


@pytest.mark.parametrize("kind", [AgentKind.PREDICT, AgentKind.PIPELINE])
@every_algorithm
def test_no_search_takes_more_than_was_forecast(case: Case, kind: AgentKind) -> None:
    """What is paid stays below the estimate, and the estimate is no fantasy: within twenty times of it."""
    problem = case.problem(kind=kind)
    run = FakeRun(problem.runnable)
    components = len(problem.baseline.components)

    forecast = case.algorithm().forecast(case.options, Shape(n_train=8, n_val=6, n_components=components))
    case.algorithm().search(problem, run)
    run.best(problem)

    expected = forecast.runs * components + forecast.proposals
    assert len(run.paid) <= expected <= 20 * len(run.paid)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.algorithm.name)
def test_a_search_keeps_how_components_are_asked(case: Case) -> None:
    """Every trial and result has the model, parameters and kind that the baseline had, and every call went there."""
    told = {
        ComponentName("first"): ComponentSettings(model="large", parameters={"temperature": 0.25, "max_tokens": 77}),
        ComponentName("second"): ComponentSettings(kind="chain_of_thought"),
    }
    config = replace(
        config_of(AgentKind.PIPELINE), components={name: Component(how=settings) for name, settings in told.items()}
    )
    agent = DspyAgents(Parts(), Surroundings(models=frozenset({"large"}))).build(config)
    asked: list[tuple[bool, str | None, object, bool]] = []

    class Listening(Shouter):
        def answer(self, role: Role, request: ModelRequest) -> str:
            if role is Role.TASK:
                system = str(request.body["messages"])
                asked.append(
                    ("`draft` (str):" in system.split("All interactions")[0].split("output fields")[1],
                     request.model, request.body.get("max_tokens"), "`reasoning`" in system)
                )  # fmt: skip
            return super().answer(role, request)

    run = FakeRun(agent, model=Listening())
    problem = problem_of(case.algorithm(), agent, case.options, train=8, val=6)

    case.algorithm().search(problem, run)

    found = [candidate for candidate, *_ in run.recorded] + run.submitted
    assert found
    for candidate in found:
        assert told == {name: value.settings for name, value in candidate.components.items()}
    assert {(True, "large", 77, False), (False, None, None, True)} == set(asked)
