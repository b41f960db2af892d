"""Races on pools whose best is known: what they may never do, and how often they are right."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.compute.race import Ask, RaceTerms, Standing
from dspy_optimization.compute.racing import halving, paired_race, surrogate_race, uniform
from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.errors import BudgetSpent, InvalidRequestError

PROCEDURES = {"uniform": uniform, "halving": halving, "paired": paired_race, "surrogate": surrogate_race}
every = pytest.mark.parametrize("name", PROCEDURES)


class Payer:
    """Answers from a matrix, and refuses what no race may ask."""

    def __init__(self, scores: Floats, budget: int, known: Floats | None = None) -> None:
        self.scores, self.budget = scores, budget
        self.asked = np.zeros(scores.shape, dtype=bool) if known is None else ~np.isnan(known)
        self.paid = 0

    def __call__(self, rows: Integers, columns: Integers) -> Floats:
        assert not self.asked[rows, columns].any(), "asked twice"
        assert len(rows) == len(np.unique(rows * self.scores.shape[1] + columns)), "asked twice at once"
        self.asked[rows, columns] = True
        self.paid += len(rows)
        assert self.paid <= self.budget, "over the budget"
        return self.scores[rows, columns]


def pool(seed: int, *, rows: int = 60, columns: int = 60, sd: float = 0.8) -> tuple[Floats, Floats]:
    """Return right-or-wrong scores of an item-response world, and features that explain much of them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 4))
    ability = sd * (0.9 * features @ np.array([0.8, -0.6, 0.0, 0.0]) + 0.45 * rng.normal(size=rows))
    chances = 1.0 / (1.0 + np.exp(rng.normal(size=columns) - ability[:, None]))
    return (rng.random((rows, columns)) < chances).astype(float), features


def race(name: str, scores: Floats, budget: int, seed: int = 0, **more: object) -> tuple[Standing, Payer]:
    start = more.get("start")
    payer = Payer(scores, budget, start if isinstance(start, np.ndarray) else None)
    procedure = PROCEDURES[name]
    terms = more.pop("terms", None) or RaceTerms(budget=budget)
    return procedure(*scores.shape, payer, terms, seed=seed, **more), payer  # type: ignore[arg-type, operator]


@every
@pytest.mark.parametrize("budget", [0, 1, 59, 60, 200, 1_000, 3_600, 10_000])
def test_the_budget_holds_and_no_cell_is_asked_twice(name: str, budget: int) -> None:
    """Whatever the budget: what is paid is counted, known cells are what was answered, everybody is in the order."""
    scores, _ = pool(1)
    standing, payer = race(name, scores, budget)
    known = ~np.isnan(standing.scores)

    assert payer.paid == standing.paid <= budget
    np.testing.assert_array_equal(payer.asked, known)
    np.testing.assert_array_equal(scores[known], standing.scores[known])
    np.testing.assert_array_equal(known.sum(axis=1), standing.counts)
    np.testing.assert_array_equal(np.arange(60), np.sort(standing.order))
    assert [drop is None for drop in standing.drops] == standing.alive.tolist()
    assert standing.alive[standing.best]


@every
@pytest.mark.parametrize("budget", [400, 1_000, 3_600])
def test_who_dominates_wins(name: str, budget: int) -> None:
    """Without noise, where the better candidate is right wherever the worse one is, the best is always found."""
    rng = np.random.default_rng(0)
    for seed in range(5):
        levels = np.linspace(0.0, 1.0, 30)[rng.permutation(30)]
        scores = np.repeat(levels[:, None], 40, axis=1)
        standing, _ = race(name, scores, budget, seed)

        assert int(np.argmax(levels)) == standing.best


@pytest.mark.parametrize("name", ["halving", "paired", "surrogate"])
def test_the_winner_has_seen_everything(name: str) -> None:
    """Within the budget, the winner's score is known in all columns; with a floor, in as many."""
    scores, features = pool(2)
    more = {"features": features} if name == "surrogate" else {}
    standing, _ = race(name, scores, 1_200, **more)
    assert 60 == standing.counts[standing.best]

    floor, _ = race(name, scores, 1_200, terms=RaceTerms(budget=1_200, floor=30), **more)
    assert 30 <= floor.counts[floor.best]


