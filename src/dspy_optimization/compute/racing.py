"""Ways to find the best of many candidates for a fraction of what asking all about everything costs.

    standing = surrogate_race(200, 300, ask, RaceTerms(budget=12_000), seed=7, features=genes)
    standing.best, standing.paid, standing.model

`ask` pays; whatever it raises ends the race and passes through, and what it answered before is its own to keep. All are
functions of their arguments: the same seed and the same answers give the same race.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

from dspy_optimization.compute.devices import Device
from dspy_optimization.compute.judging import Judge, ModelJudge, Verdict, raw_means
from dspy_optimization.compute.race import Ask, Drop, Race, RaceTerms, Standing
from dspy_optimization.compute.ranking import Floats, Integers

_LOOKS = 6
"""Into how many parts all columns are cut for whoever is asked about all of them."""

__all__ = ["Ask", "Drop", "RaceTerms", "Standing", "halving", "paired_race", "surrogate_race", "uniform"]


def uniform(
    rows: int, columns: int, ask: Ask, terms: RaceTerms, *, seed: int, start: npt.ArrayLike | None = None
) -> Standing:
    """Return who is best when all are asked about as many shared columns as the budget allows. For comparison."""
    race = Race(rows, columns, ask, terms, seed=seed, start=start)
    for column in race.order:
        if race.cost(race.living, np.array([column])) > race.left:
            break
        race.share(race.living, np.array([column]))
    return race.standing()


def halving(
    rows: int, columns: int, ask: Ask, terms: RaceTerms, *, seed: int, start: npt.ArrayLike | None = None
) -> Standing:
    """Return who is best by successive halving: after each round the worse ones are out, the others are asked more.

    Rounds are planned so that the last few are asked about all columns when the budget ends.

    Source: Karnin et al. 2013, sequential halving; our extensions: columns are shared and kept from round to round, a
    third is out and not half, and rounds cost a little less each (`RaceTerms`).
    """
    race = Race(rows, columns, ask, terms, seed=seed, start=start)
    halve(race, raw_means)
    return race.standing()


def surrogate_race(
    rows: int,
    columns: int,
    ask: Ask,
    terms: RaceTerms,
    *,
    seed: int,
    features: npt.ArrayLike | None = None,
    start: npt.ArrayLike | None = None,
    device: Device | None = None,
) -> Standing:
    """Return who is best by halving in which a response model says who stays, as far as it can be trusted.

    The model is measured on held-out cells in every round. While it fits and features help, candidates are compared by
    what their full score is expected to be; otherwise by their means on shared columns, as in `halving`, and the
    standing says why. No more is paid once the winner is known (`RaceTerms.sure`).

    Args:
        rows: candidates.
        columns: examples.
        ask: pays.
        terms: of the race.
        seed: of the order of columns and of the model.
        features: (rows, d), what is known of candidates without running them; None: nothing.
        start: (rows, columns), NaN where not known.
        device: where the model is fitted; None: NumPy.
    """
    race = Race(rows, columns, ask, terms, seed=seed, start=start)
    if not terms.surrogate:
        halve(race, raw_means)
        return race.standing()
    judge = ModelJudge(np.zeros((rows, 0)) if features is None else np.asarray(features), device)
    halve(race, judge)
    return race.standing(judge.means(race), model=judge.doubt)


def halve(race: Race, judge: Judge) -> None:
    """Carry on a race by halving until one is left, all who are in have seen all columns, or the budget is spent."""
    for size, upto in planned(race):
        living = race.living
        if len(living) > 1 and race.round:
            verdict = judge(race, living)
            if verdict is None:
                return
            best = race.ranked(living, verdict.means)[: 1 if verdict.winner else size]
            race.keep(best, _reasons(verdict, living, best))
            if verdict.winner:
                race.share(best, race.columns)
                return
        race.share(race.living, race.columns[:upto])
        race.round += 1


def _reasons(verdict: Verdict, living: Integers, best: Integers) -> Callable[[int], str]:
    means = dict(zip(living.tolist(), verdict.means.tolist(), strict=True))
    worst = min(means[row] for row in best.tolist())
    return lambda row: f"{verdict.basis}: {means[row]:.3f}, the last to stay has {worst:.3f}"


def planned(race: Race) -> list[tuple[int, int]]:
    """Return for each round how many are in it and how many columns they have seen at its end.

    The first round costs as much as lets the whole plan just fit the budget; what is known already is free. Long rounds
    are in parts, so that a winner known early is seen early.
    """
    living, columns = len(race.living), race.columns
    longest = max(race.terms.block, math.ceil(len(columns) / _LOOKS))
    shares = np.isnan(race.scores[race.living])[:, columns].mean(axis=0)

    def plan(quota: float) -> tuple[list[tuple[int, int]], float]:
        found: list[tuple[int, int]] = []
        size, upto, spent, rounds = living, 0, 0.0, 0
        while upto < len(columns):
            room, before = quota * race.terms.slowing**rounds, upto
            while upto < len(columns) and (upto == before or room >= size * shares[upto]):
                room -= size * shares[upto]
                upto += 1
            if size == 1:
                upto = len(columns)
            spent += size * float(shares[before:upto].sum())
            rounds += 1
            found += [(size, part) for part in range(before + longest, upto, longest)]
            found.append((size, upto))
            size = min(size - 1, math.ceil(size * race.terms.keep)) if size > 1 else 1
        return found, spent

    low, high = 0.0, float(living * len(columns))
    if plan(high)[1] <= race.left:
        return plan(high)[0]
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if plan(middle)[1] <= race.left else (low, middle)
    return plan(low)[0]


def paired_race(
    rows: int, columns: int, ask: Ask, terms: RaceTerms, *, seed: int, start: npt.ArrayLike | None = None
) -> Standing:
    """Return who is best by a race: block by block, whoever is worse than the leader by a paired test is out.

    Source: Birattari et al. 2002 and López-Ibáñez et al. 2016 (irace), paired t-tests with a conservative level.
    """
    race = Race(rows, columns, ask, terms, seed=seed, start=start)
    seen = 0
    while block := _affordable(race, seen):
        race.share(race.living, race.columns[seen : seen + block])
        seen += block
        race.round += 1
        if len(race.living) > 1:
            _test(race, race.living, race.shared(race.living))
    found = race.standing()
    if seen:
        race.share(found.order[:1], race.columns)
    return race.standing(found.means)


def _affordable(race: Race, seen: int) -> int:
    """Return how many more columns all who are in can be asked, so that whoever leads then can be asked the rest."""
    living, columns = race.living, race.columns
    unknown = np.isnan(race.scores[np.ix_(living, columns[seen:])])
    for block in range(min(race.terms.block, len(columns) - seen), 0, -1):
        if unknown[:, :block].sum() + unknown[:, block:].sum(axis=1).max() <= race.left:
            return block
    return 0


def _test(race: Race, living: Integers, columns: Integers) -> None:
    """Drop who is worse than the leader."""
    scores = race.scores[np.ix_(living, columns)]
    means = scores.mean(axis=1)
    leader = int(race.ranked(living, means)[0])
    lead = scores[living == leader][0] - scores
    chance = _paired_chances(lead)
    out = (chance < race.terms.alpha) & (living != leader)
    race.keep(
        living[~out],
        lambda row: (
            f"paired test against candidate {leader} on {len(columns)} shared examples: "
            f"{-float(lead[living == row].mean()):+.3f}, p = {float(chance[living == row][0]):.2g}"
        ),
    )


def _paired_chances(lead: Floats) -> Floats:
    """Return one-sided p-values, (n,), that a mean lead is not above 0; leads (n, k) of one size all over are exact."""
    count = lead.shape[1]
    mean = lead.mean(axis=1)
    if count < 2:
        return np.ones(len(lead))
    error = lead.std(axis=1, ddof=1) / np.sqrt(count)
    flat = error == 0.0
    t = mean / np.where(flat, 1.0, error)
    found = stats.t.sf(t, count - 1)
    return np.asarray(np.where(flat, np.where(mean > 0.0, 0.5**count, 1.0), found))
