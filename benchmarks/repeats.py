"""Paid LM calls to reach the same score: bare DSPy, DSPy with its cache, and the engine on its ledger.

Same model, examples, seeds, threads and options. The model behaves (`benchmarks.speller`), so a search that finds
better prompts gets better scores. What the engine pays beyond a search (its proof on the sealed test split, and
ablation) is listed apart: bare DSPy offers nothing like it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from benchmarks.bare import ROUNDED, Curve, Split, run_bare, score_on
from benchmarks.finding import Finding, Table, spread
from benchmarks.house import SHARES, accept, dataset, fresh_database, settings_for, temporary_postgres
from benchmarks.speller import Speller, words
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Example
from dspy_optimization.agents.example import Split as Part
from dspy_optimization.bootstrap import open_engine
from dspy_optimization.engine import Engine
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import AlgorithmChoice
from dspy_optimization.settings import Settings
from dspy_optimization.testing.model_server import ModelServer

TITLE = "paid LM calls to reach the same score, bare DSPy and GEPA against the engine"

SEEDS: Mapping[str, Sequence[int]] = {"": (1, 2, 3), "gepa": (1, 2, 3, 4, 5, 6)}
"""Algorithm → seeds; the empty name: all others. GEPA's paths differ most, so it gets more."""
THREADS = 8
N_EXAMPLES = 200

# What `benchmarks.bare` gives DSPy, in the engine's words.
OPTIONS: Mapping[str, Mapping[str, Json]] = {
    "bootstrap_random_search": {"candidates": 8},
    "miprov2": {"auto": "light"},
    "gepa": {"iterations": 10_000, "max_metric_calls": 600},
    "simba": {"steps": 4, "minibatch_size": 16, "candidates": 4},
    "copro": {"breadth": 6, "depth": 3},
}
NO_VAL = frozenset({"simba", "copro"})
"""These never look at val in bare DSPy, so where they stood before their end is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One search by one side."""

    calls: int
    """Paid by the search."""
    repeats: int
    """Of these, asked at temperature 0 when the same had been asked and paid before."""
    score: float
    """Of the program it ends with, on val."""
    curve: Curve
    other_calls: int = 0
    """Paid for the gate and the ablation."""
    known: int = 0
    """Calls the ledger answered, gate and ablation included."""
    val_calls: int = 0
    """Paid by the search to measure candidates on val."""


Found = dict[str, list[dict[str, Arm]]]
"""Algorithm → for every seed, side → what it took."""


def measure() -> Finding:
    """Return calls, repeats and scores of every optimizer, arm and seed."""
    data = dataset(words(N_EXAMPLES))
    split = Split(train=_for_dspy(data[Part.TRAIN]), val=_for_dspy(data[Part.VAL]))
    found: Found = {}
    with ModelServer() as server, temporary_postgres() as postgres:
        for name in OPTIONS:
            found[name] = []
            for seed in SEEDS[name] if name in SEEDS else SEEDS[""]:
                settings = settings_for(server.base_url, fresh_database(postgres))
                found[name].append(
                    {
                        "bare": _bare(server, name, split, seed, cache=False),
                        "cached": _bare(server, name, split, seed, cache=True),
                        "engine": _engine(server, settings, name, data, seed),
                    }
                )
    return Finding(tables=(_calls_table(found), _same_score_table(found)), notes=_NOTES, data=_data(found))


_NOTES = (
    (
        f"{round(N_EXAMPLES * SHARES.train)} train, {round(N_EXAMPLES * SHARES.val)} val examples, {THREADS} threads; "
        "seeds 1 to 3 (GEPA 1 to 6); median (range) over the seeds. Ratios are within a seed; below 1 the engine pays "
        "less."
    ),
    (
        "Repeats: calls at temperature 0 that had been paid before; draws above 0 never count as repeats. Calls of the "
        "engine: its measurement of the baseline on val and the search. Gate and ablation come on top, in their own "
        "column; bare DSPy has no counterpart to them."
    ),
    (
        "simba and copro never look at val in bare DSPy; the engine lets their best compete there and pays for it. "
        "Like for like leaves those val calls out."
    ),
    (
        "miprov2 takes the same path on all sides. The others do not (order of examples, wording of feedback and "
        "proposals), so their scores differ by the luck of the draw, and ratios of calls to a score are as noisy. "
        "Bare GEPA may exceed max_metric_calls by an iteration; the engine never does."
    ),
)


def _bare(server: ModelServer, name: str, split: Split, seed: int, *, cache: bool) -> Arm:
    model = Speller(seed)
    server.say(model)
    done = run_bare(name, split, server.base_url, seed, cache=cache, threads=THREADS, paid=lambda: model.calls)
    repeats = model.repeats
    score = score_on(done.program, split.val, server.base_url, THREADS)
    done.curve.points.append((done.calls, score))
    return Arm(calls=done.calls, repeats=repeats, score=score, curve=done.curve)


