"""The response model against numbers it is made from, finite differences, and laws that hold for any cells."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dspy_optimization.compute import computing
from dspy_optimization.compute.calibration import Calibration
from dspy_optimization.compute.cells import Cells
from dspy_optimization.compute.chance import normals, paired_normals, paired_poissons, uniforms
from dspy_optimization.compute.computing import Computing
from dspy_optimization.compute.devices import load_torch, numpy_device
from dspy_optimization.compute.item_response import Formula, Shape
from dspy_optimization.compute.metering import GpuMeter
from dspy_optimization.compute.response_model import ResponseModel, ResponseTerms, fit
from dspy_optimization.errors import InvalidRequestError

QUICK = ResponseTerms(steps=30, warm_steps=10, members=4)


class World:
    """Candidates and examples of an item-response model, or of something else."""

    def __init__(self, seed: int = 0, *, rows: int = 120, columns: int = 80, told: float = 0.8, kinds: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.features = rng.normal(size=(rows, 6))
        weight = np.array([1.0, -1.0, 0.5, 0.0, 0.0, 0.0])
        explained = self.features @ weight / np.linalg.norm(weight)
        self.ability = 0.7 * (math.sqrt(told) * explained + math.sqrt(1.0 - told) * rng.normal(size=rows))
        self.slope = np.exp(0.3 * rng.normal(size=columns))
        self.difficulty = 1.2 * rng.normal(size=columns)
        logits = self.slope * self.ability[:, None] - self.difficulty
        if kinds:
            logits = logits + 1.5 * rng.normal(size=(rows, kinds))[:, rng.integers(0, kinds, columns)]
        self.chances = 1.0 / (1.0 + np.exp(-logits))
        self.scores = (rng.random(logits.shape) < self.chances).astype(float)

    def cells(self, share: float, seed: int = 1) -> Cells:
        rows, columns = np.nonzero(np.random.default_rng(seed).random(self.scores.shape) < share)
        return Cells(rows=rows, columns=columns, scores=self.scores[rows, columns])


def fitted(world: World, share: float = 0.3, features: np.ndarray | None = None, **terms: object) -> ResponseModel:
    given_features = world.features if features is None else features
    return fit(given_features, world.scores.shape[1], world.cells(share), seed=3, **terms)  # type: ignore[arg-type]


def test_the_gradient_is_that_of_the_loss() -> None:
    """Central differences in every parameter of every member."""
    rng = np.random.default_rng(0)
    shape = Shape(rows=7, columns=6, features=3, products=2, skills=2)
    count, members, step = sum(shape.sizes().values()), 3, 1e-6
    formula = Formula(
        shape,
        rng.normal(size=(7, 3)),
        rng.integers(0, 7, 20),
        rng.integers(0, 5, 20),  # nobody saw the last column
        rng.random(20),
        seen=rng.random((20, members)),
        widths=rng.random((count, members)) + 0.3,
        anchors=rng.normal(size=(count, members)),
    )
    point = rng.normal(size=(count, members))
    found = np.array(
        [
            (formula.loss(point + away[:, None]) - formula.loss(point - away[:, None])) / (2.0 * step)
            for away in step * np.eye(count)
        ]
    )

    np.testing.assert_allclose(formula.gradient(point), found, atol=1e-6)


def test_what_a_world_is_made_of_is_found_again() -> None:
    """Abilities and difficulties correlate with the true ones; predicted chances are near the true ones."""
    world = World(rows=200, columns=100)
    model = fitted(world, 0.5)

    table = model.table().mean(axis=0)
    assert stats.spearmanr(table.mean(axis=1), world.ability).statistic > 0.9
    assert stats.spearmanr(-table.mean(axis=0), world.difficulty).statistic > 0.95
    assert np.sqrt(np.mean((table - world.chances) ** 2)) < 0.09


def test_draws_are_as_far_apart_as_the_truth_is_away() -> None:
    """Over rows and worlds, (truth - mean) / spread has a standard deviation near 1 and half are within 0.67."""
    away = []
    for seed in range(4):
        world = World(seed)
        model = fitted(world, 0.25)
        draws = model.completed(32)
        away.append((world.scores.mean(axis=1) - model.expected().mean(axis=0)) / draws.std(axis=0))
    z = np.concatenate(away)

    assert 0.8 < z.std() < 1.2
    assert 0.42 < np.mean(np.abs(z) < 0.674) < 0.58


def test_features_tell_of_rows_never_run() -> None:
    """Fitted to some candidates, `means` ranks others by their features alone."""
    world = World(rows=240, columns=80)
    known = world.cells(0.3)
    mine = known.rows < 180
    model = fit(
        world.features[:180],
        80,
        Cells(rows=known.rows[mine], columns=known.columns[mine], scores=known.scores[mine]),
        seed=3,
    )
    means = model.means(world.features[180:])

    assert (8, 60) == means.shape
    assert stats.spearmanr(means.mean(axis=0), world.ability[180:]).statistic > 0.7


def test_observed_cells_count_as_they_are() -> None:
    """A row that has seen all columns has its own mean in every draw; the others have the mean of both kinds."""
    world = World(rows=30, columns=20)
    rows, columns = np.nonzero(np.ones((30, 20), dtype=bool))
    part = (rows < 10) | (columns < 5)
    model = fit(
        world.features,
        20,
        Cells(rows=rows[part], columns=columns[part], scores=world.scores[rows, columns][part]),
        seed=0,
    )
    full = world.scores.mean(axis=1)

    np.testing.assert_allclose(model.completed(3)[:, :10], np.tile(full[:10], (24, 1)), atol=1e-12)
    table = model.table()
    expected = (world.scores[10:, :5].sum(axis=1) + table[:, 10:, 5:].sum(axis=2)) / 20.0
    np.testing.assert_allclose(model.expected()[:, 10:], expected, atol=1e-12)
    assert (model.completed()[:, 10:].std(axis=0) > 0.0).all()


def test_informative_columns_are_those_that_tell_the_best_apart() -> None:
    """An example that nobody or everybody gets right tells less than one at the level of the best."""
    world = World(rows=200, columns=60)
    information = fitted(world, 0.6).information()
    best = np.sort(world.ability)[-10:].mean()
    truth = world.slope**2 * stats.logistic.pdf(world.slope * best - world.difficulty)

    assert stats.spearmanr(information, truth).statistic > 0.7


def test_more_cells_never_unobserve() -> None:
    """What was observed first stays as observed after a warm start with more rows, columns, features and cells."""
    world = World(rows=60, columns=50)
    first = world.cells(0.2)
    mine = (first.rows < 40) & (first.columns < 30)
    few = Cells(rows=first.rows[mine], columns=first.columns[mine], scores=first.scores[mine])
    before = fit(world.features[:40, :3], 30, few, seed=1, terms=QUICK)
    more = fit(world.features, 50, world.cells(0.4), seed=1, terms=QUICK, start=before)

    assert (4, 60, 50) == more.table().shape
    assert np.isfinite(more.table()).all()


def test_a_warm_start_ends_where_a_long_descent_does() -> None:
    """Members agree with those of a long fit under the same priors to a hundredth of a score."""
    world = World()
    long = fitted(world, 0.3, terms=ResponseTerms(steps=1500, rate=0.1, products=0))
    fixed = ResponseTerms(steps=1500, rate=0.1, products=0, widths=long.priors.widths, belief=1e12)
    target = fitted(world, 0.3, terms=fixed)
    start = fitted(world, 0.25, terms=replace(fixed, steps=120, rate=0.3))
    warm = fitted(world, 0.3, terms=replace(fixed, warm_steps=40, rate=0.3), start=start)

    assert np.sqrt(np.mean((warm.expected() - target.expected()) ** 2)) < 0.01


class TestCalibration:
    """What is measured on held-out cells."""

    def test_a_model_of_its_own_kind_is_trusted(self) -> None:
        """Data from the model, features that explain: it fits, they help, and nothing is to be said against it."""
        found = fitted(World(), 0.4).calibration

        assert found.trusted
        assert found.fits
        assert found.features_help
        assert "" == found.reason == found.misfit
        assert found.new_rank_correlation > 0.4
        assert found.rank_correlation > 0.4
        assert found.new_log_loss < found.new_baseline_log_loss
        assert len(World().cells(0.4).scores) == found.cells

    @pytest.mark.parametrize("seed", range(5))
    def test_scrambled_features_are_called_that(self, seed: int) -> None:
        """Features of somebody else do not help, and the model says so; without them it is trusted."""
        world = World(seed)
        scrambled = world.features[np.random.default_rng(seed).permutation(len(world.features))]
        found = fitted(world, 0.4, scrambled).calibration

        assert not found.features_help
        assert not found.trusted
        assert "features" in found.reason
        assert fitted(world, 0.4, world.features[:, :0]).calibration.trusted

    @pytest.mark.parametrize("seed", range(5))
    def test_a_world_of_another_kind_is_called_that(self, seed: int) -> None:
        """Candidates that are good at different kinds of examples leave correlated residuals."""
        found = fitted(World(seed, kinds=5), 0.6).calibration

        assert not found.fits
        assert "different examples" in found.misfit
        assert found.residual_correlation > 0.05

    @pytest.mark.parametrize("seed", range(5))
    def test_a_world_of_its_own_kind_leaves_nothing(self, seed: int) -> None:
        """The misfit is not called where there is none."""
        assert fitted(World(seed), 0.6).calibration.fits

    def test_too_little_is_not_measured(self) -> None:
        """Few cells: no numbers, not trusted, and why."""
        world = World()
        few = Cells(rows=np.arange(5), columns=np.arange(5), scores=np.ones(5))
        found = fit(world.features, 80, few, seed=0, terms=QUICK).calibration

        assert math.isnan(found.log_loss)
        assert not found.trusted
        assert "too little" in found.reason

    def test_skills_are_seen_to_help(self) -> None:
        """Where candidates have two kinds of skill and most is known, a latent skill foretells better."""
        rng = np.random.default_rng(0)
        world = World(rows=150, columns=80)
        leaning = np.outer(rng.choice([-1.5, 1.5], 150), rng.choice([-1.0, 1.0], 80))
        world.scores = (rng.random((150, 80)) < 1.0 / (1.0 + np.exp(-leaning - world.ability[:, None]))).astype(float)
        plain, skilled = (fitted(world, 0.6, terms=ResponseTerms(skills=count)) for count in (0, 1))

        assert plain.skill_gain.sureness > 3.0
        assert fitted(World(), 0.6).skill_gain.sureness < 2.0
        assert skilled.calibration.log_loss < 0.9 * plain.calibration.log_loss


cells_of = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.sampled_from([0.0, 0.25, 1.0, math.nan])), max_size=40
)


@settings(max_examples=40, deadline=None)
@given(cells_of, st.randoms(use_true_random=False), st.integers(0, 3))
def test_the_order_of_cells_rows_and_columns_does_not_matter(
    given_cells: list[tuple[int, int, float]], random: object, seed: int
) -> None:
    """Cells in another order give the same bits; rows and columns elsewhere, with their keys, the same to 1e-12."""
    features = np.random.default_rng(seed).normal(size=(6, 2))
    rows, columns, scores = (np.array(one) for one in zip(*given_cells, strict=True)) if given_cells else ([], [], [])
    cells = Cells(
        rows=np.array(rows, dtype=np.int64), columns=np.array(columns, dtype=np.int64), scores=np.array(scores)
    )
    order = np.random.default_rng(seed + 1).permutation(len(given_cells))
    mixed = Cells(rows=cells.rows[order], columns=cells.columns[order], scores=cells.scores[order])
    one = fit(features, 5, cells, seed=seed, terms=QUICK)
    other = fit(features, 5, mixed, seed=seed, terms=QUICK)

    np.testing.assert_array_equal(one.table(), other.table())
    np.testing.assert_array_equal(one.completed(2), other.completed(2))

    row_keys, column_keys = (np.random.default_rng(seed + 2).permutation(count) for count in (6, 5))
    moved = Cells(
        rows=np.argsort(row_keys)[cells.rows], columns=np.argsort(column_keys)[cells.columns], scores=cells.scores
    )
    third = fit(features[row_keys], 5, moved, seed=seed, terms=QUICK, row_keys=row_keys, column_keys=column_keys)

    np.testing.assert_allclose(third.table(), one.table()[:, row_keys][:, :, column_keys], atol=1e-12)
    np.testing.assert_allclose(third.completed(2), one.completed(2)[:, row_keys], atol=1e-12)
    np.testing.assert_allclose(third.information(), one.information()[column_keys], atol=1e-12)


def test_a_seed_decides() -> None:
    """The same seed gives the same bits, another one other draws."""
    world = World(rows=30, columns=20)
    one, same, other = (fit(world.features, 20, world.cells(0.3), seed=seed, terms=QUICK) for seed in (1, 1, 2))

    np.testing.assert_array_equal(one.completed(), same.completed())
    assert one.calibration == same.calibration
    assert not np.array_equal(one.completed(), other.completed())


def test_a_row_more_does_not_change_the_luck_of_others() -> None:
    """A row never run that is added has no say in what is believed of those before."""
    world = World(rows=30, columns=20)
    nobody = np.zeros((31, 0))
    before = fit(nobody[:30], 20, world.cells(0.3), seed=1, terms=QUICK)
    after = fit(nobody, 20, world.cells(0.3), seed=1, terms=QUICK)

    np.testing.assert_allclose(before.table(), after.table()[:, :30], atol=1e-12)


@pytest.mark.skipif(load_torch().torch is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("skills", [0, 2])
def test_torch_on_the_processor_is_numpy(skills: int) -> None:
    """One formula, two libraries: the same to 1e-9 after a whole fit."""
    from dspy_optimization.compute.devices import devices

    torch = load_torch()
    processor = next(one for one in devices(library=torch) if not one.is_gpu)
    world = World(rows=40, columns=30)
    terms = replace(QUICK, skills=skills)
    numbers, tensors, named = (
        fitted(world, 0.3, terms=terms, device=device) for device in (None, processor, numpy_device())
    )

    np.testing.assert_allclose(numbers.table(), tensors.table(), atol=1e-9)
    np.testing.assert_array_equal(numbers.table(), named.table())
    assert math.isclose(numbers.calibration.log_loss, tensors.calibration.log_loss, abs_tol=1e-9)


def test_virtual_rows_score_the_same_in_any_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, of some members, one by one: the same scores."""
    world = World(rows=40, columns=30)
    model = fitted(world, 0.3, terms=QUICK)
    virtual = np.random.default_rng(0).normal(size=(200, 6))
    whole = model.means(virtual)
    monkeypatch.setattr(computing, "_SMALL", 0)
    narrow = Computing(meter=GpuMeter(time.monotonic), room=lambda _: 70 * 4 * 8 * 30 * 4)

    np.testing.assert_allclose(whole, model.means(virtual, computing=narrow), atol=1e-12)
    np.testing.assert_array_equal(whole[[2]], model.means(virtual, members=[2]))
    np.testing.assert_allclose(whole[:, [7]], model.means(virtual[[7]]), atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "scores"),
    [
        ((1, 1), [1.0]),
        ((1, 5), [0.0, 1.0, 0.5]),
        ((5, 1), [0.0]),
        ((4, 4), []),
        ((4, 4), [math.nan, math.nan]),
        ((12, 12), [1.0] * 144),
        ((12, 12), [0.0] * 144),
        ((12, 12), [0.5] * 144),
        ((0, 3), []),
    ],
)
@pytest.mark.parametrize("features", [0, 2])
def test_the_least_that_can_be_known_is_no_trouble(shape: tuple[int, int], scores: list[float], features: int) -> None:
    """One row, one column, nothing known, all alike: finite draws in [0, 1], and a calibration that says what it is."""
    rows, columns = (axis[: len(scores)] for axis in np.divmod(np.arange(shape[0] * shape[1]), shape[1]))
    model = fit(
        np.ones((shape[0], features)), shape[1], Cells(rows=rows, columns=columns, scores=np.array(scores)), seed=0
    )

    for found in (model.table(), model.completed(), model.means(np.zeros((3, features))), model.information()):
        assert np.isfinite(found).all()
    assert ((model.completed() >= 0.0) & (model.completed() <= 1.0)).all()
    assert isinstance(model.calibration, Calibration)


