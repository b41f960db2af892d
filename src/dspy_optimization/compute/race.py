"""Candidates on examples they share, while a budget of cells lasts: who is in it, what is known, who fell out why.

Everybody is asked about the same columns in the same order, so two candidates differ by what they are and not by what
they were asked: that is worth more than any cleverness about whom to ask next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.chance import uniforms
from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.errors import InvalidRequestError

Ask = Callable[[Integers, Integers], Floats]
"""Cells, as rows (k,) and columns (k,), to their scores (k,), in [0, 1]. What it raises passes through."""

_ORDER = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceTerms:
    """What a race may cost and when somebody is out of it."""

    budget: int
    """Cells to pay for at most; those known before are free."""
    floor: int | None = None
    """Columns that the winner has seen at the end if the budget allows; None: all."""
    block: int = 10
    """Columns asked at a time."""
    alpha: float = 0.02
    """Chance of a paired test to drop a candidate that is as good as the leader; above 0.05 races lose their best."""
    tolerance: float = 0.01
    """How much worse than the best still counts as the best."""
    sure: float = 0.99
    """Posterior probability at which a winner within the tolerance is known and no more is paid."""
    keep: float = 2.0 / 3.0
    """Share of the candidates that stay after a round of halving; 1 / 2 is the classic one, slower pays."""
    slowing: float = 0.85
    """Cost of a round as a share of the one before."""
    surrogate: bool = True
    """Whether a response model may say who stays; otherwise `surrogate_race` is `halving`."""

    def __post_init__(self) -> None:
        """Raise `InvalidRequestError` for what cannot be raced by."""
        checks = (
            ("budget", self.budget, self.budget >= 0, "0 or more"),
            ("floor", self.floor, self.floor is None or self.floor >= 1, "None or at least 1"),
            ("block", self.block, self.block >= 1, "at least 1"),
            ("alpha", self.alpha, 0.0 < self.alpha <= 0.5, "above 0, at most 0.5"),
            ("tolerance", self.tolerance, 0.0 <= self.tolerance <= 1.0, "0 to 1"),
            ("sure", self.sure, 0.5 < self.sure <= 1.0, "above 0.5, at most 1"),
            ("keep", self.keep, 0.0 < self.keep < 1.0, "between 0 and 1"),
            ("slowing", self.slowing, 0.0 < self.slowing <= 2.0, "above 0, at most 2"),
        )
        for name, found, right, possible in checks:
            if not right:
                raise InvalidRequestError(f"{name}: wanted: {possible}; found: {found}; possible: the default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Why a candidate is out."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a race ended."""

    order: Integers
    """(n,), the best first; whoever is still in before those that are out, those out late before those out early."""
    scores: Floats
    """(n, columns), NaN: not known."""
    alive: npt.NDArray[np.bool_]
    """(n,), who was not dropped."""
    means: Floats
    """(n,), estimates of the mean over all columns; NaN: nothing known."""
    counts: Integers
    """(n,), known cells."""
    drops: tuple[Drop | None, ...]
    """(n,), None: still in."""
    paid: int
    """Cells asked."""
    model: str | None
    """Why a response model was switched off or not used; None: it was used to the end."""

    @property
    def best(self) -> int:
        """The winner's row."""
        return int(self.order[0])


