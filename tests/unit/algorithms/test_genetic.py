"""The search as a whole, in a world whose truth is known."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from benchmarks.simulated_agent import rule_text
from evolution_world import ANSWER, RIGHT, SHORT, Course, Place, PlainAgent, Truth, searched
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import PARAMETERS, Choices
from dspy_optimization.agents.example import Split
from dspy_optimization.algorithms.genetic import Genetic
from dspy_optimization.algorithms.genetic_options import GeneticOptions
from dspy_optimization.algorithms.problem import Shape
from dspy_optimization.algorithms.registry import AlgorithmRegistry
from dspy_optimization.compute.ranking import fronts
from dspy_optimization.errors import AlgorithmError, CancelRequested, InvalidRequestError, TurnOver
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.events import Json
from dspy_optimization.testing.memory_ledger import MemoryLedger
from dspy_optimization.testing.scripted_model import ScriptedModel

SMALL = GeneticOptions(
    evaluations=150,
    population=40,
    islands=2,
    generations=3,
    initial=8,
    block=5,
    newcomers=3,
    demo_pool=8,
    bootstrap_examples=8,
    instructions=2,
    finalists=4,
)
PLACE = Place()


def evolved(place: Place = PLACE, options: GeneticOptions = SMALL, **more: object) -> Course:
    found = searched(place, Genetic(), options, **more)  # type: ignore[arg-type]
    assert [] == found.run.after_end
    return found


def val_cells(course: Course) -> list[tuple[str, str]]:
    return course.run.cells


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_somebody_truly_better(seed: int) -> None:
    """On examples that nobody measures on: by a good part of what there is to gain, for a few hundred calls."""
    place = Place(truth=Truth(seed=40 + seed), n_train=40, n_val=40)
    found = evolved(place, replace(SMALL, evaluations=400), seed=seed)

    assert found.ended is None
    room = place.truth.best - place.truth.quality(place.agent.baseline)
    assert found.gain > 0.4 * room


def test_the_same_seed_is_the_same_search() -> None:
    """One at a time or eight at once, answers in whatever order; another seed is another search."""
    straight = evolved(options=replace(SMALL, evaluations=200), concurrency=1)
    others = [
        evolved(options=replace(SMALL, evaluations=200), concurrency=8, shuffled=order) for order in ("one", "other")
    ]

    assert straight.ended is None
    for other in others:
        assert straight.content == other.content
    assert straight.content != evolved(options=replace(SMALL, evaluations=200), seed=8).content


@pytest.mark.parametrize("calls", [1, 3, 12, 30, 61, 100, 140])
def test_a_turn_ends_with_the_best_known(calls: int) -> None:
    """However few calls it has; and asks nothing after the end."""
    found = evolved(calls=calls, options=replace(SMALL, evaluations=None))

    assert len(found.run.asked) <= calls + 1  # the one that is refused is asked, too
    assert found.paid <= calls
    if isinstance(found.ended, AlgorithmError):
        assert "genetic: wanted: a budget for 3 candidates on 5 examples at least, 15 runs; found: " in str(found.ended)
        assert calls < 60
        return
    assert found.ended is None or isinstance(found.ended, TurnOver)
    assert found.run.submitted
    measured = {one.candidate.fingerprint for one in found.run.trials if one.split is Split.VAL}
    assert found.best.fingerprint in measured | {PLACE.agent.baseline.fingerprint}


@pytest.mark.parametrize("stop_at_call", [1, 2, 9, 20, 33, 60, 95, 130])
def test_whoever_ends_it_finds_the_best_known_submitted(stop_at_call: int) -> None:
    """Cancelled at any call: during seeding, the first candidates, a round, the finals."""
    found = evolved(stop_at_call=stop_at_call, concurrency=1)

    assert isinstance(found.ended, CancelRequested)
    assert found.paid < stop_at_call
    assert 1 == len(found.run.submitted)
    means = {
        who: sum(one.scores["right"].value for one in of.values()) / len(of) for who, of in found.run.answered.items()
    }
    assert not means or means[found.best.fingerprint] >= sorted(means.values())[-3:][0]


@pytest.mark.parametrize("concurrency", [1, 8])
def test_it_goes_on_where_it_was_ended(concurrency: int) -> None:
    """On the same ledger only what is missing is paid, and it ends as one that was never ended."""
    straight = evolved(concurrency=concurrency)
    ledger, paid = MemoryLedger(), 0
    for stop_at_call in (7, 40, 90):
        ended = evolved(concurrency=concurrency, ledger=ledger, stop_at_call=stop_at_call)
        assert isinstance(ended.ended, CancelRequested)
        paid += ended.paid
    last = evolved(concurrency=concurrency, ledger=ledger)

    assert last.ended is None
    assert straight.content == last.content
    assert straight.paid == paid + last.paid
    again = evolved(concurrency=concurrency, ledger=ledger)
    assert 0 == again.paid
    assert straight.content == again.content


def test_a_longer_turn_begins_as_the_shorter_one_and_pays_less() -> None:
    """The next turn of a portfolio is the same search with more calls; the ledger knows what the first asked."""
    ledger = MemoryLedger()
    short = evolved(calls=80, options=replace(SMALL, evaluations=None), ledger=ledger)
    long = evolved(calls=160, options=replace(SMALL, evaluations=None), ledger=ledger)

    assert short.paid > 60
    assert long.paid <= 160 - short.paid * 0.3
    assert long.gain >= short.gain - 0.1


def test_every_cell_is_run_once_and_only_what_was_paid_is_a_score() -> None:
    """What the model expects never stands in a trial: each result is the agent's own answer, scored."""
    found = evolved(options=replace(SMALL, evaluations=400))

    assert 1 == max(Counter(val_cells(found)).values())
    assert 400 >= len(val_cells(found)) > 330
    results = found.on_val()
    assert len(val_cells(found)) == sum(len(of) for of in results.values())
    candidates = {one.candidate.fingerprint: one.candidate for one in found.run.trials}
    truth = {one.id: one for one in PLACE.val}
    for who, of in results.items():
        for example_id, result in of.items():
            assert result.outputs["answer"] in ("A", truth[example_id].expected["answer"])
            assert float(result.outputs["answer"] != "A") == result.scores["right"].value
        assert candidates[who].components[ANSWER].instructions
    assert any(one.data.get("population") for one in found.run.reports)


