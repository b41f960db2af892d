"""From whatever people name as their data to examples and a split dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset, SplitShares
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.reading import (
    SUFFIXES,
    Reading,
    RecordFields,
    fields_of,
    read_file,
    read_split_files,
    reading_from_records,
)
from dspy_optimization.agents.reasoning_tasks import METADATA_KEY, PREFIX, read_reasoning_task, reasoning_task
from dspy_optimization.agents.splitting import build_dataset
from dspy_optimization.agents.untrusted import listed, shown
from dspy_optimization.errors import InvalidRequestError

POSSIBLE = (
    f"a file ({', '.join(SUFFIXES)}), {{train: ..., val: ..., test: ...}} with three, {PREFIX}<task>?size=200&seed=0, "
    "or a list of examples"
)


def load_dataset(
    source: object,
    agent: AgentConfig,
    *,
    name: str | None = None,
    cluster: str | None = None,
    seed: int = 0,
    shares: SplitShares | None = None,
    files: bool = True,
) -> Dataset:
    """Return the dataset a source holds for an agent, split unless the source names splits.

    Args:
        source: a path, a mapping of split → path, `reasoning_gym:<task>?...` as text or mapping, or examples.
        agent: whose signature says what goes in and what should come out.
        name: of the dataset; None: the file's or the task's.
        cluster: the field that names the cluster.
        seed: of the split, not of a generated task.
        shares: sizes of the splits; None: 30 % train, 30 % val, 40 % test.
        files: False where the source comes from outside: then it may not name files.
    Raises:
        InvalidRequestError: names file, line and field.
    """
    reading = read_source(source, fields_of(agent, cluster=cluster), files=files)
    return build_dataset(name or _name(source), reading, seed=seed, shares=shares)


def read_source(source: object, fields: RecordFields, *, files: bool = True) -> Reading:
    """Return what a source holds; see `load_dataset`."""
    if isinstance(source, str) and source.startswith(PREFIX):
        return read_reasoning_task(reasoning_task(source), fields)
    if isinstance(source, Mapping) and METADATA_KEY in source:
        return read_reasoning_task(reasoning_task({str(key): value for key, value in source.items()}), fields)
    if isinstance(source, Mapping) and files:
        return read_split_files(_paths(source), fields)
    if isinstance(source, str | Path) and files:
        return read_file(Path(source), fields)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return reading_from_records(source, fields)
    reason = "" if files else " (files of this machine cannot be named from outside)"
    raise InvalidRequestError(
        f"a dataset is wanted, found {type(source).__name__} {shown(source)}{reason}; possible: {POSSIBLE}"
    )


def _paths(source: Mapping[object, object]) -> dict[Split, Path]:
    words = {split.value for split in Split}
    paths: dict[Split, Path] = {}
    for key, value in source.items():
        if key not in words or not isinstance(value, str | Path):
            raise InvalidRequestError(
                f"a file for each of {listed(words)} is wanted, found {shown({key: value})}; possible: {POSSIBLE}"
            )
        paths[Split(str(key))] = Path(value)
    return paths


def _name(source: object) -> str:
    if isinstance(source, str) and source.startswith(PREFIX):
        return source.removeprefix(PREFIX).partition("?")[0]
    if isinstance(source, Mapping) and METADATA_KEY in source:
        return str(source[METADATA_KEY])
    if isinstance(source, str | Path):
        return Path(source).stem
    return "examples"
