"""Algorithms that a tenant has registered: installed code that the owner of the engine allows, checked before use.

What was checked is what runs: the version of the code is kept with the registration and compared at every use.
"""

import difflib
import hashlib
import importlib.util
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any, Protocol, cast

from dspy_optimization.agents.allow_list import AllowList, CodeUse, ForeignCode
from dspy_optimization.algorithms.option_fields import options_from_json
from dspy_optimization.algorithms.problem import Algorithm, Forecast, Problem, SearchRun, Shape
from dspy_optimization.algorithms.registry import LOADING_FAILURES, AlgorithmRegistry, BrokenAlgorithm, what_is_wrong
from dspy_optimization.algorithms.rules import RuleFinding
from dspy_optimization.errors import ConflictError, InvalidRequestError, NotFoundError
from dspy_optimization.events import Json

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RESERVED = frozenset({"auto", "baseline"})
"""Words that stand for something else where algorithms are named."""
_HASH_CHARACTERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomAlgorithm:
    """A registered algorithm."""

    name: str
    entrypoint: str
    """`module:Class`."""
    version: str
    """Of the code that was checked, as `code_version` says it."""
    findings: tuple[RuleFinding, ...]
    """What the check found, rule by rule."""
    registered_at: datetime


class CustomAlgorithmStore(Protocol):
    """The registered algorithms of one tenant."""

    def get(self, name: str) -> CustomAlgorithm:
        """Return it. Raises `NotFoundError`, naming those that are registered."""
        ...

    def registered(self) -> Sequence[CustomAlgorithm]:
        """Return all of them, sorted by name."""
        ...

    def keep(self, algorithm: CustomAlgorithm) -> None:
        """Keep it, in place of one of the same name. Raises `ConflictError` when there are too many."""
        ...

    def remove(self, name: str) -> None:
        """Forget it. Raises `NotFoundError`."""
        ...


def code_version(entrypoint: str) -> str:
    """Return which code stands behind `module:Class`: `package==version sha256:…`, the hash that of the module's file.

    Without the package where no installed distribution brought the module. Imports the packages around the module, not
    the module.

    Raises:
        InvalidRequestError: there is no such module, or it has no source file.
    """
    module = entrypoint.partition(":")[0]
    with ForeignCode(f"{module} cannot be imported", "install it, or mend its import"):
        found = importlib.util.find_spec(module)
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise InvalidRequestError(
            f"entrypoint: wanted: an installed module; found: no source of {module} here; possible: install its "
            "package where the engine runs, then try again"
        )
    digest = hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()[:_HASH_CHARACTERS]
    names = packages_distributions().get(module.partition(".")[0], ())
    packages = " ".join(f"{name}=={distribution(name).version}" for name in sorted(set(names)))
    return f"{packages} sha256:{digest}".lstrip()


class RegisteredCode:
    """The code behind registered algorithms, as this process has loaded it. Thread-safe; one a process."""

    def __init__(self, allowed: AllowList) -> None:
        self.allowed = allowed
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[str, Algorithm]] = {}

    def check_allowed(self, entrypoint: str) -> str:
        """Return the entrypoint when the owner allows it. Raises `InvalidRequestError`, listing what is allowed."""
        return self.allowed.check(CodeUse.ALGORITHM, entrypoint, "entrypoint")

    def load(self, one: CustomAlgorithm) -> Algorithm:
        """Return the algorithm under its registered name.

        Raises:
            InvalidRequestError: it is not allowed any more, is not installed here, is another version than the one
                that was checked, or does not load.
        """
        where = f"the algorithm {one.name}"
        self.allowed.check(CodeUse.ALGORITHM, one.entrypoint, where)
        installed = code_version(one.entrypoint)
        if installed != one.version:
            raise InvalidRequestError(
                f"{where}: wanted: the code that was checked, {one.version}; found: {installed}; possible: register "
                f"it again (dspy-opt algorithms add {one.entrypoint}), or install the version that was checked"
            )
        with self._lock:
            version, algorithm = self._loaded.get(one.entrypoint, (installed, None))
            if version != installed:
                raise InvalidRequestError(
                    f"{where}: wanted: the code that was checked, {one.version}; found: this process has loaded "
                    f"{version} before; possible: restart it"
                )
            if algorithm is None:
                algorithm = load_algorithm(self.allowed, one.entrypoint, where)
                self._loaded[one.entrypoint] = (installed, algorithm)
        return named(algorithm, one.name)


def load_algorithm(allowed: AllowList, entrypoint: str, where: str) -> Algorithm:
    """Return a new algorithm of an allowed class. Raises `InvalidRequestError`."""
    made_by = allowed.load(CodeUse.ALGORITHM, entrypoint, where)
    with ForeignCode(f"{where}: {entrypoint} cannot be made", "a class whose constructor needs no arguments"):
        made = made_by()
    wrong = what_is_wrong(made)
    if wrong is not None:
        raise InvalidRequestError(f"{where}: {entrypoint} is no algorithm: {wrong}; possible: docs/algorithms.md")
    return cast("Algorithm", made)


def named(algorithm: Algorithm, name: str) -> Algorithm:
    """Return the algorithm under a name."""
    if algorithm.name == name:
        return algorithm
    return cast("Algorithm", _Named(algorithm, name))


class _Named:
    """An algorithm under another name than its own."""

    def __init__(self, algorithm: Algorithm, name: str) -> None:
        self._algorithm = algorithm
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._algorithm, attribute)

    def forecast(self, options: object, shape: Shape) -> Forecast:
        return self._algorithm.forecast(options, shape)

    def search(self, problem: Problem, run: SearchRun) -> None:
        self._algorithm.search(problem, run)