@pytest.mark.parametrize("name", ["halving", "paired", "surrogate"])
def test_nobody_is_dropped_without_a_comparison_on_shared_examples(name: str) -> None:
    """Whoever is out has seen, with all others then in, at least one same column, and its reason says what it was."""
    scores, features = pool(3)
    standing, _ = race(name, scores, 1_500, **({"features": features} if name == "surrogate" else {}))
    known = ~np.isnan(standing.scores)

    assert not standing.alive.all()
    for row, drop in enumerate(standing.drops):
        if drop is None:
            continue
        later = [
            other
            for other, one in enumerate(standing.drops)
            if other != row and (one is None or one.round >= drop.round)
        ]
        assert (known[row] & known[later].all(axis=0)).any()
        assert any(word in drop.reason for word in ("shared examples", "expected by the model"))


@every
def test_everything_is_known_for_a_full_budget(name: str) -> None:
    """With a budget for all cells the best is found, whoever asks."""
    scores, features = pool(4)
    standing, _ = race(name, scores, scores.size, **({"features": features} if name == "surrogate" else {}))
    means = scores.mean(axis=1)

    limit = 0.01 if name == "surrogate" else 1e-12
    assert means[standing.best] >= means.max() - limit or name == "paired"


@every
def test_a_seed_decides(name: str) -> None:
    """The same seed asks the same cells; ties go to the first row."""
    scores, _ = pool(5)
    one, same, other = (race(name, scores, 900, seed)[0] for seed in (1, 1, 2))

    np.testing.assert_array_equal(one.scores, same.scores)
    np.testing.assert_array_equal(one.order, same.order)
    assert not np.array_equal(np.isnan(one.scores), np.isnan(other.scores))
    assert 0 == race(name, np.ones((7, 9)), 40)[0].best


@pytest.mark.parametrize("name", ["uniform", "halving", "paired"])
@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 5))
def test_rows_in_another_order_race_the_same(name: str, order: list[int], seed: int) -> None:
    """Where no two are alike, the order of the candidates does not matter."""
    scores = np.random.default_rng(seed).random((12, 15))
    one, _ = race(name, scores, 100)
    other, _ = race(name, scores[order], 100)

    np.testing.assert_array_equal(one.scores[order], other.scores)
    assert one.best == order[other.best]


@every
def test_what_is_known_is_not_paid_for(name: str) -> None:
    """A start is used: its cells are never asked, and a race over what is all known costs nothing."""
    scores, _ = pool(6)
    start = np.where(np.random.default_rng(0).random(scores.shape) < 0.3, scores, np.nan)
    standing, payer = race(name, scores, 1_000, start=start)

    assert (payer.asked >= ~np.isnan(start)).all()
    assert payer.paid == standing.paid
    free, payer = race(name, scores, 0, start=scores)
    assert 0 == payer.paid == free.paid
    assert name == "paired" or math.isclose(scores.mean(axis=1).max(), scores.mean(axis=1)[free.best])


@every
def test_what_ask_raises_passes(name: str) -> None:
    """A budget that ends elsewhere ends the race; what was answered before is with who answered."""
    scores, _ = pool(7)
    payer = Payer(scores, 10_000)

    def ask(rows: Integers, columns: Integers) -> Floats:
        if payer.paid >= 100:
            raise BudgetSpent("calls", 100)
        return payer(rows, columns)

    with pytest.raises(BudgetSpent):
        PROCEDURES[name](60, 60, ask, RaceTerms(budget=3_000), seed=0)  # type: ignore[operator]
    assert payer.paid >= 1


@every
@pytest.mark.parametrize(
    ("answer", "words"), [(math.nan, "0 to 1"), (1.5, "0 to 1"), (-0.1, "0 to 1"), (None, "one for each")]
)
def test_answers_that_are_no_scores_are_refused(name: str, answer: float | None, words: str) -> None:
    """Not a number, out of range, too few of them."""

    def ask(rows: Integers, columns: Integers) -> Floats:
        return np.zeros(1) if answer is None else np.full(len(rows), answer)

    with pytest.raises(InvalidRequestError, match=words):
        PROCEDURES[name](8, 8, ask, RaceTerms(budget=40), seed=0)  # type: ignore[operator]


