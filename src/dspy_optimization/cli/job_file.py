"""agent.yaml: agent, data, metrics, objectives, algorithms and constraints in one file. What is read is untrusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset, SplitShares
from dspy_optimization.agents.dataset_loading import read_source
from dspy_optimization.agents.document import read_document
from dspy_optimization.agents.loading import agent_from_json, load_agent_file
from dspy_optimization.agents.reading import RecordFields, fields_of
from dspy_optimization.agents.reasoning_tasks import PREFIX
from dspy_optimization.agents.splitting import build_dataset
from dspy_optimization.agents.untrusted import Block, shown
from dspy_optimization.cli.amounts import LONGEST_SECONDS, seconds_of
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.events import Json
from dspy_optimization.optimization.proposing import Wanted, algorithm_choices
from dspy_optimization.optimization.request import AlgorithmChoice, Constraints

KEYS = ("agent", "data", "metrics", "objectives", "algorithms", "constraints", "policy")
DATA_KEYS = ("path", "name", "inputs", "expected", "cluster", "split", "shares", "seed")
CONSTRAINT_KEYS = (
    "max_calls", "max_usd", "max_tokens", "time_limit", "min_gain", "seed", "concurrency",
)  # fmt: skip
MOST = (1 << 53) - 1
"""The largest count and seed: beyond it JSON numbers lose digits elsewhere."""
MOST_CONCURRENCY = 1024

_DATA_POSSIBLE = (
    "data: examples.jsonl, data: {path: examples.csv, cluster: customer}, three files {train: ..., val: ..., "
    "test: ...} as path, or reasoning_gym:<task>?size=200"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Where the examples are and how they read."""

    source: str | Mapping[str, str]
    """A file, `reasoning_gym:<task>?…`, or a file for each split; files are absolute already."""
    name: str | None = None
    inputs: tuple[str, ...] = ()
    """Empty: as the agent's signature says."""
    expected: tuple[str, ...] = ()
    cluster: str | None = None
    split: str = "split"
    """The field that may name the split."""
    shares: SplitShares = field(default_factory=SplitShares)
    seed: int = 0
    """Of the split, so that another seed of the search keeps the sealed examples sealed."""

    def read(self, agent: AgentConfig) -> Dataset:
        """Return the dataset. Raises `InvalidRequestError` naming file, line and field."""
        known = fields_of(agent, cluster=self.cluster)
        fields = RecordFields(
            inputs=self.inputs or known.inputs,
            outputs=self.expected or known.outputs,
            cluster=self.cluster,
            split=self.split,
            types=known.types,
        )
        reading = read_source(self.source, fields)
        return build_dataset(self.name or self._called(), reading, seed=self.seed, shares=self.shares)

    def _called(self) -> str:
        if not isinstance(self.source, str):
            return Path(self.source["train"]).parent.name or "examples"
        if self.source.startswith(PREFIX):
            return self.source.removeprefix(PREFIX).partition("?")[0]
        return Path(self.source).stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What somebody wants optimized, as the file and the command line say it; not checked against the engine."""

    agent: AgentConfig
    data: DataSource | None
    metrics: tuple[Mapping[str, Json], ...]
    objectives: tuple[Mapping[str, Json], ...]
    algorithms: tuple[AlgorithmChoice, ...]
    constraints: Constraints
    policy: Json = None
    """Which candidate goes to the gate, as it was said; None: nobody said."""

    def wanted(self) -> Wanted:
        """Return what is wanted, the examples read. Raises `InvalidRequestError`."""
        source = self.needed_data
        if not self.objectives:
            raise InvalidRequestError(
                "objectives: at least one is wanted, found none; possible: --objective exact_match, or objectives: "
                "[exact_match] in the file (dspy-opt metrics lists them)"
            )
        return Wanted(
            agent=self.agent,
            dataset=source.read(self.agent),
            objectives=self.objectives,
            metrics=self.metrics,
            algorithms=self.algorithms,
            constraints=self.constraints,
            policy=self.policy,
        )

    @property
    def needed_data(self) -> DataSource:
        """Where the examples are. Raises `InvalidRequestError` when nobody said."""
        if self.data is None:
            raise InvalidRequestError(
                f"data: the examples of {self.agent.name} are wanted, found none named; possible: --data FILE, or in "
                f"the agent's file {_DATA_POSSIBLE}"
            )
        return self.data


def read_job_file(path: Path, allowed: AllowList) -> Job:
    """Return what the file says. A file that is only an agent (has `kind`) is a job without data and objectives.

    Files that it names are looked for beside it.

    Raises:
        InvalidRequestError: names the file, the place in it, what stands there and what is possible.
    """
    document = read_document(path)
    if not isinstance(document, dict) or not document:
        found = "nothing" if not document else f"{type(document).__name__} {shown(document)}"
        raise InvalidRequestError(
            f"{path.name}: a mapping is wanted, found {found}; possible keys: {', '.join(KEYS)}; dspy-opt init writes "
            "a file to begin with"
        )
    if "agent" not in document and "kind" in document:
        document = {"agent": document}
    return _Reader(path).job(Block(document, path.name, KEYS), allowed)


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path.absolute().parent

    def job(self, block: Block, allowed: AllowList) -> Job:
        return Job(
            agent=self._agent(block, allowed),
            data=self._data(block),
            metrics=tuple(_specification(one, f"{block.at('metrics')}[{n}]") for n, one in _listed(block, "metrics")),
            objectives=tuple(
                _objective(one, f"{block.at('objectives')}[{n}]") for n, one in _listed(block, "objectives")
            ),
            algorithms=algorithm_choices([one for _, one in _listed(block, "algorithms")], block.at("algorithms")),
            constraints=_constraints(block.get("constraints"), block.at("constraints")),
            policy=block.get("policy"),
        )

    def _agent(self, block: Block, allowed: AllowList) -> AgentConfig:
        value = block.need("agent", "an agent {name, kind, signature, ...}, or the file of one")
        if isinstance(value, str):
            return load_agent_file(self._folder / value, allowed)
        if isinstance(value, dict) and value.get("name") is None:
            value = {**value, "name": self._path.stem}
        return agent_from_json(value, allowed=allowed, where=block.at("agent"))

    def _data(self, block: Block) -> DataSource | None:
        value = block.get("data")
        if value is None:
            return None
        one = Block({"path": value} if isinstance(value, str) else value, block.at("data"), DATA_KEYS)
        return DataSource(
            source=data_source(one.need("path", _DATA_POSSIBLE), self._folder, one.at("path")),
            name=one.text("name") if "name" in one else None,
            inputs=_names(one, "inputs"),
            expected=_names(one, "expected"),
            cluster=one.text("cluster") if "cluster" in one else None,
            split=one.text("split", "split"),
            shares=_shares(one),
            seed=one.whole("seed", 0, low=0, high=MOST),
        )


def data_source(value: Json, folder: Path, where: str) -> str | Mapping[str, str]:
    """Return a source with its files made absolute. Raises `InvalidRequestError` for what names no source."""
    if isinstance(value, str) and value.strip():
        return value if value.startswith(PREFIX) else str(folder / Path(value).expanduser())
    if isinstance(value, dict):
        block = Block(value, where, ("train", "val", "test"))
        return {key: str(folder / Path(block.text(key, possible="a file")).expanduser()) for key in value}
    raise InvalidRequestError(f"{where}: a file is wanted, found {shown(value)}; possible: {_DATA_POSSIBLE}")


def with_options(choices: Sequence[AlgorithmChoice], options: Mapping[str, Json]) -> tuple[AlgorithmChoice, ...]:
    """Return the choices with `algorithm.option` → value put into them.

    Raises:
        InvalidRequestError: the option has no algorithm in front, or one that is not chosen.
    """
    changed = {choice.name: choice for choice in choices}
    for key, value in options.items():
        name, dot, option = key.partition(".")
        if not dot or not option or name not in changed:
            raise InvalidRequestError(
                f"--option {key}: algorithm.option=value of a chosen algorithm is wanted, found "
                f"{shown(name) if dot else 'no algorithm in front'}; possible: "
                f"{', '.join(f'{one}.<option>=<value>' for one in changed)}"
            )
        changed[name] = replace(changed[name], options={**changed[name].options, option: value})
    return tuple(changed[choice.name] for choice in choices)


def _listed(block: Block, key: str) -> list[tuple[int, Json]]:
    """Return a list with its numbers; one text or mapping alone is a list of one."""
    value = block.get(key)
    if isinstance(value, str) or (isinstance(value, dict) and value):
        return [(0, value)]
    return list(enumerate(block.items(key, 32)))


def _specification(value: Json, where: str) -> Mapping[str, Json]:
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, dict):
        return value
    raise InvalidRequestError(
        f"{where}: a metric is wanted, found {type(value).__name__} {shown(value)}; possible: exact_match, "
        "{type: judge, rubric: ...}"
    )


def _objective(value: Json, where: str) -> Mapping[str, Json]:
    if isinstance(value, str):
        return {"metric": value}
    if isinstance(value, dict) and isinstance(value.get("metric"), str):
        return value
    raise InvalidRequestError(
        f"{where}: an objective is wanted, found {type(value).__name__} {shown(value)}; possible: exact_match, "
        "{metric: cost_usd, guardrail: true}"
    )


def _names(block: Block, key: str) -> tuple[str, ...]:
    value = block.get(key)
    values = [value] if isinstance(value, str) else block.items(key, 64)
    names = tuple(one for one in values if isinstance(one, str) and one)
    if len(names) < len(values):
        raise block.wrong(key, "a list of field names", "[question, context]")
    return names


def _shares(block: Block) -> SplitShares:
    if "shares" not in block:
        return SplitShares()
    one = Block(block.get("shares"), block.at("shares"), ("train", "val", "test"))
    shares = [one.number(key, None, low=0.0, high=1.0, open_low=True) for key in ("train", "val", "test")]
    if abs(sum(shares) - 1.0) > 1e-9:
        raise InvalidRequestError(
            f"{block.at('shares')}: shares that sum to 1 are wanted, found {sum(shares):g}; possible: {{train: 0.3, "
            "val: 0.3, test: 0.4}"
        )
    return SplitShares(train=shares[0], val=shares[1], test=shares[2])


def _constraints(value: Json, where: str) -> Constraints:
    block = Block({} if value is None else value, where, CONSTRAINT_KEYS)
    return Constraints(
        limits=Limits(
            max_lm_calls=block.whole("max_calls", None, low=1, high=MOST) if "max_calls" in block else None,
            max_cost_usd=block.number("max_usd", None, low=0.0, high=1e9, open_low=True)
            if "max_usd" in block
            else None,
            max_tokens=block.whole("max_tokens", None, low=1, high=MOST) if "max_tokens" in block else None,
            max_seconds=_time_limit(block),
        ),
        min_improvement_threshold=block.number("min_gain", 0.0, low=0.0, high=1e9),
        seed=block.whole("seed", 0, low=0, high=MOST),
        concurrency=block.whole("concurrency", Constraints().concurrency, low=1, high=MOST_CONCURRENCY),
    )


def _time_limit(block: Block) -> float | None:
    if "time_limit" not in block:
        return None
    value = block.get("time_limit")
    if isinstance(value, str):
        return seconds_of(value, block.at("time_limit"))
    return block.number("time_limit", None, low=0.0, high=LONGEST_SECONDS, open_low=True)
