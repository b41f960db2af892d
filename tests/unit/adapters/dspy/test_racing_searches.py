"""MIPROv2 and GEPA that race: what they may spend, what they name, and that a stop changes nothing of it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from racing_world import Course, searched
from search_world import FakeRun, agent_of, problem_of

from dspy_optimization.adapters.dspy.gepa import COMPLETED, FINALISTS, GEPA, GEPAOptions, _RacingStop
from dspy_optimization.adapters.dspy.miprov2 import RUNS_EACH, MIPROv2, MIPROv2Options, runs_of_trials
from dspy_optimization.agents.candidate import Fingerprint
from dspy_optimization.agents.config import AgentKind
from dspy_optimization.agents.example import ExampleId, Split
from dspy_optimization.algorithms.problem import Algorithm, Shape
from dspy_optimization.errors import AlgorithmError, CancelRequested, InvalidRequestError, TurnOver
from dspy_optimization.testing.memory_ledger import MemoryLedger

N_TRAIN, N_VAL, BLOCK = 16, 24, 8
WHOLE = 22
"""As many words as the small world has beside its train split."""
GEPA_RACING = GEPAOptions(iterations=1_000, evaluation="racing", val_block=BLOCK)
MIPRO_RACING = MIPROv2Options(candidates=5, trials=30, search="racing")
both = pytest.mark.parametrize(
    ("algorithm", "options"), [(GEPA(), GEPA_RACING), (MIPROv2(), MIPRO_RACING)], ids=["gepa", "miprov2"]
)


def measured(course: Course) -> dict[Fingerprint, set[ExampleId]]:
    """Return what each candidate met of val."""
    found: dict[Fingerprint, set[ExampleId]] = {}
    for trial in course.trials:
        if trial.split is Split.VAL:
            found.setdefault(trial.candidate.fingerprint, set()).update(one.example_id for one in trial.results)
    return found


@both
@pytest.mark.parametrize("calls", [170, 300])
def test_a_race_finds_more_than_the_baseline(algorithm: Algorithm, options: object, calls: int) -> None:
    """It ends by itself before the calls do, and the winner has met nearly all of val: the optimizer completes it."""
    course = searched(algorithm, options, calls=calls)
    winner = course.submitted[0]

    assert course.ended is None
    assert 1 == len(course.submitted)
    assert course.paid <= calls
    assert course.world.quality(winner) > course.world.quality(course.baseline) + 0.05
    assert 0.9 * N_VAL <= len(measured(course)[winner.fingerprint])


@both
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_stopped_search_ends_as_if_it_had_not_been(algorithm: Algorithm, options: object, share: float) -> None:
    """Resume is to search again on the same ledger: same trials, same words, same winner, nothing paid twice."""
    whole = searched(algorithm, options, calls=200)
    ledger = MemoryLedger()
    stopped = searched(algorithm, options, calls=200, ledger=ledger, stop_at_answer=max(1, int(share * whole.paid)))
    again = searched(algorithm, options, calls=200, ledger=ledger)

    assert isinstance(stopped.ended, CancelRequested)
    assert whole.content == again.content
    assert whole.paid == stopped.paid + again.paid


@both
def test_answers_may_come_in_any_order(algorithm: Algorithm, options: object) -> None:
    """One at a time and four at once."""
    alone, together = (searched(algorithm, options, calls=200, concurrency=one) for one in (1, 4))

    assert alone.content == together.content


def test_runs_of_several_calls_are_counted_as_such() -> None:
    """Two components take two calls: whoever counts runs alone asks for more than there is. Nobody stops it here."""
    agent = agent_of(AgentKind.PIPELINE)
    run = FakeRun(agent, allowance=160)
    options = replace(MIPRO_RACING, candidates=4)
    MIPROv2().search(problem_of(MIPROv2(), agent, options, train=12, val=16), run)

    assert 120 < len(set(run.asked)) <= 160
    assert any(one.phase == "raced" for one in run.progress)


@pytest.mark.parametrize("calls_a_run", [1, 3])
def test_gepa_keeps_calls_for_whole_runs(calls_a_run: int) -> None:
    """Of 500 runs' worth of calls a fifth is kept, and what an iteration takes at most: two minibatches and a block."""
    agent = agent_of()
    counter = SimpleNamespace(calls_left=500 * calls_a_run)
    stop = _RacingStop(replace(GEPA_RACING, merge=False), problem_of(GEPA(), agent, val=WHOLE), counter)
    counter.calls_left -= WHOLE * calls_a_run
    state = SimpleNamespace(i=0, total_num_evals=WHOLE)
    kept = min(100, COMPLETED * (WHOLE - BLOCK))

    assert not stop(state)
    for runs, over in ((kept + 6 + BLOCK + 1, False), (kept + 6 + BLOCK - 1, True)):
        counter.calls_left = runs * calls_a_run

        assert over is stop(state)
        assert min(runs, COMPLETED * (WHOLE - BLOCK)) == stop.runs_for_race


