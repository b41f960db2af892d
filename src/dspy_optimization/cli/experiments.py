"""What `experiments` prints and does."""

import json

import typer

from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.cli.amounts import number_of
from dspy_optimization.cli.house import House, found
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json
from dspy_optimization.experiments.evidence import Evidence
from dspy_optimization.experiments.experiment import Experiment
from dspy_optimization.experiments.forecast import Forecast, checked_traffic, forecast_of
from dspy_optimization.experiments.plan import Terms
from dspy_optimization.experiments.proposal import ExperimentProposal

_NEWEST = 10_000
_SHOWN = 5


def list_experiments(house: House, count: int, *, as_json: bool) -> None:
    """Print the newest, a line each."""
    newest = house.engine.conductor.kept.experiments.newest(count)
    for one in newest:
        tell_experiment(one, as_json=as_json)
    if not newest and not as_json:
        typer.echo("No experiments yet: dspy-opt experiments start begins one on the result of an optimization.")


def show_experiment(house: House, text: str, *, as_json: bool) -> None:
    """Print one with its evidence. Raises `InvalidRequestError` when none or several are meant."""
    shown = house.engine.conductor.shown(found_experiment(house, text).plan.experiment_id)
    if as_json:
        typer.echo(json.dumps({**_told(shown.experiment), "evidence": shown.evidence.to_json()}, ensure_ascii=False))
        return
    tell_experiment(shown.experiment, as_json=False)
    _tell_evidence(shown.experiment, shown.evidence)


def plan_experiment(house: House, run: str, split: str, units_per_day: str | None, *, as_json: bool) -> None:
    """Print what an experiment on an optimization could find. Raises `InvalidRequestError`."""
    plan = house.engine.conductor.planned(_proposal(house, run, split))
    _tell_forecast(forecast_of(plan, units_per_day=_traffic(units_per_day)), as_json=as_json)


def start_experiment(house: House, run: str, split: str, units_per_day: str | None, *, as_json: bool) -> None:
    """Start one and print it with its forecast. Raises `InvalidRequestError`."""
    traffic = _traffic(units_per_day)
    made = house.engine.conductor.start(_proposal(house, run, split))
    tell_experiment(made, as_json=as_json)
    if not as_json:
        _tell_forecast(forecast_of(made.plan, units_per_day=traffic), as_json=False)


def found_experiment(house: House, text: str) -> Experiment:
    """Return the experiment whose id begins like this; `last` is the newest.

    Raises:
        InvalidRequestError: none or several begin so; names some that exist.
    """
    newest = house.engine.conductor.kept.experiments.newest(_NEWEST)
    if text == "last" and newest:
        return newest[0]
    wanted = text.strip().lower()
    matching = [one for one in newest if wanted and str(one.plan.experiment_id).startswith(wanted)]
    if len(matching) == 1:
        return matching[0]
    named = matching or newest
    possible = ", ".join(str(one.plan.experiment_id) for one in named[:_SHOWN]) or "none yet"
    raise InvalidRequestError(
        f"wanted: one experiment whose id begins with {text!r}; found: {len(matching) or 'none'}; possible, newest "
        f"first: {possible}"
    )


def tell_experiment(one: Experiment, *, as_json: bool) -> None:
    """Print one at a glance, with the newest decision in words."""
    if as_json:
        typer.echo(json.dumps(_told(one), ensure_ascii=False))
        return
    plan = one.plan
    typer.echo(
        f"{plan.experiment_id}  {one.status.value:11} {visible(plan.agent)}  split {one.split.share:g}  "
        f"{one.created_at:%Y-%m-%d %H:%M} UTC"
    )
    said = one.ended_because if one.decision is None else one.decision.reason
    if said is not None:
        typer.echo(f"  {visible(said)}")


def _proposal(house: House, run: str, split: str) -> ExperimentProposal:
    optimization = found(house.engine.stores.optimizations, run)
    return ExperimentProposal(
        optimization_id=optimization.request.id,
        traffic_split=number_of(split, "--split", above=0.0),
        terms=Terms(alpha=house.settings.significance_threshold),
    )


def _traffic(units_per_day: str | None) -> float | None:
    return None if units_per_day is None else checked_traffic(number_of(units_per_day, "--units-per-day", above=0.0))


def _told(one: Experiment) -> dict[str, Json]:
    plan = one.plan
    return {
        "experiment_id": str(plan.experiment_id),
        "optimization_id": str(plan.optimization_id),
        "agent": plan.agent,
        "status": one.status.value,
        "traffic_split": one.split.share,
        "started_at": None if one.started_at is None else one.started_at.isoformat(),
        "until_hours": one.until_hours,
        "ended_at": None if one.ended_at is None else one.ended_at.isoformat(),
        "ended_because": one.ended_because,
        "decision": None if one.decision is None else one.decision.to_json(),
    }


def _tell_evidence(one: Experiment, evidence: Evidence) -> None:
    rows = (
        ("baseline", one.plan.baseline, evidence.exposed_baseline, evidence.n_baseline, evidence.mean_baseline),
        ("optimized", one.plan.optimized, evidence.exposed_optimized, evidence.n_optimized, evidence.mean_optimized),
    )
    for variant, version, exposed, counted, mean in rows:
        told = "no outcome yet" if mean is None else f"{visible(one.plan.primary.metric)} {mean:.4g}"
        typer.echo(f"  {variant:9} {version[:12]}  {exposed:,} exposed, {counted:,} with an outcome: {told}")
    for guardrail in evidence.guardrails:
        state = "breached" if guardrail.is_breached else "proven" if guardrail.is_proven else "open"
        typer.echo(f"  guardrail {visible(guardrail.name)}: {state}")


def _tell_forecast(foretold: Forecast, *, as_json: bool) -> None:
    if not as_json:
        typer.echo(foretold.sentence)
        return
    detectable: list[Json] = [
        {"units_per_day": one.units_per_day, "effect": one.effect, "days_needed": one.days_needed}
        for one in foretold.detectable
    ]
    told: dict[str, Json] = {
        "expected": foretold.expected,
        "mde": foretold.mde,
        "traffic_split": foretold.share,
        "alpha": foretold.alpha,
        "units_needed": foretold.units_needed,
        "fixed_units": foretold.fixed_units,
        "detectable": detectable,
    }
    typer.echo(json.dumps(told, ensure_ascii=False))
