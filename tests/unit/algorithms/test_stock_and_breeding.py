"""Who was run and what is expected of them; and the newcomers that are made of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from evolution_world import ANSWER, RIGHT, MadeUpRun, Place, Right

from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.agents.example import Example, Prediction, Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.algorithms.beliefs import MEMBERS, ModelBeliefs, PlainBeliefs, expected
from dspy_optimization.algorithms.breeding import WATCHED, Breeding, Newcomer
from dspy_optimization.algorithms.genome import GenePool
from dspy_optimization.algorithms.islands import Islands, IslandTerms
from dspy_optimization.algorithms.measuring import Measurements
from dspy_optimization.algorithms.operators import Operator, OperatorBook
from dspy_optimization.algorithms.problem import Problem
from dspy_optimization.algorithms.proposals import Proposals
from dspy_optimization.algorithms.stock import Standing, Stock
from dspy_optimization.compute.ranking import Floats
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.trial import ExampleResult
from dspy_optimization.testing.scripted_model import chat_response

PLACE = Place(n_val=60)
BASELINE = PLACE.agent.baseline
SAFE = Objective(metric="safe", guardrail=True)
FAST = Objective(metric="fast", weight=3.0)


def of_text(text: str) -> Candidate:
    return Candidate(components={ANSWER: ComponentValue(instructions=text)})


def binary(level: Callable[[Candidate], float]) -> Callable[[Candidate, Example, str], float]:
    """Right or wrong by a draw of its own for each cell; all candidates meet the same luck of an example."""

    def value(candidate: Candidate, example: Example, metric: str) -> float:
        own = np.random.default_rng([int(example.id), int(candidate.fingerprint[:6], 16), len(metric)]).random()
        return float(own < level(candidate))

    return value


@dataclass
class House:
    """A stock with everything around it."""

    run: MadeUpRun
    goals: tuple[Objective, ...] = (RIGHT,)
    surrogate: bool = False
    problem: Problem = field(init=False)
    stock: Stock = field(init=False)

    def __post_init__(self) -> None:
        objectives = Objectives(items=self.goals, scales={"safe": 1.0})
        self.problem = replace(PLACE.problem(None), objectives=objectives)
        pool = GenePool(BASELINE, (), {}, slots=2)
        table = Measurements(self.problem, self.run.as_run)
        self.stock = Stock(pool=pool, table=table, seed=7, surrogate=self.surrogate)
        self.stock.enter(BASELINE)

    def measured(self, texts: Sequence[str], columns: int = 10) -> None:
        rows = [self.stock.enter(of_text(text)) for text in texts]
        self.stock.table.measure({row: range(columns) for row in (0, *rows)}, 1)

    def believe(self, seed: int = 0) -> Standing:
        return self.stock.believe(np.random.default_rng(seed))


def level_of(candidate: Candidate) -> float:
    """What a text says of itself: "0.7 …" is right 7 times of 10."""
    words = candidate.components[ANSWER].instructions.split()
    return float(words[0]) if words[0].replace(".", "").isdigit() else 0.5


def house_of(levels: Sequence[float], columns: int = 10, **more: object) -> House:
    house = House(MadeUpRun(value=binary(level_of)), **more)  # type: ignore[arg-type]
    house.measured([f"{level} number {place}" for place, level in enumerate(levels)], columns)
    return house


def test_what_is_expected_is_no_matter_of_luck() -> None:
    """Draws differ from draw to draw; who is expected to be best does not."""
    house = house_of([0.4, 0.5, 0.6, 0.7] * 6)
    standings = [house.believe(seed) for seed in range(20)]

    assert 1 == len({tuple(one.worth) for one in standings})
    assert 1 == len({one.best for one in standings})
    assert len({tuple(one.draws[0][0]) for one in standings}) > 15
    drawn = np.concatenate([one.draws[0] for one in standings])
    assert np.abs(drawn.mean(axis=0) - standings[0].worth).max() < 0.06


def test_what_was_paid_for_in_full_is_as_it_was() -> None:
    house = house_of([0.2, 0.9], columns=60)
    standing = house.believe()
    means = house.stock.table.means(RIGHT)

    assert means == pytest.approx(standing.worth)
    for draw in standing.draws[0]:
        assert means == pytest.approx(draw)
    assert 2 == standing.best


def test_who_was_measured_on_little_is_drawn_to_the_mean() -> None:
    """Right 2 times of 2 is less than right 45 times of 60, and more is open about it."""
    utilities = np.full((12, 60), np.nan)
    dice = np.random.default_rng(0)
    utilities[:10, :20] = dice.random((10, 20)) < 0.5
    utilities[10, :2] = 1.0
    utilities[11] = np.arange(60) < 45

    beliefs = PlainBeliefs.of(utilities, dice)

    assert beliefs.expected[11] == pytest.approx(0.75)
    assert 0.5 < beliefs.expected[10] < 0.75
    assert beliefs.draws[:, 11].std() < 1e-9 < beliefs.draws[:, 0].std() < beliefs.draws[:, 10].std() + 0.05
    assert (MEMBERS, 12) == beliefs.draws.shape
    assert beliefs.model is None


def test_hard_examples_are_evened_out() -> None:
    """Two equally good rows, one met the hard half of the examples, the other the easy half."""
    utilities = np.full((22, 20), np.nan)
    dice = np.random.default_rng(1)
    utilities[:20] = dice.random((20, 20)) < np.where(np.arange(20) < 10, 0.2, 0.9)
    utilities[20, :10] = np.arange(10) < 2
    utilities[21, 10:] = np.arange(10) < 9

    found = PlainBeliefs.of(utilities, dice).expected

    assert abs(found[20] - found[21]) < 0.08
    assert np.isfinite(found).all()


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_nothing_known_or_all_alike_is_no_nan(value: float) -> None:
    utilities = np.full((9, 30), np.nan)
    utilities[:, :8] = value
    features = np.eye(9)

    for beliefs in (PlainBeliefs.of(utilities, np.random.default_rng(0)), ModelBeliefs.of(features, utilities, seed=1)):
        for one in (beliefs.draws, beliefs.expected, beliefs.information):
            assert np.isfinite(one).all()
        assert 0.0 <= beliefs.draws.min() <= beliefs.draws.max() <= 1.0


def test_a_model_that_foretells_is_used_and_one_that_does_not_is_not() -> None:
    """Demos that help, in all combinations, against texts that have nothing in common."""

    def by_demos(candidate: Candidate) -> float:
        shown = [int(str(demo["q"])) for demo in candidate.components[ANSWER].demos]
        return 0.15 + 0.4 * sum(number < 3 for number in shown)

    house = House(MadeUpRun(value=binary(by_demos)), surrogate=True)
    for number in range(6):
        house.stock.pool.add_demo(ANSWER, {"q": number})
    for row in house.stock.pool.drawn(40, np.random.default_rng(0)).codes:
        house.stock.enter(house.stock.pool.decode(row))
    house.stock.table.measure({row: range(12) for row in range(len(house.stock.table))}, 1)
    good = house.believe()
    bad = house_of(list(np.random.default_rng(2).uniform(0.2, 0.8, 30)), surrogate=True).believe()

    assert good.trust > 0.3
    assert "" == good.reason
    assert 1 == len(good.models)
    assert 0.0 == bad.trust
    assert "features do not foretell" in bad.reason
    assert () == bad.models
    off = house_of([0.5, 0.6]).believe()
    assert (0.0, "switched off", ()) == (off.trust, off.reason, off.models)


def test_a_guardrail_is_foreseen_where_features_tell() -> None:
    """One demo makes answers unsafe: candidates nobody ran that show it are expected to break the guardrail, no others;
    where nothing breaks it, or nothing foretells it, there is no guard."""

    def value(breaks: Callable[[Candidate], bool]) -> Callable[[Candidate, Example, str], float]:
        def found(candidate: Candidate, example: Example, metric: str) -> float:
            shown = [int(str(demo["q"])) for demo in candidate.components[ANSWER].demos]
            level = (0.2 if breaks(candidate) else 0.98) if metric == "safe" else 0.2 + 0.5 * (1 in shown)
            return float(
                np.random.default_rng([int(example.id), int(candidate.fingerprint[:6], 16), len(metric)]).random()
                < level
            )

        return found

    def standing(breaks: Callable[[Candidate], bool]) -> tuple[House, Standing]:
        house = House(MadeUpRun(metrics=("right", "safe"), value=value(breaks)), goals=(RIGHT, SAFE), surrogate=True)
        for number in range(6):
            house.stock.pool.add_demo(ANSWER, {"q": number})
        for row in house.stock.pool.drawn(40, np.random.default_rng(0)).codes:
            house.stock.enter(house.stock.pool.decode(row))
        house.stock.table.measure({row: range(24) for row in range(len(house.stock.table))}, 1)
        return house, house.believe()

    def shows(candidate: Candidate, number: int) -> bool:
        return any(demo["q"] == number for demo in candidate.components[ANSWER].demos)

    house, told = standing(lambda one: shows(one, 3))
    pool = house.stock.pool
    codes = pool.drawn(60, np.random.default_rng(5)).codes
    (guard,) = told.guards
    excess = np.mean([guard.excess(pool.features(codes), one) for one in range(guard.members)], axis=0)
    unsafe = np.array([shows(pool.decode(row), 3) for row in codes])

    assert (excess[unsafe] > 0.5).mean() > 0.9
    assert (excess[~unsafe] < 0.5).mean() > 0.9
    assert () == standing(lambda one: False)[1].guards
    assert () == standing(lambda one: int(one.fingerprint[:2], 16) % 3 == 0)[1].guards


def test_a_model_that_is_not_trusted_is_not_used_by_a_little() -> None:
    """Rank correlations that chance gives texts that have nothing in common are no reason to follow it."""
    standings = [
        house_of(list(np.random.default_rng(seed).uniform(0.2, 0.8, 30)), surrogate=True).believe() for seed in range(4)
    ]
    by_chance = [
        model.calibration.new_rank_correlation
        for one in standings
        if one.reason and (model := one.beliefs[0].model) is not None
    ]

    assert max(by_chance) > 0.05
    assert {0.0} == {one.trust for one in standings if one.reason}


def standing_of(draws: Sequence[Floats], excess: Sequence[float], weights: Sequence[float]) -> Standing:
    beliefs = tuple(PlainBeliefs(draws=one, expected=one.mean(axis=0), information=np.ones(3)) for one in draws)
    total = np.array(weights) / sum(weights)
    return Standing(
        beliefs=beliefs,
        models=(),
        features=0,
        trust=0.0,
        reason="",
        weights=total,
        worth=expected(beliefs) @ total,
        excess=np.array(excess),
    )


def test_guardrails_come_first() -> None:
    """In the order of what is expected as in one that is drawn, with one goal and with two."""
    worth = np.tile([0.9, 0.2, 0.5, 0.95], (MEMBERS, 1))
    other = np.tile([0.3, 0.6, 0.5, 0.95], (MEMBERS, 1))
    excess = [0.0, 0.0, 0.0, 0.5]

    for draws in ([worth], [worth, other]):
        standing = standing_of(draws, excess, [1.0] * len(draws))
        assert standing.best != 3
        for order in (standing.best_first, standing.drawn_order(np.random.default_rng(0))):
            assert 3 == order[-1]
            assert [0, 1, 2, 3] == sorted(order.tolist())
    assert 3 == standing_of([worth], [0.2, 0.2, 0.3, 0.1], [1.0]).best


def test_orders_are_drawn_as_likely_as_somebody_is_better() -> None:
    draws = np.array([[0.5, 0.6, 0.1]] * 6 + [[0.7, 0.6, 0.1]] * 2)
    standing = standing_of([draws], [0.0] * 3, [1.0])
    rng = np.random.default_rng(0)

    first = [int(standing.drawn_order(rng)[0]) for _ in range(400)]

    assert 0.25 == pytest.approx(first.count(0) / 400, abs=0.07)
    assert 0 == first.count(2)
    assert (0.25, 1.0) == (standing.better(0, 0.6), standing.better(1, 0.5))


def test_several_goals_are_weighed_and_make_fronts() -> None:
    """Weights of 1 and 3; who is dominated stands behind the front; who adds most room stands first in a draw."""
    right = np.tile([0.9, 0.1, 0.5, 0.4], (MEMBERS, 1))
    fast = np.tile([0.1, 0.9, 0.5, 0.4], (MEMBERS, 1))
    standing = standing_of([right, fast], [0.0] * 4, [1.0, 3.0])

    assert [0.3, 0.7, 0.5, 0.4] == pytest.approx(standing.worth)
    assert 1 == standing.best
    assert 3 == standing.best_first[-1]
    order = standing.drawn_order(np.random.default_rng(0)).tolist()
    assert 2 == order[0]  # the square that only it covers: 0.16 of 1.1 by 1.1, the corners cover less alone
    assert 3 == order[-1]
    assert 1.0 == standing.better(1, 0.6)


def test_guardrails_are_measured() -> None:
    """A row that is better and not safe is not the best."""

    def value(candidate: Candidate, example: Example, metric: str) -> float:
        unsafe = "unsafe" in candidate.components[ANSWER].instructions
        return (0.0 if unsafe else 1.0) if metric == "safe" else float(unsafe)

    house = House(MadeUpRun(metrics=("right", "safe"), value=value), goals=(RIGHT, SAFE))
    house.measured(["safe", "unsafe"])
    standing = house.believe()

    assert [0.0, 0.0] == standing.excess[:2].tolist()
    assert standing.excess[2] > 1.0
    assert standing.best in (0, 1)


# Newcomers


@dataclass
class Writer(MadeUpRun):
    """Also writes texts, runs the agent and notes trials on train."""

    prompts: list[str] = field(default_factory=list)
    train_trials: list[tuple[str, tuple[ExampleResult, ...]]] = field(default_factory=list)
    same: bool = False

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        if role is Role.TASK:
            return chat_response("[[ ## answer ## ]]\nA1\n")
        self.prompts.append(str(request.body["messages"]))
        text = "as before" if self.same else f"0.{len(self.prompts) % 10} written for {request.sample}"
        return chat_response(f"<instruction>{text}</instruction>")

    def score(self, example: Example, prediction: Prediction) -> Mapping[str, Score]:
        return {"right": Right().score(example, prediction)}

    def record(self, candidate: Candidate, split: Split, results: Sequence[ExampleResult], iteration: int) -> None:
        if split is Split.TRAIN:
            self.train_trials.append((candidate.fingerprint, tuple(results)))
        else:
            super().record(candidate, split, results, iteration)


@dataclass
class Nursery:
    run: Writer = field(default_factory=lambda: Writer(value=binary(level_of)))
    most: int = 100
    drafts: int = 2
    n_train: int = 20
    house: House = field(init=False)
    breeding: Breeding = field(init=False)

    def __post_init__(self) -> None:
        self.house = House(self.run)
        problem = replace(self.house.problem, train=PLACE.train[: self.n_train])
        self.breeding = Breeding(
            problem=problem,
            run=self.run.as_run,
            stock=self.house.stock,
            islands=Islands(pool=self.house.stock.pool, terms=IslandTerms(), goals=1),
            proposals=Proposals(
                agent=problem.agent, calls=self.run.as_run, algorithm="test", temperature=1.0, most=self.most
            ),
            book=OperatorBook(),
            drafts=self.drafts,
            block=10,
        )

    def filled(self, demos: int = 6) -> "Nursery":
        for number in range(demos):
            self.house.stock.pool.add_demo(ANSWER, {"question": f"Q{number}", "answer": f"A{number}"})
        self.house.measured([f"0.{digit} a text" for digit in range(1, 9)])
        return self

    def newcomers(self, count: int, iteration: int = 1) -> list[Newcomer]:
        return self.breeding.newcomers(self.house.believe(), count, iteration)

    @property
    def known(self) -> set[str]:
        return {one.fingerprint for one in self.house.stock.table.candidates}


@pytest.mark.parametrize("most", [0, 100])
def test_newcomers_are_new_and_all_different(most: int) -> None:
    """With and without anybody who writes; as many as wanted; the same again in another house."""
    nursery = Nursery(most=most).filled()
    found = nursery.newcomers(12)

    assert 12 == len(found) == len({one.candidate.fingerprint for one in found})
    assert not nursery.known & {one.candidate.fingerprint for one in found}
    again = Nursery(most=most).filled().newcomers(12)
    assert [(one.candidate.fingerprint, one.operator) for one in found] == [
        (one.candidate.fingerprint, one.operator) for one in again
    ]
    other = nursery.newcomers(12, iteration=2)
    assert {one.candidate.fingerprint for one in found} != {one.candidate.fingerprint for one in other}


def test_without_writers_and_models_most_newcomers_are_children() -> None:
    """Each of other parents' genes: a round has as many as its share, not one and strangers."""
    nursery = Nursery(most=0).filled(demos=12)

    kinds = [one.operator for iteration in range(6) for one in nursery.newcomers(8, iteration)]

    assert kinds.count(Operator.CHILD) >= 0.7 * len(kinds)
    assert set(kinds) <= {Operator.CHILD, Operator.STRANGER}