def _engine(server: ModelServer, settings: Settings, name: str, data: Dataset, seed: int) -> Arm:
    model = Speller(seed)
    server.say(model)
    with open_engine(settings, track=False) as engine:
        return _searched(engine, model, name, data, seed)


def _searched(engine: Engine, model: Speller, name: str, data: Dataset, seed: int) -> Arm:
    accepted = accept(engine, data, AlgorithmChoice(name=name, options=OPTIONS[name]), seed=seed, concurrency=THREADS)
    ended = engine.optimizer.run(accepted, StopSignal())
    result = engine.stores.results.result(accepted)
    if result is None:
        raise RuntimeError(f"the search with {name} ended as {ended.status}: {ended.error}")
    labels = result.bill.by_label
    search = sum(labels[label].calls for label in ("baseline", name) if label in labels)
    if result.bill.total.calls != model.calls:
        raise RuntimeError(f"the bill says {result.bill.total.calls} calls, the server answered {model.calls}")
    curve = Curve()
    n_val = len(data[Part.VAL])
    for trial in engine.stores.trials.trials(accepted):
        if trial.split is Part.VAL and len(trial.results) == n_val:
            curve.points.append((trial.paid_calls, trial.score))
    score = max(score for _, score in curve.points)
    return Arm(
        calls=search,
        repeats=model.repeats,
        score=score,
        curve=curve,
        other_calls=result.bill.total.calls - search,
        known=result.bill.answered_from_ledger,
        val_calls=n_val * len(curve.points),
    )


def _for_dspy(examples: Sequence[Example]) -> list[Any]:
    return [
        dspy.Example(word=example.inputs["word"], answer=example.expected["answer"]).with_inputs("word")
        for example in examples
    ]


def _calls_table(found: Found) -> Table:
    rows = []
    for name, runs in found.items():
        bare, cached, engine = ([run[arm] for run in runs] for arm in ("bare", "cached", "engine"))
        alike = [arm.calls - (arm.val_calls if name in NO_VAL else 0) for arm in engine]
        rows.append(
            (
                name,
                spread([arm.calls for arm in bare], ".0f"),
                spread([arm.repeats for arm in bare], ".0f"),
                spread([arm.calls for arm in cached], ".0f"),
                spread([arm.calls for arm in engine], ".0f"),
                spread([arm.repeats for arm in engine], ".0f"),
                spread([arm.known for arm in engine], ".0f"),
                spread([arm.calls / other.calls for arm, other in zip(engine, bare, strict=True)]),
                spread([arm.calls / other.calls for arm, other in zip(engine, cached, strict=True)]),
                spread([calls / other.calls for calls, other in zip(alike, bare, strict=True)]),
                spread([arm.other_calls for arm in engine], ".0f"),
            )
        )
    columns = (
        "algorithm", "bare calls", "bare repeats", "DSPy cache calls", "engine calls", "engine repeats",
        "answered by the ledger", "engine / bare", "engine / cached", "engine / bare, like for like",
        "gate and ablation",
    )  # fmt: skip
    return Table(title="Calls paid by a whole search", columns=columns, rows=tuple(rows))


def _same_score_table(found: Found) -> Table:
    rows = []
    for name, runs in found.items():
        ratios, better, worse = [], 0, 0
        for run in runs:
            theirs = run["bare"].curve.first_at(run["bare"].score)
            ours = run["engine"].curve.first_at(run["bare"].score)
            if ours is not None and theirs is not None:
                ratios.append(ours / theirs)
            equal = min(run["bare"].calls, run["engine"].calls)
            difference = (run["engine"].curve.best_at(equal) or 0.0) - (run["bare"].curve.best_at(equal) or 0.0)
            better, worse = better + (difference > ROUNDED), worse + (difference < -ROUNDED)
        rows.append(
            (
                name,
                spread([run["bare"].score for run in runs]),
                spread([run["cached"].score for run in runs]),
                spread([run["engine"].score for run in runs]),
                f"{len(ratios)} of {len(runs)}",
                spread(ratios),
                "not known" if name in NO_VAL else f"{better} / {len(runs) - better - worse} / {worse}",
            )
        )
    columns = (
        "algorithm", "bare ends at", "cached ends at", "engine ends at", "engine gets to bare's score",
        "calls to it, engine / bare", "engine better / equal / worse at equal calls",
    )  # fmt: skip
    return Table(
        title="Val score reached, and calls to the one that bare DSPy ends with", columns=columns, rows=tuple(rows)
    )


def _data(found: Found) -> dict[str, Json]:
    return {
        name: [
            {
                "seed": seed,
                **{
                    side: {
                        "calls": arm.calls,
                        "repeats": arm.repeats,
                        "val_score": arm.score,
                        "curve": [[calls, score] for calls, score in arm.curve.points],
                        "gate_and_ablation_calls": arm.other_calls,
                        "answered_from_ledger": arm.known,
                    }
                    for side, arm in run.items()
                },
            }
            for seed, run in enumerate(runs, start=1)
        ]
        for name, runs in found.items()
    }