class Race:
    """The state of a race; pays for cells and writes them down. A cell is asked once at most."""

    def __init__(
        self, rows: int, columns: int, ask: Ask, terms: RaceTerms, *, seed: int, start: npt.ArrayLike | None = None
    ) -> None:
        """Begin with what is known already.

        Args:
            rows: candidates, at least 1.
            columns: examples, at least 1.
            ask: pays.
            terms: of the race.
            seed: of the order of columns.
            start: (rows, columns), NaN where not known.

        Raises:
            InvalidRequestError: no rows, no columns, a start of another shape or with scores outside [0, 1].
        """
        if rows < 1 or columns < 1:
            raise InvalidRequestError(
                f"race: wanted: candidates and examples; found: {rows} by {columns}; possible: at least 1 by 1"
            )
        self.terms, self.seed, self._ask = terms, seed, ask
        self.scores = np.full((rows, columns), np.nan) if start is None else np.array(start, dtype=np.float64)
        if self.scores.shape != (rows, columns):
            raise InvalidRequestError(
                f"start: wanted: shape ({rows}, {columns}); found: {self.scores.shape}; possible: None, NaN where "
                "nothing is known"
            )
        _check(self.scores[~np.isnan(self.scores)], "start")
        self.alive = np.ones(rows, dtype=bool)
        self.drops: list[Drop | None] = [None] * rows
        self.paid, self.round = 0, 0
        luck = uniforms(seed, _ORDER, np.arange(columns))
        # What is known of most costs least to complete.
        self.order = np.lexsort((luck, np.isnan(self.scores).sum(axis=0)))

    @property
    def left(self) -> int:
        """How many cells may still be paid for."""
        return self.terms.budget - self.paid

    @property
    def living(self) -> Integers:
        """Rows still in, ascending."""
        return np.flatnonzero(self.alive)

    def cost(self, rows: Integers, columns: Integers) -> int:
        """Return how many of the cells of these rows in these columns are not known."""
        return int(np.isnan(self.scores[np.ix_(rows, columns)]).sum())

    def pay(self, rows: Integers, columns: Integers) -> None:
        """Ask what is not known of these cells, (k,) each, in this order and as far as the budget goes."""
        unknown = np.isnan(self.scores[rows, columns])
        rows, columns = rows[unknown], columns[unknown]
        _, first = np.unique(rows * self.scores.shape[1] + columns, return_index=True)
        chosen = np.sort(first)[: max(self.left, 0)]
        if not len(chosen):
            return
        rows, columns = rows[chosen], columns[chosen]
        self.paid += len(chosen)
        found = np.asarray(self._ask(rows, columns), dtype=np.float64)
        if found.shape != rows.shape:
            raise InvalidRequestError(
                f"answers: wanted: one for each of {len(rows)} cells; found: shape {found.shape}; possible: "
                f"({len(rows)},)"
            )
        _check(found, "answers")
        self.scores[rows, columns] = found

    def share(self, rows: Integers, columns: Integers) -> None:
        """Ask all of these rows about all of these columns, column by column."""
        self.pay(np.tile(rows, len(columns)), np.repeat(columns, len(rows)))

    def shared(self, rows: Integers) -> Integers:
        """Return the columns that all of these rows have seen, in the order of asking."""
        known = ~np.isnan(self.scores[rows]).any(axis=0)
        return np.asarray(self.order[known[self.order]])

    def ranked(self, rows: Integers, means: Floats) -> Integers:
        """Return rows, the best first by these means (of the same rows), ties by row."""
        return rows[np.lexsort((rows, -means))]

    def keep(self, rows: Integers, reasons: Callable[[int], str]) -> None:
        """Drop who is alive and not among these rows."""
        for row in np.setdiff1d(self.living, rows).tolist():
            self.alive[row] = False
            self.drops[row] = Drop(round=self.round, reason=reasons(row))

    @property
    def columns(self) -> Integers:
        """Columns that the winner has seen at the end, in the order of asking."""
        floor = self.terms.floor
        return self.order if floor is None else self.order[:floor]

    def standing(self, means: Floats | None = None, *, model: str | None = "not asked for") -> Standing:
        """Return how it stands, by these means (n,); None: by those over the columns that all who are in have seen."""
        counts = (~np.isnan(self.scores)).sum(axis=1)
        plain = np.full(len(counts), np.nan)
        plain[counts > 0] = np.nanmean(self.scores[counts > 0], axis=1)
        if means is None:
            means = plain
            living, columns = self.living, self.shared(self.living)
            if len(columns):
                means = plain.copy()
                means[living] = self.scores[np.ix_(living, columns)].mean(axis=1)
        out = np.array([np.inf if drop is None else drop.round for drop in self.drops])
        order = np.lexsort((np.arange(len(counts)), -np.nan_to_num(means, nan=-1.0), -out))
        return Standing(
            order=order,
            scores=self.scores.copy(),
            alive=self.alive.copy(),
            means=means,
            counts=counts,
            drops=tuple(self.drops),
            paid=self.paid,
            model=model,
        )


def _check(scores: Floats, name: str) -> None:
    if len(scores) and not (scores.min() >= 0.0 and scores.max() <= 1.0):
        raise InvalidRequestError(
            f"{name}: wanted: scores from 0 to 1; found: {scores.min()} to {scores.max()}; possible: a failed example "
            "is worth its metric's floor, scaled"
        )