def test_what_cannot_be_raced_is_refused() -> None:
    """No candidates, no examples, a start of another shape, terms out of range."""
    ask: Ask = Payer(np.zeros((2, 2)), 9)
    for rows, columns, start in ((0, 2, None), (2, 0, None), (2, 2, np.zeros((3, 2))), (2, 2, np.full((2, 2), 7.0))):
        with pytest.raises(InvalidRequestError):
            halving(rows, columns, ask, RaceTerms(budget=9), seed=0, start=start)
    for wrong in ({"alpha": 0.0}, {"budget": -1}, {"block": 0}, {"keep": 1.0}, {"sure": 0.3}, {"floor": 0}):
        with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
            RaceTerms(**{"budget": 9, **wrong})  # type: ignore[arg-type]


@every
@pytest.mark.parametrize("shape", [(1, 1), (1, 10), (2, 1), (10, 1), (3, 2)])
def test_small_races_end(name: str, shape: tuple[int, int]) -> None:
    """One candidate, one example, constant scores."""
    for scores in (np.zeros(shape), np.ones(shape), np.random.default_rng(0).random(shape)):
        standing, _ = race(name, scores, scores.size)

        assert math.isclose(scores.mean(axis=1).max(), scores.mean(axis=1)[standing.best], abs_tol=0.01)


def test_a_paired_test_needs_more_than_luck() -> None:
    """Of equals almost nobody is dropped in a race of 10 blocks: alpha is small at every look."""
    out = []
    for seed in range(40):
        scores = (np.random.default_rng(seed).random((2, 100)) < 0.5).astype(float)
        standing, _ = race("paired", scores, 200, seed)
        out.append(not standing.alive.all())

    assert np.mean(out) < 0.25


class TestSurrogate:
    """What a model adds, and when it is switched off."""

    def test_features_find_the_best_for_less(self) -> None:
        """On a tenth of all cells it is nearer to the best than halving, over 30 pools."""
        regrets: dict[str, list[float]] = {"halving": [], "surrogate": []}
        for seed in range(30):
            scores, features = pool(seed, rows=100, columns=80)
            means = scores.mean(axis=1)
            for name, found in regrets.items():
                standing, _ = race(name, scores, 900, seed, **({"features": features} if name == "surrogate" else {}))
                found.append(float(means.max() - means[standing.best]))

        assert np.mean(regrets["surrogate"]) < 0.8 * np.mean(regrets["halving"])

    def test_it_stops_when_the_winner_is_known(self) -> None:
        """Where one is far ahead, most of the budget is kept."""
        scores, features = pool(1, columns=200)
        scores[7] = 1.0
        standing, _ = race("surrogate", scores, 6_000, features=features)
        halved, _ = race("halving", scores, 6_000)

        assert 7 == standing.best == halved.best
        assert standing.paid < 0.7 * halved.paid

    def test_scrambled_features_are_left_out_and_it_says_so(self) -> None:
        """Features of other candidates: the standing names the doubt; by chance they seem to help in one of 40."""
        doubts = []
        for seed in range(6):
            scores, features = pool(seed, rows=100, columns=80)
            wrong = features[np.random.default_rng(seed).permutation(100)]
            doubts.append(race("surrogate", scores, 2_000, features=wrong)[0].model or "")

        assert sum("features do not foretell" in doubt for doubt in doubts) >= 5

    def test_switched_off_it_is_halving(self) -> None:
        """`surrogate=False` asks the same cells as `halving`."""
        scores, features = pool(2)
        off, _ = race("surrogate", scores, 900, features=features, terms=RaceTerms(budget=900, surrogate=False))
        plain, _ = race("halving", scores, 900)

        np.testing.assert_array_equal(plain.scores, off.scores)
        np.testing.assert_array_equal(plain.order, off.order)

    def test_the_model_that_ends_well_is_named_none(self) -> None:
        """With features that explain much there is no doubt at the end."""
        scores, features = pool(3, rows=100, columns=80)

        assert race("surrogate", scores, 3_000, features=features)[0].model is None
