"""A world to crash in: a model server that outlives its callers, a database, and an optimization of every kind."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from forked import Forked, begin

from dspy_optimization.adapters.models import ModelSpec
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.config import AgentConfig, AgentKind, Field, Signature
from dspy_optimization.agents.dataset import Dataset, SplitShares
from dspy_optimization.agents.objective import Objective
from dspy_optimization.agents.reading import fields_of, reading_from_records
from dspy_optimization.agents.splitting import build_dataset
from dspy_optimization.bootstrap import open_engine
from dspy_optimization.engine import Engine
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.model import Role
from dspy_optimization.optimization.intake import Proposal
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints
from dspy_optimization.optimization.result import OptimizationResult
from dspy_optimization.settings import Settings
from dspy_optimization.testing.model_server import ModelServer, Received, Reply, answer

CONCURRENCY = 4
WORKERS = CONCURRENCY + 2
"""Examples worked on at once: each has at most one call that is sent, or answered and not yet durable."""
AGENT = AgentConfig(
    name="capitals",
    kind=AgentKind.PREDICT,
    signature=Signature(
        instructions="Say the word in capitals.", inputs=(Field(name="word"),), outputs=(Field(name="answer"),)
    ),
)

# Small, but each goes through all of its phases.
ALGORITHMS: Mapping[str, Mapping[str, object]] = {
    "labeled_fewshot": {},
    "bootstrap_fewshot": {},
    "bootstrap_random_search": {"candidates": 3},
    "miprov2": {},
    "gepa": {},
    "simba": {"steps": 2, "minibatch_size": 8, "candidates": 2},
    "copro": {},
    "infer_rules": {},
    # A thousand candidates live on its islands, whatever it may measure.
    "genetic": {"evaluations": 120, "initial": 6, "bootstrap_examples": 6, "generations": 8},
    "racing": {"evaluations": 120, "pool": 10, "bootstrap_examples": 6},
}


def spell(received: Received) -> Reply:
    """Answer by what the prompt earns: demos and LOUD instructions help; proposals get LOUD instructions."""
    messages = received.body["messages"]
    assert isinstance(messages, list)
    text = json.dumps(messages)
    last = messages[-1]
    assert isinstance(last, dict)
    asked = str(last["content"])
    if "<instruction>" in asked:
        return answer(f"<instruction>Say it LOUD, {len(text)} letters.</instruction>")
    if "[[ ## word ## ]]" not in asked:
        fields = [part.split(" ## ]]")[0] for part in asked.split("starting with the field `[[ ## ")[1:]]
        name = fields[0] if fields else "proposed_instruction"
        return answer(f"[[ ## {name} ## ]]\nSay it LOUD, {len(text) % 7} times.\n\n[[ ## completed ## ]]")
    word = asked.split("[[ ## word ## ]]")[1].split("\n")[1].strip()
    share = min(0.95, 0.4 + 0.15 * (text.count("[[ ## word ## ]]") > 2) + 0.3 * ("LOUD" in text))
    right = int(word[-3:]) % 100 < 100 * share
    return answer(f"[[ ## answer ## ]]\n{word.upper() if right else word}\n\n[[ ## completed ## ]]")


@dataclass(slots=True)
class Trap:
    """Kills a process at the k-th call that reaches the server."""

    at: int | None = None
    process: Forked | None = None
    calls: int = 0
    weather: Callable[[int, Received], Reply | None] = field(default=lambda _number, _received: None)
    """Gives the reply to the n-th call instead of a good one."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, received: Received) -> Reply:
        with self.lock:
            self.calls += 1
            number = self.calls
            if self.at is not None and self.calls >= self.at and self.process is not None:
                self.at = None
                os.kill(self.process.pid, signal.SIGKILL)
        bad = self.weather(number, received)
        return spell(received).after(0.004) if bad is None else bad


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One database with one model server."""

    url: str
    server: ModelServer
    trap: Trap
    folder: Path
    attempts: int = 3
    timeout_seconds: float = 20.0
    deadline_seconds: float = 300.0

    def settings(self) -> Settings:
        spec = ModelSpec(
            model="fake",
            base_url=self.server.base_url,
            max_attempts=self.attempts,
            timeout_seconds=self.timeout_seconds,
            deadline_seconds=self.deadline_seconds,
        )
        return Settings(
            database_url=self.url,
            data_directory=self.folder,
            config_path=None,
            mlflow_tracking_uri=None,
            significance_threshold=0.05,
            models=dict.fromkeys(Role, spec),
            named_models={},
            allow=AllowList(),
        )

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        with open_engine(self.settings(), track=False) as engine:
            yield engine

    def accept(self, algorithm: str, limits: Limits | None = None) -> OptimizationId:
        with self.engine() as engine:
            proposal = Proposal(
                agent=AGENT,
                dataset=words(),
                objectives=(Objective(metric="exact_match"),),
                metrics=({"type": "exact_match"},),
                algorithms=(AlgorithmChoice(name=algorithm, options=ALGORITHMS[algorithm]),),  # type: ignore[arg-type]
                constraints=Constraints(limits=limits or Limits(), concurrency=CONCURRENCY),
            )
            return engine.intake.accept(engine.intake.check(proposal)).request.id

    def environment(self, **more: str) -> dict[str, str]:
        """Return that of a process that works in this world."""
        config = self.folder / "config.yaml"
        config.write_text(
            f"models: {{task: {{model: {{base_url: '{self.server.base_url}', model: fake}}, max_attempts: 3}}}}\n",
            encoding="utf-8",
        )
        return {
            **os.environ,
            "DATABASE_URL": self.url,
            "DSPY_CONFIG_PATH": str(config),
            "DSPY_OPT_DATA_DIR": str(self.folder),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            **more,
        }

    def run_killed_at(self, optimization_id: OptimizationId, at: int | None) -> tuple[int, str]:
        """Work on it in a process of its own, killed when so many calls have reached the server in all."""
        log = self.folder / "optimizes.log"
        process = begin("optimize", optimization_id, environment=self.environment(), log=log)
        self.trap.process, self.trap.at = process, at
        return process.wait(120), log.read_text(encoding="utf-8")

    def result(self, optimization_id: OptimizationId) -> OptimizationResult:
        with self.engine() as engine:
            result = engine.stores.results.result(optimization_id)
            assert result is not None
            return result


def words(n: int = 90, prefix: str = "") -> Dataset:
    """Words whose last three digits say how hard they are; those of another prefix are others, and as hard."""
    stems = [
        f"{prefix}{chr(97 + index % 26)}{chr(97 + index * 7 % 26)}{chr(97 + index * 3 % 26)}{index:03}"
        for index in range(n)
    ]
    records = [{"word": stem, "answer": stem.upper()} for stem in stems]
    return build_dataset(
        "words",
        reading_from_records(records, fields_of(AGENT)),
        shares=SplitShares(train=0.25, val=0.25, test=0.5),
        group_near_duplicates=False,
    )


def evidence(result: OptimizationResult) -> object:
    """Return what must not depend on how often the process died."""
    assert result.validated is not None
    return (
        result.optimized.fingerprint,
        result.algorithm_used,
        result.validated.verdict,
        {name: (one.difference, one.p_value) for name, one in result.validated.objectives.items()},
        [(one.component, one.part, one.worth) for one in result.key_improvements],
        result.trials,
    )
