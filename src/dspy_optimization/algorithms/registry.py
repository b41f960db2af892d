"""Which algorithms are installed: built-ins and plug-ins of one entry-point group."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from dspy_optimization.algorithms.objective_use import ATTRIBUTE, ObjectiveUse
from dspy_optimization.algorithms.option_fields import options_from_json
from dspy_optimization.algorithms.problem import Algorithm
from dspy_optimization.errors import InvalidRequestError, NotFoundError
from dspy_optimization.events import Json

GROUP = "dspy_optimization.algorithms"
OWN_DISTRIBUTION = "dspy-optimization"

# What importing a foreign module can raise; a plug-in that does must not take the others with it.
LOADING_FAILURES = (
    ImportError,
    AttributeError,
    NameError,
    SyntaxError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    OSError,
    RuntimeError,
    AssertionError,
    MemoryError,
    SystemExit,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BrokenAlgorithm:
    """An installed algorithm that cannot be used."""

    name: str
    source: str
    """Which package brought it, and from where: `package (module:Class)`."""
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an algorithm comes from."""

    package: str
    entrypoint: str
    """`module:Class`."""
    version: str | None
    """Of the package; None where nobody knows."""

    def __str__(self) -> str:
        return f"{self.package} ({self.entrypoint})"


class AlgorithmRegistry:
    """Every algorithm of the group, loaded when first asked for. Thread-safe: it only reads."""

    def __init__(self, installed: Iterable[EntryPoint]) -> None:
        self._installed = tuple(installed)

    @classmethod
    def of_environment(cls) -> "AlgorithmRegistry":
        """Return what is installed in this Python environment."""
        return cls(entry_points(group=GROUP))

    @property
    def names(self) -> tuple[str, ...]:
        """The algorithms that can be used, sorted."""
        return tuple(sorted(self._loaded[0]))

    @property
    def broken(self) -> tuple[BrokenAlgorithm, ...]:
        """The algorithms that cannot be used, each with its reason, sorted by name."""
        return self._loaded[1]

    def get(self, name: str) -> Algorithm:
        """Return the algorithm.

        Raises:
            NotFoundError: nothing of that name is installed; names the closest one and all that are.
            InvalidRequestError: it is installed and broken; names the package and what is wrong with it.
        """
        algorithms, broken, _ = self._loaded
        if name in algorithms:
            return algorithms[name]
        for one in broken:
            if one.name == name:
                raise InvalidRequestError(
                    f"the algorithm {name} of {one.source} cannot be used: {one.reason}; "
                    f"possible: mend or remove that package, or use {_listed(self.names)}"
                )
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise NotFoundError(f"no algorithm is called {name!r}; {hint}possible: {_listed(self.names)}")

    def source(self, name: str) -> Source:
        """Return where it comes from. Raises as `get`."""
        self.get(name)
        return self._loaded[2][name]

    def options(self, name: str, given: Mapping[str, Json]) -> object:
        """Return the algorithm's own options, built and checked from plain JSON; {} gives its defaults.

        Raises:
            InvalidRequestError: an unknown option, a wrong type or a value out of range.
        """
        return options_from_json(name, self.get(name).options, given)

    @cached_property
    def _loaded(self) -> tuple[Mapping[str, Algorithm], tuple[BrokenAlgorithm, ...], Mapping[str, Source]]:
        algorithms: dict[str, Algorithm] = {}
        origins: dict[str, Source] = {}
        broken: list[BrokenAlgorithm] = []
        # Ours come first, so that no plug-in can take the place of an algorithm people rely on.
        for point in sorted(self._installed, key=lambda one: (_package(one) != OWN_DISTRIBUTION, one.name, one.value)):
            source = Source(
                package=_package(point),
                entrypoint=point.value,
                version=point.dist.version if point.dist is not None else None,
            )
            if point.name in algorithms:
                reason = f"the name is taken by {origins[point.name]}; rename the plug-in's entry point"
            else:
                loaded = _load(point)
                if not isinstance(loaded, str):
                    algorithms[point.name] = loaded
                    origins[point.name] = source
                    continue
                reason = loaded
            broken.append(BrokenAlgorithm(name=point.name, source=str(source), reason=reason))
        return algorithms, tuple(sorted(broken, key=lambda one: (one.name, one.source))), origins


def _load(point: EntryPoint) -> Algorithm | str:
    """Return the algorithm, or why there is none."""
    try:
        made = point.load()()
    except LOADING_FAILURES as error:
        return f"it does not load: {type(error).__name__}: {error}"
    wrong = what_is_wrong(made, point.name)
    return cast("Algorithm", made) if wrong is None else wrong


def what_is_wrong(made: object, name: str | None = None) -> str | None:
    """Return why an object is no algorithm; None when it is one.

    Args:
        made: any object.
        name: what it has to call itself; None: any text.
    """
    options = getattr(made, "options", None)
    called = getattr(made, "name", None)
    if name is not None and called != name:
        return f"wanted: the attribute name = {name!r}, as its entry point; found: {called!r}"
    if not isinstance(called, str):
        return f"wanted: a text in the attribute name; found: {called!r}"
    if not isinstance(getattr(made, "description", None), str):
        return "wanted: a text in the attribute description; found: none"
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        return f"wanted: a frozen dataclass in the attribute options; found: {options!r}"
    needed = [
        one.name
        for one in dataclasses.fields(options)
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    if needed:
        return f"wanted: options that all have a default; found none for {_listed(needed)}"
    for method, arguments in (("search", "problem, run"), ("forecast", "options, shape")):
        if not callable(getattr(made, method, None)):
            return f"wanted: a method {method}({arguments}); found: none"
    uses = getattr(made, ATTRIBUTE, ObjectiveUse.UTILITY)
    if uses not in set(ObjectiveUse):
        return f"wanted: one of {_listed(ObjectiveUse)} in the attribute {ATTRIBUTE}; found: {uses!r}"
    return None


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown package"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