class TenantAlgorithms:
    """Every algorithm one tenant may use: those of the environment, and those it has registered. Thread-safe.

    Registered ones are looked up at every use: what another process registers or removes counts at once.
    """

    def __init__(self, environment: AlgorithmRegistry, store: CustomAlgorithmStore, code: RegisteredCode) -> None:
        self.environment = environment
        self.store = store
        self._code = code

    @property
    def registered(self) -> Sequence[CustomAlgorithm]:
        """Those the tenant has registered, whether they can be used here or not."""
        return self.store.registered()

    @property
    def names(self) -> tuple[str, ...]:
        """The algorithms that can be used, sorted."""
        usable = [one.name for one in self.registered if not isinstance(self.load(one), BrokenAlgorithm)]
        return tuple(sorted({*self.environment.names, *usable}))

    def get(self, name: str) -> Algorithm:
        """Return the algorithm.

        Raises:
            NotFoundError: nothing of that name is installed or registered; names the closest one and all that are.
            InvalidRequestError: it cannot be used: it is broken, not allowed, or not the version that was checked.
        """
        if name in self._of_environment:
            return self.environment.get(name)
        mine = {one.name: one for one in self.registered}
        if name in mine:
            return self._code.load(mine[name])
        known = sorted({*self.environment.names, *mine})
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise NotFoundError(f"no algorithm is called {name!r}; {hint}possible: {', '.join(known) or 'nothing'}")

    def options(self, name: str, given: Mapping[str, Json]) -> object:
        """Return the algorithm's own options, built and checked from plain JSON; {} gives its defaults.

        Raises:
            InvalidRequestError: an unknown option, a wrong type or a value out of range, or as `get`.
        """
        return options_from_json(name, self.get(name).options, given)

    def load(self, one: CustomAlgorithm) -> Algorithm | BrokenAlgorithm:
        """Return a registered algorithm, or why it cannot be used here and now."""
        try:
            return self._code.load(one)
        except (InvalidRequestError, *LOADING_FAILURES) as error:
            return BrokenAlgorithm(name=one.name, source=f"registered ({one.entrypoint})", reason=str(error))

    def check_new(self, entrypoint: str, name: str | None) -> None:
        """Refuse what cannot become registered, before any of its code runs.

        Raises:
            InvalidRequestError: the code is not allowed, or the name is none.
            ConflictError: the name is taken by an installed algorithm.
        """
        self._code.check_allowed(entrypoint)
        if name is not None:
            self.check_name(name)

    def check_name(self, name: str) -> None:
        """Refuse a name that is none or means something else. Raises `InvalidRequestError`, `ConflictError`."""
        if _NAME.fullmatch(name) is None or name in _RESERVED:
            raise InvalidRequestError(
                f"name: wanted: small letters, digits and _, beginning with a letter, at most 64, and none of "
                f"{', '.join(sorted(_RESERVED))}; found: {name[:80]!r}; possible: my_search"
            )
        if name in self._of_environment:
            raise ConflictError(
                f"name: wanted: one that no installed algorithm has; found: {name} is installed; possible: another "
                f"name; taken: {', '.join(sorted(self._of_environment))}"
            )

    @property
    def _of_environment(self) -> frozenset[str]:
        return frozenset(self.environment.names) | {one.name for one in self.environment.broken}


class AlgorithmChecker(Protocol):
    """Checks the code of an algorithm where it can harm nobody."""

    def check(self, entrypoint: str) -> "Checked":
        """Return what it calls itself and what every rule found. Raises `InfrastructureError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the check of an entrypoint found."""

    name: str | None
    """What the algorithm calls itself; None when it did not load."""
    findings: tuple[RuleFinding, ...]


class RefusedAlgorithmError(InvalidRequestError):
    """Mend the algorithm: `findings` says which rules it breaks."""

    def __init__(self, message: str, findings: tuple[RuleFinding, ...]) -> None:
        super().__init__(message)
        self.findings = findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Registrar:
    """Registers algorithms of one tenant."""

    algorithms: TenantAlgorithms
    checker: AlgorithmChecker

    def register(self, entrypoint: str, name: str | None, now: datetime) -> CustomAlgorithm:
        """Check the code and keep it; the same name again takes the place of what it was.

        Args:
            entrypoint: `module:Class`, on the owner's list.
            name: how requests will call it; None: what it calls itself.
            now: aware, UTC.
        Raises:
            RefusedAlgorithmError: it breaks a rule.
            InvalidRequestError: it is not allowed or not installed, or the name is none.
            ConflictError: the name is taken, or the code changed while it was checked.
            InfrastructureError: the check could not be carried out.
        """
        self.algorithms.check_new(entrypoint, name)
        version = code_version(entrypoint)
        checked = self.checker.check(entrypoint)
        broken = [one for one in checked.findings if one.outcome != "kept"]
        if broken or checked.name is None:
            told = "; ".join(f"[{number}] {one.sentence}" for number, one in enumerate(broken, start=1))
            raise RefusedAlgorithmError(
                f"entrypoint: {entrypoint} breaks {len(broken)} of {len(checked.findings)} rules of algorithms: {told}",
                checked.findings,
            )
        called = checked.name if name is None else name
        self.algorithms.check_name(called)
        if code_version(entrypoint) != version:
            raise ConflictError(
                f"entrypoint: wanted: code that stays as it is while it is checked; found: {entrypoint} changed "
                "meanwhile; possible: try again"
            )
        kept = CustomAlgorithm(
            name=called, entrypoint=entrypoint, version=version, findings=checked.findings, registered_at=now
        )
        self.algorithms.store.keep(kept)
        return kept

    def remove(self, name: str) -> None:
        """Forget a registered algorithm; optimizations that use it end with a sentence. Raises `NotFoundError`."""
        self.algorithms.store.remove(name)
