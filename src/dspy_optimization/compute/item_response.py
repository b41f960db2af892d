"""The formula of item response with side information, its gradient, and its descent, for several members at once.

    logit p(i, j) = a_j (x_i w + sum_k (x_i u_k)(x_i v_k) + r_i) + z_i q_j - b_j,    a_j = exp(alpha_j)

Rows i are candidates, columns j examples. All parameters lie below each other in one matrix (parameters, members), each
in units of its prior's width, so that a descent is a few operations on one array. Source: the two-parameter logistic
model, Birnbaum 1968; our extension: features, their products, several members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dspy_optimization.compute.arrays import Array, Arrays, NumpyArrays
from dspy_optimization.compute.ranking import Floats, Integers

_LEVEL = 2.0
"""Width of the prior of what all difficulties have in common, in logits."""
_FIRST, _SECOND, _TINY = 0.9, 0.99, 1e-12
"""Adam's decays. The second is shorter than usual: descents are short, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many there are of everything, and where it lies in the matrix of parameters."""

    rows: int
    columns: int
    features: int
    products: int
    skills: int

    def sizes(self) -> Mapping[str, int]:
        """Return how many parameters each block has, in their order."""
        return {
            "weights": self.features,
            "left": self.features * self.products,
            "right": self.features * self.products,
            "effects": self.rows,
            "skills": self.rows * self.skills,
            "loadings": self.columns * self.skills,
            "slopes": self.columns,
            "difficulties": self.columns,
            "level": 1,
        }

    def blocks(self) -> Mapping[str, slice]:
        """Return where each block lies."""
        found, begin = {}, 0
        for name, size in self.sizes().items():
            found[name] = slice(begin, begin + size)
            begin += size
        return found

    def spread(self, by_block: Mapping[str, Floats | float], members: int) -> Floats:
        """Return (parameters, members) with each block's value for all its parameters."""
        return np.concatenate(
            [
                np.broadcast_to(np.asarray(by_block[name], dtype=np.float64), (size, members))
                for name, size in self.sizes().items()
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Priors:
    """What a fit learned about sizes; a later one begins with it."""

    widths: Mapping[str, float]
    dispersion: float
    """Variance of scores as a share of what right-or-wrong would have; 1 for those."""

    def spread(self, shape: Shape, members: int) -> Floats:
        """Return (parameters, members), the width of each parameter's prior."""
        width = self.widths
        return shape.spread(
            {
                "weights": width["weights"],
                "left": width["products"] ** 0.5,
                "right": width["products"] ** 0.5,
                "effects": width["effects"],
                "skills": width["skills"],
                "loadings": 1.0,
                "slopes": width["slopes"],
                "difficulties": width["difficulties"],
                "level": _LEVEL,
            },
            members,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a formula's parameters make of rows and columns, before they meet in a cell; the last axis is members."""

    ability: Array
    """(rows, members)"""
    slope: Array
    """(columns, members)"""
    difficulty: Array
    """(columns, members)"""
    skills: Array
    """(rows, skills, members)"""
    loadings: Array
    """(columns, skills, members)"""


@dataclass(slots=True, kw_only=True)
class Motion:
    """A descent that goes on while priors change."""

    point: Floats
    """(parameters, members), in widths."""
    steps: int
    """How many there will be."""
    rate: float
    """How far the first one goes, in widths."""
    done: int = 0
    momentum: Floats = field(init=False)
    energy: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Begin at rest."""
        self.momentum, self.energy = np.zeros_like(self.point), np.zeros_like(self.point)

    def rescale(self, factor: Floats) -> None:
        """Measure in other widths: one of them is so many of those."""
        self.point = self.point * factor
        self.momentum, self.energy = self.momentum / factor, self.energy / factor**2


class Formula:
    """The posterior of all members, given what they have seen."""

    def __init__(
        self,
        shape: Shape,
        features: Floats,
        rows: Integers,
        columns: Integers,
        scores: Floats,
        *,
        seen: Floats,
        widths: Floats,
        anchors: Floats,
        arrays: Arrays | None = None,
    ) -> None:
        """Take cells in any order; the order decides the last digits.

        Args:
            shape: of everything.
            features: (rows, features), standardised.
            rows: (cells,).
            columns: (cells,).
            scores: (cells,), in [0, 1].
            seen: (cells, members), the weight of a cell for a member; 0: not seen.
            widths: (parameters, members), of the priors.
            anchors: (parameters, members), the priors' means, in widths.
            arrays: where to compute.
        """
        self._to = arrays or NumpyArrays()
        self._shape, self._at = shape, shape.blocks()
        self._features = self._to.array(features)
        self._across = self._to.array(features.T)
        self._row, self._column = self._to.groups(rows, shape.rows), self._to.groups(columns, shape.columns)
        self._scores, self._seen = self._to.array(scores[:, None]), self._to.array(seen)
        self._widths, self._anchors = self._to.array(widths), self._to.array(anchors)
        self._members = widths.shape[1]
        used = np.bincount(columns, minlength=shape.columns) > 0
        # Slopes are 1 on average: otherwise a posterior's mode makes all of them steep and all abilities small.
        self._shares = self._to.array((used / max(int(used.sum()), 1))[:, None])

    def terms(self, point: Array) -> Terms:
        """Return what a point (parameters, members) makes of the rows and columns."""
        shape, members, at = self._shape, self._members, self._at
        value = point * self._widths
        ability = value[at["effects"]]
        if shape.features:
            ability = ability + self._features @ value[at["weights"]]
            if shape.products:
                left, right = self._projections(value)
                ability = ability + (left * right).sum(1)
        return Terms(
            ability=ability,
            slope=self._to.exp(self._centred(value[at["slopes"]])),
            difficulty=value[at["difficulties"]] + value[at["level"]],
            skills=value[at["skills"]].reshape(shape.rows, shape.skills, members),
            loadings=value[at["loadings"]].reshape(shape.columns, shape.skills, members),
        )

    def gradient(self, point: Array) -> Array:
        """Return the slope of the negative log-posterior, (parameters, members), at a point of that shape."""
        shape, members = self._shape, self._members
        terms = self.terms(point)
        slope, ability = self._column.take(terms.slope), self._row.take(terms.ability)
        # In place where it can be: large arrays cost more to come by than to fill.
        logit = slope * ability
        logit -= self._column.take(terms.difficulty)
        skill = loading = None
        if shape.skills:
            skill, loading = self._row.take(terms.skills), self._column.take(terms.loadings)
            logit += (skill * loading).sum(1)
        excess = self._to.chances(logit)
        excess -= self._scores
        excess *= self._seen
        slope *= excess
        ability *= excess
        by_ability, by_column = self._row.sums(slope), self._column.sums(excess)
        by_slope = self._column.sums(ability) * terms.slope
        parts = []
        if shape.features:
            parts.append(self._across @ by_ability)
            if shape.products:
                left, right = self._projections(point * self._widths)
                for other in (right, left):
                    pulled = (by_ability[:, None, :] * other).reshape(shape.rows, shape.products * members)
                    parts.append((self._across @ pulled).reshape(shape.features * shape.products, members))
        parts.append(by_ability)
        if shape.skills:
            wide = (len(self._seen), shape.skills * members)
            lifted = excess[:, None, :]
            parts.append(self._row.sums((lifted * loading).reshape(wide)).reshape(-1, members))
            parts.append(self._column.sums((lifted * skill).reshape(wide)).reshape(-1, members))
        parts += [by_slope - self._shares * by_slope.sum(0), -by_column, -by_column.sum(0)[None, :]]
        return self._to.joined(parts) * self._widths + (point - self._anchors)

    def loss(self, point: Floats) -> Floats:
        """Return the negative log-posterior of each member, (members,), up to a constant."""
        logits = self.logits(point)
        entropy = np.logaddexp(0.0, logits) - self._to.numpy(self._scores) * logits
        distance = self._to.numpy(self._to.array(point) - self._anchors)
        return np.asarray((self._to.numpy(self._seen) * entropy).sum(axis=0) + 0.5 * (distance**2).sum(axis=0))

    def logits(self, point: Floats) -> Floats:
        """Return the logit of each cell for each member, (cells, members)."""
        terms = self.terms(self._to.array(point))
        found = self._column.take(terms.slope) * self._row.take(terms.ability) - self._column.take(terms.difficulty)
        if self._shape.skills:
            found = found + (self._row.take(terms.skills) * self._column.take(terms.loadings)).sum(1)
        return self._to.numpy(found)

    def descend(self, motion: Motion, steps: int) -> None:
        """Move on by so many steps of Adam; the rate falls to nothing at the end of the whole motion, by a cosine.

        Source: Kingma and Ba 2015.
        """
        point, momentum, energy = (self._to.array(one) for one in (motion.point, motion.momentum, motion.energy))
        for step in range(motion.done + 1, motion.done + steps + 1):
            gradient = self.gradient(point)
            momentum = _FIRST * momentum + (1.0 - _FIRST) * gradient
            energy = _SECOND * energy + (1.0 - _SECOND) * gradient * gradient
            stride = motion.rate * 0.5 * (1.0 + float(np.cos(np.pi * (step - 1) / motion.steps)))
            scale = (energy / (1.0 - _SECOND**step)) ** 0.5 + _TINY
            point = point - stride / (1.0 - _FIRST**step) * momentum / scale
        motion.point, motion.momentum, motion.energy = (self._to.numpy(one) for one in (point, momentum, energy))
        motion.done += steps

    def values(self, point: Floats) -> Floats:
        """Return the parameters, (parameters, members), in logits and not in widths, slopes centred."""
        found = point * self._to.numpy(self._widths)
        at = self._at["slopes"]
        found[at] = self._to.numpy(self._centred(self._to.array(found[at])))
        return found

    def _centred(self, slopes: Array) -> Array:
        return slopes - (self._shares * slopes).sum(0)

    def _projections(self, value: Array) -> tuple[Array, Array]:
        shape, members, at = self._shape, self._members, self._at
        found = []
        for name in ("left", "right"):
            flat = value[at[name]].reshape(shape.features, shape.products * members)
            found.append((self._features @ flat).reshape(shape.rows, shape.products, members))
        return found[0], found[1]