def test_children_name_their_parents_and_have_their_genes() -> None:
    nursery = Nursery(most=0).filled()
    children = [one.candidate for one in nursery.newcomers(30) if one.operator is Operator.CHILD]
    texts = set(nursery.house.stock.pool.instructions(ANSWER))

    assert children
    for child in children:
        assert set(child.parents) <= nursery.known
        assert 1 <= len(child.parents) <= 2
        assert child.components[ANSWER].instructions in texts
        assert "child of two" == child.origin
    better = [level_of(nursery_candidate(nursery, parent)) for child in children for parent in child.parents]
    assert np.mean(better) > 0.5


def nursery_candidate(nursery: Nursery, fingerprint: str) -> Candidate:
    return next(one for one in nursery.house.stock.table.candidates if one.fingerprint == fingerprint)


def test_written_newcomers_are_their_parent_with_another_text() -> None:
    """Parents were watched on a few train examples, once a text; every text is a gene from then on."""
    nursery = Nursery().filled()
    before = set(nursery.house.stock.pool.instructions(ANSWER))
    written = [one for one in nursery.newcomers(16) if one.operator in (Operator.MUTATED, Operator.CROSSED)]
    mutated = [one for one in written if one.operator is Operator.MUTATED]
    pool = nursery.house.stock.pool

    assert mutated
    for one in written:
        value = one.candidate.components[ANSWER]
        parent = nursery_candidate(nursery, one.candidate.parents[0])
        assert value.instructions not in before
        assert value.instructions in pool.instructions(ANSWER)
        assert parent.components[ANSWER].demos == value.demos
        assert one.calls > 0
    assert len(mutated) == len(nursery.run.train_trials)
    assert {WATCHED} == {len(results) for _, results in nursery.run.train_trials}
    train = {example.id for example in PLACE.train}
    assert all(result.example_id in train for _, results in nursery.run.train_trials for result in results)
    assert len(nursery.run.prompts) == nursery.breeding.proposals.asked


