"""Prints the algorithms there are, and registers more of them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import typer

from dspy_optimization.adapters.algorithm_checks import AlgorithmChecks
from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.algorithms.custom import (
    CustomAlgorithm,
    RefusedAlgorithmError,
    RegisteredCode,
    Registrar,
    TenantAlgorithms,
    code_version,
)
from dspy_optimization.algorithms.objective_use import use_of_objectives
from dspy_optimization.algorithms.option_fields import option_fields
from dspy_optimization.algorithms.problem import Algorithm
from dspy_optimization.algorithms.registry import AlgorithmRegistry, BrokenAlgorithm
from dspy_optimization.algorithms.rules import Outcome, RuleFinding
from dspy_optimization.bootstrap import now
from dspy_optimization.cli.house import opened
from dspy_optimization.errors import NotFoundError
from dspy_optimization.events import Json
from dspy_optimization.settings import read_settings


@dataclass(frozen=True, slots=True)
class _NothingRegistered:
    """The registered algorithms of somebody who is allowed none."""

    def get(self, name: str) -> CustomAlgorithm:
        raise self._refusal(name)

    def registered(self) -> Sequence[CustomAlgorithm]:
        return ()

    def keep(self, algorithm: CustomAlgorithm) -> None:
        raise self._refusal(algorithm.name)

    def remove(self, name: str) -> None:
        raise self._refusal(name)

    def _refusal(self, name: str) -> NotFoundError:
        return NotFoundError(
            f"wanted: the registered algorithm {name!r}; found: none is allowed; possible: name it under allow: "
            "algorithms in the configuration file"
        )


def tell_algorithms(name: str | None, *, as_json: bool) -> None:
    """Print the algorithms with their options, and those that cannot be used with the reason."""
    with _algorithms() as algorithms:
        registered = {one.name: one for one in algorithms.registered}
        loaded = {name: algorithms.load(one) for name, one in registered.items()}
        usable = {name: one for name, one in loaded.items() if not isinstance(one, BrokenAlgorithm)}
        names = sorted({*algorithms.environment.names, *usable})
        wanted = names if name is None else [algorithms.get(name).name]
        told = [_told(one, algorithms, registered, usable) for one in wanted]
        broken = [*algorithms.environment.broken, *(one for one in loaded.values() if isinstance(one, BrokenAlgorithm))]
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    for one in wanted:
        _tell(usable.get(one) or algorithms.environment.get(one), registered.get(one))
    for lost in broken if name is None else ():
        typer.echo(f"{lost.name}: cannot be used: {lost.reason} ({lost.source})", err=True)


def register(entrypoint: str, name: str | None, *, as_json: bool) -> None:
    """Check and register; says what every rule found when one is broken. Raises `InvalidRequestError`."""
    with opened() as house:
        registrar = _registrar(house.engine.algorithms)
        try:
            kept = registrar.register(entrypoint, name, now())
        except RefusedAlgorithmError as error:
            tell_findings(error.findings, as_json=as_json)
            raise
    if as_json:
        told: dict[str, Json] = {"name": kept.name, "entrypoint": kept.entrypoint, "version": kept.version}
        typer.echo(json.dumps({**told, "checks": [one.to_json() for one in kept.findings]}, ensure_ascii=False))
        return
    typer.echo(
        f"Registered: {kept.name} ({kept.entrypoint}, {kept.version}); {len(kept.findings)} rules kept. "
        f"Use it: dspy-opt optimize agent.yaml --algorithm {kept.name}"
    )


def forget(name: str) -> None:
    """Remove a registered algorithm. Raises `NotFoundError`."""
    with opened() as house:
        _registrar(house.engine.algorithms).remove(name)
    typer.echo(f"Forgotten: {name}")


def check_only(entrypoint: str, *, as_json: bool) -> int:
    """Print what every rule finds of installed code; return the exit code."""
    code_version(entrypoint)
    findings = AlgorithmChecks().check(entrypoint).findings
    tell_findings(findings, as_json=as_json)
    return 0 if all(one.outcome is Outcome.KEPT for one in findings) else 2


def tell_findings(findings: Sequence[RuleFinding], *, as_json: bool) -> None:
    """Print what every rule found."""
    if as_json:
        typer.echo(json.dumps([one.to_json() for one in findings], ensure_ascii=False))
        return
    for one in findings:
        if one.outcome is not Outcome.UNCHECKED:
            typer.echo(visible(one.sentence))
    unchecked = sum(one.outcome is Outcome.UNCHECKED for one in findings)
    if unchecked:
        typer.echo(f"{unchecked} more were not checked: mend these first.")


@contextmanager
def _algorithms() -> Iterator[TenantAlgorithms]:
    """Yield the algorithms; the database is asked only where something can be registered that may be used."""
    settings = read_settings()
    if not settings.allow.algorithms:
        yield TenantAlgorithms(AlgorithmRegistry.of_environment(), _NothingRegistered(), RegisteredCode(settings.allow))
        return
    with opened(settings) as house:
        yield _of(house.engine.algorithms)


def _registrar(algorithms: object) -> Registrar:
    return Registrar(algorithms=_of(algorithms), checker=AlgorithmChecks())


def _of(algorithms: object) -> TenantAlgorithms:
    if not isinstance(algorithms, TenantAlgorithms):
        raise TypeError(f"wanted: the algorithms of a tenant; found: {type(algorithms).__name__}")
    return algorithms


def _told(
    name: str, algorithms: TenantAlgorithms, registered: dict[str, CustomAlgorithm], usable: dict[str, Algorithm]
) -> Json:
    one = usable.get(name) or algorithms.environment.get(name)
    mine = registered.get(name)
    source = None if mine is not None else algorithms.environment.source(name)
    return {
        "name": name,
        "description": one.description,
        "options": [
            {"name": field.name, "type": field.type, "default": field.default, "description": field.description}
            for field in option_fields(one.options)
        ],
        "objectives": use_of_objectives(one).value,
        "source": source.package if source is not None else mine.entrypoint if mine is not None else None,
        "version": source.version if source is not None else mine.version if mine is not None else None,
        "custom": mine is not None,
    }


def _tell(one: Algorithm, registered: CustomAlgorithm | None) -> None:
    own = f" (registered: {registered.entrypoint}, {registered.version})" if registered is not None else ""
    typer.echo(f"{one.name}: {one.description}{own}")
    for field in option_fields(one.options):
        typer.echo(f"  {one.name}.{field.name} = {json.dumps(field.default)}  ({field.type})")
        if field.description:
            typer.echo(f"      {' '.join(field.description.split())}")