def test_fractions_are_scores_too() -> None:
    """Graded scores near their chance are known better than right-or-wrong ones: draws lie closer."""
    world = World()
    graded = World()
    graded.scores = np.clip(world.chances + 0.03 * np.random.default_rng(0).normal(size=world.chances.shape), 0.0, 1.0)
    binary, fractions = fitted(world, 0.2), fitted(graded, 0.2)

    assert 1.0 == binary.priors.dispersion
    assert fractions.priors.dispersion < 0.3
    assert fractions.completed(8).std(axis=0).mean() < 0.7 * binary.completed(8).std(axis=0).mean()
    assert np.sqrt(np.mean((fractions.table().mean(axis=0) - graded.chances) ** 2)) < 0.05


@pytest.mark.parametrize(
    ("features", "columns", "cells", "words"),
    [
        (np.zeros(3), 2, Cells(rows=np.array([0]), columns=np.array([0]), scores=np.array([1.0])), "matrix"),
        (np.zeros((3, 0)), 2, Cells(rows=np.array([3]), columns=np.array([0]), scores=np.array([1.0])), "below 3"),
        (np.zeros((3, 0)), 2, Cells(rows=np.array([0]), columns=np.array([-1]), scores=np.array([1.0])), "below 2"),
        (np.zeros((3, 0)), 2, Cells(rows=np.array([0]), columns=np.array([0]), scores=np.array([1.5])), "0 to 1"),
        (np.zeros((3, 0)), 2, Cells(rows=np.array([0]), columns=np.array([0, 1]), scores=np.array([1.0])), "as many"),
    ],
)
def test_what_does_not_fit_is_refused(features: np.ndarray, columns: int, cells: Cells, words: str) -> None:
    """Shapes, places and scores that cannot be."""
    with pytest.raises(InvalidRequestError, match=words):
        fit(features, columns, cells, seed=0)