@pytest.mark.parametrize("most", [1, 2, 5])
def test_nobody_is_watched_when_no_text_can_be_asked_for(most: int) -> None:
    """Runs of parents are paid: they are made only as long as there is a call left to use them."""
    nursery = Nursery(most=most).filled()

    nursery.newcomers(30)

    assert most == nursery.breeding.proposals.asked
    assert len(nursery.run.train_trials) <= most


def test_texts_that_say_the_same_make_nobody_and_are_counted() -> None:
    """Children take their place."""
    nursery = Nursery(Writer(value=binary(level_of), same=True)).filled()
    nursery.house.stock.pool.add_instruction(ANSWER, "as before")

    found = nursery.newcomers(10)

    assert 10 == len(found)
    assert {Operator.CHILD, Operator.STRANGER} >= {one.operator for one in found}
    told = nursery.breeding.book.to_json()["mutated"]
    assert isinstance(told, dict)
    assert told["tries"] != 0
    assert 0.0 == told["wins"]


def test_without_train_examples_nothing_is_written() -> None:
    nursery = Nursery(n_train=0).filled()

    assert {Operator.CHILD, Operator.STRANGER} >= {one.operator for one in nursery.newcomers(10)}
    assert [] == nursery.run.prompts


def test_where_there_are_no_more_there_are_fewer() -> None:
    """One text and one demo: four candidates, of which one was run."""
    nursery = Nursery(most=0)
    nursery.house.stock.pool.add_demo(ANSWER, {"question": "Q1", "answer": "A1"})
    nursery.house.stock.pool.add_instruction(ANSWER, "Say why.")
    nursery.house.measured([])

    found = nursery.newcomers(10)

    assert 1 <= len(found) <= 3
    assert len(found) == len({one.candidate.fingerprint for one in found})


def test_parents_are_those_that_are_best_somewhere() -> None:
    """A row that is right where nobody else is, is a parent though others are right more often; one that is never
    right is none; one that hurts a guardrail is none."""

    def value(candidate: Candidate, example: Example, metric: str) -> float:
        text, number = candidate.components[ANSWER].instructions, int(example.id) - 40
        if metric == "safe":
            return 0.0 if text == "unsafe" else 1.0
        return float({"most": number < 8, "special": number in (8, 9), "never": False}.get(text, number < 4))

    house = House(MadeUpRun(metrics=("right", "safe"), value=value), goals=(RIGHT, SAFE))
    house.measured(["most", "special", "never", "unsafe"])
    nursery = Nursery()
    nursery.breeding.stock = house.stock
    standing, rng = house.believe(), np.random.default_rng(0)

    rows = [nursery.breeding._parent(standing, rng) for _ in range(200)]

    assert rows.count(1) > rows.count(2) > 0
    assert 0 == rows.count(3) == rows.count(4)
