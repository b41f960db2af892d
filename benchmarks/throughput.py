"""Evaluation throughput as a share of what a fixed-latency server allows: the engine and bare `dspy.Evaluate`.

The server answers every call after the same time, from a process of its own; with 64 in flight it can do no more than
64 / latency calls a second. Every call is a new one, so nothing is answered from a cache or the ledger. Two shares:
of the whole evaluation, where filling up and running dry count, and in between, from the 64th answer to the 64th
before the last.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import dspy

from benchmarks.bare import exact, hushed, student
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
from benchmarks.machine import load
from benchmarks.speller import AGENT
from dspy_optimization.adapters.interpreter import SHORT_SECONDS
from dspy_optimization.agents.example import Example, ExampleId
from dspy_optimization.agents.metrics import metrics_from_specs
from dspy_optimization.agents.objective import Objective, Objectives
from dspy_optimization.bootstrap import open_engine
from dspy_optimization.engine import Engine
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.evaluator import Evaluator
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import AlgorithmChoice

TITLE = "evaluation throughput as a share of a fixed-latency server's own limit, 64 in flight"

IN_FLIGHT = 64
REPEATS = 3
ROUNDS = {0.25: 24, 0.5: 14, 1.0: 8}
"""Latency in seconds → rounds of 64 calls."""
ANSWER = "[[ ## answer ## ]]\nOK\n\n[[ ## completed ## ]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One evaluation."""

    share: float
    """Of the server's limit, over the whole evaluation, in (0, 1]."""
    steady_share: float
    """The same without the first and the last 64 answers."""
    processor_ms: float
    """Processor time of this process, a call."""
    load: float


def measure() -> Finding:
    """Return shares of the limit for every latency, the two sides taking turns."""
    found: dict[float, dict[str, list[Run]]] = {}
    with temporary_postgres() as postgres:
        for latency, rounds in ROUNDS.items():
            found[latency] = {"engine": [], "bare": []}
            with (
                model_server(latency, ANSWER) as base_url,
                open_engine(settings_for(base_url, fresh_database(postgres)), track=False) as engine,
            ):
                _engine(engine, "warm-up", 1, latency)
                _bare(base_url, "warm-up", 1, latency)
                for repeat in range(REPEATS):
                    tag = f"{latency}-{repeat}"
                    found[latency]["engine"].append(_engine(engine, tag, rounds, latency))
                    found[latency]["bare"].append(_bare(base_url, tag, rounds, latency))
    return Finding(tables=(_table(found),), notes=_NOTES, data=_data(found))


_NOTES = (
    (
        f"{REPEATS} turns of each side, median (range). The engine writes every call to PostgreSQL (fsync on) before "
        "it is sent and after it is answered; bare DSPy writes nothing and has its cache off."
    ),
    "Processor time is this process's own, a call; PostgreSQL and the model server use the same cores.",
)


def _table(found: dict[float, dict[str, list[Run]]]) -> Table:
    rows = []
    for latency, sides in found.items():
        engine, bare = sides["engine"], sides["bare"]
        rows.append(
            (
                f"{latency:g} s",
                f"{IN_FLIGHT / latency:.0f} calls/s",
                str(ROUNDS[latency] * IN_FLIGHT),
                spread([run.share for run in engine], ".1%"),
                spread([run.share for run in bare], ".1%"),
                spread([ours.share / theirs.share for ours, theirs in zip(engine, bare, strict=True)]),
                spread([run.steady_share for run in engine], ".1%"),
                spread([run.steady_share for run in bare], ".1%"),
                spread([run.processor_ms for run in engine], ".1f"),
                spread([run.processor_ms for run in bare], ".1f"),
                f"{statistics.median(run.load for run in engine + bare):.1f}",
            )
        )
    columns = (
        "latency", "limit", "calls", "engine", "dspy.Evaluate", "engine / bare", "engine, in between",
        "dspy.Evaluate, in between", "engine ms of processor", "bare ms of processor", "load",
    )  # fmt: skip
    return Table(title="Share of the server's limit", columns=columns, rows=tuple(rows))


def _data(found: dict[float, dict[str, list[Run]]]) -> dict[str, Json]:
    return {
        f"{latency:g}": {side: [asdict(run) for run in runs] for side, runs in sides.items()}
        for latency, sides in found.items()
    }


class _Stamps:
    """When each call came to its end. Thread-safe: appending is."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def metric(self, example: object, prediction: object, *_: object) -> float:
        """Score as `exact` does, for bare DSPy."""
        self.ends.append(time.perf_counter())
        return exact(example, prediction)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stamped:
    """Calls that note their ends, for the engine."""

    calls: Calls
    stamps: _Stamps

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Return what the ledger returns."""
        answer = self.calls.call(role, request)
        self.stamps.ends.append(time.perf_counter())
        return answer


def _engine(engine: Engine, tag: str, rounds: int, latency: float) -> Run:
    """Evaluate the baseline as the optimizer does."""
    words = [f"{tag}-{number}" for number in range(rounds * IN_FLIGHT)]
    examples = [Example(id=ExampleId(word), inputs={"word": word}, expected={"answer": "OK"}) for word in words]
    stop = StopSignal()
    agent = engine.builder.build(AGENT)
    metrics = metrics_from_specs([{"type": "exact_match"}], allowed=engine.allowed)
    objectives = Objectives(items=(Objective(metric="exact_match"),))
    data = dataset([f"{tag}-set-{index}" for index in range(60)])
    optimization_id = accept(engine, data, AlgorithmChoice(name="gepa"))
    stamps = _Stamps()
    with (
        ledger_session(engine, optimization_id, stop) as session,
        Evaluator(agent, list(metrics.values()), objectives, concurrency=IN_FLIGHT) as evaluator,
    ):
        calls = _Stamped(calls=session.scope("baseline", stop), stamps=stamps)
        usual = sys.getswitchinterval()
        sys.setswitchinterval(SHORT_SECONDS)  # as in a process of the command line or the service
        try:
            return _timed(lambda: evaluator.evaluate(agent.baseline, examples, calls, stop), stamps, latency)
        finally:
            sys.setswitchinterval(usual)


def _bare(base_url: str, tag: str, rounds: int, latency: float) -> Run:
    lm = dspy.LM("openai/fake", api_base=base_url, api_key="none", cache=False, temperature=0.0)
    examples = [
        dspy.Example(word=f"{tag}-{number}", answer="OK").with_inputs("word") for number in range(rounds * IN_FLIGHT)
    ]
    stamps = _Stamps()
    evaluate = dspy.Evaluate(devset=examples, metric=stamps.metric, num_threads=IN_FLIGHT)
    with hushed(), dspy.context(lm=lm):
        return _timed(lambda: evaluate(student()), stamps, latency)


def _timed(work: Callable[[], object], stamps: _Stamps, latency: float) -> Run:
    began, processor = time.perf_counter(), time.process_time()
    work()
    seconds, used = time.perf_counter() - began, time.process_time() - processor
    ends = sorted(stamps.ends)
    calls = len(ends)
    steady = ends[IN_FLIGHT - 1 : calls - IN_FLIGHT] or ends
    return Run(
        share=calls * latency / IN_FLIGHT / seconds,
        steady_share=(len(steady) - 1) * latency / IN_FLIGHT / max(steady[-1] - steady[0], 1e-9),
        processor_ms=1000 * used / calls,
        load=load(),
    )