shapes = st.fixed_dictionaries(
    {
        "evaluations": st.integers(10, 70),
        "n_val": st.integers(1, 25),
        "n_train": st.integers(0, 12),
        "block": st.integers(2, 12),
        "finalists": st.integers(2, 9),
        "newcomers": st.integers(1, 6),
        "proposals": st.sampled_from((None, 0, 1, 3, 40)),
        "drafts": st.integers(1, 3),
        "share": st.sampled_from((0.05, 0.2, 0.9)),
        "surrogate": st.booleans(),
        "components": st.sampled_from((0, 1)),
        "seed": st.integers(0, 99),
    }
)


def small_of(shape: Mapping[str, int]) -> tuple[Place, GeneticOptions]:
    place = Place(
        agent=PlainAgent(before=("read",) * shape["components"]), n_val=shape["n_val"], n_train=shape["n_train"]
    )
    options = replace(
        SMALL,
        evaluations=shape["evaluations"],
        block=shape["block"],
        finalists=shape["finalists"],
        newcomers=shape["newcomers"],
        proposals=shape["proposals"],
        drafts=shape["drafts"],
        final_share=float(shape["share"]),
        surrogate=bool(shape["surrogate"]),
        population=16,
        generations=1,
        patience=6,
    )
    return place, options


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=shapes)
def test_no_search_takes_more_than_it_said(shape: Mapping[str, int]) -> None:
    """Runs on val at most as the options say; runs and proposals at most as the forecast says, whatever the shape."""
    place, options = small_of(shape)
    found = evolved(place, options, seed=shape["seed"])
    parts = 1 + shape["components"]
    forecast = Genetic().forecast(options, Shape(n_train=len(place.train), n_val=len(place.val), n_components=parts))

    assert found.ended is None or isinstance(found.ended, AlgorithmError)
    assert len(val_cells(found)) <= max(shape["evaluations"], 1)
    assert len(found.asked_of(Role.REFLECTION)) <= forecast.proposals
    train = sum(len(one.results) for one in found.run.trials if one.split is Split.TRAIN)
    missing = sum(len(place.val) - len(found.on_val().get(one.fingerprint, ())) for one in found.run.submitted)
    assert len(val_cells(found)) + train + missing <= forecast.runs
    assert len(found.asked_of(Role.TASK)) <= parts * forecast.runs
    for one in found.run.reports:
        for value in one.data.values():
            assert not isinstance(value, float) or math.isfinite(value)
    if found.ended is None:
        assert found.run.submitted


