"""The end of a command that carried an optimization out or watched it: what is said, which code is returned."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer

from dspy_optimization.adapters.report import html
from dspy_optimization.adapters.report.facts import Report, collect, report
from dspy_optimization.adapters.report.summary import plain, summary
from dspy_optimization.cli.exits import ExitCode
from dspy_optimization.cli.front_table import front_json, front_lines
from dspy_optimization.cli.house import House, short_id
from dspy_optimization.cli.outcome import exit_code, gate_met
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import Json
from dspy_optimization.optimization.request import Optimization, OptimizationStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What somebody wants at the end."""

    fail_under: float | None = None
    report: Path | None = None
    """Where the HTML report goes."""
    as_json: bool = False


def conclude(house: House, optimization: Optimization, wishes: Wishes) -> ExitCode:
    """Say what it came to, write the report when one is wanted, and return the exit code."""
    stores = house.engine.stores
    made = report_of(house, optimization.request.id)
    code = exit_code(stores, optimization, made.result, wishes.fail_under)
    written = html.write(made, wishes.report) if wishes.report is not None else None
    if wishes.as_json:
        typer.echo(json.dumps(_as_json(made, code, written), ensure_ascii=False))
        return code
    typer.echo(f"\n{plain(summary(made))}", nl=False)
    front = front_lines(made.result, made.objectives) if made.result is not None else []
    for line in ["", *front] if front else []:
        typer.echo(line)
    for line in _hints(house, made, wishes, written):
        typer.echo(line)
    return code


def report_of(house: House, optimization_id: OptimizationId) -> Report:
    """Return everything there is to show of an optimization."""
    return report(collect(house.engine.stores, optimization_id), datetime.now(UTC))


def _hints(house: House, made: Report, wishes: Wishes, written: Path | None) -> list[str]:
    optimization = made.optimization
    name = short_id(house.engine.stores.optimizations, optimization.request.id)
    lines = [""]
    if written is not None:
        lines.append(f"Report: {written}")
    if optimization.status in {OptimizationStatus.PAUSED, OptimizationStatus.FAILED}:
        lines.append(f"Resume with: {house.words_before}dspy-opt runs resume {name}")
    elif optimization.status in {OptimizationStatus.COMPLETED, OptimizationStatus.CANCELLED}:
        lines.append(
            f"Look closer: {house.words_before}dspy-opt runs diff {name} · runs report {name} · runs export {name}"
        )
    if (
        wishes.fail_under is not None
        and made.result is not None
        and optimization.status is (OptimizationStatus.COMPLETED)
    ):
        met = gate_met(made.result, optimization, wishes.fail_under)
        lines.append(f"--fail-under {wishes.fail_under:g}: {'met' if met else 'not met'}")
    return lines


def _as_json(made: Report, code: ExitCode, written: Path | None) -> dict[str, Json]:
    """Return the last line of `--json`."""
    optimization, result, validated = made.optimization, made.result, made.validated
    told: dict[str, Json] = {
        "type": "outcome",
        "optimization_id": str(optimization.request.id),
        "status": optimization.status.value,
        "error": optimization.error,
        "exit_code": int(code),
        "headline": made.statement.headline,
        "lm_calls": made.bill.total.calls,
        "cost_usd": made.bill.total.cost_usd,
        "elapsed_seconds": optimization.elapsed_seconds,
        "report": None if written is None else str(written),
    }
    if result is not None:
        told |= {
            "ended_because": result.ended_because,
            "algorithm": result.algorithm_used,
            "agent_version": result.artifact.agent_version,
            "policy": None if result.pick is None else result.pick.policy,
            "picked_because": None if result.pick is None else result.pick.reason,
            "pareto_front": None if result.front is None else front_json(result.front),
        }
    if validated is not None:
        primary = validated.objectives[validated.primary]
        told |= {
            "verdict": validated.verdict.value,
            "objective": validated.primary,
            "baseline": primary.baseline.value,
            "optimized": primary.optimized.value,
            "difference": primary.difference.value,
            "interval": [primary.difference.low, primary.difference.high],
            "p_value": primary.p_value,
        }
    return told
