"""The four figures on top: before and after, the gain, how sure, what it cost."""

from dataclasses import dataclass

from dspy_optimization.adapters.report.facts import Report
from dspy_optimization.adapters.report.numbers import count, dollars, duration, number, p_text, per_hundred, percent
from dspy_optimization.evaluation.gate import ObjectiveResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One figure with what it is and what to keep in mind about it."""

    name: str
    figure: str
    note: str


def tiles(report: Report) -> tuple[Tile, ...]:
    """Return the figures that answer by how much, how sure and for what price."""
    validated = report.validated
    if validated is None:
        return (*_unproven(report), _price(report))
    primary = validated.objectives[validated.primary]
    level = report.scale.level
    if primary.p_value is None:
        standing = Tile(
            name="It stands at",
            figure=level(primary.baseline.value),
            note=f"{_what(report)}, sealed test cases{_range(report, primary.baseline.low, primary.baseline.high)}",
        )
        return (standing, _price(report))
    return (
        Tile(
            name="Before → after",
            figure=f"{level(primary.baseline.value)} → {level(primary.optimized.value)}",
            note=f"{_what(report)}, {count(validated.n_examples, 'sealed test case')}",
        ),
        Tile(name="Difference", figure=_difference(report, primary), note=_interval(report, primary)),
        Tile(
            name="How sure",
            figure=p_text(primary.p_value),
            note=f"chance of such a difference if both were equal; the bar is {number(validated.alpha)}",
        ),
        _price(report),
    )


def _unproven(report: Report) -> tuple[Tile, ...]:
    """Return the standing on val, named as what it is."""
    best, baseline = report.curves.leader, report.curves.baseline
    if best is None:
        return (Tile(name="Best so far", figure="—", note="nothing was measured yet"),)
    found = report.curves.complete_of(best.candidate.fingerprint)
    before = report.curves.complete_of(baseline.candidate.fingerprint) if baseline is not None else None
    one_goal = sum(not item.guardrail for item in report.objectives) == 1
    show = report.scale.level if one_goal else number
    return (
        Tile(
            name="Best so far, on val",
            figure=show(found.score) if found is not None else "—",
            note=f"optimistic; baseline {show(before.score)}" if before is not None else "optimistic",
        ),
    )


def _price(report: Report) -> Tile:
    total = report.bill.total
    took = duration(report.optimization.elapsed_seconds)
    note = f"{count(total.calls, 'model call')}, {total.tokens:,} tokens, {took}"
    return Tile(name="What it cost", figure=dollars(total.cost_usd), note=note)


def _difference(report: Report, primary: ObjectiveResult) -> str:
    value = primary.difference.value
    sign = "+" if value > 0 else "−" if value < 0 else ""
    if report.scale.right_or_wrong:
        return f"{sign}{per_hundred(value)} in 100"
    return f"{sign}{number(abs(value))}"


def _interval(report: Report, primary: ObjectiveResult) -> str:
    low, high = primary.difference.low, primary.difference.high
    if low is None or high is None:
        return "no interval: the scores never vary"
    if report.scale.right_or_wrong:
        shown = [f"{'−' if bound < 0 else '+'}{per_hundred(bound)}" for bound in (low, high)]
    else:
        shown = [f"{'−' if bound < 0 else '+'}{number(abs(bound))}" for bound in (low, high)]
    return f"between {shown[0]} and {shown[1]}, {percent(primary.difference.level)} sure"


def _range(report: Report, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f", between {report.scale.level(low)} and {report.scale.level(high)}"


def _what(report: Report) -> str:
    return "answered right" if report.scale.right_or_wrong else report.scale.objective.metric
