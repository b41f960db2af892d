"""How well a response model foretells cells that were kept from it, and whether to believe it.

Several fits at once, each without a third of the cells or of the rows, with features and without. What is better on
cells held out is measured by log-loss, with rows as what is independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from dspy_optimization.compute.arrays import Arrays
from dspy_optimization.compute.cells import Observed
from dspy_optimization.compute.chance import normals, uniforms
from dspy_optimization.compute.item_response import Formula, Motion, Priors, Shape
from dspy_optimization.compute.ranking import Floats, Integers

FOLDS = 3
_STEPS, _RATE = 60, 0.3
_FOLDING, _BEGINNING = 200, 201
_ROWS, _CELLS = 8, 100
"""Fewer say nothing about a model."""
_RANKED, _HELP, _HARM = 2.0, 0.0, 4.0
"""Standard errors by which features must rank and help to be believed, and a model must be off not to be."""
_LEAST_GAP, _ALIKE = 0.03, 0.05
"""Share of the log-loss, and correlation, below which a misfit does not matter even when it is certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a model's predictions were worth on cells held out from it."""

    cells: int
    """How many were held out, each once."""
    log_loss: float
    """Of the model as it is, nats a cell, on cells of rows that it knows; NaN: not measured."""
    baseline_log_loss: float
    """Of the same model without features."""
    new_log_loss: float
    """On rows of which it knows no cell; NaN: no features."""
    new_baseline_log_loss: float
    """On rows of which it knows no cell, from the columns alone."""
    rank_correlation: float
    """Between predicted and observed means of rows, over cells held out of rows that it knows; NaN: not measured."""
    new_rank_correlation: float
    """The same for rows of which it knows no cell: what features alone can rank; NaN: no features."""
    fits: bool
    """Whether one ability a row explains the cells, and chances come true as often as they say."""
    features_help: bool
    """Whether rows never evaluated are foretold better with features than without."""
    residual_correlation: float
    """Root mean square of what is left of correlation between two examples once ability is known; NaN: not measured."""
    misfit: str
    """Why it does not fit, in words; empty when it does."""
    trusted: bool
    """Whether what it says of rows may be acted on: with features that they help, without them that it fits."""
    reason: str
    """Why it is not trusted; empty when it is."""


def calibrated(shape: Shape, data: Observed, priors: Priors, *, seed: int, arrays: Arrays) -> Calibration:
    """Return what a model with these priors is worth, by fits that each lack a third of what was observed."""
    rows = np.unique(data.at_row)
    if len(rows) < _ROWS or len(data.scores) < _CELLS:
        return _unmeasured(
            f"wanted: at least {_CELLS} cells of {_ROWS} candidates; found: {len(data.scores)} of {len(rows)}"
        )
    held = _held_out(shape, data, priors, seed, arrays, ("plain", "blank", "full", "new"))
    used = held.full if shape.features else held.plain
    baseline = _loss(held.plain, data.scores)
    loss = _loss(used, data.scores)
    gap = loss - _loss(used, used)
    off = _sureness(gap, data.at_row)
    structure = _structure(used, data, priors.dispersion)
    misfits = []
    if abs(off) > _HARM and abs(float(gap.mean())) > _LEAST_GAP * float(loss.mean()):
        word = "surer" if off > 0 else "less sure"
        misfits.append(f"it is {word} of held-out scores than it may be ({float(gap.mean()):+.3f} nats a cell)")
    if structure.sureness > _HARM and structure.correlation > _ALIKE:
        misfits.append(
            "candidates are good at different examples: what one ability leaves over is correlated between examples, "
            f"{structure.correlation:.2f} on average, {structure.sureness:.1f} standard errors"
        )
    misfit, reason = "; ".join(misfits), ""
    features_help, new, new_baseline, correlation = False, np.array([np.nan]), np.array([np.nan]), np.nan
    if shape.features:
        new, new_baseline = _loss(held.new, data.scores), _loss(held.average, data.scores)
        correlation = _ranked(held.new_means, held, data)
        helped = _sureness(new_baseline - new, data.at_row)
        features_help = correlation * float(np.sqrt(len(rows) - 1)) > _RANKED and helped > _HELP
        if not features_help:
            reason = (
                "features do not foretell candidates never run: log-loss "
                f"{float(new.mean()):.4f} with them, {float(new_baseline.mean()):.4f} without, rank correlation "
                f"{correlation:+.2f}"
            )
    else:
        reason = misfit
    return Calibration(
        cells=len(data.scores),
        log_loss=float(loss.mean()),
        baseline_log_loss=float(baseline.mean()),
        new_log_loss=float(new.mean()),
        new_baseline_log_loss=float(new_baseline.mean()),
        rank_correlation=_held_ranked(used, held, data),
        new_rank_correlation=correlation,
        fits=not misfit,
        features_help=features_help,
        residual_correlation=structure.correlation,
        misfit=misfit,
        trusted=not reason,
        reason=reason,
    )


