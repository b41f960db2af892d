"""What MLflow is told of one optimization: names, params, metrics, files. Pure but for writing the files."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from dspy_optimization.adapters.report import html
from dspy_optimization.adapters.report.facts import Material, Report
from dspy_optimization.adapters.report.visible import shortened, visible
from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.evaluation.gate import ObjectiveResult
from dspy_optimization.events import EventType, Json
from dspy_optimization.optimization.request import OptimizationRequest, OptimizationStatus
from dspy_optimization.tenancy import TenantId

_LONGEST_PARAM = 5_900
_LONGEST_TAG = 4_900
_LONGEST_KEY = 240
_STATUS: Mapping[OptimizationStatus, str] = {
    OptimizationStatus.COMPLETED: "FINISHED",
    OptimizationStatus.CANCELLED: "KILLED",
    OptimizationStatus.FAILED: "FAILED",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPoint:
    """One value of one metric."""

    key: str
    value: float
    step: int
    """Paid calls so far; 0 for what is known once, at the end."""
    at: int
    """Milliseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """All that a run says. The same optimization gives the same facts, whenever it is told."""

    name: str
    status: str
    started_at: int
    """Milliseconds since 1970."""
    ended_at: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[MetricPoint, ...]


def facts_of(shown: Report, material: Material, tenant: TenantId) -> RunFacts:
    """Return what the run of an optimization that has ended says."""
    request, result = material.optimization.request, material.result
    ended = result.completed_at if result is not None else material.optimization.updated_at
    statement = shown.statement
    note = f"**{statement.headline}** {statement.sentence}\n\n{statement.evidence}\n\nNext: {statement.next_step}"
    tags = {
        "dspy_optimization.tenant": str(tenant),
        "dspy_optimization.agent": request.target.id,
        "dspy_optimization.agent_version": request.target.version,
        "dspy_optimization.verdict": shown.validated.verdict.value if shown.validated is not None else "not_validated",
        "dspy_optimization.algorithm": (result.algorithm_used if result is not None else None) or "none",
        "dspy_optimization.ended_because": result.ended_because if result is not None else shown.statement.label,
        "mlflow.note.content": note,
    }
    return RunFacts(
        name=f"{shown.agent.name} {str(request.id)[:8]}",
        status=_STATUS.get(material.optimization.status, "FINISHED"),
        started_at=milliseconds(request.created_at),
        ended_at=milliseconds(ended),
        params={
            metric_key(name): shortened(visible(value), _LONGEST_PARAM - 40)
            for name, value in _params(request, shown).items()
        },
        tags={name: shortened(visible(value), _LONGEST_TAG - 40) for name, value in tags.items()},
        points=tuple(point for point in _points(shown, material, milliseconds(ended)) if math.isfinite(point.value)),
    )


def write_artifacts(
    folder: Path,
    shown: Report,
    material: Material,
    agent: AgentConfig | None,
    program_state: Mapping[str, Json] | None,
    run_id: str,
) -> None:
    """Write report and candidates, and the optimized agent where there is one, into the folder."""
    html.write(shown, folder / "report.html")
    _write(folder / "candidates.json", _candidates(shown))
    if agent is None:
        return
    home = folder / "agent"
    home.mkdir()
    _write(home / "agent.json", agent.to_json())
    if program_state is not None:
        _write(home / "program.json", dict(program_state))
    ended = material.result.completed_at if material.result is not None else material.optimization.updated_at
    flavor: dict[str, Json] = {"agent": "agent.json", "agent_version": agent.version}
    if program_state is not None:
        flavor["program"] = "program.json"
    # JSON is YAML: this is what makes the folder a model in MLflow's eyes, with a flavor that loads no code.
    _write(
        home / "MLmodel",
        {
            "artifact_path": "agent",
            "flavors": {"dspy_optimization": flavor},
            "mlflow_version": version("mlflow-skinny"),
            "run_id": run_id,
            "utc_time_created": ended.strftime("%Y-%m-%d %H:%M:%S.%f"),
        },
    )