@pytest.mark.parametrize(("n_val", "evaluations"), [(60, 60), (60, 100), (60, 150), (30, 150), (12, 150), (100, 300)])
def test_what_may_be_measured_is_measured(n_val: int, evaluations: int) -> None:
    """Little more than a block or two is left over, also where two candidates cannot be completed."""
    found = evolved(Place(n_val=n_val), replace(SMALL, evaluations=evaluations, finalists=16, patience=1_000))

    assert 0.85 * evaluations < len(val_cells(found)) <= evaluations


def test_an_agent_of_two_calls_lasts_for_half_as_many_runs() -> None:
    place = Place(agent=PlainAgent(before=("read",)))
    found = evolved(place, replace(SMALL, evaluations=None), calls=300)

    assert found.ended is None
    assert 0.75 * 300 < len(found.run.asked) <= 300
    assert len(val_cells(found)) <= 150


@pytest.mark.parametrize("surrogate", [True, False])
def test_with_and_without_the_model_newcomers_come_from_the_best(surrogate: bool) -> None:
    found = evolved(options=replace(SMALL, evaluations=500, surrogate=surrogate))
    told = [one.data for one in found.run.reports if one.phase == "round"]
    operators = told[-1]["operators"]
    assert isinstance(operators, dict)

    def tries(name: str) -> int:
        of = operators[name]  # type: ignore[index]
        assert isinstance(of, dict)
        return int(of["tries"])  # type: ignore[arg-type]

    assert found.ended is None
    assert found.gain > 0.2
    if surrogate:
        assert tries("champion") > 5
        assert any(one["surrogate_trust"] > 0.3 for one in told)  # type: ignore[operator]
    else:
        assert 0 == tries("champion")
        assert tries("child") > tries("stranger")
        assert {"switched off"} == {one["surrogate_doubt"] for one in told}


@pytest.mark.parametrize("surrogate", [True, False])
def test_two_goals_submit_a_front(surrogate: bool) -> None:
    """Right answers and short prompts: the best by weight, and whoever is complete and not dominated."""
    place = Place(goals=(RIGHT, replace(SHORT, weight=0.3)), scales={"tokens": 30.0}, n_val=20)
    found = evolved(place, replace(SMALL, evaluations=400, surrogate=surrogate))
    complete = {who: of for who, of in found.on_val().items() if len(of) == 20}
    losses = {
        who: (
            -sum(one.scores["right"].value for one in of.values()) / 20,
            sum(one.scores["tokens"].value for one in of.values()) / 20,
        )
        for who, of in complete.items()
    }
    front = {who for who, at in zip(losses, fronts(list(losses.values())), strict=True) if at == 0}

    assert found.ended is None
    assert front <= {one.fingerprint for one in found.run.submitted}
    assert {one.fingerprint for one in found.run.submitted[1:]} <= front
    assert len(front) >= 2


def test_a_guardrail_is_not_hurt() -> None:
    """Prompts may not become more than a tenth longer than the baseline's: what is submitted keeps to it."""
    place = Place(goals=(RIGHT, replace(SHORT, guardrail=True, margin=2.0)), scales={"tokens": 20.0}, n_val=20)
    found = evolved(place, replace(SMALL, evaluations=300))
    of = found.on_val()[found.best.fingerprint]

    assert sum(one.scores["tokens"].value for one in of.values()) / len(of) <= 60.0
    long = [
        who
        for who, results in found.on_val().items()
        if sum(one.scores["tokens"].value for one in results.values()) / len(results) > 60.0
    ]
    assert long  # it met some that hurt it