def skill_gain(shape: Shape, data: Observed, priors: Priors, *, seed: int, arrays: Arrays) -> SkillGain:
    """Return what one latent skill more is worth on cells held out; it takes more than `calibrated`."""
    if len(np.unique(data.at_row)) < _ROWS or len(data.scores) < _CELLS:
        return SkillGain(nats=0.0, sureness=0.0)
    kind = "full" if shape.features else "plain"
    held = _held_out(shape, data, priors, seed, arrays, (kind, "skilled"))
    used = held.full if shape.features else held.plain
    gain = _loss(used, data.scores) - _loss(held.skilled, data.scores)
    return SkillGain(nats=float(gain.mean()), sureness=_sureness(gain, data.at_row))


class SkillGain(NamedTuple):
    """How much better cells held out are foretold with one latent skill more."""

    nats: float
    """Log-loss saved a cell."""
    sureness: float
    """In standard errors, rows being independent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """Chances of each cell from fits that did not see it, (k,) each."""

    plain: Floats
    """Without features."""
    full: Floats
    """With features."""
    skilled: Floats
    """With a latent skill more."""
    new: Floats
    """With features, without any cell of the row."""
    average: Floats
    """Without features and without any cell of the row: what the column alone says."""
    new_means: Floats
    """(n,), what features say of each row's ability when none of its cells is known."""
    fold: Integers
    """Which fit did not see the cell."""


def _held_out(
    shape: Shape, data: Observed, priors: Priors, seed: int, arrays: Arrays, wanted: tuple[str, ...]
) -> _Held:
    """Fit all at once; what is not wanted is that of the first kind."""
    kinds = tuple(kind for kind in wanted if shape.features or kind not in ("full", "new"))
    members = len(kinds) * FOLDS
    wide = Shape(
        rows=shape.rows,
        columns=shape.columns,
        features=shape.features,
        products=shape.products,
        skills=shape.skills + ("skilled" in kinds),
    )
    row_key, column_key = data.row_keys[data.at_row], data.column_keys[data.at_column]
    by_cell = np.floor(FOLDS * uniforms(seed, _FOLDING, row_key, column_key)).astype(np.int64)
    present = np.unique(data.row_keys[data.at_row])
    luck = np.argsort(np.argsort(uniforms(seed, _FOLDING, present))) % FOLDS
    by_row = luck[np.searchsorted(present, row_key)]
    seen = np.empty((len(data.scores), members))
    for place, kind in enumerate(kinds):
        fold = by_row if kind in ("new", "blank") else by_cell
        seen[:, place * FOLDS : (place + 1) * FOLDS] = fold[:, None] != np.arange(FOLDS)
    plain = np.repeat([kind in ("plain", "blank") or not shape.features for kind in kinds], FOLDS)
    skilled = np.repeat([kind == "skilled" for kind in kinds], FOLDS)
    widths = _widths(wide, shape, priors, plain, skilled)
    begin = np.zeros((sum(wide.sizes().values()), members))
    for name in ("left", "right", "skills", "loadings"):
        at = wide.blocks()[name]
        begin[at] = 0.5 * normals(seed, _BEGINNING, np.arange(at.stop - at.start)[:, None])
    formula = Formula(
        wide,
        data.features,
        data.at_row,
        data.at_column,
        data.scores,
        seen=seen / priors.dispersion,
        widths=widths,
        anchors=np.zeros_like(begin),
        arrays=arrays,
    )
    motion = Motion(point=begin, steps=_STEPS, rate=_RATE)
    formula.descend(motion, _STEPS)
    chances = 1.0 / (1.0 + np.exp(-np.clip(formula.logits(motion.point), -40.0, 40.0)))
    at_cells = np.arange(len(data.scores))

    def of(kind: str, fold: Integers) -> Floats:
        place = kinds.index(kind) * FOLDS if kind in kinds else 0
        return chances[at_cells, place + fold]

    new_means = np.full(shape.rows, np.nan)
    if "new" in kinds:
        ability = np.asarray(arrays.numpy(formula.terms(arrays.array(motion.point)).ability))
        new_means[data.at_row] = ability[data.at_row, kinds.index("new") * FOLDS + by_row]
    return _Held(
        plain=of("plain", by_cell),
        full=of("full", by_cell),
        skilled=of("skilled", by_cell),
        new=of("new", by_row),
        average=of("blank", by_row),
        new_means=new_means,
        fold=by_cell,
    )


