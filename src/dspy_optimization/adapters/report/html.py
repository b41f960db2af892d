"""The report as one self-contained HTML file: no script, no request, nothing but what is in it."""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dspy_optimization.adapters.report import numbers
from dspy_optimization.adapters.report.charts import Row, interval_chart, score_chart, share_bar
from dspy_optimization.adapters.report.facts import Report
from dspy_optimization.adapters.report.lineage_chart import lineage_chart
from dspy_optimization.adapters.report.pareto_charts import (
    PairChart,
    key_marks,
    pair_charts,
    parallel_chart,
    trust_chart,
    volume_chart,
)
from dspy_optimization.adapters.report.svg import marker
from dspy_optimization.adapters.report.tiles import Tile, tiles
from dspy_optimization.adapters.report.visible import shortened, visible
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

MOST_EXAMPLES = 25
"""Examples listed of those that got better, and of those that got worse; the counts are of all."""
MOST_CANDIDATES = 300
LONGEST_VALUE = 1_500
"""Characters of one field of one example or demo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charts:
    """The pictures of one report; None where there is nothing to draw."""

    scores: Markup | None
    sealed: Markup | None
    worth: Markup | None
    family: Markup | None
    pairs: tuple[PairChart, ...]
    """One a pair of goals; none with one goal."""
    parallel: Markup | None
    volume: Markup | None
    trust: tuple[Markup | None, ...]
    """One an algorithm that went in rounds; None of one round."""


def render(report: Report) -> str:
    """Return the page: opens from a disk, asks for nothing, runs nothing.

    Everything that came from agents, models and datasets is escaped, and its unseen characters are spelled out.
    """
    style = files("dspy_optimization.adapters.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            style=Markup(style),  # noqa: S704 - our own file
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            tiles=tiles(report),
            charts=_charts(report),
            legend=_legend(report),
            marks=key_marks(),
            most_examples=MOST_EXAMPLES,
            most_candidates=MOST_CANDIDATES,
        )
    )


def write(report: Report, path: Path) -> Path:
    """Write the page, all or nothing; return where it is.

    Raises:
        InvalidRequestError: the place cannot be written.
    """
    content = render(report).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        finally:
            with suppress(FileNotFoundError):
                Path(partial).unlink()
    except OSError as error:
        raise InvalidRequestError(
            f"wanted: a place for the report; found: {path}: {error.strerror or error}; possible: a file in a folder "
            "that can be written"
        ) from error
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dspy_optimization.adapters.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": numbers.count,
        "dollars": numbers.dollars,
        "duration": numbers.duration,
        "number": numbers.number,
        "p": numbers.p_text,
        "percent": numbers.percent,
        "signed": numbers.signed,
        "value": _value,
        "bar": share_bar,
    }
    return environment


def _shown(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _value(value: Json) -> str:
    """Return a field of an example: texts as they are, the rest as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shortened(text, LONGEST_VALUE)


def _charts(report: Report) -> Charts:
    show = _show(report)
    return Charts(
        scores=score_chart(report.curves, scale_name(report), show, report.scale.right_or_wrong)
        if report.curves.points
        else None,
        sealed=_sealed_chart(report),
        worth=_worth_chart(report),
        family=lineage_chart(report.family, report.curves.algorithms, _utility(report))
        if len(report.family) > 1
        else None,
        pairs=() if report.pareto is None else pair_charts(report.pareto),
        parallel=None if report.pareto is None else parallel_chart(report.pareto),
        volume=None if report.pareto is None else volume_chart(report.pareto),
        trust=tuple(
            trust_chart([(span.first, span.last, span.low, span.high) for span in one.trusts], one.algorithm)
            if one.rounds > 1
            else None
            for one in report.rounds
        ),
    )


def scale_name(report: Report) -> str:
    """Return what scores on val measure, as the axis names it."""
    goals = [item for item in report.objectives if not item.guardrail]
    if len(goals) > 1:
        return "utility on val"
    return f"{goals[0].metric} on val" if not report.scale.right_or_wrong else "answered right on val"


def _show(report: Report) -> Callable[[float], str]:
    return numbers.percent if _utility_is_share(report) else numbers.number


def _utility(report: Report) -> Callable[[float], str]:
    return numbers.percent if _utility_is_share(report) else numbers.number


def _utility_is_share(report: Report) -> bool:
    """Whether scores on val are shares of cases answered right: one objective, right or wrong."""
    return report.scale.right_or_wrong and sum(not item.guardrail for item in report.objectives) == 1


def _sealed_chart(report: Report) -> Markup | None:
    validated = report.validated
    if validated is None:
        return None
    primary = validated.objectives[validated.primary]
    level = report.scale.level
    rows = [
        Row(
            name="before",
            value=primary.baseline.value,
            low=primary.baseline.low,
            high=primary.baseline.high,
            text=level(primary.baseline.value),
            class_="mark base",
        )
    ]
    if primary.p_value is not None:
        rows.append(
            Row(
                name="after",
                value=primary.optimized.value,
                low=primary.optimized.low,
                high=primary.optimized.high,
                text=level(primary.optimized.value),
                shape=1,
                class_="mark s0",
            )
        )
    name = "answered right on the sealed test cases" if report.scale.right_or_wrong else f"{primary.metric}, sealed"
    bounds = (0.0, 1.0) if report.scale.right_or_wrong else None
    return interval_chart(rows, name, level, zero=False, bounds=bounds)


def _worth_chart(report: Report) -> Markup | None:
    improvements = report.result.key_improvements if report.result is not None else ()
    if not improvements:
        return None
    points = report.scale.right_or_wrong
    rows = [
        Row(
            name=f"{one.component}: {one.part}",
            value=one.worth.value,
            low=one.worth.low,
            high=one.worth.high,
            text=_worth_text(one.worth.value, points),
            class_="mark s0",
        )
        for one in improvements
    ]
    show = _in_hundred if points else numbers.signed
    name = "cases in 100 on val" if points else f"{report.scale.objective.metric} on val"
    return interval_chart(rows, name, show, zero=True, bounds=None)


def _worth_text(value: float, points: bool) -> str:
    return f"{_in_hundred(value)} in 100" if points else numbers.signed(value)


def _in_hundred(value: float) -> str:
    return numbers.signed(round(value * 100, 1))


def _legend(report: Report) -> Mapping[str, Markup]:
    """Return algorithm → its mark, as the charts draw it; the baseline first."""
    drawn = {"baseline": marker(0, 8, 8, "mark base", "baseline", 5)}
    for index, name in enumerate(report.curves.algorithms):
        drawn[name] = marker(index, 8, 8, f"mark s{index % 6}", name, 5)
    return drawn


__all__ = ["Charts", "Tile", "render", "write"]