def test_nobody_is_raced_on_what_it_has_met() -> None:
    """It would be free, but counted and recorded twice."""
    course = searched(GEPA(), GEPA_RACING, calls=300)
    last = course.told("raced")[0].iteration
    met: dict[bool, set[tuple[Fingerprint, ExampleId]]] = {False: set(), True: set()}
    for trial in course.trials:
        if trial.split is Split.VAL:
            met[trial.iteration == last].update((trial.candidate.fingerprint, one.example_id) for one in trial.results)

    assert met[False]
    assert met[True]
    assert met[False].isdisjoint(met[True])


@pytest.mark.parametrize(
    ("algorithm", "options", "answers"),
    [(GEPA(), GEPA_RACING, 150), (GEPA(), GEPA_RACING, 270), (MIPROv2(), MIPRO_RACING, 270)],
    ids=["gepa, evolving", "gepa, racing", "miprov2"],
)
def test_who_leads_is_named_when_it_has_to_end(algorithm: Algorithm, options: object, answers: int) -> None:
    """A cap may come before the end: of what was measured something is named, and the reason passes through."""
    course = searched(algorithm, options, calls=300, stop_at_answer=answers)

    assert isinstance(course.ended, CancelRequested)
    assert 1 == len(course.submitted)
    assert course.world.quality(course.submitted[0]) > course.world.quality(course.baseline)


def test_a_child_meets_a_block_and_finalists_the_rest() -> None:
    """That is what is saved: most candidates never meet all of val."""
    course = searched(GEPA(), GEPA_RACING, calls=300)
    met = sorted(len(one) for one in measured(course).values())
    sizes = [len(trial.results) for trial in course.trials if trial.split is Split.VAL]
    last = max(trial.iteration for trial in course.trials)
    raced = [trial for trial in course.trials if trial.iteration == last and trial.split is Split.VAL]
    whole = searched(GEPA(), replace(GEPA_RACING, evaluation="full"), calls=300)

    assert [N_VAL] + [BLOCK] * (len(sizes) - len(raced) - 1) == sizes[: len(sizes) - len(raced)]
    assert met[0] < N_VAL == met[-1]
    assert len(met) > 1.5 * len(measured(whole))


def test_gepa_keeps_a_fifth_of_the_calls_for_the_race() -> None:
    """And uses it."""
    course = searched(GEPA(), GEPA_RACING, calls=300)
    evaluations = int(str(course.told("raced")[0].data["evaluations"]))
    rows = int(str(course.told("raced")[0].data["candidates"]))

    assert 0.15 * 300 <= evaluations <= COMPLETED * (N_VAL - BLOCK)
    assert 0.7 * 300 <= course.paid - evaluations <= 0.8 * 300
    assert 2 <= rows <= FINALISTS


def test_what_is_shown_was_measured() -> None:
    """Every score that is told is the mean of what one candidate got on so many examples."""
    course = searched(GEPA(), GEPA_RACING, n_train=40, n_val=40, calls=400)
    told = [one for one in course.reports if one.phase == "iteration"]

    assert told
    for one in told:
        right = float(one.score or 0.0) * int(str(one.data["examples"]))
        assert abs(right - round(right)) < 1e-9
    assert any("wanted: at least 100 cells of 8 candidates" in str(one.data["surrogate_doubt"]) for one in told)
    assert told[-1].data["surrogate_doubt"] is None


@pytest.mark.parametrize("cap", [60, 90, 150])
@pytest.mark.parametrize("width", [1, 2])
def test_the_cap_on_metric_calls_holds_with_the_race(cap: int, width: int) -> None:
    """Runs of the race count too."""
    options = replace(GEPA_RACING, max_metric_calls=cap, proposals_per_iteration=width)
    course = searched(GEPA(), options)

    assert cap >= sum(len(trial.results) for trial in course.trials)
    assert course.submitted


def test_a_val_split_no_larger_than_a_block_is_not_raced_on() -> None:
    """All have met all of it; the best is named."""
    course = searched(GEPA(), replace(GEPA_RACING, iterations=6, val_block=40))
    scores = {
        trial.candidate.fingerprint: trial.score
        for trial in course.trials
        if trial.split is Split.VAL and len(trial.results) == N_VAL
    }

    assert [] == course.told("raced")
    assert max(scores.values()) == scores[course.submitted[0].fingerprint]