def _widths(wide: Shape, shape: Shape, priors: Priors, plain: Floats, skilled: Floats) -> Floats:
    """Return the priors' widths of all fits; what a fit does not have gets 0, its spread goes to the random effects."""
    found = priors.spread(wide, len(plain)).copy()
    at = wide.blocks()
    for name in ("weights", "left", "right"):
        found[at[name]] *= 1.0 - plain
    width = priors.widths
    if shape.features:
        alone = np.sqrt(width["effects"] ** 2 + width["weights"] ** 2)
        found[at["effects"]] = np.where(plain, alone, width["effects"])
    for name, count in (("skills", wide.rows), ("loadings", wide.columns)):
        if wide.skills > shape.skills:
            block = found[at[name]].reshape(count, wide.skills, len(plain))
            block[:, -1, :] *= skilled
            found[at[name]] = block.reshape(count * wide.skills, len(plain))
    return found


def _loss(chances: Floats, scores: Floats) -> Floats:
    return np.asarray(-(scores * np.log(chances) + (1.0 - scores) * np.log1p(-chances)))


def _sureness(gains: Floats, rows: Integers) -> float:
    """Return by how many standard errors the sum of gains is above 0, rows being independent of each other."""
    totals = np.bincount(rows, gains)[np.unique(rows)]
    error = float(np.sqrt(len(totals) * totals.var(ddof=1))) if len(totals) > 1 else 0.0
    return float(totals.sum()) / error if error > 0.0 else 0.0


class _Structure(NamedTuple):
    """What is left of correlation between columns."""

    correlation: float
    sureness: float
    """In standard errors."""


def _structure(chances: Floats, data: Observed, dispersion: float) -> _Structure:
    """Return how much columns are correlated beyond what ability explains, from residuals of held-out cells.

    Sums over pairs of columns the squared covariance, less what it would be by chance. The mean covariance is taken
    off: what a fit does not know of a row's ability is in all its residuals alike.
    """
    residual, seen = np.zeros((data.rows, data.columns)), np.zeros((data.rows, data.columns))
    at = (data.at_row, data.at_column)
    residual[at] = (data.scores - chances) / np.sqrt(chances * (1.0 - chances) * dispersion)
    seen[at] = 1.0
    together, chance = seen.T @ seen, (residual**2).T @ residual**2
    covariance = residual.T @ residual
    for one in (together, chance, covariance):
        np.fill_diagonal(one, 0.0)
    pairs = float((together * (together - 1.0)).sum())
    if pairs <= 0.0:
        return _Structure(correlation=0.0, sureness=0.0)
    covariance -= together * (covariance.sum() / together.sum())
    noise = chance**2 - (residual**4).T @ residual**4
    np.fill_diagonal(noise, 0.0)
    total = float((covariance**2 - chance).sum())
    error = 2.0 * float(np.sqrt(max(float(noise.sum()), 0.0)))
    return _Structure(
        correlation=float(np.sqrt(max(total, 0.0) / pairs)), sureness=total / error if error > 0.0 else 0.0
    )


def _held_ranked(chances: Floats, held: _Held, data: Observed) -> float:
    """Return the rank correlation of predicted and observed row means, each over a fold of cells, averaged over folds.

    Both are taken off what a row of no particular ability would have there: rows differ in the columns they saw.
    """
    found = []
    for fold in range(FOLDS):
        at = held.fold == fold
        count = np.bincount(data.at_row[at], minlength=data.rows)
        rows = np.flatnonzero(count)
        expected, observed = (
            np.bincount(data.at_row[at], (one - held.average)[at], minlength=data.rows)[rows] / count[rows]
            for one in (chances, data.scores)
        )
        found.append(_spearman(expected, observed))
    return float(np.mean(found))


def _ranked(expected: Floats, held: _Held, data: Observed) -> float:
    count = np.bincount(data.at_row, minlength=data.rows)
    rows = np.flatnonzero(count)
    observed = np.bincount(data.at_row, data.scores - held.average, minlength=data.rows)[rows] / count[rows]
    return _spearman(expected[rows], observed)


def _spearman(one: Floats, other: Floats) -> float:
    """Return the rank correlation; 0 where one of them is constant: it ranks nobody."""
    if len(one) < 3 or np.ptp(one) == 0.0 or np.ptp(other) == 0.0:
        return 0.0
    return float(stats.spearmanr(one, other).statistic)


def _unmeasured(reason: str) -> Calibration:
    nan, reason = float("nan"), f"too little to tell: {reason}"
    return Calibration(
        cells=0,
        log_loss=nan,
        baseline_log_loss=nan,
        new_log_loss=nan,
        new_baseline_log_loss=nan,
        rank_correlation=nan,
        new_rank_correlation=nan,
        fits=False,
        features_help=False,
        residual_correlation=nan,
        misfit=reason,
        trusted=False,
        reason=reason,
    )
