"""What was observed of candidates by examples, checked and brought into one order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.errors import InvalidRequestError

_FLAT = 1e-9
"""A feature that varies less than this share of its size is constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """What was paid for: which candidate got which score on which example."""

    rows: Integers
    """(k,), which candidate."""
    columns: Integers
    """(k,), which example."""
    scores: Floats
    """(k,), in [0, 1]; NaN: not known, as if it were not there. Of a cell given twice the mean counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How features become numbers of size 1 together."""

    centre: Floats
    size: Floats
    """Infinite for a constant feature: it becomes 0."""

    @property
    def count(self) -> int:
        """How many features."""
        return len(self.centre)

    @classmethod
    def of(cls, features: Floats) -> Scaling:
        """Return the scaling that centres these features and gives each row a squared length of 1 on average."""
        count = features.shape[1]
        if not len(features):
            return cls(centre=np.zeros(count), size=np.full(count, np.inf))
        known = np.isfinite(features)
        rows = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, features, 0.0).sum(axis=0) / rows
        away = np.where(known, features - centre, 0.0)
        spread = np.sqrt((away**2).sum(axis=0) / rows)
        varies = spread > _FLAT * np.maximum(np.abs(centre), 1e-300)
        share = np.sqrt(max(int(varies.sum()), 1))
        return cls(centre=centre, size=np.where(varies, spread * share, np.inf))

    def apply(self, features: Floats) -> Floats:
        """Return features scaled, (n, d); what is not known is at the centre."""
        away = np.where(np.isfinite(features), features - self.centre, 0.0)
        return np.asarray(away / self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a model is fitted to, checked: cells sorted by row and column, each once."""

    features: Floats
    """(n, d), scaled."""
    columns: int
    at_row: Integers
    at_column: Integers
    scores: Floats
    row_keys: Integers
    column_keys: Integers

    @property
    def rows(self) -> int:
        """How many candidates."""
        return len(self.features)

    def known(self) -> Floats:
        """Return the scores as a matrix (n, columns), NaN where not observed."""
        found = np.full((self.rows, self.columns), np.nan)
        found[self.at_row, self.at_column] = self.scores
        return found

    def sorted_by_keys(self) -> tuple[Observed, Integers, Integers]:
        """Return the same with rows and columns in the order of their keys, and those orders."""
        rows, columns = np.argsort(self.row_keys, kind="stable"), np.argsort(self.column_keys, kind="stable")
        row, column = np.argsort(rows)[self.at_row], np.argsort(columns)[self.at_column]
        order = np.lexsort((column, row))
        found = replace(
            self,
            features=np.ascontiguousarray(self.features[rows]),
            at_row=row[order],
            at_column=column[order],
            scores=self.scores[order],
            row_keys=self.row_keys[rows],
            column_keys=self.column_keys[columns],
        )
        return found, rows, columns


def as_features(given: npt.ArrayLike) -> Floats:
    """Return features as a matrix. Raises `InvalidRequestError` when they are not one."""
    found = np.asarray(given, dtype=np.float64)
    if found.ndim != 2:
        raise InvalidRequestError(
            f"features: wanted: a matrix of candidates by features; found: shape {found.shape}; possible: (n, 0) for "
            "none"
        )
    return found


def observed(
    features: Floats, columns: int, cells: Cells, row_keys: npt.ArrayLike | None, column_keys: npt.ArrayLike | None
) -> Observed:
    """Return checked data: cells without NaN, sorted, each once. Raises `InvalidRequestError` for what does not fit."""
    row, column = (np.asarray(one, dtype=np.int64) for one in (cells.rows, cells.columns))
    score = np.asarray(cells.scores, dtype=np.float64)
    if row.ndim != 1 or row.shape != column.shape or row.shape != score.shape:
        raise InvalidRequestError(
            f"cells: wanted: as many rows as columns and scores; found: shapes {row.shape}, {column.shape}, "
            f"{score.shape}; possible: three times (k,)"
        )
    _inside("rows", row, len(features))
    _inside("columns", column, columns)
    known = ~np.isnan(score)
    row, column, score = row[known], column[known], score[known]
    if len(score) and (score.min() < 0.0 or score.max() > 1.0):
        raise InvalidRequestError(
            f"scores: wanted: 0 to 1; found: {score.min()} to {score.max()}; possible: scale them, NaN for not known"
        )
    order = np.lexsort((score, column, row))
    row, column, score = row[order], column[order], score[order]
    new = np.ones(len(row), dtype=bool)
    new[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    first = np.flatnonzero(new)
    if len(first) < len(row):
        score = np.add.reduceat(score, first) / np.diff(np.append(first, len(row)))
        row, column = row[first], column[first]
    return Observed(
        features=features,
        columns=columns,
        at_row=row,
        at_column=column,
        scores=score,
        row_keys=_keys("row_keys", row_keys, len(features)),
        column_keys=_keys("column_keys", column_keys, columns),
    )


def _inside(name: str, places: Integers, count: int) -> None:
    if len(places) and (places.min() < 0 or places.max() >= count):
        raise InvalidRequestError(
            f"{name} of cells: wanted: from 0 and below {count}; found: {places.min()} to {places.max()}; possible: "
            "more features or columns"
        )


def _keys(name: str, given: npt.ArrayLike | None, count: int) -> Integers:
    if given is None:
        return np.arange(count, dtype=np.int64)
    found = np.asarray(given, dtype=np.int64)
    if found.shape != (count,) or len(np.unique(found)) < count:
        raise InvalidRequestError(
            f"{name}: wanted: {count} different whole numbers; found: shape {found.shape}, "
            f"{len(np.unique(found))} different; possible: None, for their positions"
        )
    return found
