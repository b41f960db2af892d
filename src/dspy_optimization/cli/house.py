"""The engine of this process, opened for one command."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dspy_optimization.bootstrap import open_engine
from dspy_optimization.cli.logs import quieten_libraries
from dspy_optimization.engine import Engine
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.optimization.request import Optimization
from dspy_optimization.optimization.store import OptimizationStore
from dspy_optimization.settings import Settings, read_settings

_NEWEST = 10_000
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The engine with the settings it was opened with."""

    settings: Settings
    engine: Engine

    @property
    def words_before(self) -> str:
        """What has to stand before `dspy-opt` so that another command finds this place; mostly nothing."""
        usual = read_settings()
        if (self.settings.data_directory, self.settings.database_url) == (usual.data_directory, usual.database_url):
            return ""
        return f"DSPY_OPT_DATA_DIR={shlex.quote(str(self.settings.data_directory))} "


@contextmanager
def opened(settings: Settings | None = None) -> Iterator[House]:
    """Open the engine of these settings; None: those of the environment."""
    settings = read_settings() if settings is None else settings
    quieten_libraries()
    with open_engine(settings) as engine:
        yield House(settings=settings, engine=engine)


def settings_in(directory: Path | None) -> Settings:
    """Return the environment's settings, with this data directory and its own database when one is given."""
    settings = read_settings()
    if directory is None:
        return settings
    return replace(settings, data_directory=directory.expanduser().absolute(), database_url=None)


def found(store: OptimizationStore, text: str) -> Optimization:
    """Return the optimization whose id begins like this; `last` is the newest.

    Raises:
        InvalidRequestError: none or several begin so; names some that exist.
    """
    newest = store.newest(_NEWEST)
    possible = ", ".join(str(one.request.id) for one in newest[:_SHOWN]) or "none yet: dspy-opt optimize starts one"
    if text == "last" and newest:
        return newest[0]
    wanted = text.strip().lower()
    matching = [one for one in newest if wanted and str(one.request.id).startswith(wanted)]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise InvalidRequestError(
            f"wanted: an optimization whose id begins with {text!r}; found: none; possible, newest first: {possible}"
        )
    raise InvalidRequestError(
        f"wanted: one optimization whose id begins with {text!r}; found: {len(matching)}; possible: "
        f"{', '.join(str(one.request.id) for one in matching[:_SHOWN])}"
    )


def short_id(store: OptimizationStore, optimization_id: OptimizationId) -> str:
    """Return the shortest beginning of an id, from 8 characters on, that no other optimization shares."""
    text = str(optimization_id)
    others = [str(one.request.id) for one in store.newest(_NEWEST) if one.request.id != optimization_id]
    for length in (8, 13, 18, 23):
        if not any(other.startswith(text[:length]) for other in others):
            return text[:length]
    return text
