"""What scores would be that nobody paid for: item response with side information, as draws from its posterior.

    model = fit(features, 300, Cells(rows=rows, columns=columns, scores=scores), seed=7)
    model.completed()             # (members, n): draws of every candidate's mean over all examples
    model.means(virtual)          # (members, g): of candidates never run
    model.calibration.trusted     # measured on cells held out

Each member has its own draw from the prior to hold on to and its own weights for the cells (randomised maximum a
posteriori), so members are about as far apart as the data leaves open: one member is one Thompson sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dspy_optimization.compute.arrays import Array, Arrays, NumpyArrays, arrays_of
from dspy_optimization.compute.calibration import Calibration, SkillGain, calibrated, skill_gain
from dspy_optimization.compute.cells import Cells, Observed, Scaling, as_features, observed
from dspy_optimization.compute.chance import normals, paired_normals, paired_poissons
from dspy_optimization.compute.computing import Computing
from dspy_optimization.compute.devices import Device
from dspy_optimization.compute.item_response import Formula, Motion, Priors, Shape
from dspy_optimization.compute.ranking import Floats, Integers
from dspy_optimization.errors import InvalidRequestError

_LEGS = (0.3, 0.45, 0.6, 1.0)
"""Shares of a descent after which the widths of the priors are learned."""
_LEAST_DISPERSION, _WIDEST = 0.05, 3.0
_STREAMS = {
    name: number for number, name in enumerate(Shape(rows=0, columns=0, features=0, products=0, skills=0).sizes())
}
_WEIGHING, _LUCK = 100, 101


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTerms:
    """How a model is fitted."""

    members: int = 8
    products: int = 1
    """Products of two weighted sums of features that may matter beyond the sums; 0: none."""
    skills: int = 0
    """Latent skills beside ability. More than 0 is for more than about 5,000 cells, and where `skill_gain` says so."""
    steps: int = 120
    """Of a first descent."""
    warm_steps: int = 40
    """Of one that begins where another model ended."""
    rate: float = 0.3
    """How far the first step goes, in widths of the priors."""
    widths: Mapping[str, float] = field(
        default_factory=lambda: {
            "weights": 0.4,
            "products": 0.2,
            "effects": 0.4,
            "slopes": 0.15,
            "difficulties": 1.2,
            "skills": 0.3,
        }
    )
    """Standard deviations of the priors to begin with, in logits; `weights` that of all features together."""
    belief: float = 20.0
    """How many parameters those widths are worth, against what the data says of them."""


class ResponseModel:
    """Draws from the posterior of an item-response model. Made by `fit`."""

    def __init__(
        self,
        data: Observed,
        values: Mapping[str, Floats],
        priors: Priors,
        scaling: Scaling,
        *,
        seed: int,
        terms: ResponseTerms,
        arrays: Arrays,
    ) -> None:
        """Hold what `fit` found, in the caller's order of rows and columns."""
        self._data, self._values, self._scaling = data, values, scaling
        self.priors, self.terms, self.seed = priors, terms, seed
        self.members = terms.members
        self.cells = len(data.scores)
        self._arrays = arrays
        self._calibration: Calibration | None = None

    def means(
        self, features: npt.ArrayLike, *, members: Sequence[int] | None = None, computing: Computing | None = None
    ) -> Floats:
        """Return the mean score over all columns of rows never evaluated, (members, g), each in [0, 1].

        Their random effect is 0: what no feature tells of them is left out, not drawn, so that equal features get equal
        scores and the best of many is not the luckiest.

        Args:
            features: (g, d), the same features in the same units as in the fit.
            members: of which ones; None: of all.
            computing: where, in as many portions as memory asks for; None: NumPy, a member at a time.

        Raises:
            InvalidRequestError: another number of features.
        """
        given = as_features(features)
        if given.shape[1] != self._scaling.count:
            raise InvalidRequestError(
                f"features: wanted: {self._scaling.count} columns, as fitted; found: {given.shape[1]}; possible: fit "
                "again with the new ones"
            )
        chosen = np.arange(self.members) if members is None else np.asarray(members, dtype=np.int64)
        ability = _from_features(self._values, self._scaling.apply(given), self.terms.products)[:, chosen]
        slope = np.exp(self._values["slopes"])[:, chosen]
        difficulty = (self._values["difficulties"] + self._values["level"])[:, chosen]
        if not len(slope):
            return np.full((len(chosen), len(given)), 0.5)
        if computing is not None:
            return _means_in_batches(computing, ability, slope, difficulty)
        found = np.empty((len(chosen), len(given)))
        for place in range(len(chosen)):
            logits = np.multiply.outer(ability[:, place], slope[:, place]) - difficulty[:, place]
            found[place] = NumpyArrays().chances(logits).mean(axis=1)
        return found

    def table(self) -> Floats:
        """Return the predicted score of every cell of the fitted rows, (members, n, columns), observed or not."""
        ability = self._values["effects"] + _from_features(self._values, self._data.features, self.terms.products)
        slope, difficulty = np.exp(self._values["slopes"]), self._values["difficulties"] + self._values["level"]
        found = np.empty((self.members, self._data.rows, self._data.columns))
        for member in range(self.members):
            logits = np.multiply.outer(ability[:, member], slope[:, member]) - difficulty[:, member]
            if self.terms.skills:
                skill, loading = (self._values[name][:, member] for name in ("skills", "loadings"))
                logits += skill.reshape(len(logits), -1) @ loading.reshape(logits.shape[1], -1).T
            found[member] = NumpyArrays().chances(logits)
        return found

    def completed(self, draws: int = 1) -> Floats:
        """Return draws of each row's mean over all columns, (members * draws, n): observed cells are as observed.

        The others are drawn: predicted, and with the luck that single answers have, so that a row's draws spread as
        much as is left open about its full score. Draws of one member lie together.
        """
        table, known = self.table(), self._data.known()
        mean, variance = self._open(table, known)
        luck = normals(
            self.seed,
            _LUCK,
            np.arange(self.members)[:, None, None],
            np.arange(draws)[None, :, None],
            self._data.row_keys[None, None, :],
        )
        found = mean[:, None, :] + luck * np.sqrt(variance)[:, None, :]
        return np.clip(found, 0.0, 1.0).reshape(self.members * draws, self._data.rows)

    def expected(self) -> Floats:
        """Return `completed` without luck, (members, n): each member's expectation of the full score."""
        return self._open(self.table(), self._data.known())[0]

    def information(self, best: int | None = None) -> Floats:
        """Return how much a column tells apart the best rows, (columns,): Fisher's information about their ability.

        Args:
            best: how many rows are the best ones; None: a twentieth of them, at least two.
        """
        table, count = self.table(), self._data.rows
        if not count:
            return np.zeros(self._data.columns)
        wanted = min(count, max(2, count // 20) if best is None else best)
        slope = np.exp(self._values["slopes"])
        found = np.zeros(self._data.columns)
        for member, means in enumerate(self._open(table, self._data.known())[0]):
            top = np.lexsort((self._data.row_keys, -means))[:wanted]
            chances = table[member, top]
            found += slope[:, member] ** 2 * (chances * (1.0 - chances)).mean(axis=0)
        return found / self.members

    @property
    def calibration(self) -> Calibration:
        """What predictions are worth, measured on cells held out. The first time it takes about as long as a fit."""
        if self._calibration is None:
            ordered, _, _ = self._data.sorted_by_keys()
            self._calibration = calibrated(self._shape, ordered, self.priors, seed=self.seed, arrays=self._arrays)
        return self._calibration

    @property
    def skill_gain(self) -> SkillGain:
        """What one latent skill more is worth on cells held out. It takes about as long as a fit, every time."""
        ordered, _, _ = self._data.sorted_by_keys()
        return skill_gain(self._shape, ordered, self.priors, seed=self.seed, arrays=self._arrays)

    @property
    def _shape(self) -> Shape:
        return Shape(
            rows=self._data.rows,
            columns=self._data.columns,
            features=self._scaling.count,
            products=self.terms.products,
            skills=self.terms.skills,
        )

    def begin(self) -> Mapping[str, Floats]:
        """Return the parameters by block, (block, members): where a later fit begins."""
        return self._values

    def _open(self, table: Floats, known: Floats) -> tuple[Floats, Floats]:
        """Return mean and variance of the full score, (members, n) each, observed cells as observed."""
        unseen = np.isnan(known)
        count = max(self._data.columns, 1)
        mean = np.where(unseen[None], table, np.nan_to_num(known)[None]).sum(axis=2) / count
        variance = np.where(unseen[None], table * (1.0 - table), 0.0).sum(axis=2) * self.priors.dispersion / count**2
        return mean, variance


def fit(
    features: npt.ArrayLike,
    columns: int,
    cells: Cells,
    *,
    seed: int,
    terms: ResponseTerms | None = None,
    start: ResponseModel | None = None,
    device: Device | None = None,
    row_keys: npt.ArrayLike | None = None,
    column_keys: npt.ArrayLike | None = None,
) -> ResponseModel:
    """Return a model of all scores of these rows; the order of the cells does not matter.

    Args:
        features: (n, d) of the candidates, in any units, d may be 0; what is not finite counts as not known.
        columns: how many examples there are.
        cells: what was observed.
        seed: of everything random.
        terms: None: as they are best for hundreds of candidates.
        start: a model of fewer or as many rows, columns and features; what both have begins where it was, by position.
        device: None: NumPy.
        row_keys: (n,), whose luck is whose: rows that keep their key may stand elsewhere; None: their position.
        column_keys: (columns,), likewise.

    Raises:
        InvalidRequestError: shapes that do not fit, scores outside [0, 1].
    """
    chosen = terms or ResponseTerms()
    given = as_features(features)
    scaling = Scaling.of(given)
    data = observed(scaling.apply(given), columns, cells, row_keys, column_keys)
    ordered, rows, places = data.sorted_by_keys()
    shape = Shape(
        rows=data.rows, columns=columns, features=scaling.count, products=chosen.products, skills=chosen.skills
    )
    descent = _Descent(shape, ordered, seed=seed, terms=chosen, arrays=arrays_of(device))
    if start is None:
        priors, begin = Priors(widths=dict(chosen.widths), dispersion=1.0), None
    else:
        priors, begin = start.priors, _arranged(_extended(start.begin(), shape, chosen.members), shape, rows, places)
    values, priors = descent.run(priors, begin)
    return ResponseModel(
        data,
        _arranged(values, shape, np.argsort(rows), np.argsort(places)),
        priors,
        scaling,
        seed=seed,
        terms=chosen,
        arrays=arrays_of(device),
    )


class _Descent:
    """All members on their way down."""

    def __init__(self, shape: Shape, data: Observed, *, seed: int, terms: ResponseTerms, arrays: Arrays) -> None:
        self._shape, self._data, self._terms, self._arrays = shape, data, terms, arrays
        members = np.arange(terms.members)
        self._seen = paired_poissons(
            members, seed, _WEIGHING, data.row_keys[data.at_row][:, None], data.column_keys[data.at_column][:, None]
        )
        self._anchors = np.concatenate(
            [
                paired_normals(members, seed, _STREAMS[name], *(key[:, None] for key in _keys_of(name, shape, data)))
                for name in shape.sizes()
            ]
        )
        self._binary = bool(np.isin(data.scores, (0.0, 1.0)).all())

    def run(self, priors: Priors, begin: Mapping[str, Floats] | None) -> tuple[Mapping[str, Floats], Priors]:
        """Return where the members end, by block, (block, members), and what was learned about sizes.

        Args:
            priors: to begin with.
            begin: parameters by block, NaN for those to begin at their anchors; None: all of them.
        """
        terms = self._terms
        widths = priors.spread(self._shape, terms.members)
        point = self._anchors.copy()
        if begin is not None:
            warm = self._shape.spread(begin, terms.members) / widths
            point = np.where(np.isnan(warm), point, warm)
        steps = terms.steps if begin is None else terms.warm_steps
        if not len(self._data.scores):
            return self._split(point * widths), priors
        motion = Motion(point=point, steps=steps, rate=terms.rate)
        formula = self._formula(widths, priors.dispersion)
        for leg, share in enumerate(_LEGS):
            formula.descend(motion, round(share * steps) - motion.done)
            if leg < len(_LEGS) - 1:
                priors = self._learned(formula, motion.point, priors)
                before, widths = widths, priors.spread(self._shape, terms.members)
                motion.rescale(before / widths)
                formula = self._formula(widths, priors.dispersion)
        return self._split(formula.values(motion.point)), priors

    def _formula(self, widths: Floats, dispersion: float) -> Formula:
        data = self._data
        return Formula(
            self._shape,
            data.features,
            data.at_row,
            data.at_column,
            data.scores,
            seen=self._seen / dispersion,
            widths=widths,
            anchors=self._anchors,
            arrays=self._arrays,
        )

    def _learned(self, formula: Formula, point: Floats, priors: Priors) -> Priors:
        """Return sizes that fit the members better: one step of expectation and maximisation over their draws.

        Members are draws from the posterior, so their mean square in units of the prior says how much too narrow it is.
        Slopes keep theirs: few columns say little about them, and what grows there grows exponentially.
        """
        at = self._shape.blocks()
        used_rows = np.unique(self._data.at_row)
        used_columns = np.unique(self._data.at_column)
        squares = {
            "weights": point[at["weights"]][np.any(self._data.features != 0.0, axis=0)],
            "effects": point[at["effects"]][used_rows],
            "difficulties": point[at["difficulties"]][used_columns],
        }
        widths = dict(priors.widths)
        for name, found in squares.items():
            if len(found):
                total = (found**2).mean(axis=1).sum()
                wider = np.sqrt((self._terms.belief + total) / (self._terms.belief + len(found)))
                widths[name] = min(widths[name] * float(wider), _WIDEST)
        return Priors(widths=widths, dispersion=self._dispersion(formula, point))

    def _dispersion(self, formula: Formula, point: Floats) -> float:
        if self._binary:
            return 1.0
        chances = NumpyArrays().chances(formula.logits(point))
        held = self._seen == 0.0
        expected = (chances * (1.0 - chances))[held].sum()
        found = ((chances - self._data.scores[:, None])[held] ** 2).sum()
        return float(np.clip((found + 1e-9) / (expected + 1e-9), _LEAST_DISPERSION, 1.0))

    def _split(self, values: Floats) -> Mapping[str, Floats]:
        return {name: values[at] for name, at in self._shape.blocks().items()}


def _keys_of(name: str, shape: Shape, data: Observed) -> tuple[Integers, ...]:
    """Return what each parameter of a block belongs to: a row or column by its key, and which of several."""
    several = {
        "weights": (np.arange(shape.features), 1),
        "left": (np.arange(shape.features), shape.products),
        "right": (np.arange(shape.features), shape.products),
        "effects": (data.row_keys, 1),
        "skills": (data.row_keys, shape.skills),
        "loadings": (data.column_keys, shape.skills),
        "slopes": (data.column_keys, 1),
        "difficulties": (data.column_keys, 1),
        "level": (np.zeros(1, dtype=np.int64), 1),
    }
    keys, count = several[name]
    return np.repeat(keys, count), np.tile(np.arange(count), len(keys))


def _extended(values: Mapping[str, Floats], shape: Shape, members: int) -> Mapping[str, Floats]:
    """Return an earlier model's blocks in a new size, NaN for what it did not have."""
    found = {}
    for name, size in shape.sizes().items():
        before = values[name]
        found[name] = np.full((size, members), np.nan)
        if before.shape[1] == members:
            length = min(size, len(before))
            found[name][:length] = before[:length]
    return found


def _arranged(values: Mapping[str, Floats], shape: Shape, rows: Integers, columns: Integers) -> Mapping[str, Floats]:
    """Return blocks with their rows and columns taken in another order."""
    by = {"effects": rows, "skills": rows, "loadings": columns, "slopes": columns, "difficulties": columns}
    found = {}
    for name, value in values.items():
        order = by.get(name)
        if order is None:
            found[name] = value
            continue
        count = shape.skills if name in ("skills", "loadings") else 1
        folded = value.reshape(len(order), count, value.shape[1]) if count else value
        found[name] = folded[order].reshape(value.shape) if count else value
    return found


def _from_features(values: Mapping[str, Floats], features: Floats, products: int) -> Floats:
    """Return what features say of ability, (rows, members)."""
    found = np.asarray(features @ values["weights"])
    count, members = features.shape[1], found.shape[1]
    if products and count:
        left, right = (
            (features @ values[name].reshape(count, products * members)).reshape(-1, products, members)
            for name in ("left", "right")
        )
        found = found + (left * right).sum(axis=1)
    return found


def _means_in_batches(computing: Computing, ability: Floats, slope: Floats, difficulty: Floats) -> Floats:
    """Return mean chances, (members, rows), of abilities (rows, members) on columns (columns, members)."""

    def work(device: Device, rows: slice) -> Array:
        to = arrays_of(device)
        logits = to.array(ability[rows])[:, None, :] * to.array(slope)[None] - to.array(difficulty)[None]
        return to.chances(logits).mean(1)

    # The logits, and what they become on the way, of one row.
    return computing.in_batches(work, len(ability), bytes_per_row=4 * 8 * slope.size).T