def test_objectives_have_no_front_on_a_part_of_val() -> None:
    """Means of different examples would be compared."""
    with pytest.raises(InvalidRequestError, match=r"frontier: wanted: instance.*found: objective"):
        GEPAOptions(evaluation="racing", frontier="objective")
    with pytest.raises(InvalidRequestError, match="val_block: wanted 2"):
        GEPAOptions(val_block=1)


def test_children_of_two_components_may_be_merged() -> None:
    """Merging goes on, on what two candidates have both met."""
    agent = agent_of(AgentKind.PIPELINE)
    options = replace(GEPA_RACING, iterations=14, val_block=6, skip_perfect_minibatches=False)
    run = FakeRun(agent)
    GEPA().search(problem_of(GEPA(), agent, options, train=12, val=12), run)

    assert run.submitted


@pytest.mark.parametrize(
    ("options", "n_val"),
    [
        (MIPROv2Options(candidates=8, trials=7, minibatch_size=5, full_evaluation_steps=3), 12),
        (MIPROv2Options(candidates=8, trials=6, minibatch_size=5, full_evaluation_steps=3), 12),
        (MIPROv2Options(candidates=8, trials=6, minibatch_size=12), 12),
        (MIPROv2Options(auto="light"), 12),
    ],
    ids=["rest", "even", "no minibatches", "auto"],
)
def test_a_race_may_cost_what_trials_would(options: MIPROv2Options, n_val: int) -> None:
    """Counted on a search with trials: no full evaluation was left out, so it took them all."""
    trials = searched(MIPROv2(), options, n_val=n_val)
    taken = sum(len(trial.results) for trial in trials.trials if trial.split is Split.VAL)
    raced = searched(MIPROv2(), replace(options, search="racing"), n_val=n_val)
    evaluations = int(str(raced.told("combinations")[0].data["evaluations"]))

    assert taken == evaluations
    assert int(str(raced.told("raced")[0].data["evaluations"])) <= evaluations


def test_minibatches_and_full_evaluations_are_counted() -> None:
    """By hand: 7 trials of 5, the default program, and full evaluations after 3, 6 and at the end, of 20 each."""
    assert 7 * 5 + 4 * 20 == runs_of_trials(7, 20, minibatch=5, full_evaluation_steps=3)
    assert 8 * 20 == runs_of_trials(7, 20, minibatch=None, full_evaluation_steps=3)


@pytest.mark.parametrize("auto", ["light", "medium", None])
def test_the_forecast_covers_the_race(auto: str | None) -> None:
    """What a search takes at most, bootstrapping and the winner's completion included."""
    options = MIPROv2Options(auto=auto, search="racing") if auto else MIPRO_RACING
    course = searched(MIPROv2(), options)
    forecast = MIPROv2().forecast(options, Shape(n_train=N_TRAIN, n_val=N_VAL, n_components=1))

    assert course.paid <= forecast.runs + forecast.proposals
    evaluations = int(str(course.told("combinations")[0].data["evaluations"]))
    assert evaluations + N_VAL <= forecast.runs


def test_gepas_forecast_covers_the_race() -> None:
    """Blocks for children, all of val for the first one, and as many as complete four."""
    options = replace(GEPA_RACING, iterations=20)
    course = searched(GEPA(), options)
    forecast = GEPA().forecast(options, Shape(n_train=N_TRAIN, n_val=N_VAL, n_components=1))

    assert sum(len(trial.results) for trial in course.trials) <= forecast.runs
    assert course.paid <= forecast.runs + forecast.proposals


def test_fewer_combinations_race_when_calls_are_few() -> None:
    """Each gets so many runs on average, or it does not run at all."""
    course = searched(MIPROv2(), MIPRO_RACING, calls=150)
    raced = course.told("raced")[0].data
    rows, evaluations = int(str(raced["candidates"])), int(str(raced["evaluations"]))

    assert rows < int(str(course.told("combinations")[0].data["drawn"]))
    assert evaluations / rows >= 0.8 * RUNS_EACH
    assert course.baseline.fingerprint in measured(course)


def test_calls_that_end_before_the_race_are_no_error_of_it() -> None:
    """The turn is over; a larger one goes on."""
    assert isinstance(searched(MIPROv2(), MIPRO_RACING, calls=40).ended, TurnOver)


def test_calls_for_no_race_are_refused() -> None:
    """The smallest race is one of two."""
    whole = searched(MIPROv2(), MIPRO_RACING)
    calls = whole.paid - int(str(whole.told("raced")[0].data["evaluations"]))

    with pytest.raises(AlgorithmError, match="wanted: a budget for 4 runs on val at least"):
        searched(MIPROv2(), MIPRO_RACING, calls=calls + 12)
