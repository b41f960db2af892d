"""The Pareto front as a table for a terminal."""

from collections.abc import Sequence

from dspy_optimization.adapters.report.numbers import number
from dspy_optimization.adapters.report.visible import visible
from dspy_optimization.agents.objective import Objective
from dspy_optimization.events import Json
from dspy_optimization.optimization.front import Front, FrontPoint
from dspy_optimization.optimization.result import OptimizationResult

_MOST_ROWS = 12


def front_lines(result: OptimizationResult, objectives: Sequence[Objective]) -> list[str]:
    """Return the table with who went to the gate and why; nothing where fewer than two objectives make a front."""
    front, taken = result.front, result.pick
    if front is None or len(front.goals) < 2:
        return []
    lines = [f"Pareto front on val ({front.n} examples, optimistic), {len(front.points)} of {front.size} points"]
    if front.size <= len(front.points):
        lines = [f"Pareto front on val ({front.n} examples, optimistic)"]
    shown = front.points[:_MOST_ROWS]
    extra = [one for one in (front.chosen, front.baseline) if one.candidate not in {point.candidate for point in shown}]
    extra = extra[:1] if front.chosen.candidate == front.baseline.candidate else extra
    rows = [
        ("candidate", *(one.metric for one in objectives), "on front", ""),
        *(_row(one, objectives) for one in shown),
    ]
    rows += [_row(one, objectives) for one in extra]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"  {'  '.join(cells)}".rstrip())
    if len(front.points) > _MOST_ROWS:
        lines.append(f"  and {len(front.points) - _MOST_ROWS} more: --json lists them")
    if taken is not None:
        lines.append(f"Policy {taken.policy}: {visible(taken.reason)}.")
    return lines


def front_json(front: Front) -> list[Json]:
    """Return the points of the front as plain JSON."""
    return [
        {
            "candidate": point.candidate,
            "algorithm": point.algorithm,
            "means": {name: [mean.value, mean.low, mean.high] for name, mean in point.means.items()},
            "guardrails_hold": point.guardrails_hold,
            "is_baseline": point.is_baseline,
            "is_chosen": point.is_chosen,
            "probability_on_front": point.probability_on_front,
            "alike": list(point.alike),
        }
        for point in front.points
    ]


def _row(point: FrontPoint, objectives: Sequence[Objective]) -> tuple[str, ...]:
    return (
        point.candidate[:12],
        *(_mean(point, one.metric) for one in objectives),
        f"{point.probability_on_front:.0%}" if point.on_front else "no",
        ", ".join(_marks(point)),
    )


def _mean(point: FrontPoint, metric: str) -> str:
    mean = point.means[metric]
    if mean.low is None or mean.high is None:
        return number(mean.value)
    return f"{number(mean.value)} ({number(mean.low)} to {number(mean.high)})"


def _marks(point: FrontPoint) -> list[str]:
    marks = ["chosen"] if point.is_chosen else []
    marks += ["baseline"] if point.is_baseline else []
    marks += [] if point.guardrails_hold else ["hurts a guardrail"]
    if point.alike:
        marks.append(f"like {', '.join(name[:12] for name in point.alike[:2])}{' …' if len(point.alike) > 2 else ''}")
    return marks