def metric_key(name: str) -> str:
    """Return a name with the characters MLflow takes; the others become underscores."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)[:_LONGEST_KEY].strip("/ .") or "_"


def milliseconds(moment: datetime) -> int:
    """Return the time as MLflow counts it."""
    return round(moment.timestamp() * 1000)


def _params(request: OptimizationRequest, shown: Report) -> dict[str, str]:
    constraints = request.constraints
    limits = constraints.limits
    caps = {
        "max_cost_usd": limits.max_cost_usd,
        "max_lm_calls": limits.max_lm_calls,
        "max_tokens": limits.max_tokens,
        "max_seconds": limits.max_seconds,
    }
    options = {
        f"option/{choice.name}/{name}": value if isinstance(value, str) else canonical_json(value)
        for choice in request.algorithms
        for name, value in choice.options.items()
    }
    return {
        "seed": str(constraints.seed),
        "concurrency": str(constraints.concurrency),
        "objectives": ", ".join(
            f"{item.metric} {'guardrail' if item.guardrail else item.direction.value}" for item in request.objectives
        ),
        "algorithms": ", ".join(choice.name for choice in request.algorithms),
        "dataset": shown.dataset.name,
        "dataset_version": request.dataset,
        "min_improvement_threshold": f"{constraints.min_improvement_threshold:g}",
        **{name: f"{cap:.10g}" for name, cap in caps.items() if cap is not None},
        **{f"model/{role.value}": name for role, name in shown.reproduction.models.items()},
        **{f"version/{package}": found for package, found in shown.reproduction.versions.items()},
        **options,
    }


def _points(shown: Report, material: Material, ended: int) -> Iterator[MetricPoint]:
    for point in shown.curves.points:
        if point.complete:
            yield MetricPoint(
                key=metric_key(f"val/{point.algorithm}"),
                value=point.score,
                step=point.paid_calls,
                at=milliseconds(point.trial.recorded_at),
            )
    for step in shown.curves.best:
        at = milliseconds(step.trial.recorded_at)
        yield MetricPoint(key="val/best", value=step.score, step=step.paid_calls, at=at)
    yield from _spend_so_far(material)
    for name, value in _final(shown, material).items():
        yield MetricPoint(key=metric_key(name), value=value, step=0, at=ended)


def _spend_so_far(material: Material) -> Iterator[MetricPoint]:
    """Yield dollars and tokens against paid calls, as progress told them."""
    for recorded in material.events:
        event = recorded.event
        step = event.data.get("lm_calls")
        if event.type is not EventType.PROGRESS or not isinstance(step, int):
            continue
        for name in ("cost_usd", "tokens", "elapsed_seconds"):
            value = event.data.get(name)
            if isinstance(value, (int, float)):
                yield MetricPoint(key=f"so_far/{name}", value=float(value), step=step, at=milliseconds(event.at))


def _final(shown: Report, material: Material) -> dict[str, float]:
    bill = material.bill
    found: dict[str, float] = {
        "calls/total": bill.total.calls,
        "calls/lost": bill.total.lost_calls,
        "calls/saved_by_ledger": bill.answered_from_ledger,
        "cost_usd/total": bill.total.cost_usd,
        "tokens/total": bill.total.tokens,
    }
    for role, spend in bill.by_role.items():
        found |= {
            f"calls/{role.value}": spend.calls,
            f"cost_usd/{role.value}": spend.cost_usd,
            f"tokens/{role.value}": spend.tokens,
        }
    for label, spend in bill.by_label.items():
        found[f"calls/for/{label}"] = spend.calls
    if shown.validated is not None:
        for metric, result in shown.validated.objectives.items():
            found |= {f"test/{metric}/{name}": value for name, value in _objective(result).items()}
    return found


def _objective(result: ObjectiveResult) -> dict[str, float]:
    values = {
        "baseline": result.baseline.value,
        "optimized": result.optimized.value,
        "difference": result.difference.value,
        "difference_low": result.difference.low,
        "difference_high": result.difference.high,
        "p_value": result.p_value,
        "mde": result.mde,
        "improvement_percentage": result.improvement_percentage,
    }
    return {name: value for name, value in values.items() if value is not None}


def _candidates(shown: Report) -> Json:
    """Return every candidate that was measured, with its place in the family."""
    texts = {point.candidate: point.trial.candidate for point in shown.curves.points}
    return [
        {
            "candidate": one.fingerprint,
            "algorithm": one.algorithm,
            "origin": one.origin,
            "parents": list(one.parents),
            "iteration": one.iteration,
            "paid_calls": one.paid_calls,
            "score_on_all_of_val": one.score,
            "chosen": one.chosen,
            "components": texts[one.fingerprint].to_json() if one.fingerprint in texts else None,
        }
        for one in shown.family
    ]


def _write(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
