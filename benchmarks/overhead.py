"""What the ledger adds to one call: known answers against DSPy's cache, paid calls against a bare `dspy.LM`.

The model server answers at once from a process of its own, so what is left is the way there and back. All sides are
asked with `lm(messages=...)`, one call after the other, then 32 at a time.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import dspy

from benchmarks.bare import hushed
from benchmarks.finding import Finding, Table, spread
from benchmarks.house import (
    accept,
    dataset,
    fresh_database,
    ledger_session,
    model_server,
    settings_for,
    temporary_postgres,
)
from benchmarks.speller import words
from dspy_optimization.adapters.dspy.engine import language_model
from dspy_optimization.bootstrap import open_engine
from dspy_optimization.engine import Engine
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import AlgorithmChoice

TITLE = "overhead per call of the ledger path against a bare dspy.LM"

CALLS = 400
REPEATS = 5
AT_ONCE = 32

# Ours, theirs: what is compared with what.
PAIRS: Mapping[str, tuple[str, str]] = {
    "known, in memory": ("engine, memory", "DSPy, memory cache"),
    "known, on disk": ("engine, PostgreSQL", "DSPy, disk cache"),
    "paid, against no cache": ("engine, paid", "DSPy, cache off"),
    "paid, against DSPy's default caches": ("engine, paid", "DSPy, miss in both caches"),
}

Lap = dict[str, float]
"""Side → microseconds a call."""


def measure() -> Finding:
    """Return microseconds a call of every side, and the ratios of the pairs."""
    with (
        temporary_postgres() as postgres,
        model_server(0.0, "ok") as base_url,
        open_engine(settings_for(base_url, fresh_database(postgres)), track=False) as engine,
        hushed(),
    ):
        optimization_id = accept(engine, dataset(words(120)), AlgorithmChoice(name="gepa"))
        _lap(engine, optimization_id, base_url, "warm-up", 1, 50)
        one = [_lap(engine, optimization_id, base_url, f"one-{turn}", 1, CALLS) for turn in range(REPEATS)]
        many = [_lap(engine, optimization_id, base_url, f"many-{turn}", AT_ONCE, CALLS) for turn in range(REPEATS)]
    data: dict[str, Json] = {"one_by_one_us": [dict(lap) for lap in one], "at_once_us": [dict(lap) for lap in many]}
    return Finding(
        tables=(_table("One call after the other", one), _table(f"{AT_ONCE} at a time, time a call", many)),
        notes=(
            (
                f"{CALLS} calls a side and turn, {REPEATS} turns, sides one after the other in a turn; median (range). "
                "A ratio above 1: the engine takes longer."
            ),
            (
                "A paid call of the engine includes, and a bare one does not: two durable writes (the start is waited "
                "for, the end is not), the look-up in PostgreSQL, the budget."
            ),
        ),
        data=data,
    )


def _table(title: str, laps: Sequence[Lap]) -> Table:
    rows = []
    for name, (ours, theirs) in PAIRS.items():
        rows.append(
            (
                name,
                f"{ours}: {spread([lap[ours] for lap in laps], '.0f')} µs",
                f"{theirs}: {spread([lap[theirs] for lap in laps], '.0f')} µs",
                spread([lap[ours] / lap[theirs] for lap in laps]),
                spread([lap[ours] - lap[theirs] for lap in laps], "+.0f") + " µs",
            )
        )
    return Table(title=title, columns=("call", "engine", "bare", "engine / bare", "difference"), rows=tuple(rows))


def _lap(engine: Engine, optimization_id: OptimizationId, base_url: str, tag: str, at_once: int, calls: int) -> Lap:
    prompts = [f"{tag} {number}" for number in range(calls)]
    lap: Lap = {}
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(at_once))

        def timed(lm: Any) -> float:
            began = time.perf_counter()
            if at_once == 1:
                for prompt in prompts:
                    _ask(lm, prompt)
            else:
                list(pool.map(lambda prompt: _ask(lm, prompt), prompts))
            return (time.perf_counter() - began) / calls * 1e6

        lap["DSPy, cache off"] = timed(_bare(base_url, cache=False))
        with _session(engine, optimization_id) as ours:
            lap["engine, paid"] = timed(ours)
            lap["engine, memory"] = timed(ours)
        with _session(engine, optimization_id, remembered_answers=1) as ours:
            lap["engine, PostgreSQL"] = timed(ours)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        dspy.configure_cache(enable_disk_cache=True, enable_memory_cache=True, disk_cache_dir=folder)
        lap["DSPy, miss in both caches"] = timed(_bare(base_url, cache=True))
        lap["DSPy, memory cache"] = timed(_bare(base_url, cache=True))
        dspy.configure_cache(enable_disk_cache=True, enable_memory_cache=False, disk_cache_dir=folder)
        lap["DSPy, disk cache"] = timed(_bare(base_url, cache=True))
        dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    return lap


def _ask(lm: Callable[..., object], prompt: str) -> None:
    lm(messages=[{"role": "system", "content": "Write the word in capitals."}, {"role": "user", "content": prompt}])


def _bare(base_url: str, *, cache: bool) -> Any:
    return dspy.LM("openai/fake", api_base=base_url, api_key="none", cache=cache, temperature=0.0)


@contextmanager
def _session(engine: Engine, optimization_id: OptimizationId, *, remembered_answers: int = 100_000) -> Iterator[Any]:
    stop = StopSignal()
    with ledger_session(engine, optimization_id, stop, remembered_answers=remembered_answers) as session:
        yield language_model(session.scope("baseline", stop), Role.TASK, {"temperature": 0.0}, "task")