def test_other_features_are_refused() -> None:
    """`means` wants those of the fit, and keys are all different."""
    world = World(rows=10, columns=5)
    with pytest.raises(InvalidRequestError, match="6 columns"):
        fitted(world, terms=QUICK).means(np.zeros((2, 3)))
    with pytest.raises(InvalidRequestError, match="10 different"):
        fitted(world, terms=QUICK, row_keys=np.zeros(10))


def test_a_cell_given_twice_counts_once() -> None:
    """Its mean is what was observed."""
    twice = Cells(rows=np.array([0, 0, 1]), columns=np.array([0, 0, 0]), scores=np.array([0.0, 1.0, 0.5]))
    once = Cells(rows=np.array([0, 1]), columns=np.array([0, 0]), scores=np.array([0.5, 0.5]))

    np.testing.assert_array_equal(
        fit(np.zeros((2, 0)), 3, twice, seed=0).table(), fit(np.zeros((2, 0)), 3, once, seed=0).table()
    )


def test_luck_belongs_to_keys() -> None:
    """Uniform by Kolmogorov and Smirnov, no key like another, pairs opposite, Poisson of mean and variance 1."""
    places = np.arange(20_000)

    assert stats.kstest(uniforms(1, places), "uniform").pvalue > 0.001
    assert stats.kstest(normals(2, places), "norm").pvalue > 0.001
    assert abs(np.corrcoef(uniforms(1, places), uniforms(2, places))[0, 1]) < 0.03
    assert abs(np.corrcoef(uniforms(1, places)[1:], uniforms(1, places)[:-1])[0, 1]) < 0.03
    np.testing.assert_array_equal(uniforms(1, places)[:10], uniforms(1, places[:10]))
    one, other = (paired_normals(np.array([member]), 5, places) for member in (0, 1))
    np.testing.assert_array_equal(one, -other)
    weights = paired_poissons(np.array([2]), 5, places)
    assert math.isclose(1.0, weights.mean(), abs_tol=0.03)
    assert math.isclose(1.0, weights.var(), abs_tol=0.05)
    assert np.corrcoef(weights, paired_poissons(np.array([3]), 5, places))[0, 1] < -0.6