def test_three_goals_are_searched() -> None:
    """With niches."""
    third = replace(RIGHT, metric="tokens2")

    class Long:
        name = "tokens2"
        floor = 0.0
        ceiling: float | None = None

        def score(self, example: object, prediction: object) -> object:
            from dspy_optimization.agents.metric import Score

            return Score(value=min(prediction.usage.prompt_tokens / 500.0, 1.0))  # type: ignore[attr-defined]

    place = Place(
        goals=(RIGHT, SHORT, third),
        scales={"tokens": 30.0},
        metrics=(*PLACE.metrics, Long()),  # type: ignore[arg-type]
        n_val=12,
    )
    found = evolved(place, replace(SMALL, evaluations=150))

    assert found.ended is None
    assert len(found.run.submitted) > 1


class Constant(ScriptedModel):
    """Right always, or never; writes texts all the same."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        self._right = right
        self._real = place_model()

    def complete(self, request: ModelRequest) -> ModelResponse:
        messages = request.body["messages"]
        assert isinstance(messages, list)
        last = messages[-1]
        assert isinstance(last, dict)
        content = str(last["content"])
        if "<instruction>" in content:
            return self._real.complete(request)
        number = content.rpartition("Q")[2]
        return answered(f"A{number}" if self._right else "A")


def place_model() -> ScriptedModel:
    return ScriptedModel(lambda request: f"<instruction>Text of {request.sample}</instruction>")


def answered(text: str) -> ModelResponse:
    from dspy_optimization.testing.scripted_model import chat_response

    return chat_response(f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]")


@pytest.mark.parametrize("right", [True, False])
def test_where_all_are_alike_it_ends_before_its_budget(right: bool) -> None:
    """Nothing gets better: the finals begin, and the baseline is as good as anybody."""
    found = evolved(Place(model=Constant(right)), replace(SMALL, evaluations=600, patience=3))

    assert found.ended is None
    assert len(val_cells(found)) < 400
    assert found.run.submitted
    for one in found.run.reports:
        assert "nan" not in str(one.data)


@pytest.mark.parametrize(
    ("place", "options"),
    [
        (Place(n_train=0), SMALL),
        (Place(n_val=1), SMALL),
        (Place(n_val=3), SMALL),
        (Place(n_train=0, n_val=2), replace(SMALL, proposals=0, evaluations=12)),
        (PLACE, replace(SMALL, demos=0)),
        (PLACE, replace(SMALL, demo_pool=0, proposals=0, bootstrap_examples=0, vary=("demos",), evaluations=20)),
        (PLACE, replace(SMALL, population=4, islands=2)),
        (PLACE, replace(SMALL, initial=2, newcomers=1)),
        (PLACE, replace(SMALL, islands=1)),
        (PLACE, replace(SMALL, proposals=0)),
    ],
)
def test_small_problems(place: Place, options: GeneticOptions) -> None:
    """No train examples, one val example, fewer than a block, nothing to show, nobody who writes."""
    found = evolved(place, options)

    if isinstance(found.ended, AlgorithmError):
        assert "wanted: a candidate beside the baseline; found: no demos, texts or settings" in str(found.ended)
        assert len(val_cells(found)) <= options.block
        return
    assert found.ended is None
    assert found.run.submitted
    assert len(val_cells(found)) <= 150


def test_where_nothing_can_be_made_it_says_so() -> None:
    """Only the baseline is there, and nobody writes: no calls are spent on measuring it again."""
    options = replace(SMALL, proposals=0)
    for place, vary in ((Place(n_train=0), ("instructions", "demos")), (PLACE, ("instructions",))):
        found = evolved(place, replace(options, vary=vary))  # type: ignore[arg-type]
        assert "genetic: wanted: a candidate beside the baseline; found: no demos" in str(found.ended)
        assert len(val_cells(found)) == 5


def test_where_everything_is_frozen_it_says_so() -> None:
    found = evolved(Place(agent=PlainAgent(frozen=("answer",))))

    assert isinstance(found.ended, AlgorithmError)
    assert "genome: wanted: something to vary; found: every component is frozen" in str(found.ended)
    assert 0 == found.paid


def test_frozen_components_stay_and_settings_that_vary_do() -> None:
    """Temperatures are tried where they may be; a frozen step keeps its text."""
    choices = {ANSWER: Choices(parameters={"temperature": PARAMETERS["temperature"]})}
    agent = PlainAgent(before=("read",), frozen=("read",), choices=choices)
    found = evolved(Place(agent=agent), replace(SMALL, vary=("instructions", "demos", "temperature")))

    assert found.ended is None
    read = agent.baseline.components[ComponentName("read")]
    assert {read} == {one.candidate.components[ComponentName("read")] for one in found.run.trials} or all(
        read == one.candidate.components[ComponentName("read")] for one in found.run.trials
    )
    warmth = {one.candidate.components[ANSWER].settings.parameters.get("temperature") for one in found.run.trials}
    assert len(warmth) >= 3


def test_the_baseline_may_show_more_demos_than_there_are_places() -> None:
    demos: tuple[Mapping[str, Json], ...] = tuple({"question": f"Q{n}", "answer": f"A{n}"} for n in range(6))
    agent = PlainAgent(value=ComponentValue(instructions="Answer the question.", demos=demos))
    found = evolved(Place(agent=agent), replace(SMALL, demos=2))

    assert found.ended is None
    assert found.run.submitted


def test_a_budget_too_small_is_said_before_candidates_are_run() -> None:
    found = evolved(options=replace(SMALL, evaluations=14))

    assert isinstance(found.ended, AlgorithmError)
    assert (
        "genetic: wanted: a budget for 3 candidates on 5 examples at least, 15 runs; found: 14; possible: more calls, "
        "a smaller block, or bootstrap_fewshot"
    ) == str(found.ended)
    assert 5 == len(val_cells(found))


@pytest.mark.parametrize(
    ("given_options", "said"),
    [
        ({"evaluations": 9}, "evaluations: wanted 10 or more; found 9"),
        ({"population": 7}, "population: wanted 8 or more; found 7"),
        ({"islands": 0}, "islands: wanted 1 or more; found 0"),
        ({"block": 1}, "block: wanted 2 or more; found 1"),
        ({"initial": 1}, "initial: wanted 2 or more"),
        ({"newcomers": 0}, "newcomers: wanted 1 or more"),
        ({"finalists": 1}, "finalists: wanted 2 or more"),
        ({"generations": 0}, "generations: wanted 1 or more"),
        ({"age_limit": 0}, "age_limit: wanted 1 or more"),
        ({"patience": 0}, "patience: wanted 1 or more"),
        ({"drafts": 0}, "drafts: wanted 1 or more"),
        ({"demos": -1}, "demos: wanted 0 or more; found -1"),
        ({"demo_pool": -1}, "demo_pool: wanted 0 or more"),
        ({"bootstrap_examples": -1}, "bootstrap_examples: wanted 0 or more"),
        ({"instructions": -1}, "instructions: wanted 0 or more"),
        ({"proposals": -1}, "proposals: wanted 0 or more; found -1"),
        ({"final_share": 1.0}, "final_share: wanted: above 0 and below 1; found: 1"),
        ({"final_share": 0.0}, "final_share: wanted: above 0 and below 1; found: 0"),
        ({"proposal_temperature": 0.0}, "proposal_temperature: wanted more than 0"),
        ({"vary": []}, "vary: wanted: at least one gene; found: none"),
        ({"vary": ["colour"]}, "vary"),
        ({"mutation": 0.1}, "mutation"),
    ],
)
def test_options_that_make_no_search_are_refused(given_options: dict[str, Json], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        AlgorithmRegistry.of_environment().options("genetic", given_options)


def test_what_others_found_before_is_bred_from() -> None:
    """In any order; what the genes cannot say, more demos than there are places, is left out; off by one option."""
    helping = [rule for rule in range(16) if PLACE.truth.rules[rule] > 0.1]
    value = ComponentValue(instructions=" ".join(rule_text(rule) for rule in helping))
    good = Candidate(components={ANSWER: value})
    shown = tuple({**one.inputs, **one.expected} for one in PLACE.train[: SMALL.demos + 1])
    wide = Candidate(components={ANSWER: replace(value, demos=shown)})

    found = evolved(known=(good, wide))
    measured = {one.candidate.fingerprint for one in found.run.trials}

    assert good.fingerprint in measured
    assert wide.fingerprint not in measured
    assert found.gain >= PLACE.truth.quality(good) - PLACE.truth.quality(PLACE.agent.baseline) - 1e-9
    assert found.content == evolved(known=(wide, good)).content
    without = evolved(options=replace(SMALL, earlier=False), known=(good,))
    assert evolved().content == without.content
