"""Resident memory of 1, 10 and 100 optimizations at once in one process, the engine's and bare DSPy's.

Each measurement is a process of its own: `python -m benchmarks.memory SIDE N DATABASE_URL` prints what it saw. The
model answers inside the process; agents are small, so what is seen is what an optimization itself needs.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import dspy

from benchmarks.bare import exact, hushed, student
from benchmarks.finding import Finding, Table, spread
from benchmarks.house import accept, dataset, fresh_database, settings_for, temporary_postgres
from benchmarks.speller import Speller, words
from dspy_optimization.adapters.dspy.engine import language_model
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.example import Example
from dspy_optimization.agents.example import Split as Part
from dspy_optimization.bootstrap import open_engine
from dspy_optimization.evaluation.model import LanguageModel, ModelRequest, ModelResponse, Price, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.optimization.request import AlgorithmChoice
from dspy_optimization.testing.model_server import Received

TITLE = "resident memory of 1, 10 and 100 optimizations at once in one process"

COUNTS = (1, 10, 100)
THREADS = 2
ALGORITHM = AlgorithmChoice(name="bootstrap_random_search", options={"candidates": 1})
LATENCY_SECONDS = 0.05
REPEATS = {1: 2, 10: 2, 100: 1}
"""How often each count is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """The speller as a language model without a server."""

    speller: Speller = field(default_factory=lambda: Speller(1))

    @property
    def identity(self) -> str:
        return "in-process"

    @property
    def price(self) -> Price | None:
        return None

    def complete(self, request: ModelRequest) -> ModelResponse:
        reply = self.speller(Received(body=request.body, headers={}, at=0.0, in_flight=1))
        time.sleep(LATENCY_SECONDS)
        return ModelResponse(
            body=json.loads(reply.content), prompt_tokens=10, completion_tokens=5, latency_seconds=LATENCY_SECONDS
        )

    def call(self, _role: Role, request: ModelRequest) -> ModelResponse:
        """Answer as `Calls` do, without a ledger."""
        return self.complete(request)

    def close(self) -> None:
        """Hold nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneModel:
    """The same model in every role of every optimization."""

    model: LanguageModel

    def open(self, _agent: AgentConfig, _stop: StopSignal, _fell_back: object) -> dict[Role, LanguageModel]:
        return dict.fromkeys(Role, self.model)

    def named(self, _stop: StopSignal, _fell_back: object) -> dict[str, LanguageModel]:
        return {}


def measure() -> Finding:
    """Return megabytes of every side and count, and the share of one more optimization."""
    seen: dict[str, dict[int, list[dict[str, float]]]] = {"engine": {}, "bare": {}}
    with temporary_postgres() as postgres:
        for count in COUNTS:
            for _ in range(REPEATS[count]):
                for side in seen:
                    seen[side].setdefault(count, []).append(_child(side, count, fresh_database(postgres)))
    rows = []
    for side, counts in seen.items():
        for count, runs in counts.items():
            more = [
                (run["peak_mb"] - one["peak_mb"]) / (count - 1)
                for run, one in zip(runs, counts[1], strict=False)
                if count > 1
            ]
            rows.append(
                (
                    side,
                    str(count),
                    spread([run["idle_mb"] for run in runs], ".0f"),
                    spread([run["peak_mb"] for run in runs], ".0f"),
                    spread(more, ".2f"),
                    spread([run["threads"] for run in runs], ".0f"),
                    spread([run["at_once"] for run in runs], ".0f"),
                )
            )
    columns = ("side", "optimizations", "MB before", "MB at most", "MB each further one", "threads at most", "at once")
    notes = (
        (
            f"Random search over demos, {THREADS} examples in flight each, an answer after {LATENCY_SECONDS:g} s; "
            f"1 or 2 processes each. Resident size of the process alone: PostgreSQL's own is not in it."
        ),
        (
            "Bare: `BootstrapFewShotWithRandomSearch` in threads under `dspy.context`, in-process model, no ledger, no "
            "test split, no gate. It keeps nothing that would survive the process."
        ),
    )
    data = {side: {str(count): runs for count, runs in counts.items()} for side, counts in seen.items()}
    table = Table(title="Resident memory", columns=columns, rows=tuple(rows))
    return Finding(tables=(table,), notes=notes, data=data)


def _child(side: str, count: int, url: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", side, str(count), url],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{side} with {count}: {done.stderr[-2000:]}")
    seen: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return seen


def _main(side: str, count: int, url: str) -> None:
    with hushed(), _engine_work(url, count) if side == "engine" else _bare_work() as work:
        work(0)  # imports, caches and pools that the first one fills
        gauge = Gauge()
        idle = resident_mb()
        with gauge.watching():
            threads = [threading.Thread(target=gauge.counted(work), args=(1 + index,)) for index in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    if gauge.failures:
        raise RuntimeError(f"{len(gauge.failures)} of {count} failed; the first: {gauge.failures[0]!r}")
    seen = {"idle_mb": idle, "peak_mb": gauge.peak_mb, "threads": gauge.threads, "at_once": gauge.at_once}
    sys.stdout.write(f"{json.dumps(seen)}\n")


class Gauge:
    """The most that was seen at once."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self.threads = 0
        self.at_once = 0
        self.failures: list[BaseException] = []
        self._running = 0
        self._lock = threading.Lock()

    def counted(self, work: Callable[[int], None]) -> Callable[[int], None]:
        def run(number: int) -> None:
            with self._lock:
                self._running += 1
            try:
                work(number)
            except BaseException as error:
                self.failures.append(error)
                raise
            finally:
                with self._lock:
                    self._running -= 1

        return run

    @contextmanager
    def watching(self) -> Iterator[None]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                self.peak_mb = max(self.peak_mb, resident_mb())
                self.threads = max(self.threads, threading.active_count())
                self.at_once = max(self.at_once, self._running)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def resident_mb() -> float:
    """Return the resident size of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("wanted: VmRSS in /proc/self/status; found: none; possible: run it on Linux")


@contextmanager
def _engine_work(url: str, count: int) -> Iterator[Callable[[int], None]]:
    # The address is never asked: the model is handed in.
    with open_engine(settings_for("http://127.0.0.1:9/v1", url), track=False) as engine:
        optimizer = replace(engine.optimizer, models=OneModel(model=InProcess()))
        # Accepted beforehand: what is measured is the work.
        ids = [
            accept(engine, dataset(_words(number)), ALGORITHM, seed=number, concurrency=THREADS)
            for number in range(count + 1)
        ]

        def work(number: int) -> None:
            ended = optimizer.run(ids[number], StopSignal())
            if ended.error is not None:
                raise RuntimeError(ended.error)

        yield work


@contextmanager
def _bare_work() -> Iterator[Callable[[int], None]]:
    model = InProcess()
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)

    def work(number: int) -> None:
        data = dataset(_words(number))
        optimizer = dspy.BootstrapFewShotWithRandomSearch(
            metric=exact, num_candidate_programs=1, num_threads=THREADS, max_labeled_demos=4
        )
        lm = language_model(model, Role.TASK, {"temperature": 0.0}, "in-process")
        with dspy.context(lm=lm):
            optimizer.compile(student(), trainset=_for_dspy(data[Part.TRAIN]), valset=_for_dspy(data[Part.VAL]))

    yield work


def _words(number: int) -> list[str]:
    # Examples of its own: a sealed test split that others have opened proves less and less.
    return words(40 * (number + 1))[-40:]


def _for_dspy(examples: tuple[Example, ...]) -> list[dspy.Example]:
    return [
        dspy.Example(word=example.inputs["word"], answer=example.expected["answer"]).with_inputs("word")
        for example in examples
    ]


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
