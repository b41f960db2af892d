"""Pools of candidates with their scores on every example: simulated ones of several kinds, and real ones.

A pool is drawn by its kind and a seed alone.
"""

import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CANDIDATES, EXAMPLES, GENES = 200, 300, 24
_EXPLAINED = 0.6
"""Share of the variance of ability that genes explain where they explain anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Who could be asked what, and what the answer would be."""

    scores: Floats
    """(candidates, examples), 0 or 1."""
    features: Floats
    """(candidates, genes), what a search knows of a candidate without running it."""


def _ability(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return genes and standard abilities that they explain in part, one pair of them by its product."""
    genes = (rng.random((CANDIDATES, GENES)) < 0.3).astype(float)
    weight = rng.normal(size=GENES)
    told = genes @ weight + 1.5 * genes[:, 0] * genes[:, 1] * rng.normal()
    told = (told - told.mean()) / told.std()
    rest = rng.normal(size=CANDIDATES)
    return genes, np.sqrt(_EXPLAINED) * told + np.sqrt(1.0 - _EXPLAINED) * rest


def _chances(logits: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logits))


def _spread_to(chances: Callable[[float], Floats], sd: float) -> Floats:
    """Return chances whose mean by candidate varies by a standard deviation, found by bisection of a scale."""
    low, high = 0.0, 4.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if chances(middle).mean(axis=1).std() < sd else (low, middle)
    return chances(high)


def _drawn(rng: np.random.Generator, chances: Floats, features: Floats) -> Pool:
    return Pool(scores=(rng.random(chances.shape) < chances).astype(float), features=features)


def _item_response(sd: float, seed: int) -> Pool:
    rng = np.random.default_rng([seed, 1])
    genes, ability = _ability(rng)
    slope, difficulty = np.exp(0.4 * rng.normal(size=EXAMPLES)), 1.4 * rng.normal(size=EXAMPLES) - 0.3
    return _drawn(rng, _spread_to(lambda scale: _chances(slope * scale * ability[:, None] - difficulty), sd), genes)


def wide(seed: int) -> Pool:
    """Return a pool from an item-response model; true accuracies vary by 0.07."""
    return _item_response(0.07, seed)


def narrow(seed: int) -> Pool:
    """Return a pool from an item-response model; true accuracies vary by 0.037."""
    return _item_response(0.037, seed)


def family(seed: int) -> Pool:
    """Return a pool with four correlated skills; an example asks for a mixture of them."""
    rng = np.random.default_rng([seed, 2])
    genes, ability = _ability(rng)
    skills = 0.8 * ability[:, None] + 0.6 * rng.normal(size=(CANDIDATES, 4))
    mixture = rng.dirichlet(np.full(4, 0.5), EXAMPLES)
    difficulty = 1.4 * rng.normal(size=EXAMPLES) - 0.3
    return _drawn(rng, _spread_to(lambda scale: _chances(scale * skills @ mixture.T - difficulty), 0.07), genes)


def misspec(seed: int) -> Pool:
    """Return a pool from no item-response model: clusters that candidates are good or bad at, ceilings, another link.

    A chance is a floor and a ceiling of the example's own around a clipped line; a fifth of the examples are answered
    by copying: all candidates of a lineage answer alike.
    """
    rng = np.random.default_rng([seed, 3])
    genes, ability = _ability(rng)
    cluster = rng.integers(0, 8, EXAMPLES)
    liking = rng.normal(size=(CANDIDATES, 8))
    base, low = rng.beta(2.0, 2.0, EXAMPLES), 0.25 * rng.random(EXAMPLES)
    high = 1.0 - 0.25 * rng.random(EXAMPLES)

    def chances(scale: float) -> Floats:
        return np.clip(base + scale * (0.2 * ability[:, None] + 0.25 * liking[:, cluster]), low, high)

    pool = _drawn(rng, _spread_to(chances, 0.07), genes)
    lineage, copied = rng.integers(0, 20, CANDIDATES), np.flatnonzero(rng.random(EXAMPLES) < 0.2)
    answers = (rng.random((20, len(copied))) < base[copied]).astype(float)
    scores = pool.scores.copy()
    scores[:, copied] = answers[lineage]
    return Pool(scores=scores, features=genes)


def scrambled(seed: int) -> Pool:
    """Return the wide pool with each candidate's genes exchanged for another's: features that say nothing."""
    pool = wide(seed)
    order = np.random.default_rng([seed, 4]).permutation(CANDIDATES)
    return Pool(scores=pool.scores, features=pool.features[order])


_ALPHABET = " abcdefghijklmnopqrstuvwxyz"


def _text() -> npt.NDArray[np.int64]:
    """Return the letters and spaces of a story of 1889 that comes with reasoning-gym, as numbers."""
    story = importlib.resources.files("reasoning_gym").joinpath("data", "in_the_year_2889.txt").read_text("utf-8")
    words = "".join(letter if letter in _ALPHABET else " " for letter in story.lower()).split()
    return np.array([_ALPHABET.index(letter) for letter in " ".join(words)])


def letters(seed: int) -> Pool:
    """Return real scores: 200 predictors of the next letter of a real text, right or wrong at 300 places of it.

    A predictor counts what followed contexts of several lengths in its own part of the text and mixes the counts.
    """
    rng = np.random.default_rng([seed, 5])
    text = _text()
    count = len(_ALPHABET)
    half = len(text) // 2
    places = np.sort(rng.choice(np.arange(half + 10, len(text)), EXAMPLES, replace=False))
    scores, features = np.empty((CANDIDATES, EXAMPLES)), np.empty((CANDIDATES, 8))
    for row in range(CANDIDATES):
        longest, shortest = int(rng.integers(1, 7)), 0
        decay, smoothing = float(rng.choice([0.5, 1.0, 2.0, 4.0])), float(rng.choice([0.1, 0.5, 2.0, 10.0]))
        size = int(rng.choice([2_000, 5_000, 10_000, half]))
        begin = int(rng.integers(0, max(half - size, 0) + 1))
        gap = int(rng.random() < 0.3)
        part = text[begin : begin + size]
        mixed = np.zeros((EXAMPLES, count))
        for length in range(shortest, longest + 1):
            codes, here = np.zeros(len(part), dtype=np.int64), np.zeros(EXAMPLES, dtype=np.int64)
            for back in range(1 + gap, 1 + gap + length):
                codes = codes * count + np.roll(part, back)
                here = here * count + text[places - back]
            known, at = np.unique(codes[10:], return_inverse=True)
            table = np.zeros((len(known) + 1, count))
            np.add.at(table, (at, part[10:]), 1.0)
            found = np.searchsorted(known, here)
            found = np.where(
                (found < len(known)) & (known[np.minimum(found, len(known) - 1)] == here), found, len(known)
            )
            seen = table[found]
            total = seen.sum(axis=1, keepdims=True)
            mixed += decay**length * np.where(
                total > 0, total / (total + smoothing) * seen / np.maximum(total, 1.0), 0.0
            )
        scores[row] = mixed.argmax(axis=1) == text[places]
        features[row] = (
            longest,
            longest**2,
            decay,
            np.log(smoothing),
            np.log(size),
            gap,
            longest * np.log(size),
            begin / half,
        )
    return Pool(scores=scores, features=features)


def survey(seed: int) -> Pool:
    """Return real scores: 200 classifiers of a real survey (Fair 1978, 6,366 answers), right or wrong on 300 of them.

    Nearest neighbours, naive Bayes and ridge regression with random questions, samples and settings.
    """
    from statsmodels.datasets import fair

    rng = np.random.default_rng([seed, 6])
    table = fair.load_pandas().data.to_numpy(dtype=float)
    inputs, labels = table[:, :-1], (table[:, -1] > 0.0).astype(float)
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    order = rng.permutation(len(labels))
    # As many of each kind, or the best classifier is the one that always says no.
    yes, no = order[labels[order] == 1.0], order[labels[order] == 0.0]
    asked = np.concatenate([yes[: EXAMPLES // 2], no[: EXAMPLES // 2]])
    rest = np.concatenate([yes[EXAMPLES // 2 :][:1500], no[EXAMPLES // 2 :][:1500]])
    scores = np.empty((CANDIDATES, EXAMPLES))
    features = np.zeros((CANDIDATES, 6 + inputs.shape[1]))
    for row in range(CANDIDATES):
        kind = int(rng.integers(0, 3))
        chosen = np.flatnonzero(rng.random(inputs.shape[1]) < 0.5)
        chosen = chosen if len(chosen) else np.array([0])
        size = int(rng.choice([50, 150, 500, 1500]))
        taught = rng.choice(rest, size, replace=False)
        setting = int(rng.integers(0, 4))
        known, asks, answers = inputs[np.ix_(taught, chosen)], inputs[np.ix_(asked, chosen)], labels[taught]
        if kind == 0:
            near = ((asks[:, None, :] - known[None]) ** 2).sum(axis=2).argsort(axis=1, kind="stable")
            guess = answers[near[:, : (1, 5, 15, 45)[setting]]].mean(axis=1)
        elif kind == 1:
            logs = [
                -0.5 * (((asks - part.mean(axis=0)) ** 2) / (part.var(axis=0) + (0.01, 0.1, 0.5, 2.0)[setting])
                        + np.log(part.var(axis=0) + (0.01, 0.1, 0.5, 2.0)[setting])).sum(axis=1)
                for part in (known[answers == 1.0], known[answers == 0.0])
            ]  # fmt: skip
            guess = _chances(np.clip(logs[0] - logs[1], -50.0, 50.0))
        else:
            wider = np.column_stack([known, np.ones(size)])
            weight = np.linalg.solve(
                wider.T @ wider + (0.1, 10.0, 100.0, 1000.0)[setting] * np.eye(wider.shape[1]),
                wider.T @ (answers - 0.5),
            )
            guess = np.column_stack([asks, np.ones(EXAMPLES)]) @ weight + 0.5
        scores[row] = (guess > 0.5) == (labels[asked] == 1.0)
        features[row, kind] = 1.0
        features[row, 3:6] = (np.log(size), setting, setting * (kind == 0))
        features[row, 6 + chosen] = 1.0
    return Pool(scores=scores, features=features)


POOLS: Mapping[str, Callable[[int], Pool]] = {
    "wide": wide,
    "narrow": narrow,
    "family": family,
    "misspec": misspec,
    "scrambled": scrambled,
    "letters": letters,
    "survey": survey,
}
