"""Populations that live on what is believed: their champions are the best by that belief, and were never run."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.algorithms.genome import GenePool
from dspy_optimization.algorithms.islands import Foreseen, Islands, IslandTerms
from dspy_optimization.compute.ranking import Floats, fronts
from dspy_optimization.compute.variation import Codes

STEP = ComponentName("answer")
MEMBERS = 4


@dataclass
class Linear:
    """Believes, in each draw, that features add up; notes how often it was asked."""

    weights: Floats
    """(members, d)."""
    asked: int = 0

    @property
    def members(self) -> int:
        return len(self.weights)

    def means(self, features: Floats, member: int) -> Floats:
        self.asked += 1
        return np.asarray(self.all_means(features)[member])

    def all_means(self, features: npt.ArrayLike) -> Floats:
        given = np.asarray(features, dtype=np.float64)
        return np.asarray(1.0 / (1.0 + np.exp(-0.5 * (self.weights[:, : given.shape[1]] @ given.T))))


def pool_of(*, texts: int = 5, demos: int = 5, slots: int = 2) -> GenePool:
    pool = GenePool(Candidate(components={STEP: ComponentValue(instructions="Text 0.")}), (), {}, slots=slots)
    for number in range(1, texts):
        pool.add_instruction(STEP, f"Text {number}.")
    for number in range(demos):
        pool.add_demo(STEP, {"q": number})
    return pool


def everybody(pool: GenePool) -> Codes:
    """All candidates there are, once each."""
    codes = np.indices(pool.space.choices).reshape(pool.genes, -1).T.astype(np.int16)
    return np.unique(pool.tidied(codes), axis=0)


def belief_of(pool: GenePool, seed: int, *, members: int = MEMBERS) -> Linear:
    return Linear(np.random.default_rng(seed).normal(0.0, 1.0, (members, pool.features(everybody(pool)).shape[1])))


def islands_of(pool: GenePool, *, goals: int = 1, **terms: int) -> Islands:
    return Islands(pool=pool, terms=IslandTerms(**{"islands": 3, "size": 40, "generations": 6, **terms}), goals=goals)


def expected_of(pool: GenePool, beliefs: list[Linear], known: Codes) -> list[Floats]:
    return [one.all_means(pool.features(known)) for one in beliefs]


def rows(codes: Codes) -> set[tuple[int, ...]]:
    return {tuple(row) for row in codes.tolist()}


@pytest.mark.parametrize("seed", range(4))
def test_champions_are_the_best_that_were_not_run(seed: int) -> None:
    """Of each island by its own draw, one an island in turn; the same as by asking everybody there is."""
    pool = pool_of()
    belief, all_rows = belief_of(pool, seed), everybody(pool)
    worth = belief.all_means(pool.features(all_rows))
    known = all_rows[np.unique(np.concatenate([[0], worth.argmax(axis=1)]))]  # also the best of each draw
    islands = islands_of(pool)

    for iteration in range(1, 4):
        islands.live(Foreseen(beliefs=[belief]), known, iteration, np.random.default_rng(seed + iteration))
    found = islands.champions(Foreseen(beliefs=[belief]), known, expected_of(pool, [belief], known), 6)

    assert [0, 1, 2, 0, 1, 2] == [island for _, island in found]
    places = {tuple(row): at for at, row in enumerate(all_rows.tolist())}
    left = set(places) - rows(known)
    for row, island in found:
        # The order of demos is nothing to this belief, so there are ties.
        assert worth[island][places[tuple(row.tolist())]] == pytest.approx(
            max(worth[island][places[one]] for one in left)
        )
        left.remove(tuple(row.tolist()))


def test_champions_are_never_known_and_never_twice() -> None:
    """Also when a space is nearly exhausted: then they are fewer."""
    pool = pool_of(texts=2, demos=2, slots=2)
    all_rows = everybody(pool)
    belief = belief_of(pool, 1)
    islands = islands_of(pool, size=30)
    islands.live(Foreseen(beliefs=[belief]), all_rows[:6], 1, np.random.default_rng(0))

    some = islands.champions(Foreseen(beliefs=[belief]), all_rows[:6], expected_of(pool, [belief], all_rows[:6]), 50)
    none = islands.champions(Foreseen(beliefs=[belief]), all_rows, expected_of(pool, [belief], all_rows), 50)

    assert 10 == len(all_rows)
    assert 4 == len(some) == len(rows(np.array([row for row, _ in some])))
    assert rows(all_rows[6:]) == rows(np.array([row for row, _ in some]))
    assert [] == none


def test_nobody_lives_twice_on_an_island() -> None:
    """Many rows stand for one candidate, with gaps and with a demo twice: one of them lives. A belief that likes few
    demos meets most of them."""
    pool = pool_of(texts=8, demos=10, slots=4)
    islands = islands_of(pool, islands=3, size=40, migrants=20)
    few = belief_of_large(pool)
    few.weights[:, 8:10] = -4.0

    for iteration in range(1, 4):
        islands.live(Foreseen(beliefs=[few]), everybody_known(pool), iteration, np.random.default_rng(iteration))

    assert 80 < islands.alive <= 120
    for codes in islands._people:
        assert len(rows(codes)) == len(codes) <= 40
        assert (pool.tidied(codes) == codes).all()
        assert (codes < np.array(pool.space.choices)).all()


def belief_of_large(pool: GenePool, seed: int = 0) -> Linear:
    width = pool.features(np.zeros((1, pool.genes), dtype=np.int16)).shape[1] + 40
    return Linear(np.random.default_rng(seed).normal(0.0, 1.0, (MEMBERS, width)))


def everybody_known(pool: GenePool) -> Codes:
    return np.zeros((1, pool.genes), dtype=np.int16)


def test_a_thousand_live_for_a_round_in_no_time() -> None:
    """Nobody is run: an island has nothing but beliefs. Each is asked once a generation, for all children together."""
    pool = pool_of(texts=20, demos=16, slots=4)
    islands = islands_of(pool, islands=4, size=256, generations=20)
    belief = belief_of_large(pool)
    began = time.process_time()

    islands.live(Foreseen(beliefs=[belief]), everybody_known(pool), 1, np.random.default_rng(0))

    assert 500 < islands.alive <= 1024
    assert belief.asked <= 4 * 22
    assert time.process_time() - began < 5.0


def test_who_was_never_run_makes_room_after_some_rounds() -> None:
    """A belief that ranks nobody keeps nobody: after the age limit all are others, but who is born again by chance."""
    pool = pool_of(texts=30, demos=16, slots=4)
    flat = Linear(np.zeros((MEMBERS, 400)))
    known = pool.drawn(3, np.random.default_rng(5)).codes

    def first_people(age_limit: int) -> list[int]:
        islands = islands_of(pool, islands=1, size=30, generations=1, age_limit=age_limit)
        islands.live(Foreseen(beliefs=[flat]), known, 1, np.random.default_rng(0))
        begin = rows(islands._people[0]) - rows(known)
        stayed = []
        for iteration in range(2, 7):
            settled = islands._settled(0, known, iteration, np.random.default_rng(iteration))
            stayed.append(len(begin & rows(settled)))
            islands.live(Foreseen(beliefs=[flat]), known, iteration, np.random.default_rng(iteration))
        return stayed

    young, old = first_people(2), first_people(5)

    assert young[0] > 20
    assert max(young[1:]) <= 2
    assert min(old[:4]) > 8
    assert old[4] <= 4


def test_who_was_run_is_on_every_island_again() -> None:
    pool = pool_of(texts=12, demos=8, slots=3)
    islands = islands_of(pool, islands=3, size=20)
    known = pool.drawn(6, np.random.default_rng(1)).codes

    for island in range(3):
        assert rows(known) <= rows(islands._settled(island, known, 1, np.random.default_rng(2)))
    many = pool.drawn(60, np.random.default_rng(3)).codes
    assert rows(many[:10]) <= rows(islands._settled(0, many, 1, np.random.default_rng(2)))
    assert 20 == len(islands._settled(0, many, 1, np.random.default_rng(2)))


def test_the_best_of_an_island_go_to_the_next_one() -> None:
    """As many as there are migrants, at half-time, and no others."""
    pool = pool_of(texts=40, demos=16, slots=4)
    belief = Linear(np.repeat(np.random.default_rng(0).normal(0.0, 1.0, (1, 400)), 3, axis=0))

    def shared(migrants: int) -> list[int]:
        islands = islands_of(pool, islands=3, size=60, generations=1, migrants=migrants)
        islands.live(Foreseen(beliefs=[belief]), everybody_known(pool), 1, np.random.default_rng(0))
        people = [rows(codes) - rows(everybody_known(pool)) for codes in islands._people]
        return [len(people[at] & people[at - 1]) for at in range(3)]

    assert max(shared(0)) <= 2
    assert min(shared(8)) >= 5
    assert max(shared(8)) <= 16


def test_rows_live_on_when_the_pool_grows() -> None:
    """A round later there are new texts; they are met, and who lived before means the same."""
    pool = pool_of(texts=3, demos=3, slots=2)
    belief = belief_of_large(pool)
    islands = islands_of(pool)
    islands.live(Foreseen(beliefs=[belief]), everybody_known(pool), 1, np.random.default_rng(0))
    before = [pool.decode(row).fingerprint for row in islands._people[0]]
    rows_before = islands._people[0].copy()
    for number in range(10, 14):
        pool.add_instruction(STEP, f"Text {number}.")

    islands.live(Foreseen(beliefs=[belief]), everybody_known(pool), 2, np.random.default_rng(1))

    assert before == [pool.decode(row).fingerprint for row in rows_before]
    assert max(codes[:, 0].max() for codes in islands._people) > 2


@pytest.mark.parametrize("goals", [1, 2, 3])
def test_the_same_seed_lives_the_same_life(goals: int) -> None:
    pool = pool_of(texts=8, demos=8, slots=3)
    beliefs = [belief_of_large(pool, seed) for seed in range(goals)]
    known = pool.drawn(5, np.random.default_rng(3)).codes

    def lived(seed: int) -> list[tuple[list[int], int]]:
        islands = islands_of(pool, goals=goals)
        for iteration in (1, 2):
            islands.live(Foreseen(beliefs=beliefs), known, iteration, np.random.default_rng(seed + iteration))
        found = islands.champions(Foreseen(beliefs=beliefs), known, expected_of(pool, beliefs, known), 5)
        return [(row.tolist(), island) for row, island in found]

    assert lived(7) == lived(7)
    assert lived(7) != lived(8)


@pytest.mark.parametrize("seed", [10, 20, 30, 40])
@pytest.mark.parametrize("goals", [2, 3])
def test_with_several_goals_champions_add_most_to_the_front(goals: int, seed: int) -> None:
    """The first of an island is the one of all there is whose losses add most hypervolume to those of the known;
    volume by counting points of a grid."""
    pool = pool_of(texts=4, demos=4, slots=2)
    beliefs = [belief_of(pool, seed + goal, members=1) for goal in range(goals)]
    all_rows = everybody(pool)
    losses = 1.0 - np.column_stack([one.means(pool.features(all_rows), 0) for one in beliefs])
    known = all_rows[fronts(losses) == fronts(losses).max()][:2]
    islands = islands_of(pool, goals=goals, islands=1, size=84, generations=8)

    for iteration in range(1, 4):
        islands.live(Foreseen(beliefs=beliefs), known, iteration, np.random.default_rng(iteration))
    (row, _), *others = islands.champions(Foreseen(beliefs=beliefs), known, expected_of(pool, beliefs, known), 4)

    corners = np.stack(np.meshgrid(*[(np.arange(40) + 0.5) * 1.1 / 40] * goals), axis=-1).reshape(-1, goals)

    def covered(points: Floats) -> npt.NDArray[np.bool_]:
        return np.asarray((points[:, None, :] <= corners[None]).all(axis=2).any(axis=0))

    there = covered(losses[[tuple(one) in rows(known) for one in all_rows.tolist()]])
    gains = np.array([(covered(one[None]) & ~there).sum() for one in losses])
    own = gains[[tuple(one) == tuple(row.tolist()) for one in all_rows.tolist()]][0]
    assert own >= 0.97 * gains.max()
    front = rows(all_rows[fronts(losses) == 0])
    assert {tuple(row.tolist()), *(tuple(one.tolist()) for one, _ in others)} <= front


def test_with_three_goals_an_island_covers_the_front() -> None:
    """Niches: it holds most of the best front there is, not one corner of it."""
    pool = pool_of(texts=6, demos=5, slots=2)
    beliefs = [belief_of(pool, 20 + seed, members=1) for seed in range(3)]
    all_rows = everybody(pool)
    losses = 1.0 - np.column_stack([one.means(pool.features(all_rows), 0) for one in beliefs])
    front = rows(all_rows[fronts(losses) == 0])
    islands = islands_of(pool, goals=3, islands=1, size=90, generations=20)

    islands.live(Foreseen(beliefs=beliefs), all_rows[:1], 1, np.random.default_rng(0))

    assert len(front) > 5
    assert len(front & rows(islands._people[0])) > 0.7 * len(front)


@dataclass
class Fenced:
    """Foresees, in each draw, an excess of what a belief says beyond a limit."""

    belief: Linear
    limit: float

    @property
    def members(self) -> int:
        return self.belief.members

    def excess(self, features: Floats, member: int) -> Floats:
        return np.asarray(np.maximum(self.belief.means(features, member) - self.limit, 0.0))


@pytest.mark.parametrize("goals", [1, 2])
def test_champions_keep_to_the_guardrails_that_are_foreseen(goals: int) -> None:
    """Best of those that break none, by asking everybody there is; without guards the same islands find better ones."""
    pool = pool_of()
    beliefs = [belief_of(pool, 40 + goal, members=1) for goal in range(goals)]
    all_rows = everybody(pool)
    # Whoever is among the best third in the first goal breaks it.
    guard = Fenced(beliefs[0], float(np.quantile(beliefs[0].means(pool.features(all_rows), 0), 0.67)))
    losses = 1.0 - np.column_stack([one.means(pool.features(all_rows), 0) for one in beliefs])
    excess = guard.excess(pool.features(all_rows), 0)
    known = all_rows[:1]
    best = {}

    for name, guards in (("guarded", [guard]), ("free", [])):
        islands = islands_of(pool, goals=goals, islands=1)
        foreseen = Foreseen(beliefs=beliefs, guards=guards)
        for iteration in range(1, 4):
            islands.live(foreseen, known, iteration, np.random.default_rng(iteration))
        found = islands.champions(foreseen, known, expected_of(pool, beliefs, known), 3)
        best[name] = rows(np.array([row for row, _ in found]))

    allowed = rows(all_rows[fronts(losses, excess) == 0])
    broken = rows(all_rows[excess > 0.0])
    assert not best["guarded"] & broken
    assert best["free"] & broken
    if goals == 1:
        assert best["guarded"] & allowed
    else:
        assert best["guarded"] <= allowed
