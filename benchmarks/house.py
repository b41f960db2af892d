"""A database of the benchmarks' own, and an engine that asks a model server."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql

from benchmarks.speller import AGENT
from dspy_optimization.adapters.models import ModelSpec
from dspy_optimization.adapters.postgres import EmbeddedPostgres
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.dataset import Dataset, SplitShares
from dspy_optimization.agents.objective import Objective
from dspy_optimization.agents.reading import fields_of, reading_from_records
from dspy_optimization.agents.splitting import build_dataset
from dspy_optimization.engine import Engine
from dspy_optimization.evaluation.calls import REMEMBERED_ANSWERS, LedgerSession
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.optimization.intake import Proposal
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints
from dspy_optimization.settings import Settings

SHARES = SplitShares(train=0.2, val=0.3, test=0.5)


def fresh_database(server: EmbeddedPostgres) -> str:
    """Return the URL of a new database: a ledger that knows nothing."""
    name = f"bench_{uuid4().hex}"
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.url_of(name)


@contextmanager
def temporary_postgres() -> Iterator[EmbeddedPostgres]:
    """Yield a real PostgreSQL with its real settings (fsync on) in a folder that goes away afterwards."""
    # ignore_cleanup_errors: the server's last files may go while the folder is being emptied.
    with tempfile.TemporaryDirectory(prefix="dspy-opt-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres.open(Path(folder) / "postgres") as server:
            yield server


@contextmanager
def model_server(latency_seconds: float, text: str) -> Iterator[str]:
    """Yield the base URL of a server in a process of its own that gives one answer after a fixed time."""
    command = [sys.executable, "-m", "dspy_optimization.testing.model_server"]
    options = ["--latency", str(latency_seconds), "--text", text]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip() if process.stdout is not None else ""
        finally:
            process.terminate()


def settings_for(base_url: str, database_url: str, *, concurrency: int = 64) -> Settings:
    """Return settings under which every role asks one OpenAI-compatible server."""
    spec = ModelSpec(model="fake", base_url=base_url, max_concurrency=concurrency)
    return Settings(
        database_url=database_url,
        data_directory=Path(tempfile.gettempdir()),
        config_path=None,
        mlflow_tracking_uri=None,
        significance_threshold=0.05,
        models=dict.fromkeys(Role, spec),
        named_models={},
        allow=AllowList(),
    )


def dataset(words: Sequence[str]) -> Dataset:
    """Return the words as examples for the speller."""
    records: list[dict[str, Json]] = [{"word": word, "answer": word.upper()} for word in words]
    reading = reading_from_records(records, fields_of(AGENT))
    return build_dataset("words", reading, shares=SHARES, group_near_duplicates=False)


def accept(
    engine: Engine, data: Dataset, algorithm: AlgorithmChoice, *, seed: int = 0, concurrency: int = 8
) -> OptimizationId:
    """Hand in an optimization of the speller and return its id."""
    proposal = Proposal(
        agent=AGENT,
        dataset=data,
        objectives=(Objective(metric="exact_match"),),
        metrics=({"type": "exact_match"},),
        algorithms=(algorithm,),
        constraints=Constraints(seed=seed, concurrency=concurrency),
    )
    return engine.intake.accept(engine.intake.check(proposal)).request.id


@contextmanager
def ledger_session(
    engine: Engine, optimization_id: OptimizationId, stop: StopSignal, *, remembered_answers: int = REMEMBERED_ANSWERS
) -> Iterator[LedgerSession]:
    """Yield the calls of an optimization as the optimizer opens them, without a cap."""
    models = engine.models.open(AGENT, stop, lambda _role, _wanted, _used, _reason: None)
    with ExitStack() as stack:
        for model in {id(model): model for model in models.values()}.values():
            stack.callback(model.close)
        yield stack.enter_context(
            LedgerSession.open(
                engine.stores.ledger,
                optimization_id,
                models=models,
                limits=Limits(),
                now=lambda: datetime.now(UTC),
                seconds=time.monotonic,
                warn=lambda _warning: None,
                remembered_answers=remembered_answers,
            )
        )
